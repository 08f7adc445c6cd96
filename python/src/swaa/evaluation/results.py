"""What a run gave, as tables: of all cases, and of the means with their intervals."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import pandas as pd

from swaa.evaluation.runner import read_records
from swaa.evaluation.statistics import interval

# What recipes cost, by the statistics that the server sends with each answer.
_COSTS = {"attributed_device_seconds": "device_seconds", "peak_kv_cache_bytes": "kv_cache_bytes",
          "time_to_first_token_seconds": "time_to_first_token_seconds"}


def load(folder: str | os.PathLike[str]) -> pd.DataFrame:
    """A row for each case, recipe and metric: task, case, recipe, metric, value, the case's
    attributes, and its costs (device_seconds by the server's model of a step, kv_cache_bytes,
    time_to_first_token_seconds, attended_keys_ratio). Raises ValueError for an empty run."""
    rows: list[dict[str, Any]] = []
    for record in read_records(pathlib.Path(folder) / "records.jsonl"):
        stats = record["stats"]
        costs = {name: stats[field] for field, name in _COSTS.items()}
        costs["attended_keys_ratio"] = (
            stats["attended_keys"] / max(1, stats["full_attention_attended_keys"]))
        for metric, value in record["metrics"].items():
            rows.append({"task": record["task"], "case": record["case"],
                         "recipe": record["recipe"], "metric": metric, "value": value,
                         **record["attributes"], **costs})
    if not rows:
        raise ValueError(f"{folder}: no records in it; swaa-eval run writes them")
    # A case that was measured twice by two runs at once counts once.
    return pd.DataFrame(rows).drop_duplicates(["task", "case", "recipe", "metric"])


def summarize(frame: pd.DataFrame, baseline: str = "full") -> pd.DataFrame:
    """A row for each task, recipe and metric: cases, mean with interval, the difference to the
    baseline's recipe over the cases that both have, with its interval, and mean costs. Recipes that
    attend most keys come first."""
    rows = []
    for (task, metric, recipe), group in frame.groupby(["task", "metric", "recipe"], sort=False):
        low, high = interval(list(group["value"]))
        row: dict[str, Any] = {"task": task, "metric": metric, "recipe": recipe,
                               "cases": len(group), "mean": group["value"].mean(), "low": low,
                               "high": high}
        other = frame[(frame["task"] == task) & (frame["metric"] == metric)
                      & (frame["recipe"] == baseline)]
        paired = group.merge(other, on="case", suffixes=("", "_baseline"))
        if recipe != baseline and len(paired):
            differences = list(paired["value"] - paired["value_baseline"])
            row["difference"] = sum(differences) / len(differences)
            row["difference_low"], row["difference_high"] = interval(differences)
        for cost in (*_COSTS.values(), "attended_keys_ratio"):
            row[cost] = group[cost].astype(float).mean()  # over the cases where it is known
        rows.append(row)
    return pd.DataFrame(rows).sort_values(
        ["task", "metric", "attended_keys_ratio", "recipe"], ascending=[True, True, False, True],
        ignore_index=True)


def to_text(summary: pd.DataFrame) -> str:
    """The table for people, with a line for each metric and recipe."""
    lines = []
    for (task, metric), group in summary.groupby(["task", "metric"], sort=False):
        width = max(len(str(recipe)) for recipe in group["recipe"])
        lines.append(f"\n{task}: {metric}")
        lines.append(f"  {'recipe':{width}}  cases    mean  95 % interval      keys   device s"
                     "     MB")
        for row in group.to_dict("records"):
            lines.append(
                f"  {row['recipe']:{width}}  {row['cases']:5d}  {row['mean']:6.3f}  "
                f"{row['low']:6.3f} to {row['high']:6.3f}  {row['attended_keys_ratio']:4.0%}  "
                f"{row['device_seconds']:9.3f}  {row['kv_cache_bytes'] / 1e6:5.1f}")
    return "\n".join(lines).lstrip("\n")


def write_summary(summary: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """The same as JSON: a list of rows."""
    rows = json.loads(summary.to_json(orient="records"))
    pathlib.Path(path).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
