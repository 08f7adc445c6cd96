"""Intervals of means and of differences, at 95 %."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_Z = 1.959964
_RESAMPLES = 4000


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Of the mean: Wilson's where all values are 0 or 1, else the bootstrap's percentiles.

    Not a number for less than two values.
    """
    if len(values) < 2:
        return math.nan, math.nan
    if all(value in (0.0, 1.0) for value in values):
        return wilson(int(sum(values)), len(values))
    return bootstrap(values)


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Wilson's score interval of a share (JASA 22, 1927)."""
    share = successes / count
    middle = share + _Z * _Z / (2 * count)
    half = _Z * math.sqrt(share * (1 - share) / count + _Z * _Z / (4 * count * count))
    scale = 1 + _Z * _Z / count
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """The percentiles of the means of resamples; the same for the same values."""
    array = np.asarray(values, dtype=float)
    picks = np.random.default_rng(0).integers(len(array), size=(_RESAMPLES, len(array)))
    means = array[picks].mean(axis=1)
    return float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


def pareto(points: Sequence[Sequence[float]]) -> list[bool]:
    """Which points no other one beats: at least as low in every coordinate, and lower in one."""
    return [not any(all(a <= b for a, b in zip(other, point)) and tuple(other) != tuple(point)
                    for other in points) for point in points]
