"""Experiments on a real server: arms, outcomes, stops, shadows, and what is left after a kill."""

import json
import pathlib
import re
import signal
import subprocess
import time

import grpc
import pytest
from swaa.v1 import experiment_service_pb2 as experiments
from swaa.v1 import experiment_service_pb2_grpc as experiments_grpc

import harness

CONFIG = """
experiments:
  - id: chat
    control_arm: control
    arms:
      - {{name: control, recipe_name: full}}
      - {{name: small, recipe_name: small, weight: 2}}
    coverage: {coverage}
    metrics:
      - {{name: score, role: goal, scale: mean, higher_is_better: true, minimum_detectable_effect: 0.1}}
      - {{name: error_rate, role: guardrail, scale: rate, minimum_detectable_effect: 0.05}}
recipes:
  - name: small
    recipe: {{sliding_window_tokens: 16, sink_tokens: 4}}
experiment_storage:
  path: {folder}/experiments.db
  key_file: {folder}/key
  exposure_log: {folder}/exposures.jsonl
shadow: {{share: {share}}}
"""


class ExperimentServer(harness.Server):
    def __init__(self, folder, coverage="1.0", share=0):
        self.config = pathlib.Path(folder) / "config.yaml"
        key = pathlib.Path(folder) / "key"
        if not key.exists():
            key.write_bytes(bytes(range(64)))
            key.chmod(0o400)
        self.write(folder, coverage, share)
        super().__init__("--config", str(self.config), "--dtype", "f32",
                         "--kv-cache-bytes", "128MiB")
        self.experiments = experiments_grpc.ExperimentServiceStub(self.channel)

    def write(self, folder, coverage="1.0", share=0, extra=""):
        text = CONFIG.format(folder=folder, coverage=coverage, share=share) + extra
        staged = self.config.with_suffix(".new")
        staged.write_text(text)
        staged.rename(self.config)

    def reload(self):
        """Waits until the configuration was read again, well or not."""
        before = self.log().count("SIGHUP")
        self.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 60
        while True:
            log = self.log()
            said = log.split("SIGHUP")[-1]
            if log.count("SIGHUP") > before and ("recipes are now" in said or "stays" in said):
                return
            assert time.monotonic() < until, log
            time.sleep(0.02)

    def ask(self, unit, metadata=(), **fields):
        message = harness.request("The capital of France is", max_tokens=4,
                                  experiment_unit_id=unit, **fields)
        answer = harness.Answer()
        for response in self.inference.Generate(message, timeout=600, metadata=metadata):
            answer.take(response)
        return answer

    def assignment(self, unit):
        return self.experiments.GetAssignment(
            experiments.GetAssignmentRequest(experiment_unit_id=unit))

    def record(self, request_id, token=b"", **outcomes):
        return self.experiments.RecordOutcome(experiments.RecordOutcomeRequest(
            request_id=request_id, outcome_token=token,
            outcomes=[experiments.Outcome(metric=name, value=value)
                      for name, value in outcomes.items()]), timeout=60).recorded_outcomes

    def report(self):
        return self.experiments.GetReport(experiments.GetReportRequest(experiment_id="chat"))


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def metric(page, line):
    return [row for row in page.splitlines() if row.startswith(line)]


def test_arms_are_chosen_by_unit_and_told(folder):
    server = ExperimentServer(folder)
    arms = {}
    for number in range(12):
        unit = f"user-{number}"
        told = server.assignment(unit)
        accepted = server.ask(unit).accepted
        assert accepted.experiment_id == "chat"
        assert (accepted.experiment_arm, accepted.experiment_revision) == (told.arm, told.revision)
        assert accepted.recipe_name == {"control": "full", "small": "small"}[told.arm]
        arms[told.arm] = unit
    assert set(arms) == {"control", "small"}
    # The metadata says it as well, and the field before it.
    by_metadata = server.ask("", metadata=[("x-swaa-experiment-unit", arms["small"])])
    assert by_metadata.accepted.experiment_arm == "small"
    both = server.ask(arms["control"], metadata=[("x-swaa-experiment-unit", arms["small"])])
    assert both.accepted.experiment_arm == "control"
    # Whoever names a recipe is in no experiment.
    explicit = server.ask(arms["small"], recipe_name="full")
    assert explicit.accepted.recipe_name == "full" and not explicit.accepted.experiment_id
    assert not server.ask("").accepted.experiment_id
    page = server.metrics()
    assigned = metric(page, "swaa_experiment_assignments_total")
    assert sum(float(row.split()[-1]) for row in assigned) == 14
    assert metric(page, 'swaa_experiment_unassigned_total{reason="explicit_recipe"} 1')
    lines = [json.loads(line) for line in
             (folder / "exposures.jsonl").read_text().splitlines()]
    assert server.stop() == 0, server.log()
    lines = [json.loads(line) for line in (folder / "exposures.jsonl").read_text().splitlines()]
    assert len(lines) == 14
    assert {line["variation_id"] for line in lines} == {"control", "small"}
    assert "user-" not in (folder / "exposures.jsonl").read_text(), "units are hidden"
    assert b"user-" not in (folder / "experiments.db").read_bytes()


