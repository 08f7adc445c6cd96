"""LightTransfer's lazy layers (arXiv 2410.13846): those that look at the first and the last keys.

The lazy ratio of a layer is the share of the last queries' attention, a mean over heads, that falls
on a text's first and its most recent tokens. As SWAA's authors do, ratios are ranked text by text
and it is counted how often a layer is among the lazier half. For comparison with what
swaa.evaluation.layers measures: a layer that looks away seldom may be needed all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from swaa.tuning.masks import LayerMask
from swaa.tuning.model import RowMasks
from swaa.tuning.packing import Example, Row


class _LazyRatios:
    """Full attention that takes down each layer's lazy ratio."""

    def __init__(self, row: Row, layers: int, sinks: int, recent: int, last: int,
                 device: str) -> None:
        self._attention = RowMasks(row, [LayerMask()] * layers, device)
        self._sinks, self._recent, self._last = sinks, recent, last
        self.ratios = [0.0] * layers

    def attend(self, layer: int, query: Any, key: Any, value: Any, scaling: float) -> Any:
        tokens = key.shape[2]
        keys = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
        scores = (query[:, :, -self._last:] @ keys.transpose(2, 3) * scaling).float()
        places = torch.arange(tokens, device=key.device)
        unseen = places[None, :] > places[-self._last:, None]
        weights = scores.masked_fill(unseen, -torch.inf).softmax(-1)
        near = (places < self._sinks) | (places >= tokens - self._recent)
        self.ratios[layer] = float(weights[..., near].sum(-1).mean())
        return self._attention.attend(layer, query, key, value, scaling)


def lazy_ratios(model: Any, ids: Sequence[int], *, sinks: int, recent: int, last: int = 32,
                device: str = "cpu") -> list[float]:
    """The ratio of every layer for one text of more than `sinks` + `recent` tokens, by a model
    that swaa.tuning.model.load_base loaded. Raises ValueError for a shorter one."""
    if len(ids) <= sinks + recent:
        raise ValueError(f"a text has {len(ids)} tokens, {sinks} first and {recent} recent ones "
                         "are all of it; take longer texts")
    row = Row()
    row.add(Example(tuple(ids), ()))
    lazy = _LazyRatios(row, model.config.num_hidden_layers, sinks, recent, last, device)
    with torch.no_grad():
        model(input_ids=torch.tensor([row.ids], device=device), use_cache=False, logits_to_keep=1,
              recipe_masks=lazy)
    return lazy.ratios


def lazy_counts(ratios: Sequence[Sequence[float]]) -> list[int]:
    """By layer, in how many texts, a list of ratios each, it is among the lazier half."""
    counts = [0] * len(ratios[0])
    for text in ratios:
        ranked = sorted(range(len(text)), key=lambda layer: -text[layer])
        for layer in ranked[:len(text) // 2]:
            counts[layer] += 1
    return counts


def least_lazy(ratios: Sequence[Sequence[float]], budget: int) -> tuple[int, ...]:
    """The layers to keep full: those that are lazy least often, between equals those of the smaller
    mean ratio."""
    counts = lazy_counts(ratios)
    means = [sum(text[layer] for text in ratios) / len(ratios) for layer in range(len(counts))]
    ranked = sorted(range(len(counts)), key=lambda layer: (counts[layer], means[layer]))
    return tuple(sorted(ranked[:budget]))
