"""Plots of a run: where in a text a recipe finds things, and what quality costs."""

from __future__ import annotations

import itertools
import math
import os
from typing import Any

import matplotlib

matplotlib.use("Agg")  # No display is needed.

import pandas as pd  # noqa: E402
from matplotlib import pyplot  # noqa: E402

from swaa.evaluation.statistics import pareto  # noqa: E402


def heat_map(frame: pd.DataFrame, task: str, metric: str, path: str | os.PathLike[str],
             across: str = "depth", down: str = "words") -> None:
    """A field for each recipe: the mean of a metric by two attributes of the cases.

    Raises ValueError where the task's cases lack an attribute.
    """
    rows = frame[(frame["task"] == task) & (frame["metric"] == metric)]
    for attribute in (across, down):
        if attribute not in rows or rows[attribute].isna().any():
            raise ValueError(f"{task}: its cases have no {attribute} to draw by")
    recipes = list(rows["recipe"].unique())
    columns = min(3, len(recipes))
    lines = math.ceil(len(recipes) / columns)
    figure, axes = pyplot.subplots(lines, columns, squeeze=False, layout="constrained",
                                   figsize=(4 * columns, 2.6 * lines))
    low, high = min(0.0, rows["value"].min()), max(rows["value"].max(), 0.0)
    image: Any = None
    for axis, recipe in zip(axes.flat, recipes):
        table = rows[rows["recipe"] == recipe].pivot_table(index=down, columns=across,
                                                           values="value")
        image = axis.imshow(table, vmin=low, vmax=high, cmap="viridis", aspect="auto")
        axis.set_title(recipe, fontsize=9)
        axis.set_xticks(range(len(table.columns)), [f"{value:g}" for value in table.columns])
        axis.set_yticks(range(len(table.index)), [f"{value:g}" for value in table.index])
        axis.set_xlabel(across)
        axis.set_ylabel(down)
    for axis in axes.flat[len(recipes):]:
        axis.set_axis_off()
    figure.colorbar(image, ax=axes, label=f"{task}: {metric}")
    figure.savefig(path)
    pyplot.close(figure)


def trade_off(summary: pd.DataFrame, task: str, metric: str, path: str | os.PathLike[str]) -> None:
    """Quality against attributed device time and against memory; the Pareto front is joined."""
    rows = summary[(summary["task"] == task) & (summary["metric"] == metric)]
    figure, axes = pyplot.subplots(1, 2, sharey=True, layout="constrained", figsize=(11, 4.5))
    for axis, cost, label, scale in (
            (axes[0], "device_seconds", "attributed device time of a request, s", 1.0),
            (axes[1], "kv_cache_bytes", "most bytes of keys and values held, MB", 1e6)):
        known = rows[rows[cost].notna()]
        front = pareto([(x, -y) for x, y in zip(known[cost], known["mean"])])
        axis.errorbar(known[cost] / scale, known["mean"], fmt="o", capsize=2,
                      # Rounding may put a share of 0 or 1 outside of its own interval.
                      yerr=[(known["mean"] - known["low"]).clip(lower=0),
                            (known["high"] - known["mean"]).clip(lower=0)])
        on_front = known.loc[[*itertools.compress(known.index, front)]].sort_values(cost)
        axis.plot(on_front[cost] / scale, on_front["mean"], "s--", color="tab:red",
                  markerfacecolor="none", markersize=9, label="Pareto front")
        for row in known.to_dict("records"):
            axis.annotate(row["recipe"], (row[cost] / scale, row["mean"]), fontsize=7,
                          xytext=(4, 4), textcoords="offset points")
        axis.set_xlabel(label)
    axes[0].set_ylabel(f"{task}: {metric}")
    axes[0].legend(loc="lower right")
    figure.savefig(path)
    pyplot.close(figure)
