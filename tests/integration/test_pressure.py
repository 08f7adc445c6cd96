"""More requests than the server holds, readers that do not read, and a sudden death."""

import json
import signal
import threading
import time

import grpc
import pytest

import harness
from harness import Server, collect, generation, request
from test_operations import sample

RETRIES = json.dumps({"methodConfig": [{
    "name": [{"service": "swaa.v1.InferenceService"}],
    "retryPolicy": {
        "maxAttempts": 5, "initialBackoff": "0.05s", "maxBackoff": "1s", "backoffMultiplier": 2,
        "retryableStatusCodes": ["RESOURCE_EXHAUSTED", "UNAVAILABLE"]}}]})


@pytest.fixture(scope="module")
def pressed():
    """One request runs and two wait; readers have a second; a pool that holds 512 positions."""
    server = Server("--max-running-requests", "1", "--max-queued-requests", "2",
                    "--slow-reader-timeout-seconds", "1", "--kv-cache-bytes", "12MiB")
    yield server
    assert server.stop() == 0, server.log()


def rejected(server, reason):
    return sample(server.metrics(), "swaa_requests_rejected_total", reason=reason)


def retrying_stub(server):
    channel = server.new_channel([("grpc.enable_retries", 1), ("grpc.service_config", RETRIES),
                                  ("grpc.per_rpc_retry_buffer_size", 16 << 20)])
    return channel, harness.inference_grpc.InferenceServiceStub(channel)


def test_grpcs_own_retry_brings_every_answer(pressed):
    small = request("The sea is", max_tokens=12)
    small.stopping_options.ignore_eos = True
    large = request("The sea is", max_tokens=12)
    large.stopping_options.ignore_eos = True
    # A field that no version has yet: bytes on the wire and nothing else.
    filler = generation.GenerateRequest(prompt="x" * (300 << 10)).SerializeToString()
    large.MergeFromString(filler.replace(b"\x1a", b"\x9a\x7d", 1))
    assert large.ByteSize() > 256 << 10 and small.ByteSize() < 1 << 10
    before = rejected(pressed, "queue_full")
    answers = [None] * 10

    def run(client):
        channel, stub = retrying_stub(pressed)
        answers[client] = collect(stub, large if client % 2 else small)
        channel.close()

    threads = [threading.Thread(target=run, args=(client,)) for client in range(len(answers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(answer is not None and len(answer.ids) == 12 for answer in answers)
    assert rejected(pressed, "queue_full") > before, "nobody was refused: this shows nothing"
    pressed.await_idle()


def test_what_never_fits_is_not_tried_again(pressed):
    before = rejected(pressed, "never_fits")
    channel, stub = retrying_stub(pressed)
    with pytest.raises(grpc.RpcError) as caught:
        collect(stub, request("word " * 2000, max_tokens=1), timeout=60)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert rejected(pressed, "never_fits") == before + 1
    channel.close()


@pytest.mark.parametrize("max_tokens", [5000, 1], ids=["while it runs", "when all is computed"])
def test_a_reader_that_stops_is_cut_off(max_tokens):
    server = Server("--slow-reader-timeout-seconds", "1", "--kv-cache-bytes", "256MiB")
    # A window of its own that does not grow, so that the server notices soon.
    channel = server.new_channel([("grpc.http2.bdp_probe", 0),
                                  ("grpc.http2.lookahead_bytes", 1024)])
    message = request("word " * 1500, max_tokens=max_tokens, recipe="window")
    message.stopping_options.ignore_eos = True
    message.response_options.prompt_logprobs = 20
    message.response_options.output_logprobs = 20
    stopped = harness.inference_grpc.InferenceServiceStub(channel).Generate(message)
    assert next(stopped).WhichOneof("event") == "accepted"
    # Another one is answered meanwhile.
    assert len(collect(server.inference, request("x y z", max_tokens=5)).ids) == 5
    server.await_idle()
    until = time.monotonic() + 60
    while sample(server.metrics(), "swaa_requests_total", recipe="window", finish_reason="none",
                 grpc_code="RESOURCE_EXHAUSTED") == 0:
        assert time.monotonic() < until, server.log()
        time.sleep(0.05)
    with pytest.raises(grpc.RpcError):
        for _ in stopped:
            pass
    server.await_log("was cut off")
    channel.close()
    assert server.stop() == 0, server.log()


def test_kill_and_start_again():
    flags = ("--kv-cache-bytes", "64MiB")
    first = Server(*flags)
    message = request("Once upon a time", max_tokens=1000)
    message.stopping_options.ignore_eos = True
    running = first.inference.Generate(message)
    next(running)
    address = f"127.0.0.1:{first.port}"
    assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    second = Server(*flags, "--listen-address", address)
    assert len(collect(second.inference, request("x", max_tokens=2)).ids) == 2
    assert second.port == first.port
    assert second.stop() == 0, second.log()
