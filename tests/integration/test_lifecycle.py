"""How requests end early, and how the server does."""

import signal
import subprocess
import threading
import time

import grpc
import pytest

import harness
from harness import Server, collect, control, generation, refused, request, trailer

LONG = "Once upon a time there was a small house by the sea, and"


def long_request(**fields):
    message = request(LONG, max_tokens=4000, **fields)
    message.stopping_options.ignore_eos = True
    return message


def first_delta(call):
    for response in call:
        if response.WhichOneof("event") == "token_delta":
            return response
    raise AssertionError("the stream ended without a token")


def test_cancel_frees_everything(server):
    call = server.inference.Generate(long_request())
    first_delta(call)
    assert server.load().used_kv_pages > 0
    call.cancel()
    server.await_idle()


def test_a_dropped_connection_frees_everything(server):
    channel = server.new_channel()
    first_delta(harness.inference_grpc.InferenceServiceStub(channel).Generate(long_request()))
    assert server.load().running_requests == 1
    channel.close()
    server.await_idle()


def ends(server, code):
    return sum(float(line.rsplit(" ", 1)[1]) for line in server.metrics().splitlines()
               if line.startswith("swaa_requests_total{") and f'grpc_code="{code}"' in line)


@pytest.mark.parametrize("seconds", [0.05, 0.3, 1.0])
def test_deadline(server, seconds):
    """Whoever sees it first: the client resets the stream, and we count a deadline all the same."""
    before, cancelled = ends(server, "DEADLINE_EXCEEDED"), ends(server, "CANCELLED")
    until = time.monotonic() + 120
    # A client that is held up for so long sends nothing: that call is none of the five.
    while ends(server, "DEADLINE_EXCEEDED") < before + 5:
        assert time.monotonic() < until, server.log()[-2000:]
        call = server.inference.Generate(long_request(), timeout=seconds)
        with pytest.raises(grpc.RpcError) as caught:
            for _ in call:
                pass
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        server.await_idle()
    assert ends(server, "CANCELLED") == cancelled


def test_abort_after_accepted_finishes_the_stream(server):
    call = server.inference.Generate(long_request(request_id="to-abort"))
    answer = harness.Answer()
    answer.take(next(call))
    answer.take(first_delta(call))
    response = server.control.Abort(control.AbortRequest(request_id="to-abort"))
    assert response.aborted_requests == 1
    for message in call:
        answer.take(message)
    assert answer.finished.finish_reason == generation.FINISH_REASON_CANCELLED
    assert answer.finished.usage.completion_tokens == len(answer.ids) > 0
    assert answer.finished.stats.attended_keys > 0
    assert call.code() == grpc.StatusCode.OK
    server.await_idle()


def test_abort_of_nothing(server):
    for target, code, reason in [
        (control.AbortRequest(request_id="gone"), grpc.StatusCode.NOT_FOUND, "request_not_found"),
        (control.AbortRequest(), grpc.StatusCode.INVALID_ARGUMENT, "no_target"),
        (control.AbortRequest(all_requests=False), grpc.StatusCode.INVALID_ARGUMENT, "no_target"),
    ]:
        with pytest.raises(grpc.RpcError) as caught:
            server.control.Abort(target)
        assert caught.value.code() == code
        assert trailer(caught.value, "swaa-error-reason") == reason
    assert server.control.Abort(control.AbortRequest(all_requests=True)).aborted_requests == 0


def test_a_live_id_is_taken(server):
    call = server.inference.Generate(long_request(request_id="twice"))
    first_delta(call)
    error = refused(server.inference, request("x", request_id="twice"))
    assert error.code() == grpc.StatusCode.ALREADY_EXISTS
    assert trailer(error, "swaa-error-reason") == "request_id_in_use"
    assert "twice" in error.details()
    call.cancel()
    server.await_idle()
    assert collect(server.inference, request("x", request_id="twice", max_tokens=1)).ids


@pytest.fixture
def small_server():
    """One request runs, one waits; a pool that holds 1536 positions."""
    running = Server("--max-running-requests", "1", "--max-queued-requests", "1",
                     "--kv-cache-bytes", "36MiB", "--log-format", "json",
                     "--drain-grace-seconds", "900")  # on however slow a machine
    yield running
    running.stop(signal.SIGKILL)


def one_is_queued(load):
    """By the engine: what is still to be read may be overtaken by what comes later."""
    return (load.queued_requests, load.unread_requests) == (1, 0)


