"""`swaa experiment` against two replicas, and their files put together."""

import json
import pathlib
import secrets
import subprocess
import tempfile

import grpc
import pytest
from swaa.v1 import experiment_service_pb2 as service
from swaa.v1 import experiment_service_pb2_grpc as service_grpc

from harness import BINARY, Server, collect, request

CONFIG = """
recipes:
  - name: narrow
    recipe: {{sliding_window_tokens: 8, sink_tokens: 2, full_attention_layers: {{stride: {{first: 1, step: 4}}}}}}
experiments:
  - id: chat
    arms:
      - {{name: full, recipe_name: full}}
      - {{name: narrow, recipe_name: narrow}}
    metrics:
      - {{name: thumbs, role: METRIC_ROLE_GOAL, scale: METRIC_SCALE_RATE,
         higher_is_better: true, minimum_detectable_effect: 0.05}}
experiment_storage:
  path: {folder}/{name}.db
  key_file: {folder}/key
  exposure_log: {folder}/{name}.jsonl
"""
UNITS = [f"user-{i}" for i in range(12)]


class Replica(Server):
    def __init__(self, folder, name):
        config = pathlib.Path(folder) / f"{name}.yaml"
        config.write_text(CONFIG.format(folder=folder, name=name))
        super().__init__("--config", str(config), "--kv-cache-bytes", "64MiB")
        self.experiments = service_grpc.ExperimentServiceStub(self.channel)
        self.address = f"--address=127.0.0.1:{self.port}"


def run(*arguments):
    return subprocess.run([BINARY, "experiment", *map(str, arguments)], text=True,
                          capture_output=True, timeout=60, check=False)


def output(*arguments):
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def requests_by_arm(report):
    return {arm["arm"]: int(arm["requests"]) for arm in report["arms"]}


@pytest.fixture(name="replicas", scope="module")
def served_replicas():
    """Each unit once on each replica; the other one takes the outcome. (folder, replicas, arms)."""
    with tempfile.TemporaryDirectory(prefix="swaa-test-") as folder:
        (pathlib.Path(folder) / "key").write_bytes(secrets.token_bytes(32))
        replicas = [Replica(folder, name) for name in ("a", "b")]
        arms = {}
        for unit in UNITS:
            for here, other in (replicas, replicas[::-1]):
                answer = collect(here.inference, request("one two three four five six seven eight "
                                                         "nine ten", max_tokens=2,
                                                         experiment_unit_id=unit))
                arm = answer.accepted.experiment_arm
                assert arms.setdefault(unit, arm) == arm, "the same on every replica"
                message = service.RecordOutcomeRequest(
                    request_id=answer.accepted.request_id,
                    outcome_token=answer.finished.outcome_token,
                    outcomes=[service.Outcome(metric="thumbs", value=arm == "narrow")])
                assert other.experiments.RecordOutcome(message).recorded_outcomes == 1
                assert other.experiments.RecordOutcome(message).recorded_outcomes == 0
        assert set(arms.values()) == {"full", "narrow"}
        yield pathlib.Path(folder), replicas, arms
        for replica in replicas:
            assert replica.stop() == 0, replica.log()


def test_list_and_assign(replicas):
    _, (a, _), arms = replicas
    listed = output("list", a.address)
    assert listed.startswith("chat: running, revision ")
    assert "full             recipe full, weight 1, control" in listed
    assert "narrow           recipe narrow, weight 1\n" in listed
    lines = output("assign", *UNITS, a.address).splitlines()
    for unit, line in zip(UNITS, lines, strict=True):
        assert line.startswith(f"{unit}: experiment chat, arm {arms[unit]}, recipe {arms[unit]};")


