"""A transformers model whose layers see what a recipe makes visible.

Its attention is replaced by one function, registered with transformers under the name `ATTENTION`,
which takes the masks of the row that is read from the call's own arguments: no state is shared. On
a GPU FlexAttention skips the blocks of a mask that nobody sees; elsewhere PyTorch's scaled dot
product attention gets the mask whole.
"""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import torch
import transformers

from swaa.tuning.masks import LayerMask, visible
from swaa.tuning.packing import NO_TARGET, Row

ATTENTION = "swaa_recipe"
# FlexAttention's blocks have so many positions.
_FLEX_BLOCK = 128


class RowMasks:
    """The masks of one row, for all layers.

    Made for one pass over `row` on `device`; layers of the same kind share one mask.
    """

    def __init__(self, row: Row, layers: Sequence[LayerMask], device: Any) -> None:
        self._layers = layers
        self._flex = torch.device(device).type == "cuda"
        document, position, is_answer = (
            torch.tensor(values, device=device)
            for values in (row.documents, row.positions, row.is_answer))

        def mask(kind: LayerMask) -> Any:
            if not self._flex:
                return visible(kind, document[:, None] == document[None, :], position[:, None],
                               position[None, :], is_answer[:, None])[None, None]

            def seen(batch: Any, head: Any, query: Any, key: Any) -> Any:
                return visible(kind, document[query] == document[key], position[query],
                               position[key], is_answer[query])

            return _flex().create_block_mask(
                seen, None, None, len(row), len(row), device=device, BLOCK_SIZE=_FLEX_BLOCK)

        self._masks = {kind: mask(kind) for kind in set(layers)}

    def attend(self, layer: int, query: Any, key: Any, value: Any, scaling: float) -> Any:
        """Attention of `layer`; query [1, heads, tokens, head_dim], keys and values of as many or
        fewer heads. Returns [1, tokens, heads, head_dim]."""
        mask = self._masks[self._layers[layer]]
        if self._flex:
            attended = _compiled_flex()(query, key, value, block_mask=mask, scale=scaling,
                                        enable_gqa=query.shape[1] != key.shape[1])
        else:
            groups = query.shape[1] // key.shape[1]
            attended = torch.nn.functional.scaled_dot_product_attention(
                query, key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1),
                attn_mask=mask, scale=scaling)
        return attended.transpose(1, 2).contiguous()


def _flex() -> Any:
    from torch.nn.attention import flex_attention
    return flex_attention


@functools.cache
def _compiled_flex() -> Any:
    # Not compiled it would hold all scores of a row.
    return torch.compile(_flex().flex_attention)


def _attention(module: Any, query: Any, key: Any, value: Any, attention_mask: Any,
               scaling: float, recipe_masks: Any = None, **_: Any) -> tuple[Any, None]:
    """What transformers calls in every layer; `recipe_masks` comes from the model's caller, and
    has `attend`."""
    if recipe_masks is None:
        raise ValueError("recipe_masks: missing; call the model through swaa.tuning.model")
    return recipe_masks.attend(module.layer_idx, query, key, value, scaling), None


transformers.AttentionInterface.register(ATTENTION, _attention)


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_base(path: str | os.PathLike[str], device: str, dtype: Any) -> Any:
    """The base model from a folder as Hugging Face has them, or from a GGUF file, whose quantized
    weights become `dtype`: the weights that a server computes with. Raises what transformers does
    for a model that it does not know, OSError for files that are missing."""
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"model: there is no {path}")
    where = {"gguf_file": path.name} if path.is_file() else {}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent if path.is_file() else path, dtype=dtype, attn_implementation=ATTENTION,
        local_files_only=True, **where)
    model.name_or_path = str(path)  # What PEFT writes down as the base.
    return model.to(device).requires_grad_(False)


def row_for(row: Row, row_tokens: int, device: str) -> Row:
    """The row as `device` reads it best: on a GPU all of one length, of whole blocks, so that the
    attention is compiled once."""
    if torch.device(device).type != "cuda":
        return row
    return row.filled(-(-row_tokens // _FLEX_BLOCK) * _FLEX_BLOCK)


def answer_logits(model: Any, row: Row, masks: Any, device: str) -> tuple[Any, Any]:
    """Logits [targets, vocabulary] at the positions that have a target, and the targets."""
    targets = torch.tensor(row.targets, device=device)
    kept = (targets != NO_TARGET).nonzero()[:, 0]
    logits = model(
        input_ids=torch.tensor([row.ids], device=device),
        position_ids=torch.tensor([row.positions], device=device), use_cache=False,
        logits_to_keep=kept, recipe_masks=masks).logits[0]
    return logits.float(), targets[kept]