def test_full_queue_never_fits_drain_and_json_log(small_server):
    server = small_server
    error = refused(server.inference, request("word " * 3000, max_tokens=1))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert trailer(error, "swaa-error-reason") == "never_fits"
    assert trailer(error, "grpc-retry-pushback-ms") == "-1"

    message = request(LONG, max_tokens=1200)
    message.stopping_options.ignore_eos = True
    running = server.inference.Generate(message)
    answer = harness.Answer()
    answer.take(next(running))
    waiting = server.inference.Generate(request("x", request_id="waits"))
    server.await_load(one_is_queued, "a queue of one")
    error = refused(server.inference, request("y"))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert trailer(error, "swaa-error-reason") == "queue_full"
    assert int(trailer(error, "grpc-retry-pushback-ms")) >= 100

    # Aborted while it waits: a status alone. The next one waits in its place.
    assert server.control.Abort(control.AbortRequest(request_id="waits")).aborted_requests == 1
    with pytest.raises(grpc.RpcError) as caught:
        next(waiting)
    assert caught.value.code() == grpc.StatusCode.CANCELLED
    assert trailer(caught.value, "swaa-error-reason") == "aborted"
    waiting = server.inference.Generate(request("x"))
    server.await_load(one_is_queued, "a queue of one again")

    # SIGTERM in mid-stream: what waits and what comes is refused, what runs is finished.
    server.process.send_signal(signal.SIGTERM)
    with pytest.raises(grpc.RpcError) as caught:
        next(waiting)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert trailer(caught.value, "swaa-error-reason") == "draining"
    assert health(server, "swaa.v1.InferenceService") == NOT_SERVING
    for question, expected in ((), (1, "NOT_SERVING")), (("--live",), (0, "SERVING")):
        asked = subprocess.run([harness.BINARY, "health", "--address", f"127.0.0.1:{server.port}",
                                "--timeout-seconds", "60", *question],
                               capture_output=True, text=True, check=False)
        assert (asked.returncode, asked.stdout.strip()) == expected, asked.stderr
    error = refused(server.inference, request("z"))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert trailer(error, "swaa-error-reason") == "draining"
    for response in running:
        answer.take(response)
    assert answer.finished.usage.completion_tokens == len(answer.ids) == 1200
    assert server.await_exit() == 0, server.log()
    check_json_log(server.log())


def check_json_log(log):
    import json
    lines = [json.loads(line) for line in log.splitlines()]
    ended = [line for line in lines if line.get("event") == "request"]
    assert {line["status"] for line in ended} == \
        {"OK", "RESOURCE_EXHAUSTED", "CANCELLED", "UNAVAILABLE"}
    finished = next(line for line in ended if line["status"] == "OK")
    assert finished["recipe"] == "full" and finished["completion_tokens"] > 0
    assert finished["total_ms"] >= finished["ttft_ms"] > 0
    assert any(line.get("message", "").startswith("ready") for line in lines)


SERVING, NOT_SERVING = 1, 2


def health(server, service):
    """grpc.health.v1 by hand: its Python package is not everywhere. Field 1 on both sides."""
    name = service.encode()
    call = server.channel.unary_unary("/grpc.health.v1.Health/Check")
    response = call(bytes([0x0a, len(name)]) + name if name else b"", timeout=60)
    return response[1] if response else 0


def test_health(server):
    assert health(server, "") == SERVING
    assert health(server, "swaa.v1.InferenceService") == SERVING
    with pytest.raises(grpc.RpcError) as caught:
        health(server, "no.such.Service")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def twice_at_once(server):
    """Sends SIGTERM twice; whether that was surely within a second."""
    start = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    server.process.send_signal(signal.SIGTERM)
    return time.monotonic() - start < 0.5


def draining_server():
    """One that was told twice at once. A machine that holds it up in between is asked again."""
    for _ in range(4):
        server = Server("--drain-grace-seconds", "600")
        call = server.inference.Generate(long_request())
        first_delta(call)
        at_once = twice_at_once(server)
        time.sleep(1.5)
        if at_once and server.process.poll() is None:
            return server, call
        server.process.kill()
        server.await_exit()
    raise AssertionError("a signal that came twice at once is a second one")


def test_a_second_signal_ends_at_once():
    server, _running = draining_server()
    server.await_log("draining")
    # What comes later than a second after the first is another, by the server's clock.
    assert len(server.log().split("draining")) == 2
    server.process.send_signal(signal.SIGHUP)
    assert server.stop() == 128 + signal.SIGTERM
    assert "SIGHUP while draining" in server.log()


