"""Clients that mean harm. Whatever one of them does, the others are answered, and the server keeps its
memory, its log and its counters. HTTP/2 by hand where gRPC's own client is too polite."""

import json
import os
import re
import resource
import signal
import socket
import struct
import threading
import time
import urllib.request

import grpc
import pytest

import harness
from harness import Server, collect, control, generation, refused, request, trailer
from test_connections import GOAWAY, Http2
from test_operations import sample

MIB = 1 << 20
HEADERS, RST_STREAM, CONTINUATION = 1, 3, 9
END_STREAM, END_HEADERS = 1, 4
CANCEL = 8


def literal(name, value):
    """A header field that enters no table (RFC 7541, 6.2.2)."""
    return b"\x00" + b"".join(
        hpack_length(len(text)) + text for text in (name, value))


def hpack_length(number):
    if number < 127:
        return bytes([number])
    number -= 127
    out = b"\x7f"
    while number >= 128:
        out += bytes([number % 128 + 128])
        number //= 128
    return out + bytes([number])


def call_headers(*more):
    return b"".join(literal(name, value) for name, value in (
        (b":method", b"POST"), (b":scheme", b"http"),
        (b":path", b"/swaa.v1.InferenceService/Generate"), (b":authority", b"x"),
        (b"te", b"trailers"), (b"content-type", b"application/grpc"), *more))


class Attacker(Http2):
    """A connection that sends frames on streams as it likes."""

    def frame_on(self, stream, kind, flags=0, payload=b""):
        self.socket.sendall(struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) +
                            struct.pack(">I", stream) + payload)


@pytest.fixture(scope="module")
def attacked():
    server = Server("--kv-cache-bytes", "128MiB")
    yield server
    assert server.stop() == 0, server.log()


def answers(server, seconds=60):
    """One who has nothing to do with it, over a connection of its own."""
    channel = server.new_channel()
    stub = harness.inference_grpc.InferenceServiceStub(channel)
    start = time.monotonic()
    assert len(collect(stub, request("The sea", max_tokens=2), timeout=seconds).ids) == 2
    channel.close()
    return time.monotonic() - start


def open_silent(port, count):
    sockets = []
    for _ in range(count):
        try:
            sockets.append(socket.create_connection(("127.0.0.1", port), timeout=60))
        except OSError:
            break
    return sockets


class ServersEnd:
    """The server's descriptors of a connection: its own, and gRPC's, which is closed when gRPC has
    worked through what it had read."""

    def __init__(self, server, one):
        self.folder = f"/proc/{server.process.pid}/fd"
        ends = [f":{port:04X}" for port in (server.port, one.getsockname()[1])]
        until = time.monotonic() + 60
        while True:
            assert time.monotonic() < until, "it was not accepted"
            for line in open("/proc/net/tcp", encoding="ascii"):
                fields = line.split()
                if fields[1].endswith(ends[0]) and fields[2].endswith(ends[1]):
                    self.name = f"socket:[{fields[9]}]"
                    if self.is_open():
                        return
            time.sleep(0.01)

    def is_open(self):
        for descriptor in os.listdir(self.folder):
            try:
                if os.readlink(f"{self.folder}/{descriptor}") == self.name:
                    return True
            except FileNotFoundError:
                pass  # closed meanwhile
        return False

    def await_close(self, seconds=60):
        until = time.monotonic() + seconds
        while self.is_open():
            assert time.monotonic() < until, f"{self.name} stays open"
            time.sleep(0.05)


def closed(one):
    one.settimeout(0.01)
    try:
        while data := one.recv(65536):
            assert data
        return True
    except TimeoutError:
        return False
    except OSError:
        return True


def test_running_out_of_file_descriptors_is_no_end(tmp_path):
    server = Server("--kv-cache-bytes", "64MiB", limits=[(resource.RLIMIT_NOFILE, 160)])
    silent = open_silent(server.port, 400)
    until = time.monotonic() + 60
    while sample(server.metrics(), "swaa_connections_refused_total") <= 100:
        assert time.monotonic() < until, server.log()
        time.sleep(0.05)
    for one in silent:
        one.close()
    answers(server)
    assert sample(server.metrics(), "swaa_connections_accepted_total") > 10
    assert server.stop() == 0, server.log()


