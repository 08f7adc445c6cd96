"""What makes a tuning run the run it is."""

from __future__ import annotations

import dataclasses
import math

from swaa.recipe import Recipe

TARGETS = ("answers", "full-attention")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Rank, alpha, rsLoRA and modules are those of SWAA's paper (arXiv 2512.10411)."""
    recipe: Recipe
    steps: int
    # What is learnt: the answers' tokens, or full attention's distribution over each of them.
    targets: str = "answers"
    row_tokens: int = 2048
    rows_per_step: int = 4
    learning_rate: float = 3e-4
    warm_up_steps: int = 20
    rank: int = 16
    alpha: int = 32
    modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    seed: int = 0

    def check(self) -> None:
        """Raises ValueError for what cannot be."""
        if self.targets not in TARGETS:
            raise ValueError(f"targets: {self.targets!r}; take one of {', '.join(TARGETS)}")
        for field in ("steps", "row_tokens", "rows_per_step", "rank", "alpha"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}: {getattr(self, field)}; take at least 1")

    def learning_rate_at(self, step: int) -> float:
        """Rises linearly, then falls as a cosine to a tenth; steps count from 0."""
        if step < self.warm_up_steps:
            return self.learning_rate * (step + 1) / self.warm_up_steps
        part = min(1.0, (step - self.warm_up_steps) / max(1, self.steps - self.warm_up_steps))
        return self.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * part)))


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a step did."""
    step: int
    # Mean over the step's answer tokens, in nats: the cross entropy, or the divergence.
    loss: float
    learning_rate: float
    tokens: int
    seconds: float
