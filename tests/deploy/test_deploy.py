"""What deploy/ holds: rules that promtool tests, boards as tools/make_dashboards.py makes them."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus"
TESTS = ROOT / "tests" / "deploy" / "prometheus"
BOARDS = ["overview", "recipes", "experiments"]


def promtool(*arguments):
    ran = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True,
                         timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def names(kind):
    """Of the rules: kind is `alert` or `record`."""
    text = (RULES / ("alert_rules.yaml" if kind == "alert" else "recording_rules.yaml")).read_text()
    found = re.findall(rf"^ +- {kind}: (\S+)$", text, re.MULTILINE)
    assert len(found) > 10
    return set(found)


def test_configuration_and_rules_are_valid():
    promtool("check", "config", RULES / "prometheus.yaml")


@pytest.mark.parametrize("kind", ["recording", "alert"])
def test_rules(kind):
    promtool("test", "rules", TESTS / f"{kind}_rules_test.yaml")


def test_every_rule_is_tested_and_used():
    tests = (TESTS / "alert_rules_test.yaml").read_text()
    for alert in names("alert"):
        assert f'alertname="{alert}"' in tests, f"{alert} is never seen firing"
    tests = (TESTS / "recording_rules_test.yaml").read_text()
    used = (RULES / "alert_rules.yaml").read_text() + "".join(
        (DEPLOY / "grafana" / f"{board}.json").read_text(encoding="utf-8") for board in BOARDS)
    rules = (RULES / "recording_rules.yaml").read_text()
    for name in names("record"):
        assert name in tests, f"{name} is not tested"
        others = re.sub(rf"- record: {re.escape(name)}\n", "", rules)
        assert name in used or name in others, f"{name} serves nothing"


def test_alerts_say_what_to_do():
    text = (RULES / "alert_rules.yaml").read_text()
    for alert in re.split(r"^ +- alert: ", text, flags=re.MULTILINE)[1:]:
        assert re.search(r"severity: (critical|warning|info)}", alert), alert
        assert re.search(r"summary: .{20}", alert) and "description: >-" in alert, alert


def test_boards_are_what_the_script_makes(tmp_path):
    subprocess.run([sys.executable, ROOT / "tools" / "make_dashboards.py", tmp_path], check=True,
                   timeout=60)
    made = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert set(made) == {f"{board}.json" for board in BOARDS}
    for name, text in made.items():
        assert (DEPLOY / "grafana" / name).read_text(encoding="utf-8") == text, \
            f"run tools/make_dashboards.py: {name} is not what it makes"


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_is_laid_out_and_explained(name):
    board = json.loads((DEPLOY / "grafana" / f"{name}.json").read_text(encoding="utf-8"))
    panels = board["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        if panel["type"] in ("row", "text"):
            continue
        assert len(panel["description"]) > 15, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == sorted(set(letters)), panel["title"]
    titles = [panel["title"] for panel in panels if panel["type"] != "row"]
    assert len(titles) == len(set(titles))
    variables = {variable["name"] for variable in board["templating"]["list"]}
    asked = set(re.findall(r"\$\{?(\w+)", json.dumps(board))) - {"__all", "__rate_interval"}
    assert asked == variables
