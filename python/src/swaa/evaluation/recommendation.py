"""Which recipe to take: the cheapest that is good enough, from what a run measured.

Quality is the mean of one metric of one task; cost is the device time that the server's step-time
model attributes to a request, the most bytes of keys and values that it held, and its time to the
first token.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
import re
from typing import Any

import pandas as pd
import yaml

from swaa.evaluation.runner import read_records
from swaa.evaluation.statistics import pareto
from swaa.recipe import Recipe

_COSTS = ("device_seconds", "kv_cache_bytes", "time_to_first_token_seconds")


@dataclasses.dataclass(frozen=True)
class Objectives:
    """What a recipe must keep to. None: it does not matter."""
    # Of the baseline's quality, the most that may be lost, on the metric's own scale. The interval
    # of the difference must lie above it, not the mean alone.
    maximum_loss: float
    time_to_first_token_seconds: float | None = None
    kv_cache_bytes: float | None = None


@dataclasses.dataclass(frozen=True)
class Recommendation:
    # A row for each recipe: quality, difference with interval, costs, `good_enough`, `on_front`.
    table: pd.DataFrame
    # The label of the recipe; None where none but the baseline keeps to the objectives.
    recipe: str | None


def candidates(grid: str) -> dict[str, Recipe]:
    """Full attention and every combination of a grid such as W=256/512,K=0/16,F=-/even,D=-/all, by
    their labels; `-` leaves a letter out. Raises ValueError where Recipe.parse does."""
    choices = []
    for part in grid.split(","):
        letter, _, values = part.strip().partition("=")
        choices.append(["" if value == "-" else f"{letter}={value}" for value in values.split("/")])
    texts = [",".join(filter(None, parts)) for parts in itertools.product(*choices)]
    recipes = [Recipe(), *(Recipe.parse(text) for text in texts)]
    return {str(recipe): recipe for recipe in recipes}


def recommend(summary: pd.DataFrame, task: str, metric: str, objectives: Objectives,
              baseline: str = "full") -> Recommendation:
    """Of results.summarize's rows for a task's metric, of which more is better. Raises ValueError
    where they lack the metric or the baseline's recipe."""
    table = summary[(summary["task"] == task) & (summary["metric"] == metric)].copy()
    if table.empty or baseline not in set(table["recipe"]):
        raise ValueError(f"no {metric} of {task} under {baseline} was measured; there are "
                         + ", ".join(sorted({f"{row.task}/{row.metric}/{row.recipe}"
                                             for row in summary.itertuples()})))
    costs = [cost for cost in _COSTS if table[cost].notna().all()]
    if "device_seconds" not in costs:
        raise ValueError("device_seconds: not known for every recipe; the server's step-time model "
                         "is fitted after some 32 steps: measure again")
    table["on_front"] = pareto([(-row["mean"], *(row[cost] for cost in costs))
                                for row in table.to_dict("records")])
    enough = (table["recipe"] == baseline) | (table["difference_low"] >= -objectives.maximum_loss)
    for cost in ("time_to_first_token_seconds", "kv_cache_bytes"):
        most = getattr(objectives, cost)
        if most is not None:
            enough &= table[cost] <= most
    table["good_enough"] = enough
    left = table[enough].sort_values("device_seconds")
    best = None if left.empty else str(left["recipe"].iloc[0])
    return Recommendation(table.sort_values("device_seconds"), None if best == baseline else best)


def recipes_of(folder: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """The recipes of a run by their labels, as the server's configuration has them."""
    return {record["recipe"]: record["recipe_config"]
            for record in read_records(pathlib.Path(folder) / "records.jsonl")}


def configuration(label: str, config: dict[str, Any], *, name: str = "recommended",
                  baseline: str = "full", metric: str = "liked",
                  minimum_detectable_effect: float = 0.02) -> str:
    """YAML for the server: the recipe, and an experiment that would prove it on real traffic.

    The experiment deals users out to the server's recipe `baseline` and to the new one; its goal is
    the outcome `metric`, 0 or 1, that clients record, its guardrails are errors and cancels.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,62}", name):
        raise ValueError(f"name: {name!r}; take letters, digits, _, - or ., at most 63")
    effect = minimum_detectable_effect
    experiment = {
        "id": f"{name}-against-{baseline}"[:63], "control_arm": "control",
        "arms": [{"name": "control", "recipe_name": baseline},
                 {"name": "candidate", "recipe_name": name}],
        "metrics": [
            {"name": metric, "role": "goal", "scale": "rate", "higher_is_better": True,
             "minimum_detectable_effect": effect},
            {"name": "device_seconds", "role": "goal", "scale": "log_mean",
             "minimum_detectable_effect": 0.05},
            {"name": "error_rate", "role": "guardrail", "scale": "rate",
             "minimum_detectable_effect": effect},
            {"name": "cancelled_rate", "role": "guardrail", "scale": "rate",
             "minimum_detectable_effect": effect}]}
    content = {"recipes": [{"name": name, "description": f"{label}, chosen by measurement.",
                            "recipe": config}], "experiments": [experiment]}
    return to_yaml(content)


def to_yaml(content: dict[str, Any]) -> str:
    """As the server's configuration reads it."""
    text: str = yaml.safe_dump(content, sort_keys=False, width=100)
    return text