def test_connections_are_bounded_and_silent_ones_closed(tmp_path):
    config = tmp_path / "swaa.yaml"
    config.write_text("network: {max_connections: 100, handshake_timeout: 1s, "
                      "max_connection_idle: 1s}\n")
    server = Server("--config", str(config), "--kv-cache-bytes", "64MiB")
    silent = open_silent(server.port, 300)
    assert len(silent) == 300
    until = time.monotonic() + 60
    while not all(closed(one) for one in silent):
        assert time.monotonic() < until, "silent connections stay"
    answers(server)
    # One that has spoken, and has no call, is asked to go.
    Http2(server.port).until(GOAWAY)
    assert server.stop() == 0, server.log()


def test_too_few_file_descriptors_are_refused_in_words():
    server = Server("--kv-cache-bytes", "64MiB", wait=False, limits=[(resource.RLIMIT_NOFILE, 32)])
    assert server.await_exit() == 1
    assert "limit of open files is 32" in server.log() and "ulimit -n" in server.log()


def test_a_compressed_message_is_not_inflated(attacked):
    before = attacked.resident_bytes()
    channel = attacked.new_channel()
    # To compress may take longer than a connection may take to begin.
    grpc.channel_ready_future(channel).result(timeout=300)
    call = channel.unary_stream("/swaa.v1.InferenceService/Generate")
    with pytest.raises(grpc.RpcError) as caught:
        next(iter(call(bytes(300 * MIB), compression=grpc.Compression.Gzip, timeout=300)))
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert attacked.resident_bytes() - before < 64 * MIB
    channel.close()
    answers(attacked)


def test_endless_headers_are_bounded(attacked):
    before = attacked.resident_bytes()
    cut_off = sample(attacked.metrics(), "swaa_connections_cut_off_total")
    attacker = Attacker(attacked.port)
    end = ServersEnd(attacked, attacker.socket)
    attacker.frame_on(1, HEADERS, 0, call_headers())
    block = literal(b"x-filler", b"y" * 16000)
    sent = peak = 0
    # Reset, where a mere end would leave it waiting for a window that nobody opens.
    attacker.socket.settimeout(30)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        while sent < 512 * MIB:
            for _ in range(256):
                attacker.frame_on(1, CONTINUATION, 0, block)
                sent += len(block)
            peak = max(peak, attacked.resident_bytes() - before)
    print(f"endless headers: {sent / MIB:.0f} MiB sent, resident memory {peak / MIB:+.0f} MiB")
    assert sample(attacked.metrics(), "swaa_connections_cut_off_total") == cut_off + 1
    assert peak < 512 * MIB
    end.await_close()
    answers(attacked)


def test_references_without_end_are_bounded(attacked):
    """Of an entry that a table has: of each byte two hundred may become."""
    before = attacked.resident_bytes()
    cut_off = sample(attacked.metrics(), "swaa_connections_cut_off_total")
    attacker = Attacker(attacked.port)
    end = ServersEnd(attacked, attacker.socket)
    # With incremental indexing (RFC 7541, 6.2.1): the first entry of the dynamic table.
    entry = b"\x40" + literal(b"x-filler", b"y" * 3900)[1:]
    attacker.frame_on(1, HEADERS, 0, call_headers() + entry)
    attacker.socket.settimeout(30)
    sent = 0
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        while sent < 64 * MIB:
            attacker.frame_on(1, CONTINUATION, 0, b"\xbe" * 1000)
            sent += 1000
    assert sample(attacked.metrics(), "swaa_connections_cut_off_total") == cut_off + 1
    end.await_close()
    grown = attacked.resident_bytes() - before
    print(f"references: {sent / MIB:.1f} MiB sent, resident memory {grown / MIB:+.0f} MiB")
    assert grown < 1024 * MIB
    answers(attacked, seconds=60)


