"""Adapters per request: loaded at the start and while the server runs, on a tiny model."""

import json
import pathlib
import shutil
import threading

import grpc
import pytest

from harness import Server, collect, control, recipes, refused, request, trailer

DATA = pathlib.Path(__file__).parent.parent / "data"
TUNED = recipes.Recipe(lora_name="tuned")
PROMPT = [5 + i * 7 % 300 for i in range(130)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A root with adapters, and what lies outside it."""
    top = tmp_path_factory.mktemp("lora")
    root = top / "root"
    source = DATA / "tiny-llama31-lora"
    for name in ("tuned", "second", "dora", "misfit"):
        shutil.copytree(source, root / name)
    shutil.copytree(source, top / "outside")
    (root / "link").symlink_to(top / "outside")
    config = json.loads((root / "dora" / "adapter_config.json").read_text())
    (root / "dora" / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    shutil.copy(DATA / "tiny-qwen2-lora" / "adapter_model.safetensors", root / "misfit")
    # The same matrices, twice as strong.
    config["lora_alpha"] *= 2
    config["alpha_pattern"] = {key: 2 * value for key, value in config["alpha_pattern"].items()}
    (root / "second" / "adapter_config.json").write_text(json.dumps(config))
    return top


@pytest.fixture(scope="module")
def adapted(folders, tmp_path_factory):
    config = tmp_path_factory.mktemp("config") / "swaa.yaml"
    config.write_text(f"""
lora:
  max_resident: 2
  roots: [{folders}/root]
  adapters: [{{name: tuned, path: {folders}/root/tuned}}]
recipes:
  - name: swa-tuned
    recipe: {{sliding_window_tokens: 16, sink_tokens: 4, lora_name: tuned}}
""")
    running = Server("--dtype", "f32", "--kv-cache-bytes", "16MiB", "--threads", "1", "--config",
                     str(config), model=DATA / "tiny-llama31")
    yield running
    assert running.stop() == 0, running.log()


def load(server, name, path):
    return server.control.LoadLora(control.LoadLoraRequest(lora_name=name, source_path=str(path)))


def unload(server, name):
    return server.control.UnloadLora(control.UnloadLoraRequest(lora_name=name))


def loaded(server):
    return {adapter.lora_name: adapter
            for adapter in server.control.ListLoras(control.ListLorasRequest()).lora_adapters}


def ids(server, recipe=None, **options):
    message = request(ids=PROMPT, max_tokens=24, recipe=recipe, **options)
    message.stopping_options.ignore_eos = True
    message.response_options.output_logprobs = 0
    return collect(server.inference, message)


def error_of(call, *arguments):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments)
    return caught.value


def test_requests_choose_their_adapter(adapted):
    assert adapted.control.GetServerInfo(control.GetServerInfoRequest()).max_loras == 2
    assert loaded(adapted)["tuned"].rank == 6
    base, tuned = ids(adapted), ids(adapted, TUNED)
    assert base.ids != tuned.ids, "the adapter changes nothing"
    assert tuned.accepted.resolved_recipe.lora_name == "tuned"
    # Prefixes of one are none of the other's.
    assert base.finished.usage.cached_prompt_tokens == 0
    assert tuned.finished.usage.cached_prompt_tokens == 0
    again = ids(adapted, TUNED)
    assert again.ids == tuned.ids and again.finished.usage.cached_prompt_tokens == 128
    named = ids(adapted, "swa-tuned")
    assert named.accepted.recipe_name == "swa-tuned"
    assert named.accepted.resolved_recipe.lora_name == "tuned"
    assert 'swaa_lora_requests_info{max_lora="2"' in adapted.metrics()


def test_one_batch_has_them_all(adapted, folders):
    load(adapted, "second", folders / "root" / "second")
    choices = [None, TUNED, recipes.Recipe(lora_name="second"), "swa-tuned"]
    alone = [ids(adapted, choice).ids for choice in choices]
    assert len(set(map(tuple, alone))) == 4
    together = [None] * 12

    def one(i):
        together[i] = ids(adapted, choices[i % 4], cache_salt=str(i)).ids

    threads = [threading.Thread(target=one, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone * 3
    unload(adapted, "second")


def count(server, name):
    page = server.metrics().splitlines()
    return int(float(next(line for line in page if line.startswith(f"{name} ")).split()[-1]))


def test_the_least_recently_used_is_read_again(adapted, folders):
    tuned = ids(adapted, TUNED).ids
    loads, evictions = 'swaa_lora_loads_total{result="ok"}', "swaa_lora_evictions_total"
    before = [count(adapted, name) for name in (loads, evictions)]
    for name in ("x", "y"):
        load(adapted, name, folders / "root" / "second")
    assert sorted(loaded(adapted)) == ["tuned", "x", "y"]  # two of them in memory
    assert count(adapted, "swaa_loras_resident") == 2
    assert ids(adapted, TUNED).ids == tuned
    # Two loads and the third that brought it back; at least one went for each of two.
    assert count(adapted, loads) == before[0] + 3 and count(adapted, evictions) >= before[1] + 2
    for name in ("x", "y"):
        unload(adapted, name)


def test_loading_is_idempotent_and_confined(adapted, folders):
    root = folders / "root"
    first = load(adapted, "a", root / "tuned").lora_adapter
    assert load(adapted, "a", root / "tuned").lora_adapter == first and first.rank == 6
    for name, path, code, reason, says in [
            ("a", root / "second", grpc.StatusCode.ALREADY_EXISTS, "lora_name_in_use", "tuned"),
            ("b", folders / "outside", grpc.StatusCode.PERMISSION_DENIED, "path_outside_roots",
             "lora.roots"),
            ("b", root / "link", grpc.StatusCode.PERMISSION_DENIED, "path_outside_roots", "link"),
            ("b", "../outside", grpc.StatusCode.PERMISSION_DENIED, "path_outside_roots", "outside"),
            ("b", "none", grpc.StatusCode.NOT_FOUND, "not_found", "adapter_config.json"),
            ("b", "dora", grpc.StatusCode.UNIMPLEMENTED, "unimplemented", "use_dora"),
            ("b", "misfit", grpc.StatusCode.INVALID_ARGUMENT, "invalid_argument", "shape"),
            ("b,c", "tuned", grpc.StatusCode.INVALID_ARGUMENT, "invalid_lora_name", "b,c"),
            ("b", "", grpc.StatusCode.INVALID_ARGUMENT, "invalid_path", "source_path")]:
        error = error_of(load, adapted, name, path)
        assert (error.code(), trailer(error, "swaa-error-reason")) == (code, reason), error.details()
        assert says in error.details()
    assert sorted(loaded(adapted)) == ["a", "tuned"]
    assert count(adapted, 'swaa_lora_loads_total{result="failed"}') == 3
    unload(adapted, "a")
    assert error_of(unload, adapted, "a").code() == grpc.StatusCode.NOT_FOUND


def test_unloading_lets_requests_finish(adapted, folders):
    load(adapted, "going", "tuned")
    message = request(ids=PROMPT, max_tokens=300, recipe=recipes.Recipe(lora_name="going"))
    message.stopping_options.ignore_eos = True
    stream = iter(adapted.inference.Generate(message, timeout=600))
    assert next(stream).WhichOneof("event") == "accepted"
    unloaded = adapted.control.UnloadLora.future(control.UnloadLoraRequest(lora_name="going"))
    last = [response for response in stream][-1]
    assert last.finished.usage.completion_tokens == 300
    unloaded.result(timeout=60)
    assert "going" not in loaded(adapted)
    error = refused(adapted.inference, message)
    assert error.code() == grpc.StatusCode.NOT_FOUND and "going" in error.details()
    assert trailer(error, "swaa-error-reason") == "lora_not_found"
    adapted.await_idle()
