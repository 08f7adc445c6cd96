"""Adapters by the clients' methods, on a tiny model."""

import asyncio
import os
import pathlib

import pytest

import swaa

DATA = pathlib.Path(__file__).resolve().parents[2] / "tests/data"
PROMPT = [5 + i * 7 % 300 for i in range(40)]
GREEDY = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}
TUNED = swaa.Recipe(16, 4, lora_name="tuned")


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    config = tmp_path_factory.mktemp("adapters") / "swaa.yaml"
    config.write_text(f"lora: {{max_resident: 2, roots: [{DATA}]}}\n")
    flags = ("--dtype", "f32", "--kv-cache-bytes", "16MiB", "--threads", "1", "--config",
             str(config))
    with swaa.LocalServer(os.environ["SWAA_BINARY"], DATA / "tiny-llama31", flags) as running:
        yield running


def test_an_adapter_comes_and_goes(adapted):
    with swaa.Client(adapted.address, timeout_seconds=120) as client:
        assert client.list_loras() == {}
        with pytest.raises(swaa.NotFound) as refused:
            client.generate(PROMPT, recipe=TUNED, **GREEDY).result()
        assert refused.value.reason == "lora_not_found"
        loaded = client.load_lora("tuned", "tiny-llama31-lora")
        assert (loaded.lora_name, loaded.rank) == ("tuned", 6)
        assert client.list_loras() == {"tuned": loaded}
        answer = client.generate(PROMPT, recipe=TUNED, **GREEDY).result()
        base = client.generate(PROMPT, recipe=swaa.Recipe(16, 4), **GREEDY).result()
        assert answer.recipe == TUNED and answer.ids != base.ids
        with pytest.raises(swaa.PermissionDenied) as refused:
            client.load_lora("other", "/")
        assert refused.value.reason == "path_outside_roots"
        client.unload_lora("tuned")
        assert client.list_loras() == {}
        with pytest.raises(swaa.NotFound):
            client.unload_lora("tuned")


def test_an_adapter_comes_and_goes_by_asyncio(adapted):
    async def run():
        async with swaa.AsyncClient(adapted.address, timeout_seconds=120) as client:
            loaded = await client.load_lora("tuned", str(DATA / "tiny-llama31-lora"))
            assert await client.list_loras() == {"tuned": loaded}
            answer = await client.generate(PROMPT, recipe=TUNED, **GREEDY).result()
            assert answer.recipe == TUNED
            await client.unload_lora("tuned")
            assert await client.list_loras() == {}
            with pytest.raises(swaa.NotFound):
                await client.unload_lora("tuned")

    asyncio.run(run())
