"""Which layers to keep full, by what the model itself loses: the right answers' log-probability.

Every trial is a recipe of its own, so all trials of a round run in the same batches of one server.
What others published for some models is in swaa.presets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from swaa.client import Client
from swaa.evaluation.cases import Case
from swaa.evaluation.scoring import mean_answer_scores
from swaa.recipe import Recipe

# What has been found so far: layers, and the score with them.
Progress = Callable[[tuple[int, ...], float], None]


@dataclasses.dataclass(frozen=True)
class LayerChoice:
    layers: tuple[int, ...]
    # Mean log-probability per token of the right answers, on the cases that it was chosen by.
    score: float


def with_layers(base: Recipe, layers: Sequence[int]) -> Recipe:
    """`base` with these layers full; none of them, where there is none."""
    return dataclasses.replace(base, full_attention_layers=tuple(sorted(layers)) or None)


def leave_one_out(client: Client, cases: Sequence[Case], base: Recipe,
                  concurrency: int = 32) -> list[float]:
    """By layer: what the score loses when that layer alone slides and all others are full."""
    count = client.model_info().num_layers
    every = range(count)
    recipes = [with_layers(base, every)]
    recipes += [with_layers(base, [other for other in every if other != layer]) for layer in every]
    whole, *without = mean_answer_scores(client, cases, recipes, concurrency)
    return [whole - score for score in without]


def most_missed(losses: Sequence[float], budget: int) -> tuple[int, ...]:
    """The layers whose loss is largest."""
    ranked = sorted(range(len(losses)), key=lambda layer: -losses[layer])
    return tuple(sorted(ranked[:budget]))


def greedy(client: Client, cases: Sequence[Case], base: Recipe, budget: int, *, per_round: int = 1,
           concurrency: int = 32, progress: Progress | None = None) -> LayerChoice:
    """Adds the layers that raise the score most, one by one or, quicker, `per_round` at a time.

    A round tries each layer that is left; `budget` layers take budget / per_round rounds. Raises
    ValueError for a budget that the model has not.
    """
    count = client.model_info().num_layers
    if not 1 <= budget <= count:
        raise ValueError(f"budget: {budget} layers; the model has {count}")
    if per_round < 1:
        raise ValueError(f"per_round: {per_round}; take at least 1")
    chosen: list[int] = []
    score = 0.0
    while len(chosen) < budget:
        left = [layer for layer in range(count) if layer not in chosen]
        recipes = [with_layers(base, [*chosen, layer]) for layer in left]
        scores = mean_answer_scores(client, cases, recipes, concurrency)
        ranked = sorted(zip(scores, left), key=lambda pair: (-pair[0], pair[1]))
        taken = ranked[:min(per_round, budget - len(chosen))]
        chosen += [layer for _, layer in taken]
        score = taken[0][0]
        if len(taken) > 1:  # The score of all of them together is not known yet.
            score = mean_answer_scores(client, cases, [with_layers(base, chosen)], concurrency)[0]
        if progress is not None:
            progress(tuple(sorted(chosen)), score)
    return LayerChoice(tuple(sorted(chosen)), score)
