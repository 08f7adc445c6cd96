"""The server that the tests share: f32, so that greedy tokens are exactly reproducible."""

import os
import pathlib

import pytest

import swaa


def model_path():
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    path = pathlib.Path(cache) / "swaa" / "smollm2-135m-instruct.gguf"
    assert path.exists(), f"the test model {path} is missing: run tools/setup, which brings it"
    return path


def local_server(*flags):
    return swaa.LocalServer(os.environ["SWAA_BINARY"], model_path(), flags)


@pytest.fixture(scope="session")
def server():
    with local_server("--dtype", "f32", "--kv-cache-bytes", "1GiB") as running:
        yield running


@pytest.fixture(scope="session")
def client(server):
    with swaa.Client(server.address, timeout_seconds=300) as connected:
        yield connected
