"""The configuration file: what it sets, and how its recipes are replaced while requests run."""

import os
import signal
import subprocess
import time

import grpc
import pytest

import harness
from harness import BINARY, Server, collect, control, refused, request
from test_operations import sample

BASE = """
device: {kv_cache_bytes: 64MiB}
scheduling: {max_running_requests: 4, prefix_cache: false}
metrics: {seconds_edges: [0.001, 1, 60]}
logging: {format: text}
"""

MINE = """
default_recipe: mine
recipes:
- name: mine
  description: of the test
  recipe:
    sliding_window_tokens: 32
    sink_tokens: 4
    full_attention_layers: {stride: {first: 1, step: 2}}
"""

OTHER = """
recipes:
- name: other
  recipe: {sliding_window_tokens: 16}
"""


@pytest.fixture(scope="module")
def configured(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "swaa.yaml"
    path.write_text(BASE + MINE)
    server = Server("--config", str(path), "--max-running-requests", "3")
    server.config = path
    yield server
    assert server.stop() == 0, server.log()


def names(server):
    listed = server.control.ListRecipes(control.ListRecipesRequest())
    return listed.default_recipe_name, {named.name for named in listed.named_recipes}


def reloads(server, result):
    return sample(server.metrics(), "swaa_config_reloads_total", result=result)


def await_reload(server, result, before):
    until = time.monotonic() + 60
    while reloads(server, result) == before:
        assert time.monotonic() < until, server.log()
        time.sleep(0.05)


def replace(path, text):
    """At once, as editors and Kubernetes do."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


def test_the_file_sets_and_flags_override(configured):
    info = configured.control.GetServerInfo(control.GetServerInfoRequest())
    assert info.max_running_requests == 3
    assert 0 < info.kv_total_pages * info.kv_page_bytes <= 64 << 20
    default, known = names(configured)
    assert default == "mine" and {"mine", "full", "balanced"} <= known
    prompt = "word " * 200
    for _ in range(2):
        answer = collect(configured.inference, request(prompt, max_tokens=1))
        assert answer.accepted.recipe_name == "mine"
        assert answer.accepted.resolved_recipe.sliding_window_tokens == 32
        assert answer.finished.usage.cached_prompt_tokens == 0, "the prefix cache is off"
    page = configured.metrics()
    assert 'swaa_request_duration_seconds_bucket{recipe="mine",le="60"}' in page
    assert 'le="0.002"' not in page
    assert sample(page, "swaa_config_last_load_timestamp_seconds") == pytest.approx(
        time.time(), abs=300)


@pytest.mark.parametrize("by", ["renamed", "written", "SIGHUP"])
def test_recipes_reload_across_a_running_request(configured, by):
    server = configured
    before = reloads(server, "ok")
    replace(server.config, BASE + MINE)
    await_reload(server, "ok", before)
    message = request("Once upon a time", max_tokens=150, recipe="mine")
    message.stopping_options.ignore_eos = True
    running = server.inference.Generate(message)
    answer = harness.Answer()
    answer.take(next(running))

    before = reloads(server, "ok")
    if by == "renamed":
        replace(server.config, BASE + OTHER)
    elif by == "written":
        server.config.write_text(BASE + OTHER)
    else:
        server.process.send_signal(signal.SIGHUP)
    await_reload(server, "ok", before)
    if by == "SIGHUP":
        assert names(server)[0] == "mine", "the file is what it was"
        await_after = ("mine", "other")
    else:
        await_after = ("other", "mine")
        default, known = names(server)
        assert default == "full" and "other" in known and "mine" not in known
        page = server.metrics()
        assert 'recipe="other"' in page and 'recipe="mine"' not in page
    present, gone = await_after
    assert collect(server.inference, request("x", recipe=present)).accepted.recipe_name == present
    assert refused(server.inference, request("x", recipe=gone)).code() == \
        grpc.StatusCode.NOT_FOUND
    # The request that ran goes on under the recipe that it began with.
    for response in running:
        answer.take(response)
    assert len(answer.ids) == 150 and answer.accepted.recipe_name == "mine"
    server.await_idle()


@pytest.mark.parametrize("bad,says", [
    ("recipes: [{name: a, recipe: {sink_tokens: 3}}]", ["recipes[a].sink_tokens", "3"]),
    ("recipes: [{name: a, recipe: {sliding_window_tokens: 4, "
     "full_attention_layers: {layers: {indices: [30]}}}}]", ["recipes[a]", "30"]),
    ("recipes: [{name: a, recipe: {thinking_mode: enabled}}]", ["recipes[a].thinking_mode"]),
    ("recipes: [{name: a, recipe: {lora_name: b}}]", ["recipes[a].lora_name", "b"]),
    ("recipies: []", ["recipies: no such key", "did you mean recipes?"]),
    ("default_recipe: nope", ["default_recipe", "nope"]),
    ("scheduling: {max_batch_tokens: none}", ["scheduling.max_batch_tokens"]),
    ("[", ["no YAML"]),
])
def test_a_bad_file_changes_nothing(configured, bad, says):
    server = configured
    before = names(server)
    failed, good = reloads(server, "failed"), reloads(server, "ok")
    loaded = sample(server.metrics(), "swaa_config_last_load_timestamp_seconds")
    logged = len(server.log())
    replace(server.config, bad)
    await_reload(server, "failed", failed)
    assert names(server) == before and reloads(server, "ok") == good
    assert sample(server.metrics(), "swaa_config_last_load_timestamp_seconds") == loaded
    line = server.await_log(".*stays as it was.*\n", logged)[0]
    for word in says:
        assert word in line, line
    assert collect(server.inference, request("x", recipe=before[0])).ids


def test_a_half_written_file_is_not_read(configured):
    server = configured
    before = reloads(server, "ok")
    replace(server.config, BASE + MINE + OTHER.replace("recipes:\n", ""))
    await_reload(server, "ok", before)
    known = names(server)
    before, failed = reloads(server, "ok"), reloads(server, "failed")
    whole = BASE + MINE + OTHER.replace("recipes:\n", "")
    with open(server.config, "w", encoding="utf-8") as writer:  # truncates
        for end in (0, len(BASE + MINE)):
            writer.write(whole[writer.tell():end])
            writer.flush()
            (server.config.parent / "other").write_text("x")
            time.sleep(6)  # longer than the watcher's patience
            assert names(server) == known
            assert (reloads(server, "ok"), reloads(server, "failed")) == (before, failed)
        writer.write(whole[writer.tell():])
    await_reload(server, "ok", before)
    assert names(server) == known


@pytest.mark.parametrize("text", ["", "# nothing\n\n  # at all\n"])
def test_an_empty_file_is_no_configuration(configured, text):
    server = configured
    before = reloads(server, "ok")
    replace(server.config, BASE + MINE)
    await_reload(server, "ok", before)
    failed, logged = reloads(server, "failed"), len(server.log())
    replace(server.config, text)
    await_reload(server, "failed", failed)
    assert names(server)[0] == "mine"
    server.await_log("is empty; write {}", logged)


def test_a_fifo_is_refused_and_blocks_nothing(configured):
    server = configured
    failed, logged = reloads(server, "failed"), len(server.log())
    server.config.unlink()
    os.mkfifo(server.config)
    server.process.send_signal(signal.SIGHUP)
    await_reload(server, "failed", failed)
    server.await_log("it is no regular file", logged)
    server.config.unlink()
    before = reloads(server, "ok")
    replace(server.config, BASE + MINE)
    await_reload(server, "ok", before)


def test_a_folder_is_no_configuration(configured):
    server = configured
    failed, logged = reloads(server, "failed"), len(server.log())
    server.config.unlink()
    server.config.mkdir()
    server.process.send_signal(signal.SIGHUP)
    await_reload(server, "failed", failed)
    server.await_log("it is no regular file", logged)
    server.config.rmdir()
    before = reloads(server, "ok")
    replace(server.config, BASE + MINE)
    await_reload(server, "ok", before)


def test_check_config(tmp_path):
    path = tmp_path / "swaa.yaml"
    for text, code, words in [
        (MINE, 0, ["in order", "8 recipes", "the default is mine"]),
        ("recipes: [{name: a, recipe: {sliding_window_tokens: 4, "
         "full_attention_layers: {layers: {indices: [30]}}}}]", 2, ["recipes[a]", "30"]),
        ("recipies: []", 2, ["did you mean recipes?"]),
    ]:
        path.write_text(text)
        result = subprocess.run(
            [BINARY, "serve", "--model", str(harness.model_path()), "--config", str(path),
             "--check-config"], text=True, capture_output=True, timeout=60, check=False)
        assert result.returncode == code, result.stderr
        for word in words:
            assert word in result.stdout + result.stderr


def test_what_needs_a_restart_is_said(configured):
    server = configured
    before, logged = reloads(server, "ok"), len(server.log())
    replace(server.config, BASE.replace("64MiB", "65MiB") + "network: {drain_grace: 5s}" + OTHER)
    await_reload(server, "ok", before)
    line = server.await_log(".*until the server is started.*\n", logged)[0]
    assert "device.kv_cache_bytes, network.drain_grace" in line


def test_a_server_without_a_file_ignores_sighup(server):
    server.process.send_signal(signal.SIGHUP)
    assert collect(server.inference, request("x", max_tokens=1)).ids


def test_a_bad_file_at_the_start(tmp_path):
    path = tmp_path / "swaa.yaml"
    for text, code, words in [
        ("device:\n  thread: 3\n", 2, [f"{path}:2: device.thread", "did you mean threads?"]),
        ("recipes: [{name: a, recipe: {sliding_window_tokens: 0}}]", 1,
         [str(path), "recipes[a].sliding_window_tokens"]),
    ]:
        path.write_text(text)
        result = subprocess.run(
            [BINARY, "serve", "--model", str(harness.model_path()), "--config", str(path),
             "--listen-address", "127.0.0.1:0", "--kv-cache-bytes", "64MiB"],
            text=True, capture_output=True, timeout=600, check=False)
        assert result.returncode == code
        for word in words:
            assert word in result.stderr, result.stderr
    result = subprocess.run([BINARY, "serve", "--config", "/no/such.yaml"], text=True,
                            capture_output=True, timeout=60, check=False)
    assert result.returncode == 2 and "--config" in result.stderr and "/no/such" in result.stderr