def test_who_leaves_before_its_message_is_not_malformed(attacked):
    before = attacked.metrics()
    attacker = Attacker(attacked.port)
    for stream in range(1, 41, 2):
        attacker.frame_on(stream, HEADERS, END_HEADERS, call_headers())
        attacker.frame_on(stream, RST_STREAM, 0, struct.pack(">I", CANCEL))

    def grown(name, **labels):
        return sample(attacked.metrics(), name, **labels) - sample(before, name, **labels)

    until = time.monotonic() + 60
    while grown("swaa_requests_total", recipe="none", finish_reason="none",
                grpc_code="CANCELLED") < 20:
        assert time.monotonic() < until, attacked.log()[-2000:]
        time.sleep(0.05)
    assert grown("swaa_requests_rejected_total", reason="malformed_request") == 0
    # Who sends an end instead of a message did send something wrong.
    attacker.frame_on(101, HEADERS, END_HEADERS | END_STREAM, call_headers())
    while grown("swaa_requests_rejected_total", reason="malformed_request") == 0:
        assert time.monotonic() < until, attacked.log()[-2000:]
        time.sleep(0.05)


def test_who_resets_stream_after_stream_is_cut_off(attacked):
    """Not a cure: gRPC 1.51 works through what it has read before we hear of it."""
    before = attacked.resident_bytes()
    cut = sample(attacked.metrics(), "swaa_connections_cut_off_total")
    attacker = Attacker(attacked.port)
    end = ServersEnd(attacked, attacker.socket)
    start = time.monotonic()
    streams = 0
    try:
        while streams < 20000:
            for _ in range(100):
                streams += 1
                attacker.frame_on(2 * streams - 1, HEADERS, END_HEADERS, call_headers())
                attacker.frame_on(2 * streams - 1, RST_STREAM, 0, struct.pack(">I", CANCEL))
    except OSError:
        pass
    attacker.await_close(60)
    seconds = time.monotonic() - start
    victim = answers(attacked, seconds=60)
    end.await_close()
    grown = attacked.resident_bytes() - before
    print(f"rapid reset: {streams} streams, cut off after {seconds:.1f} s, then a victim waits "
          f"{victim:.2f} s, resident memory {grown / MIB:+.0f} MiB")
    assert sample(attacked.metrics(), "swaa_connections_cut_off_total") == cut + 1
    assert grown < 512 * MIB


def test_no_line_of_the_log_is_forged():
    forged = b"x\n2026-11-25 13:59:59.000 info request id=FAKE status=OK\x1b[31m"
    name = "a\u2028b\u0085c\u202ed\x1be\nf"
    for log_format in ("text", "json"):
        server = Server("--kv-cache-bytes", "64MiB", "--log-format", log_format)
        attacker = Attacker(server.port)
        attacker.frame_on(1, HEADERS, END_HEADERS, call_headers((b"grpc-timeout", forged)))
        error = refused(server.inference, request("x", recipe=name))
        assert error.code() == grpc.StatusCode.NOT_FOUND
        assert not re.search("[\u0000-\u001f\u0085\u2028\u202e]", error.details())
        until = time.monotonic() + 60
        while "FAKE" not in server.log() and time.monotonic() < until:
            time.sleep(0.05)
        assert server.stop() == 0
        log = server.log_file.read_bytes().decode()
        assert "FAKE" in log, "gRPC said nothing of it: this shows nothing"
        assert not re.search("[\u0000-\u0009\u000b-\u001f\u0085\u2028\u202e]", log)
        for line in log.rstrip("\n").split("\n"):
            if log_format == "json":
                json.loads(line)
            else:
                assert re.match(r"\d{4}-\d\d-\d\d [\d:.]+ (info|warning|error) ", line), line
                assert not re.match(r"\S+ \S+ info request id=FAKE", line), line


