"""What a recipe makes visible, for rows of packed documents: the server's own formula.

    visible(l, i, j)  =  j <= i  and  (l in F  or  i - j < W  or  j < K  or  (l in D and i >= P))

i and j are positions within one document of P prompt tokens, l is a layer; different documents
never see one another. Works on the arrays of NumPy and of PyTorch alike.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from swaa.recipe import Layers, Recipe, Stride


@dataclasses.dataclass(frozen=True)
class LayerMask:
    """What one layer sees; layers of the same mask are equal."""
    # Keys in the window, the query's own position included; None: it sees everything.
    window: int | None = None
    sinks: int = 0
    # Whether positions of the answer see everything.
    full_decode: bool = False


def layer_indices(layers: Layers | None, num_layers: int, field: str) -> set[int]:
    """The layers that a recipe's field selects. Raises ValueError for what a server refuses."""
    if layers is None:
        return set()
    if layers == "all":
        return set(range(num_layers))
    if isinstance(layers, Stride):
        if layers.step < 1:
            raise ValueError(f"{field}: step {layers.step}; take at least 1")
        chosen = set(range(layers.first, num_layers, layers.step))
    else:
        chosen = set(layers)
    wrong = sorted(layer for layer in chosen if not 0 <= layer < num_layers)
    if wrong or not chosen:
        raise ValueError(f"{field}: {wrong or 'no layer'}; the model has layers 0 to "
                         f"{num_layers - 1}")
    return chosen


def layer_masks(recipe: Recipe, num_layers: int) -> list[LayerMask]:
    """The mask of every layer. Raises ValueError for a recipe that a server refuses."""
    window = recipe.sliding_window_tokens
    if window is None:
        for field in ("sink_tokens", "full_attention_layers", "full_attention_decode"):
            if getattr(recipe, field) is not None:
                raise ValueError(f"recipe.{field}: set without sliding_window_tokens; set a window "
                                 "or drop it")
        return [LayerMask()] * num_layers
    if window < 1:
        raise ValueError(f"recipe.sliding_window_tokens: {window}; take at least 1")
    full = layer_indices(recipe.full_attention_layers, num_layers, "recipe.full_attention_layers")
    decode = layer_indices(recipe.full_attention_decode, num_layers, "recipe.full_attention_decode")
    return [LayerMask() if layer in full
            else LayerMask(window, recipe.sink_tokens or 0, layer in decode)
            for layer in range(num_layers)]


def visible(mask: LayerMask, same_document: Any, query_position: Any, key_position: Any,
            query_is_answer: Any) -> Any:
    """Whether queries see keys: booleans of the shape that the arguments, arrays of numbers or
    booleans for queries and for keys, broadcast to. Positions count within their documents."""
    seen = same_document & (key_position <= query_position)
    if mask.window is None:
        return seen
    near = (query_position - key_position < mask.window) | (key_position < mask.sinks)
    if mask.full_decode:
        near = near | query_is_answer
    return seen & near