def test_acknowledged_outcomes_and_stops_survive_a_kill(folder):
    server = ExperimentServer(folder)
    answers = [server.ask(f"user-{number}") for number in range(6)]
    for answer in answers:
        assert server.record(answer.accepted.request_id, answer.finished.outcome_token,
                             score=1.5) == 1
    assert server.record(answers[0].accepted.request_id, score=1.5) == 0
    with pytest.raises(grpc.RpcError) as differs:
        server.record(answers[0].accepted.request_id, score=2)
    assert differs.value.code() == grpc.StatusCode.ALREADY_EXISTS
    with pytest.raises(grpc.RpcError) as undeclared:
        server.record(answers[0].accepted.request_id, stars=2)
    assert undeclared.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "score" in undeclared.value.details()
    with pytest.raises(grpc.RpcError) as forged:
        server.record("another", answers[0].finished.outcome_token, score=1)
    assert forged.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    stopped = server.experiments.StopExperiment(
        experiments.StopExperimentRequest(experiment_id="chat", arm="small")).status
    assert [arm.arm for arm in stopped.stopped_arms] == ["small"]
    server.stop(signal.SIGKILL)

    server = ExperimentServer(folder)
    small = next(f"user-{n}" for n in range(6) if answers[n].accepted.experiment_arm == "small")
    again = server.ask(small)
    assert again.accepted.recipe_name == "full" and not again.accepted.experiment_id
    report = server.report()
    scores = [estimate for arm in report.arms for estimate in arm.metrics
              if estimate.metric == "score" and not estimate.triggered_only]
    assert sum(estimate.requests for estimate in scores) == 6
    assert all(abs(estimate.value - 1.5) < 1e-9 for estimate in scores if estimate.requests)
    # The other replica's token, long after its request: any with the key takes it.
    assert server.record(answers[1].accepted.request_id, answers[1].finished.outcome_token,
                         score=1.5) == 0
    server.experiments.StartExperiment(experiments.StartExperimentRequest(experiment_id="chat"))
    assert server.ask(small).accepted.experiment_arm == "small"
    assert server.stop() == 0, server.log()


def test_a_wrong_configuration_changes_nothing(folder):
    server = ExperimentServer(folder, coverage="0.5")
    revision = server.experiments.ListExperiments(
        experiments.ListExperimentsRequest()).experiments[0].revision
    for extra, says in (
            ("  - {id: other, arms: [{name: a, recipe_name: full}, {name: b, recipe_name: small}]}",
             "overlaps"),
            ("  - {id: Other, arms: []}", "experiments[1].id"),
            ("  - {id: other, layer_begin: 9, layer_end: 9, arms: []}", "experiments[1]")):
        text = CONFIG.format(folder=folder, coverage="0.5", share=0)
        server.config.with_suffix(".new").write_text(text.replace("recipes:", extra + "\nrecipes:", 1))
        logged = len(server.log())
        server.config.with_suffix(".new").rename(server.config)
        server.reload()
        server.await_log(re.escape(says), logged)
        assert server.experiments.ListExperiments(
            experiments.ListExperimentsRequest()).experiments[0].revision == revision
    # Raising the coverage keeps the revision and everybody's arm.
    before = {unit: server.assignment(unit).arm for unit in map(str, range(200))}
    server.write(folder, coverage="1.0")
    server.reload()
    after = {unit: server.assignment(unit).arm for unit in map(str, range(200))}
    assert all(arm in ("", after[unit]) for unit, arm in before.items())
    assert "" in before.values() and "" not in after.values()
    assert server.experiments.ListExperiments(
        experiments.ListExperimentsRequest()).experiments[0].revision == revision
    assert server.stop() == 0, server.log()


