"""What the server does to connections: pings, ages, limits. HTTP/2 (RFC 9113) by hand, so that the
client does exactly what is asked for: gRPC's own would answer every ping."""

import socket
import struct
import time

import grpc
import pytest

import harness
from harness import Server, collect, control, request

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, SETTINGS, PING, GOAWAY = 0, 4, 6, 7
ACK = 1
ENHANCE_YOUR_CALM = 11


class Http2:
    """A connection without a call."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.bytes = b""
        self.socket.sendall(PREFACE)
        self.send(SETTINGS)

    def send(self, kind, flags=0, payload=b""):
        head = struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + bytes(4)
        self.socket.sendall(head + payload)

    def frame(self, seconds):
        """(kind, flags, payload) of the next frame; None when the connection is closed."""
        until = time.monotonic() + seconds
        while True:
            if len(self.bytes) >= 9:
                length = int.from_bytes(self.bytes[:3], "big")
                if len(self.bytes) >= 9 + length:
                    head, payload = self.bytes[:9], self.bytes[9:9 + length]
                    self.bytes = self.bytes[9 + length:]
                    return head[3], head[4], payload
            self.socket.settimeout(max(until - time.monotonic(), 0.001))
            try:
                more = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not more:
                return None
            self.bytes += more

    def until(self, kind, seconds=60):
        """The payload of the next frame of `kind` that is no acknowledgement, answering none."""
        while True:
            frame = self.frame(seconds)
            assert frame is not None, "the connection was closed"
            if frame[0] == kind and not frame[1] & ACK:
                return frame[2]

    def ping(self, number):
        """Sends a ping; the payload of the GOAWAY that comes instead of its answer, if one does."""
        self.send(PING, 0, number.to_bytes(8, "big"))
        while True:
            frame = self.frame(20)
            assert frame is not None, "closed without a word"
            kind, flags, payload = frame
            if kind == GOAWAY:
                return payload
            if kind == PING and flags & ACK:
                return None

    def await_close(self, seconds=60):
        while self.frame(seconds) is not None:
            pass


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """Pings after a second and wants its answer within another."""
    config = tmp_path_factory.mktemp("strict") / "swaa.yaml"
    config.write_text("""
network:
  keepalive_interval: 1s
  keepalive_timeout: 1s
  min_client_ping_interval: 60s
""")
    server = Server("--config", str(config), "--kv-cache-bytes", "64MiB")
    yield server
    assert server.stop() == 0, server.log()


def test_who_does_not_answer_a_ping_is_let_go(strict):
    start = time.monotonic()
    silent = Http2(strict.port)
    answering = Http2(strict.port)
    for _ in range(4):
        answering.send(PING, ACK, answering.until(PING))
    assert time.monotonic() - start > 2.5, "the pings come at their interval"
    silent.await_close()
    answering.send(PING, ACK, answering.until(PING))


def test_who_pings_too_often_is_sent_away(strict):
    pinger = Http2(strict.port)
    # One by one: what the server has not read when it closes would reset the connection.
    payload = next(filter(None, map(pinger.ping, range(10))), None)
    assert payload is not None, "ten pings at once were welcome"
    assert struct.unpack(">I", payload[4:8])[0] == ENHANCE_YOUR_CALM, payload
    # Others do not notice.
    assert len(collect(strict.inference, request("The sea", max_tokens=2)).ids) == 2


@pytest.fixture(scope="module")
def ageing():
    """Asks its connections to go after a second."""
    server = Server("--max-connection-age-seconds", "1", "--kv-cache-bytes", "128MiB")
    yield server
    assert server.stop() == 0, server.log()


def test_an_old_connection_is_asked_to_go(ageing):
    start = time.monotonic()
    connection = Http2(ageing.port)
    connection.until(GOAWAY)
    # gRPC spreads the ages by a tenth.
    assert time.monotonic() - start > 0.8
    connection.send(PING, ACK, connection.until(PING))
    connection.await_close()


def test_a_stream_outlives_its_connections_age(ageing):
    channel = ageing.new_channel()
    stub = harness.inference_grpc.InferenceServiceStub(channel)
    message = request("Once upon a time", max_tokens=4000, request_id="long")
    message.stopping_options.ignore_eos = True
    answer = harness.Answer()
    start = time.monotonic()
    for response in stub.Generate(message):
        answer.take(response)
        if time.monotonic() - start > 3 and answer.finished is None:
            ageing.control.Abort(control.AbortRequest(request_id="long"))
            start = float("inf")
    assert start == float("inf"), "the answer came too soon to show anything"
    assert answer.finished.usage.completion_tokens == len(answer.ids)
    # The next call finds a new connection by itself.
    assert len(collect(stub, request("x y", max_tokens=2)).ids) == 2
    channel.close()


def test_every_message_is_within_the_limit(strict):
    """20 alternatives of 500 prompt tokens and 200 output tokens in the largest deltas there are."""
    channel = strict.new_channel([("grpc.max_receive_message_length", 4 << 20)])
    message = request("word " * 500, max_tokens=200)
    message.stopping_options.ignore_eos = True
    message.response_options.prompt_logprobs = 20
    message.response_options.output_logprobs = 20
    message.response_options.tokens_per_delta = 4096
    answer = collect(harness.inference_grpc.InferenceServiceStub(channel), message)
    assert len(answer.ids) == 200 and len(answer.deltas) == 1
    assert sum(len(event.tokens) for event in answer.prompt_logprobs) == \
        answer.finished.usage.prompt_tokens
    channel.close()
