"""What is published for models that are known by name: recipes with what they reached, and layers.

Accuracies are percentages on LongMemEval cut to 24,000 tokens, from the paper of SWAA (arXiv
2512.10411). A preset is a place to begin: measure it on your own traffic (swaa.evaluation).
"""

from __future__ import annotations

import dataclasses

from swaa.recipe import Recipe

_PAPER = "SWAA, arXiv 2512.10411: LongMemEval-24k"


@dataclasses.dataclass(frozen=True)
class Preset:
    """One recipe that was measured for one model."""
    model: str
    recipe: Recipe
    source: str
    # Percent of the questions that were answered right; None: not published.
    accuracy: float | None
    # With a LoRA adapter that was tuned under this recipe.
    tuned_accuracy: float | None


def _measured(model: str, rows: tuple[tuple[str, float | None, float | None], ...]
              ) -> tuple[Preset, ...]:
    return tuple(Preset(model, Recipe.parse(recipe), _PAPER, accuracy, tuned)
                 for recipe, accuracy, tuned in rows)


PRESETS: tuple[Preset, ...] = (
    *_measured("qwen3-4b-thinking-2507", (
        ("full", 73.0, 74.6),
        ("W=4096,K=100,F=odd,D=all", 73.0, None),
        ("W=2048,K=100,F=odd,D=all", 68.8, None),
        ("W=2048,F=odd,D=all", None, 73.2),
        ("W=2048,K=10,F=1:4,D=all", 53.2, None),
        ("W=2048,F=1:4,D=all", None, 68.8),
        ("W=2048,K=10,F=odd", 25.8, None),
        ("W=2048,F=odd", None, 63.6),
        ("W=2048,K=100,D=all", 50.0, None),
        ("W=2048,D=all", None, 62.2),
        ("W=2048", 3.2, 18.8))),
    *_measured("qwen3-4b-instruct-2507", (
        ("full", 62.0, 63.4),
        ("W=4096,K=100,F=odd,D=all", 54.2, None),
        ("W=2048,K=100,F=odd,D=all", 50.6, None),
        ("W=2048,F=odd,D=all", None, 58.8),
        ("W=2048,K=10,F=1:4,D=all", 31.4, None),
        ("W=2048,F=1:4,D=all", None, 47.0),
        ("W=2048,K=10,F=odd", 36.4, None),
        ("W=2048,F=odd", None, 54.6),
        ("W=2048,K=100,D=all", 17.8, None),
        ("W=2048,D=all", None, 42.6),
        ("W=2048", 11.0, 23.8))),
)

# Layers that LightTransfer's count of lazy layers (arXiv 2410.13846) keeps full, half of each
# model, as the authors of SWAA publish them; they report no stable gain over every second layer.
LIGHT_TRANSFER: dict[str, tuple[int, ...]] = {
    "qwen3-4b-thinking-2507": (1, 2, 3, 4, 5, 6, 17, 18, 24, 26, 27, 28, 29, 30, 31, 32, 33, 34),
    "qwen3-30b-a3b-thinking-2507": (0, 1, 2, 5, 6, 10, 11, 14, 15, 17, 18, 19, 22, 23, 25, 26, 27,
                                    30, 34, 39, 43, 44, 45, 46),
    "llama-3.1-8b-instruct": (0, 1, 4, 5, 8, 9, 10, 11, 13, 14, 21, 23, 24, 25, 26, 27),
}


def presets_for(model: str) -> list[Preset]:
    """The recipes measured for a model, whose name, such as Qwen/Qwen3-4B-Instruct-2507, ends with
    the preset's; empty where there are none."""
    return [preset for preset in PRESETS if model.lower().endswith(preset.model)]


def lazy_layers_for(model: str) -> tuple[int, ...] | None:
    """LightTransfer's full layers of a model, found as presets_for does; None: not published."""
    return next((layers for name, layers in LIGHT_TRANSFER.items()
                 if model.lower().endswith(name)), None)
