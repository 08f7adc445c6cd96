"""The server as a model of EleutherAI's lm-evaluation-harness: its tasks under any recipe.

    import lm_eval
    from swaa.evaluation.lm_harness import SwaaModel

    model = SwaaModel(address="127.0.0.1:50051", recipe="W=512,K=16,F=odd,D=all")
    results = lm_eval.simple_evaluate(model=model, tasks=["lambada_openai"], limit=100)

Needs the extra `swaa[lm-eval]`. Importing it registers the model as `swaa`, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from swaa.client import Client
from swaa.evaluation.cases import Tokenizer
from swaa.evaluation.scoring import continuation_score, in_parallel
from swaa.recipe import Recipe


@register_model("swaa")
class SwaaModel(LM):  # type: ignore[misc]
    """Log-likelihoods are scored as forced output, so that they count as decoded: D matters.

    `recipe` is a name of the server's, or a text that Recipe.parse takes; in the harness's own
    model_args, where commas divide, write semicolons: recipe=W=512;K=16.
    """

    def __init__(self, address: str = "127.0.0.1:50051", recipe: str = "full",
                 concurrency: int | str = 16, max_tokens: int | str = 256, **_: Any) -> None:
        super().__init__()
        self._client = Client(address)
        self._tokenizer = Tokenizer(self._client)
        named = self._client.recipes()
        self._recipe: Recipe | str = recipe
        if recipe not in named:
            self._recipe = Recipe.parse(recipe.replace(";", ","))
        self._concurrency = int(concurrency)
        self._max_tokens = int(max_tokens)
        info = self._client.model_info()
        self._context_tokens = info.max_context_tokens
        self._first_token = info.eos_token_ids[0]

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False
                      ) -> list[tuple[float, bool]]:
        """Of (context, continuation); an empty context is the model's end token, as for others."""
        return in_parallel(self._score, [request.args for request in requests], self._concurrency)

    def _score(self, texts: tuple[str, str]) -> tuple[float, bool]:
        context, continuation = texts
        if context:
            # A space at the border belongs to the token behind it.
            blank = len(context) - len(context.rstrip())
            if blank and context.rstrip():
                context, continuation = context[:-blank], context[-blank:] + continuation
            before, after = self._tokenizer.split(context, continuation)
        else:
            before, after = [self._first_token], self._client.tokenize(continuation)
        # What is too long loses its begin, as the harness's own models do it.
        before = before[max(0, len(before) + len(after) - self._context_tokens):]
        return continuation_score(self._client, before, after, self._recipe)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False
                              ) -> list[float]:
        """Of whole texts, in windows of the model's context that do not overlap."""
        return in_parallel(self._score_text, [request.args[0] for request in requests],
                           self._concurrency)

    def _score_text(self, text: str) -> float:
        windows = get_rolling_token_windows(
            token_list=self._client.tokenize(text), prefix_token=self._first_token,
            max_seq_len=self._context_tokens - 1, context_len=1)
        scores = [continuation_score(self._client, before, after, self._recipe)[0]
                  for before, after in map(make_disjoint_window, windows)]
        return float(sum(scores))

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Goes on with each text until one of its stops."""
        return in_parallel(self._generate, [request.args for request in requests],
                           self._concurrency)

    def _generate(self, arguments: tuple[str, dict[str, Any]]) -> str:
        context, wanted = arguments
        stops = wanted.get("until") or []
        temperature = float(wanted.get("temperature", 0.0)) if wanted.get("do_sample") else 0.0
        return self._client.generate(
            context, recipe=self._recipe, temperature=temperature,
            max_tokens=int(wanted.get("max_gen_toks", self._max_tokens)),
            stop=[stops] if isinstance(stops, str) else list(stops),
            tokens_per_delta=0).result().text