def test_a_configuration_is_checked_without_a_start(folder):
    config = folder / "config.yaml"
    for arms, code, says in (
            ("[{name: a, recipe_name: full}, {name: b, recipe_name: window}]", 0, ""),
            ("[{name: a, recipe_name: full}, {name: b, recipe_name: nosuch}]", 2,
             f"{config}: experiments[0].arms[1].recipe_name")):
        config.write_text(f"experiments: [{{id: chat, arms: {arms}}}]")
        done = subprocess.run(
            [harness.BINARY, "serve", "--check-config", "--config", str(config), "--model",
             str(harness.model_path())], capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        assert says in done.stderr


def test_shadows_compare_recipes_and_leave_no_trace(folder):
    server = ExperimentServer(folder, share="1.0")
    prompt_before = metric(server.metrics(), "swaa_prompt_tokens_total")
    assert prompt_before
    for number in range(6):
        server.ask(f"user-{number}")
    until = time.monotonic() + 60
    while True:
        page = server.metrics()
        done = sum(float(row.split()[-1]) for row in metric(page, "swaa_shadow_requests_total"))
        if done == 6:
            break
        assert time.monotonic() < until, page
        time.sleep(0.1)
    ended = metric(page, "swaa_requests_total")
    assert sum(float(row.split()[-1]) for row in ended) == 6, "shadows are no requests"
    tokens = sum(float(row.split()[-1]) for row in metric(page, "swaa_generation_tokens_total"))
    assert tokens == 24
    assert float(metric(page, "swaa_shadow_device_seconds_total")[0].split()[-1]) > 0
    equal = sum(float(row.split()[-1]) for row in metric(page, "swaa_shadow_equal_argmax_total"))
    assert equal == 24, "below the window's 20 positions both recipes compute the same"
    speedups = [row for row in metric(page, "swaa_speedup_ratio_count")
                if 'kind="shadow"' in row and 'recipe="small"' in row]
    assert float(speedups[0].split()[-1]) == 6
    server.await_idle()
    agreements = server.report().shadow_agreements
    assert sum(agreement.requests for agreement in agreements) == 6
    assert all(agreement.equal_argmax_ratio == 1 for agreement in agreements if agreement.requests)
    assert server.stop() == 0, server.log()


def test_metrics_are_well_formed(folder):
    server = ExperimentServer(folder, share="1.0")
    server.ask("user-1")
    checked = subprocess.run(["promtool", "check", "metrics"], input=server.metrics(), text=True,
                             capture_output=True, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert server.stop() == 0, server.log()


def test_bench_plants_outcomes_and_the_report_finds_them(folder):
    """Three arms, of which one is liked more; neither the other nor their speed has a verdict."""
    server = ExperimentServer(folder)
    arms = ("{name: control, recipe_name: full}, {name: liked, recipe_name: small}, "
            "{name: alike, recipe_name: small}")
    text = server.config.read_text()
    begin, end = text.index("    control_arm"), text.index("recipes:")
    server.config.with_suffix(".new").write_text(
        text[:begin] + f"    control_arm: control\n    arms: [{arms}]\n"
        "    metrics: [{name: liked, role: goal, scale: rate, higher_is_better: true, "
        "minimum_detectable_effect: 0.2}]\n" + text[end:])
    server.config.with_suffix(".new").rename(server.config)
    server.reload()
    done = subprocess.run(
        [harness.BINARY, "bench", "--address", f"127.0.0.1:{server.port}", "--recipes", "",
         "--experiment-units", "1000000", "--num-requests", "600", "--concurrency", "16",
         "--prompt-tokens", "2:8", "--output-tokens", "1",
         "--outcome", "liked:control=0.3,liked=0.8,alike=0.3"],
        capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "outcomes recorded as liked: 600" in done.stdout
    report = server.report()
    verdicts = {comparison.arm: comparison.verdict for comparison in report.comparisons
                if comparison.metric == "liked" and not comparison.triggered_only}
    assert verdicts["liked"] == experiments.VERDICT_BETTER, report
    assert verdicts["alike"] == experiments.VERDICT_UNDECIDED, report
    assert not report.sample_ratio_check.mismatch
    assert server.stop() == 0, server.log()
