"""The gateway SMG before real servers, and an OpenAI client of nothing but Python's own library."""

import atexit
import http.client
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
VERSION = re.search(r"^smg==(\S+) ", (ROOT / "tools/gateway_wheels.txt").read_text(), re.M)[1]
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
FOLDER = CACHE / "swaa" / f"smg-{VERSION}"
SECONDS = 600


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def await_true(condition, what, seconds=SECONDS):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"never came: {what}"
        time.sleep(0.05)


class Gateway:
    """`smg launch` on free loopback ports, ready when the constructor returns."""

    def __init__(self, folder, addresses, *flags):
        if not FOLDER.is_dir():
            pytest.skip(f"{FOLDER} is missing: tools/setup build test could not bring SMG")
        self.port, self.metrics_port = free_ports(2)
        self.log_file = folder / "smg.log"
        environment = {**os.environ, "PYTHONPATH": str(FOLDER)}
        with open(self.log_file, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "smg", "launch", "--host", "127.0.0.1", "--port",
                 str(self.port), "--prometheus-host", "127.0.0.1", "--prometheus-port",
                 str(self.metrics_port), "--worker-urls", *[f"grpc://{one}" for one in addresses],
                 *flags], stdout=log, stderr=subprocess.STDOUT, env=environment)
        atexit.register(self.process.kill)  # where a test failed before it stopped it
        await_true(lambda: self.workers_ready() == len(addresses), "a gateway with all its workers")

    def workers_ready(self):
        assert self.process.poll() is None, self.log_file.read_text()
        try:
            status, body = self.call("GET", "/workers")
        except OSError:
            return 0
        if status != 200:
            return 0
        # A model's tokenizer comes a moment later than its workers.
        tokenizers = {one["name"] for one in self.call("GET", "/v1/tokenizers")[1]["tokenizers"]}
        return sum(worker["is_healthy"] and worker["model_id"] in tokenizers
                   for worker in body["workers"])

    def known_blocks(self, address):
        """How many blocks of the prefix cache of a server it knows of."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics") as page:
            for line in page.read().decode().splitlines():
                if line.startswith(f'smg_kv_index_blocks{{worker="grpc://{address}"}} '):
                    return int(float(line.split()[-1]))
        return 0

    def call(self, method, path, body=None, headers=()):
        """The HTTP status and the JSON of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None,
                               {"content-type": "application/json", **dict(headers)})
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text else None
        finally:
            connection.close()

    def post(self, path, headers=(), **body):
        return self.call("POST", path, body, headers)

    def answer(self, path, headers=(), **body):
        status, answer = self.post(path, headers, **body)
        assert status == 200, (status, answer)
        return answer

    def stream(self, path, **body):
        return Stream(self.port, path, body)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(300)
        finally:
            self.process.kill()
            self.process.wait()


class Stream:
    """Server-sent events of one answer; closing it in the middle leaves the gateway."""

    def __init__(self, port, path, body):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        self.connection.request("POST", path, json.dumps({**body, "stream": True}),
                                {"content-type": "application/json"})
        self.response = self.connection.getresponse()

    def __iter__(self):
        for line in self.response:
            if not line.startswith(b"data: "):
                continue
            data = line[len(b"data: "):].strip()
            if data == b"[DONE]":
                return
            yield json.loads(data)

    def text(self):
        parts = []
        for event in self:
            assert "error" not in event, event
            for choice in event["choices"]:
                parts.append(choice.get("text") or choice.get("delta", {}).get("content") or "")
        self.close()
        return "".join(parts)

    def close(self):
        self.response.close()
        self.connection.close()