def test_reports_of_a_server_and_of_files(replicas):
    folder, (a, b), arms = replicas
    count = {arm: list(arms.values()).count(arm) for arm in ("full", "narrow")}
    for replica in (a, b):  # which also has each write what waits
        one = json.loads(output("report", "chat", replica.address, "--format", "json"))
        assert requests_by_arm(one) == count and len(one["instance_ids"]) == 1
    files = ("--data", folder / "a.db", "--data", folder / "b.db")
    both = json.loads(output("report", *files, "--format=json"))
    assert requests_by_arm(both) == {arm: 2 * n for arm, n in count.items()}
    assert len(both["instance_ids"]) == 2
    assert both["sample_ratio_check"]["observed_units"] == [str(count["full"]),
                                                            str(count["narrow"])]
    thumbs = {arm["arm"]: metric for arm in both["arms"] for metric in arm["metrics"]
              if metric["metric"] == "thumbs" and not metric["triggered_only"]}
    assert thumbs["full"]["value"] == 0 and thumbs["narrow"]["value"] == 1
    assert int(thumbs["narrow"]["requests"]) == 2 * count["narrow"]
    revision = both["status"]["revision"]
    again = json.loads(output("report", *files, "--format=json", "--revision",
                              f"{int(revision):016x}"))
    assert again["status"]["revision"] == revision
    text = output("report", *files)
    assert "narrow" in text and "thumbs" in text
    output("report", "chat", a.address, "--format", "html", "--output", folder / "report.html")
    page = (folder / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "<svg" in page and "narrow" in page


def test_export_of_a_live_file(replicas):
    folder, (a, _), _ = replicas
    output("report", "chat", a.address)  # which has it write what waits
    output("export", "--data", folder / "a.db", "--output", folder / "copy.db")
    assert not (folder / "copy.db-wal").exists()
    live = json.loads(output("report", "--data", folder / "a.db", "--format=json"))
    copy = json.loads(output("report", "--data", folder / "copy.db", "--format=json"))
    assert requests_by_arm(copy) == requests_by_arm(live)
    twice = run("report", "--data", folder / "a.db", "--data", folder / "copy.db")
    assert twice.returncode == 1 and "twice" in twice.stderr


def test_no_unit_is_written_down(replicas):
    folder, (a, _), arms = replicas
    output("report", "chat", a.address)  # which has it write what waits
    written = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"user-" not in written and b"user-" not in a.log().encode()
    lines = [json.loads(line) for line in (folder / "a.jsonl").read_text().splitlines()]
    assert sorted(line["variation_id"] for line in lines) == sorted(arms.values())
    assert len({line["unit_key"] for line in lines}) == len(UNITS)


def test_stop_and_start(replicas):
    _, (a, b), arms = replicas
    assert "stopped: narrow at " in output("stop", "chat", "narrow", a.address)
    unit = next(unit for unit, arm in arms.items() if arm == "narrow")
    stopped = collect(a.inference, request("one", max_tokens=1, experiment_unit_id=unit))
    assert not stopped.accepted.experiment_id, "recorded in no arm"
    assert collect(b.inference, request("one", max_tokens=1, experiment_unit_id=unit)) \
        .accepted.experiment_arm == "narrow", "each replica decides by itself"
    output("start", "chat", a.address)
    assert "stopped" not in output("list", a.address)


def test_what_is_refused(replicas):
    folder, (a, b), arms = replicas
    for wrong in [(), ("lists",), ("start",), ("list", "x"), ("stop", "a", "b", "c")]:
        done = run(*wrong)
        assert done.returncode == 2 and done.stderr.startswith("swaa experiment: "), wrong
    for arguments, words in [
            (("report", "chatt", a.address), "chat"),
            (("report", "chat", a.address, "--format", "xml"), "html"),
            (("report", "chat", a.address, "--revision", "x"), "--revision"),
            (("report", "--data", folder / "none.db"), "none.db"),
            (("report", "--data", folder / "key"), "key"),
            (("report", "chatt", "--data", folder / "a.db"), "chat"),
            (("export", "--data", folder / "a.db"), "--output"),
            (("stop", "chat", "wide", a.address), "narrow"),
            (("list", "--address", "127.0.0.1:1"), "swaa serve")]:
        done = run(*arguments)
        assert done.returncode == 1 and words in done.stderr, (arguments, done.stderr)
    answer = collect(a.inference, request("one", max_tokens=1, experiment_unit_id=UNITS[0]))
    message = service.RecordOutcomeRequest(
        request_id=answer.accepted.request_id, outcome_token=answer.finished.outcome_token,
        outcomes=[service.Outcome(metric="thumbs", value=1)])
    b.experiments.RecordOutcome(message)
    message.outcomes[0].value = 0
    with pytest.raises(grpc.RpcError) as caught:
        b.experiments.RecordOutcome(message)
    assert caught.value.code() == grpc.StatusCode.ALREADY_EXISTS
    message.request_id += "x"
    with pytest.raises(grpc.RpcError) as caught:
        b.experiments.RecordOutcome(message)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