def test_refusals_do_not_fill_the_log():
    attacked = Server("--kv-cache-bytes", "64MiB")  # nobody was refused there yet
    channel = attacked.new_channel()
    stub = harness.inference_grpc.InferenceServiceStub(channel)
    message = request("x", recipe="no such recipe")
    suppressed = sample(attacked.metrics(), "swaa_log_lines_suppressed_total")
    start = time.monotonic()
    for _ in range(6):  # fewer at once than the requests that may wait to be read
        calls = [stub.Generate(message) for _ in range(500)]
        for call in calls:
            assert call.code() == grpc.StatusCode.NOT_FOUND
    channel.close()
    # 500 at once, then 50 a second, however long it took; the others are counted.
    suppressed = sample(attacked.metrics(), "swaa_log_lines_suppressed_total") - suppressed
    until = time.monotonic() + 300
    while not re.search(r"refused requests: \d+ lines were left out", attacked.log()):
        assert time.monotonic() < until, "nothing says how many were left out"
        refused(attacked.inference, message)
    assert attacked.stop() == 0, attacked.log()
    lines = len(re.findall(r"reason=recipe_not_found", attacked.log()))
    assert lines + suppressed >= 3000
    assert 500 <= lines <= 510 + 50 * (time.monotonic() - start), "refusals have a line each"


def test_metrics_are_answered_beside_silent_connections(attacked):
    """Two threads that each wait half a minute for a silent client would take six minutes."""
    silent = open_silent(attacked.metrics_port, 24)
    time.sleep(0.2)
    with urllib.request.urlopen(f"http://127.0.0.1:{attacked.metrics_port}/metrics",
                                timeout=60) as page:
        assert b"swaa_requests_total" in page.read()
    for one in silent:
        one.close()


def test_hopeless_prompts_delay_nobody(attacked):
    """Twenty prompts of 15 MiB of spaces: two minutes of work if they were tokenised."""
    before = attacked.resident_bytes()
    channel = attacked.new_channel()
    stub = harness.inference_grpc.InferenceServiceStub(channel)
    message = request(" " * (15 * MIB))
    calls = [stub.Generate(message) for _ in range(20)]
    answers(attacked, seconds=60)
    codes = set()
    for call in calls:
        codes.add(call.code())
        if call.code() == grpc.StatusCode.OUT_OF_RANGE:
            assert "prompt: 15728640 bytes" in call.details() and "8192" in call.details()
        else:
            assert int(trailer(call, "grpc-retry-pushback-ms")) > 0
    assert codes <= {grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert grpc.StatusCode.OUT_OF_RANGE in codes
    assert attacked.resident_bytes() - before < 600 * MIB
    channel.close()


def test_salts_leave_nothing_behind(attacked):
    before = attacked.resident_bytes()
    error = refused(attacked.inference, request("x", cache_salt="s" * 8 * MIB))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "cache_salt: 8388608 bytes; at most 128" in error.details()
    assert attacked.resident_bytes() - before < 128 * MIB


@pytest.mark.skipif("ASAN_OPTIONS" in os.environ,
                    reason="the address sanitizer ends a process that runs out of memory")
def test_memory_that_runs_out_fails_the_request_alone():
    server = Server("--kv-cache-bytes", "64MiB")
    answers(server)
    # Fifteen million token ids of one byte each, which are four in memory.
    ids = b"\x0a" + varint(15 * MIB) + b"\x05" * (15 * MIB)
    payload = b"\x22" + varint(len(ids)) + ids
    size = int(re.search(r"VmSize:\s+(\d+) kB",
                         open(f"/proc/{server.process.pid}/status").read())[1]) << 10
    resource.prlimit(server.process.pid, resource.RLIMIT_AS, (size + 48 * MIB, -1))
    call = server.channel.unary_stream("/swaa.v1.InferenceService/Generate")
    with pytest.raises(grpc.RpcError) as caught:
        next(iter(call(payload, timeout=60)))
    resource.prlimit(server.process.pid, resource.RLIMIT_AS, (-1, -1))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, caught.value.details()
    assert trailer(caught.value, "swaa-error-reason") == "out_of_memory"
    answers(server)
    assert server.stop() == 0, server.log()


def varint(number):
    out = b""
    while number >= 128:
        out += bytes([number % 128 + 128])
        number //= 128
    return out + bytes([number])