def test_signals_without_a_meaning_do_nothing():
    server = Server("--kv-cache-bytes", "64MiB", wait=False)
    server.await_log("loading")
    for name in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGPIPE, signal.SIGHUP):
        server.process.send_signal(name)
    server.await_ready()
    for name in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGPIPE):
        server.process.send_signal(name)
    assert len(collect(server.inference, request("x", max_tokens=1)).ids) == 1
    server.await_log("SIGHUP while starting")
    assert server.port_file.exists()
    assert server.stop() == 0, server.log()
    assert server.log().count("it means nothing here") == 6
    assert "there is no configuration to read again" in server.log()
    assert not server.port_file.exists(), "yesterday's port"


def test_what_the_grace_cuts_short_can_be_sent_elsewhere():
    server = Server("--drain-grace-seconds", "0")
    answer = harness.Answer()
    call = server.inference.Generate(long_request())
    answer.take(next(call))
    answer.take(first_delta(call))
    server.process.send_signal(signal.SIGINT)
    with pytest.raises(grpc.RpcError) as caught:
        for response in call:
            answer.take(response)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert trailer(caught.value, "swaa-error-reason") == "draining"
    assert answer.finished is None and len(answer.ids) > 0
    assert server.await_exit() == 0, server.log()


def test_forty_clients_at_once_with_mixed_recipes(server):
    """Answers are those of each request alone: exactly, as this server computes in f32."""
    window = harness.recipes.Recipe(sliding_window_tokens=24, sink_tokens=4)
    both = harness.recipes.Recipe(sliding_window_tokens=16, sink_tokens=2)
    both.full_attention_layers.stride.first = 1
    both.full_attention_layers.stride.step = 2
    both.full_attention_decode.all = True
    kinds = []
    for recipe in ("full", window, both, "balanced"):
        for words in (3, 30, 80):
            kinds.append(request("The tide came in and the boats rose. " * (words // 9 + 1) + LONG,
                                 max_tokens=6 + words % 5, recipe=recipe))
    alone = []
    for i, message in enumerate(kinds):
        cold = generation.GenerateRequest()
        cold.CopyFrom(message)
        cold.cache_salt = f"alone {i}"
        alone.append(collect(server.inference, cold))
        assert alone[-1].finished.usage.cached_prompt_tokens == 0
    results = [None] * 40

    def run(client):
        channel = server.new_channel()
        stub = harness.inference_grpc.InferenceServiceStub(channel)
        results[client] = collect(stub, kinds[client % len(kinds)])
        channel.close()

    threads = [threading.Thread(target=run, args=(client,)) for client in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for client, answer in enumerate(results):
        expected = alone[client % len(kinds)]
        assert answer is not None, f"client {client} failed"
        assert (answer.ids, answer.text) == (expected.ids, expected.text), f"client {client}"
        # What the prefix cache gave is not attended again.
        cached = answer.finished.usage.cached_prompt_tokens
        attended = answer.finished.stats.attended_keys
        assert (attended < expected.finished.stats.attended_keys) == (cached > 0)
    server.await_idle()


# Of Debian's package libfaketime.
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"


def test_a_step_of_the_wall_clock_ends_nothing(tmp_path, monkeypatch):
    """A day forward, then most of one back, while a request with a deadline runs."""
    clock = tmp_path / "clock"
    clock.write_text("+0")
    for name, value in (("LD_PRELOAD", FAKETIME), ("FAKETIME_TIMESTAMP_FILE", str(clock)),
                        ("FAKETIME_NO_CACHE", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
                        ("DONT_FAKE_MONOTONIC", "1"),
                        ("ASAN_OPTIONS", "verify_asan_link_order=0")):
        monkeypatch.setenv(name, value)
    server = Server("--kv-cache-bytes", "128MiB")
    monkeypatch.undo()
    steps = iter(["+86400", "-79190", "+3600"])
    message = request("The sea", max_tokens=60)
    message.stopping_options.ignore_eos = True
    answer = harness.Answer()
    for response in server.inference.Generate(message, timeout=60):
        answer.take(response)
        if len(answer.deltas) % 15 == 5:
            clock.write_text(next(steps, "+0"))
    assert len(answer.ids) == 60
    clock.write_text("-200000")
    # A deadline is a span, whatever the time of day becomes meanwhile.
    assert len(collect(server.inference, request("The sea", max_tokens=2), timeout=60).ids) == 2
    for line in server.metrics().splitlines():
        if "_seconds_sum" in line:
            assert 0 <= float(line.split()[-1]) < 120, line
    stats = answer.finished.stats
    assert stats.queue_time_us + stats.prefill_time_us + stats.decode_time_us < 60e6
    assert server.stop() == 0, server.log()
    days = {line[:10] for line in server.log().splitlines() if line.startswith("20")}
    assert len(days) > 1, "the clock was never moved"
