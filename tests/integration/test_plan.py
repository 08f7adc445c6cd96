"""`swaa plan` against the server's own memory check, its pool, and what requests hold."""

import json
import pathlib
import re
import shlex
import subprocess

import pytest

import harness
from harness import BINARY, Server, collect, control, request

ROOT = pathlib.Path(__file__).resolve().parents[2]
POOL = ("--device", "cpu", "--kv-cache-bytes", "128MiB")


def run(*flags, model=None):
    return subprocess.run([BINARY, "plan", "--model", str(model or harness.model_path()), *flags],
                          capture_output=True, text=True, check=False)


def plan(*flags, code=0):
    done = run(*flags, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_the_server_refuses_by_the_same_figures():
    flags = ("--device", "cpu", "--kv-cache-bytes", "4TiB", "--max-batch-tokens", "300",
             "--max-running-requests", "70")
    planned = plan(*flags, code=1)
    assert not planned["fits"]
    server = Server(*flags, wait=False)
    assert server.await_exit(harness.START_SECONDS) == 1
    found = re.search(r"not enough memory: (\S+) MiB of weights, (\S+) MiB of KV pages and (\S+) "
                      r"MiB besides are needed", server.log())
    told = [float(figure.replace("e+06", "E6")) for figure in found.groups()]
    mine = [planned[key] / 2**20 for key in ("weight_bytes", "pool_bytes", "besides_bytes")]
    assert told == pytest.approx(mine, rel=1e-5)


def test_pool_and_requests_are_as_planned(tmp_path):
    config = tmp_path / "swaa.yaml"
    config.write_text("recipes: [{name: mine, recipe: {sliding_window_tokens: 256, sink_tokens: 8}}]")
    planned = plan(*POOL, "--config", str(config), "--prompt-tokens", "1500",
                   "--output-tokens", "30")
    assert planned["fits"]
    server = Server(*POOL, "--config", str(config))
    info = server.control.GetServerInfo(control.GetServerInfoRequest())
    assert (info.kv_total_pages, info.kv_page_bytes) == \
        (planned["pool_pages"], planned["page_bytes"])
    weights = float(re.search(r'swaa_device_memory_bytes{kind="weights"} (\S+)',
                              server.metrics())[1])
    assert 0 < weights <= planned["weight_bytes"]
    listed = server.control.ListRecipes(control.ListRecipesRequest()).named_recipes
    assert {named.name for named in listed} == set(planned["recipes"])
    for name, recipe in planned["recipes"].items():
        message = request(ids=[5 + i * 7 % 300 for i in range(1500)], max_tokens=30, recipe=name)
        message.stopping_options.ignore_eos = True
        message.cache_salt = name
        peak = collect(server.inference, message).finished.stats.peak_kv_cache_bytes
        assert peak <= recipe["peak_pages"] * info.kv_page_bytes, name
        if recipe["decode_pages"] == recipe["full_attention_pages"]:
            assert peak == recipe["peak_pages"] * info.kv_page_bytes, name
    assert planned["recipes"]["mine"]["decode_pages"] < \
        planned["recipes"]["full"]["decode_pages"] / 3
    assert server.stop() == 0, server.log()


def test_a_config_json_says_enough(tmp_path):
    folder = ROOT / "tests" / "data" / "tiny-llama31"
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    flags = (*POOL, "--prompt-tokens", "100", "--output-tokens", "20", "--json")
    whole, alone, named = (run(*flags, model=path) for path in (
        folder, tmp_path, tmp_path / "config.json"))
    assert whole.returncode == 0, whole.stderr
    rows = [json.loads(done.stdout)["recipes"] for done in (whole, alone, named)]
    assert rows[0] == rows[1] == rows[2]


def test_servers_by_what_was_measured(tmp_path):
    measured = tmp_path / "bench.json"
    flags = (*POOL, "--prompt-tokens", "1000", "--output-tokens", "100", "--request-rate", "10",
             "--measured", str(measured))
    figures = {"request_throughput": 4, "mean_e2el_ms": 1000}
    report = {"in_turns": True, "recipes": {"full": figures, "window": dict(figures,
                                                                          mean_e2el_ms=9000)}}
    measured.write_text(json.dumps(report))
    planned = plan(*flags)["recipes"]
    assert planned["full"]["servers"] == 3
    assert planned["window"]["servers"] == -(-90 // planned["window"]["requests_at_once"])
    assert planned["balanced"]["servers"] is None
    for wrong, word in [(json.dumps({**report, "in_turns": False}), "in one batch"),
                        ("{}", "swaa bench"), ("no json", "swaa bench")]:
        measured.write_text(wrong)
        done = run(*flags)
        assert done.returncode == 1 and "--measured" in done.stderr and word in done.stderr
    for flags, word in [(("--request-rate", "3"), "--measured"), (("--prompt-tokens", "0"), "one"),
                        (("--prompt-tokens", "8000"), "context of 8192"),
                        (("--dtype", "f8"), "f8")]:
        done = run(*flags)
        assert done.returncode == 1 and word in done.stderr, done.stderr


def test_the_example_of_the_guide_is_true():
    """But for the lines that depend on the machine: what follows the table's head is the same."""
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    command, shown = re.search(r"^    swaa (plan .+)\n((?:    .*\n|\n)+)", text, re.M).groups()
    words = shlex.split(command)
    at = words.index("--model")
    done = run("--device", "cpu", *words[1:at], *words[at + 2:])
    assert done.returncode == 0, done.stderr
    rows = [line.strip() for line in shown.splitlines() if line.strip()]
    head = next(i for i, row in enumerate(rows) if row.startswith("a request of"))
    assert len(rows[head:]) == 9
    for row in rows[head:]:
        assert row in [line.strip() for line in done.stdout.splitlines()], done.stdout
