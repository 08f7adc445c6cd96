"""Which layers to keep full, by what the model itself loses: the right answers' log-probability.

Every trial is a recipe of its own, so all trials of a round run in the same batches of one server.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from swaa.client import Client
from swaa.evaluation.cases import Case
from swaa.evaluation.scoring import mean_answer_scores
from swaa.recipe import Recipe

# Layers that LightTransfer's count of lazy layers keeps full, half of each model, as the authors of
# SWAA (arXiv 2512.10411) publish them; they report no stable gain over every second layer.
LIGHT_TRANSFER: dict[str, tuple[int, ...]] = {
    "qwen3-4b-thinking-2507": (1, 2, 3, 4, 5, 6, 17, 18, 24, 26, 27, 28, 29, 30, 31, 32, 33, 34),
    "qwen3-30b-a3b-thinking-2507": (0, 1, 2, 5, 6, 10, 11, 14, 15, 17, 18, 19, 22, 23, 25, 26, 27,
                                    30, 34, 39, 43, 44, 45, 46),
    "llama-3.1-8b-instruct": (0, 1, 4, 5, 8, 9, 10, 11, 13, 14, 21, 23, 24, 25, 26, 27),
}

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
