"""The one server that most tests share: f32, so that greedy tokens are exactly reproducible."""

import pytest

import harness


@pytest.fixture(scope="session")
def server():
    running = harness.Server("--dtype", "f32", "--kv-cache-bytes", "512MiB")
    yield running
    assert running.stop() == 0, running.log()


@pytest.fixture
def stub(server):
    return server.inference
