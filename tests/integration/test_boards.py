"""Boards and rules on a real Prometheus that scrapes a real server with an experiment: every query
of deploy/ runs, and finds what the server tells."""

import json
import math
import pathlib
import re
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import grpc
import pytest
from swaa.v1 import recipe_pb2 as recipes

import harness
from test_experiments import ExperimentServer

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "deploy"
BOARDS = {path.stem: json.loads(path.read_text(encoding="utf-8"))
          for path in sorted((DEPLOY / "grafana").glob("*.json"))}
CHOICES = {"$job": ".+", "$instance": ".+", "$recipe": ".+", "$experiment": ".+",
           "$__rate_interval": "30s"}
# A server without a GPU and without TLS tells none of these.
ABSENT = {"swaa_device_temperature_celsius", "swaa_device_power_watts", "swaa_device_clock_hertz",
          "swaa_tls_certificate_expiry_timestamp_seconds"}
METRIC = re.compile(r"\b(?:[a-z_]+:)?(?:swaa|process)_\w+(?::\w+)?|\bup\b")


class Prometheus:
    """Scrapes one server each second with the example's configuration and the rules beside it."""

    def __init__(self, folder, target):
        config = (DEPLOY / "prometheus" / "prometheus.yaml").read_text(encoding="utf-8")
        for old, new in (("127.0.0.1:9090", target), ("interval: 15s", "interval: 1s"),
                         ("- recording_rules", f"- {DEPLOY}/prometheus/recording_rules"),
                         ("- alert_rules", f"- {DEPLOY}/prometheus/alert_rules")):
            assert old in config
            config = config.replace(old, new)
        (folder / "prometheus.yaml").write_text(config, encoding="utf-8")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.log = folder / "prometheus.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={folder}/prometheus.yaml",
                 f"--storage.tsdb.path={folder}/series", f"--web.listen-address={self.address}"],
                stdout=log, stderr=subprocess.STDOUT)
        self.start = time.time()

    def get(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"http://{self.address}/api/v1/{path}?{query}",
                                        timeout=60) as page:
                return json.load(page)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it listens, and does not answer yet
                raise
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def value(self, expression):
        """The sum of an expression's series; 0 where there are none."""
        return sum(float(series["value"][1])
                   for series in self.get("query", query=expression)["result"])

    def await_true(self, what, condition, seconds=300):
        until = time.monotonic() + seconds
        while True:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if condition():
                    return
            except urllib.error.URLError:
                pass  # does not listen yet
            assert time.monotonic() < until, f"never came: {what}\n{self.log.read_text()}"
            time.sleep(0.2)

    def await_scrapes(self, count):
        """Until it has scraped so often, and computed the rules, after now."""
        now = time.time()
        self.await_true(f"{count} scrapes", lambda: self.value(
            f"count_over_time(swaa_build_info[{math.ceil(time.time() - now)}s])") > count)

    def has_data(self, expression, instant):
        """Whether a query, made as its panel makes it, finds a number."""
        for name, value in CHOICES.items():
            expression = expression.replace(name, value)
        assert "$" not in expression
        if instant:
            return bool(self.get("query", query=expression)["result"])
        found = self.get("query_range", query=expression, start=self.start, end=time.time(), step=1)
        return any(math.isfinite(float(value))
                   for series in found["result"] for _, value in series["values"])

    def stop(self):
        self.process.terminate()
        self.process.wait(300)


def send_traffic(server, prometheus):
    """Twice, so that a series which a request brings into being also rises."""
    for begin in (0, 40):
        answers = [server.ask(f"user-{number}") for number in range(begin, begin + 40)]
        for answer in answers[:8]:
            server.record(answer.accepted.request_id, answer.finished.outcome_token, score=1.0)
        # Of one more recipe, of none, of one that there is not; and one that its client cancels.
        server.ask("", recipe=recipes.Recipe(sliding_window_tokens=32))
        server.ask("user-1", recipe_name="full")
        with pytest.raises(grpc.RpcError):
            server.ask("", recipe_name="nobody-has-it")
        call = server.inference.Generate(harness.request("Once upon", max_tokens=2000))
        next(iter(call))
        call.cancel()
        prometheus.await_scrapes(2)


@pytest.fixture(scope="module")
def scraped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boards")
    # Fewer comparisons may wait than are chosen, so that some are dropped.
    server = ExperimentServer(folder, share="1.0, max_waiting: 2")
    prometheus = Prometheus(folder, f"127.0.0.1:{server.metrics_port}")
    try:
        prometheus.await_true("a scrape", lambda: prometheus.value("up") == 1)
        prometheus.await_scrapes(2)
        send_traffic(server, prometheus)
        yield server, prometheus
    finally:
        prometheus.stop()
        code = server.stop()
    assert code == 0, server.log()


def expected_data(expression):
    return not ABSENT & set(METRIC.findall(expression))


def test_every_panel_finds_its_series(scraped):
    _, prometheus = scraped
    wrong = []
    asked = 0
    for name, board in BOARDS.items():
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                asked += 1
                found = prometheus.has_data(target["expr"], target["instant"])
                if not found and expected_data(target["expr"]):
                    wrong.append(f"{name}: {panel['title']}: {target['expr']}")
        for variable in board["templating"]["list"]:
            if variable["type"] != "query":
                continue
            selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)",
                                           variable["definition"]).groups()
            for choice, value in CHOICES.items():
                selector = selector.replace(choice, value)
            if not prometheus.get(f"label/{label}/values", **{"match[]": selector}):
                wrong.append(f"{name}: ${variable['name']}: {selector}")
    assert asked > 60 and not wrong, "without data:\n" + "\n".join(wrong)


def test_every_rule_is_well_and_finds_its_series(scraped):
    server, prometheus = scraped
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["type"] for rule in rules} == {"recording", "alerting"}
    for rule in rules:
        assert (rule["health"], rule.get("lastError", "")) == ("ok", ""), rule
        assert rule.get("state") != "firing", f"on a server that is well: {rule}"
        # What it computes with is there, and so is what it records.
        names = set(METRIC.findall(re.sub(r'"[^"]*"', "", rule["query"])))
        assert names or rule["query"].startswith("vector"), rule
        for name in names | ({rule["name"]} if rule["type"] == "recording" else set()):
            assert name in ABSENT or prometheus.get("query", query=f"count({name})")["result"], \
                f"{rule['name']}: no {name}"

    def state(alert):
        return [rule["state"] for group in prometheus.get("rules")["groups"]
                for rule in group["rules"] if rule["name"] == alert]
    assert state("SwaaConfigReloadFailed") == ["inactive"]
    server.config.write_text("no_such_key: 1", encoding="utf-8")
    server.reload()
    prometheus.await_true("the alert", lambda: state("SwaaConfigReloadFailed") == ["pending"])
