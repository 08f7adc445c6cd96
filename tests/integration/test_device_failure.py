"""The real server and model on a device that fails: for one step, and for good."""

import os
import pathlib

import grpc
import pytest

from harness import Server, collect, request, trailer

SERVING, NOT_SERVING = 1, 2


@pytest.fixture
def failing(tmp_path):
    """A server of two places, and the file that says how its device fails."""
    fault = pathlib.Path(tmp_path) / "fault"
    server = Server("--max-running-requests", "2", "--kv-cache-bytes", "256MiB",
                    program=(os.environ["SWAA_FAILING_SERVER"], str(fault)))
    yield server, fault
    server.process.kill()
    server.await_exit()


def fail(fault, how):
    """Written elsewhere and renamed: the server sees all of it or nothing."""
    written = fault.with_suffix(".new")
    written.write_text(how)
    written.rename(fault)


def endless(request_id):
    message = request("Once upon a time", max_tokens=7000, request_id=request_id)
    message.stopping_options.ignore_eos = True
    return message


def begin(server, request_id):
    call = server.inference.Generate(endless(request_id))
    for response in call:
        if response.WhichOneof("event") == "token_delta":
            return call
    raise AssertionError("no token came")


def end_of(call):
    """The status that a call ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        for _ in call:
            pass
    return caught.value


def watch_health(server):
    """States of the service that generates, as grpc.health.v1 tells them; the last may be none."""
    name = b"swaa.v1.InferenceService"
    call = server.channel.unary_stream("/grpc.health.v1.Health/Watch")
    try:
        for response in call(bytes([0x0a, len(name)]) + name, timeout=600):
            yield response[1] if response else 0
    except grpc.RpcError:
        return


def test_a_step_without_memory_ends_its_requests_alone(failing):
    server, fault = failing
    health = watch_health(server)
    assert next(health) == SERVING
    calls = [begin(server, "first"), begin(server, "second")]
    fail(fault, "memory")
    for call in calls:
        error = end_of(call)
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert trailer(error, "swaa-error-reason") == "device_out_of_memory"
        assert int(trailer(error, "grpc-retry-pushback-ms")) > 0
        assert "memory" in error.details()
    fault.unlink()
    assert collect(server.inference, request("x", max_tokens=3)).ids
    server.await_idle()
    page = server.metrics()
    assert ('swaa_requests_total{finish_reason="none",grpc_code="RESOURCE_EXHAUSTED",'
            'recipe="full"} 2') in page
    assert 'swaa_requests_rejected_total{reason="queue_full"} 0' in page
    assert server.stop() == 0, server.log()


def test_a_lost_device_ends_everything(failing):
    server, fault = failing
    health = watch_health(server)
    assert next(health) == SERVING
    running = [begin(server, "first"), begin(server, "second")]
    waiting = server.inference.Generate(endless("third"))
    server.await_load(lambda load: (load.queued_requests, load.unread_requests) == (1, 0),
                      "a queue of one", seconds=60)
    fail(fault, "lost")
    for call in [*running, waiting]:
        error = end_of(call)
        assert error.code() == grpc.StatusCode.INTERNAL
        assert trailer(error, "swaa-error-reason") == "device_lost"
        assert "illegal address" in error.details()
    assert next(health) == NOT_SERVING
    assert server.await_exit(300) == 1, server.log()
    assert "illegal address" in server.log() and "the server cannot go on" in server.log()
