"""Ranks that share the model, in threads of a CPU server."""

import re

from harness import Server, collect, control, request


def test_ranks_answer_as_one_device(server):
    ranks = Server("--dtype", "f32", "--kv-cache-bytes", "512MiB", "--tensor-parallel-size", "3")
    info = ranks.control.GetServerInfo(control.GetServerInfoRequest())
    assert info.tensor_parallel_size == 3 and info.device.startswith("3 ranks of ")
    one = server.control.GetServerInfo(control.GetServerInfoRequest())
    assert one.tensor_parallel_size == 1
    # The model has three KV heads: each lies on one rank.
    assert info.kv_page_bytes == one.kv_page_bytes and info.kv_total_pages == one.kv_total_pages
    for recipe in ("full", "window"):
        message = request("The capital of France is", max_tokens=12, recipe=recipe)
        assert collect(ranks.inference, message).ids == collect(server.inference, message).ids
    weights = re.findall(r'swaa_device_memory_bytes\{kind="weights",rank="(\d)"\}', ranks.metrics())
    assert weights == ["0", "1", "2"]
    assert ranks.stop() == 0, ranks.log()


def test_a_number_that_cannot_share_the_model_is_refused():
    ranks = Server("--tensor-parallel-size", "2", wait=False)
    assert ranks.await_exit() == 1
    assert ("tensor_parallel_size: 2 ranks cannot share this model: its 9 attention heads; "
            "take one of 1, 3") in ranks.log()
