"""Tasks without a right answer: how far from full attention, and how well a text is predicted."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

from swaa.client import Client
from swaa.evaluation.cases import Case, Measurement, ask, salt
from swaa.evaluation.prose import prose
from swaa.generation import Token
from swaa.recipe import Recipe

_ALTERNATIVES = 20  # The most that a server gives.


def made_texts(count: int, words: int, seed: int) -> list[str]:
    """Texts of prose, for where no file of one's own is at hand."""
    rng = random.Random(f"texts {seed}")
    return ["\n\n".join(prose(words, rng.randrange(1 << 30))) for _ in range(count)]


class Agreement:
    """Full attention goes on with each text; each recipe scores the same tokens as forced output.

    Metrics, means over these tokens: `equal_argmax`, the share at which both would choose the same;
    `kl`, the divergence of the recipe's distribution from full attention's in nats, over full
    attention's 20 likeliest tokens that the recipe's 20 hold too and one class of all others, which
    makes it a lower bound; `logprob_loss`, full attention's log-probability less the recipe's.
    """
    name = "agreement"

    def __init__(self, texts: Sequence[str], max_tokens: int = 32) -> None:
        self._texts = texts
        self._max_tokens = max_tokens

    def cases(self) -> Sequence[Case]:
        return [Case(text, ("",), {"text": number}) for number, text in enumerate(self._texts)]

    def measure(self, client: Client, case: Case, recipe: Recipe | str) -> Measurement:
        options = {"temperature": 0.0, "max_tokens": self._max_tokens, "ignore_eos": True,
                   "logprobs": _ALTERNATIVES, "tokens_per_delta": 0}
        # Every recipe is compared with this same one; the prefix cache gives it after the first,
        # and gives the recipes nothing, full attention itself included.
        full = ask(client, case.prompt, recipe=Recipe(), cache_salt=salt(case, "reference"),
                   **options)
        other = ask(client, case.prompt, recipe=recipe, forced_output=full.ids,
                    cache_salt=salt(case, recipe), **options)
        pairs = list(zip(full.tokens, other.tokens, strict=True))
        count = len(pairs)
        return Measurement({
            "equal_argmax": sum(a.alternatives[0][0] == b.alternatives[0][0]
                                for a, b in pairs) / count,
            "kl": sum(coarse_kl(a, b) for a, b in pairs) / count,
            "logprob_loss": (sum(full.logprobs) - sum(other.logprobs)) / count,
        }, other.stats, full.text)


def coarse_kl(reference: Token, other: Token) -> float:
    """The divergence of `other` from `reference` over the alternatives of both and one class of all
    the rest, in nats: at most the true one, by the data-processing inequality."""
    known = dict(other.alternatives)
    both = [(p, known[token]) for token, p in reference.alternatives if token in known]
    total = sum(math.exp(p) * (p - q) for p, q in both)
    rest = 1 - sum(math.exp(p) for p, _ in both)
    other_rest = 1 - sum(math.exp(q) for _, q in both)
    # Rounding may leave less than nothing of the rest.
    if rest > 1e-9:
        total += rest * math.log(rest / max(other_rest, 1e-9))
    return max(total, 0.0)


class Perplexity:
    """The negative log-probability of each token of a text, given those before it, by position.

    The whole text is prompt: what a recipe does while decoding (D) does not show. Metrics: `nll`,
    the mean in nats, and `nll_FIRST_END` of the tokens at positions from FIRST below END.
    """
    name = "perplexity"

    def __init__(self, texts: Sequence[str], bucket_tokens: int = 512) -> None:
        self._texts = texts
        self._bucket_tokens = bucket_tokens

    def cases(self) -> Sequence[Case]:
        return [Case(text, ("",), {"text": number}) for number, text in enumerate(self._texts)]

    def measure(self, client: Client, case: Case, recipe: Recipe | str) -> Measurement:
        read = ask(client, case.prompt, recipe=recipe, max_tokens=1, prompt_logprobs=0)
        losses = [-token.logprob for token in read.prompt if token.logprob is not None]
        metrics = {"nll": sum(losses) / len(losses)}
        metrics |= self._buckets(losses)
        return Measurement(metrics, read.stats)

    def _buckets(self, losses: Sequence[float]) -> Mapping[str, float]:
        # losses[i] is that of position i + 1: the first has none.
        buckets = {}
        for first in range(0, len(losses) + 1, self._bucket_tokens):
            part = losses[max(first - 1, 0):first + self._bucket_tokens - 1]
            if part:
                buckets[f"nll_{first}_{first + self._bucket_tokens}"] = sum(part) / len(part)
        return buckets
