"""Scores of given continuations, many at once: by forced output, without generating anything."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from typing import TypeVar

from swaa.client import Client
from swaa.evaluation.cases import Case, Tokenizer
from swaa.recipe import Recipe

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_parallel(work: Callable[[_Item], _Result], items: Sequence[_Item],
                concurrency: int) -> list[_Result]:
    """The results in the items' order; the first error ends it."""
    with concurrent.futures.ThreadPoolExecutor(max(1, concurrency)) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def continuation_score(client: Client, context: Sequence[int], continuation: Sequence[int],
                       recipe: Recipe | str | None) -> tuple[float, bool]:
    """The log-probability of a continuation's tokens after a context's, summed, and whether each
    was the likeliest. Computed in the decode phase, so that D counts."""
    scored = client.generate(
        context, forced_output=continuation, max_tokens=len(continuation), logprobs=1,
        temperature=0.0, tokens_per_delta=0, recipe=recipe).result()
    greedy = all(token.alternatives[0][0] == token.id for token in scored.tokens)
    return sum(scored.logprobs), greedy


def mean_answer_scores(client: Client, cases: Sequence[Case], recipes: Sequence[Recipe],
                       concurrency: int = 32) -> list[float]:
    """For each recipe the mean log-probability per token of the cases' right answers.

    All recipes and cases go to the server together, which puts them into common batches. The cases'
    prompts must be texts.
    """
    tokenizer = Tokenizer(client)

    def split(case: Case) -> tuple[list[int], list[int]]:
        if not isinstance(case.prompt, str):
            raise ValueError("a chat has no text to score its answer after; take a task of texts")
        return tokenizer.split(case.prompt, case.answers[0])

    parts = in_parallel(split, cases, concurrency)

    def score(item: tuple[Recipe, tuple[list[int], list[int]]]) -> float:
        recipe, (context, answer) = item
        return continuation_score(client, context, answer, recipe)[0] / len(answer)

    scores = in_parallel(score, [(recipe, part) for recipe in recipes for part in parts],
                         concurrency)
    count = len(parts)
    return [sum(scores[first:first + count]) / count for first in range(0, len(scores), count)]
