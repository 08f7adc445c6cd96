"""`swaa bench` in its own process against a real server."""

import itertools
import json
import re
import subprocess

import harness


def bench(port, *flags):
    return subprocess.run(
        [harness.BINARY, "bench", "--address", f"127.0.0.1:{port}", *flags],
        capture_output=True, text=True, timeout=600)


def test_a_closed_loop_measures_every_recipe(server, tmp_path):
    results = tmp_path / "results.json"
    done = bench(
        server.port, "--recipes", 'full=1,window=1,{"sliding_window_tokens":16}=2',
        "--num-requests", "8", "--concurrency", "4", "--warmup-requests", "1",
        "--prompt-tokens", "30:60", "--output-tokens", "4", "--goodput", "ttft:100000",
        "--json", str(results), "--detailed", "--plot", str(tmp_path / "plots"))
    assert done.returncode == 0, done.stderr
    assert re.search(r"^gain over full: output tokens/s  +1\.00 ", done.stdout, re.MULTILINE)
    assert "times fewer keys attended" in done.stdout
    report = json.loads(results.read_text())
    assert (report["completed"], report["failed"]) == (8, 0)
    assert report["total_output_tokens"] == 32
    assert report["request_goodput"] == report["request_throughput"] > 0
    assert report["max_concurrent_requests"] <= 4
    assert [report["recipes"][name]["completed"] for name in ("full", "window", "w16")] == [2, 2, 4]
    full, window = report["recipes"]["full"], report["recipes"]["window"]
    assert full["total_input_tokens"] == window["total_input_tokens"], "lengths are paired"
    assert full["speedup_over_full"]["ttft"] == 1
    assert report["in_turns"] and window["speedup_over_full"]["output_throughput"] > 0
    # Recipes took turns, twice.
    by_time = sorted(report["requests"], key=lambda request: request["sent_seconds"])
    turns = [name for name, _ in itertools.groupby(by_time, lambda request: request["recipe"])]
    assert turns == ["full", "window", "w16", "window", "full"]
    named = {name for sample in report["load"] for name in sample["recipes"]}
    assert named <= {"full", "window", "w16"}, "a recipe has one name"
    assert report["recipes"]["w16"]["attended_keys_ratio"] > 1
    assert full["median_e2el_ms"] > full["median_ttft_ms"] > 0
    assert all(len(request["itl_ms"]) == 3 for request in report["requests"])
    assert report["load"], "the server's load was never asked for"
    # A run as short as this may end before the server has told of its memory.
    for name, rows in (("latency", 8), ("kv_memory", 0)):
        plot = json.loads((tmp_path / "plots" / f"{name}.vl.json").read_text())
        assert len(plot["data"]["values"]) >= rows and plot["vconcat"]


def test_an_open_loop_sends_at_its_own_rate(server, tmp_path):
    results = tmp_path / "results.json"
    done = bench(
        server.port, "--recipes", "full,window", "--request-rate", "20", "--burstiness", "0.5", "--num-requests", "12",
        "--prompt-kind", "text", "--prompt-tokens", "40", "--shared-prefix-tokens", "20",
        "--output-tokens", "2", "--json", str(results), "--detailed")
    assert done.returncode == 0, done.stderr
    report = json.loads(results.read_text())
    assert (report["completed"], report["request_rate"]) == (12, 20)
    assert all(40 <= request["input_tokens"] <= 80 for request in report["requests"])
    assert not report["in_turns"] and "in full's batch" in done.stdout
    due = [request["scheduled_seconds"] for request in report["requests"]]
    assert len(set(due)) == 12
    assert all(request["sent_seconds"] >= request["scheduled_seconds"]
               for request in report["requests"])


def test_fails_when_nothing_was_completed(server):
    done = bench(server.port, "--num-requests", "3", "--deadline", "1us", "--output-tokens", "4",
                 "--recipes", "")
    assert done.returncode == 1
    # Whichever of client and server saw the deadline first.
    assert "failed 3 times: DEADLINE_EXCEEDED: " in done.stdout, done.stdout
    assert "no request was completed" in done.stderr


def test_says_what_is_wrong_before_any_load(server):
    for flags, says in (
            (["--recipes", "nosuch"], 'the server has no recipe "nosuch"; it has full'),
            (["--prompt-tokens", "8190"], "do not fit into the model's context of 8192"),
            (["--recipes", "full=0"], "no number above 0"),
            (["--json", "/nowhere/results.json"], 'cannot write "/nowhere/results.json"')):
        done = bench(server.port, *flags)
        assert done.returncode in (1, 2)
        assert flags[0] in done.stderr and says in done.stderr
        assert done.stdout == ""


def test_says_where_no_server_answers():
    done = bench(1, "--num-requests", "1")
    assert done.returncode == 1
    assert "--address: no server answers at 127.0.0.1:1" in done.stderr


def test_the_defaults_show_a_gain(tmp_path):
    # In bf16: prompts of 4,000 tokens take their time in f32.
    server = harness.Server("--kv-cache-bytes", "256MiB")
    results = tmp_path / "results.json"
    done = bench(server.port, "--num-requests", "2", "--concurrency", "1", "--output-tokens", "2",
                 "--json", str(results))
    assert done.returncode == 0, done.stderr
    recipes = json.loads(results.read_text())["recipes"]
    assert len(recipes) == 2 and recipes["full"]["attended_keys_ratio"] == 1
    other = next(one for name, one in recipes.items() if name != "full")
    assert other["attended_keys_ratio"] > 2
    assert re.search(r"^gain over full: output tokens/s", done.stdout, re.MULTILINE)
    assert server.stop() == 0, server.log()
