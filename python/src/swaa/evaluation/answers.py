"""Tasks whose cases have an answer: what the model says, and how likely it finds the right one."""

from __future__ import annotations

import collections
import re
import string
from collections.abc import Callable, Mapping, Sequence

from swaa.client import Client
from swaa.evaluation.cases import Case, Measurement, Tokenizer, ask, salt
from swaa.recipe import Recipe
from swaa.requests import Prompt

Grader = Callable[[str, Case], Mapping[str, float]]


class AnswerTask:
    """Asks greedily, grades what comes, and scores the right answer as forced output.

    Metrics: those of `grade`, and `logprob`, the mean over the right answer's tokens.
    """

    def __init__(self, name: str, cases: Sequence[Case], max_tokens: int, grade: Grader,
                 stop: Sequence[str] = ()) -> None:
        self.name = name
        self._cases = cases
        self._max_tokens = max_tokens
        self._grade = grade
        self._stop = stop
        self._tokenizers: dict[Client, Tokenizer] = {}

    def cases(self) -> Sequence[Case]:
        return self._cases

    def measure(self, client: Client, case: Case, recipe: Recipe | str) -> Measurement:
        tokenizer = self._tokenizers.setdefault(client, Tokenizer(client))
        prompt: Prompt | tuple[Mapping[str, str], ...] = case.prompt
        if isinstance(case.prompt, str):
            prompt, right = tokenizer.split(case.prompt, case.answers[0])
        else:
            right = tokenizer.answer(case.answers[0])
        shared = {"recipe": recipe, "temperature": 0.0, "cache_salt": salt(case, recipe)}
        said = ask(client, prompt, max_tokens=self._max_tokens, stop=self._stop, **shared)
        scored = ask(client, prompt, forced_output=right, max_tokens=len(right), logprobs=0,
                     tokens_per_delta=0, **shared)
        metrics = dict(self._grade(said.text, case))
        metrics["logprob"] = sum(scored.logprobs) / len(scored.logprobs)
        return Measurement(metrics, said.stats, said.text)


def normalize(text: str) -> str:
    """Lower case without punctuation and articles, as SQuAD's measures compare answers."""
    text = "".join(" " if c in string.punctuation else c for c in text.lower())
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def token_f1(said: str, right: str) -> float:
    """The harmonic mean of precision and recall over the words of normalized texts."""
    words, wanted = normalize(said).split(), normalize(right).split()
    common = sum((collections.Counter(words) & collections.Counter(wanted)).values())
    return 2 * common / (len(words) + len(wanted)) if common else float(words == wanted)


def begins_with(said: str, case: Case) -> Mapping[str, float]:
    return {"exact": float(any(said.strip().startswith(right) for right in case.answers))}


def recalled(said: str, case: Case) -> Mapping[str, float]:
    """`recall`: the share of the first answer's words that were said; `exact`: all of them."""
    words = case.answers[0].replace(",", " ").split()
    found = sum(word in said for word in words)
    return {"recall": found / len(words), "exact": float(found == len(words))}


def question_answering(said: str, case: Case) -> Mapping[str, float]:
    """`contains`: a right answer stands in what was said; `exact`: nothing else; `f1`: token_f1."""
    rights = [normalize(right) for right in case.answers]
    normal = normalize(said)
    return {"contains": float(any(f" {right} " in f" {normal} " for right in rights)),
            "exact": float(normal in rights),
            "f1": max(token_f1(said, right) for right in case.answers)}


def chosen_letter(said: str, case: Case) -> Mapping[str, float]:
    """`exact`: the first letter A to D that stands alone is the right one."""
    match = re.search(r"\b([A-D])\b", said)
    return {"exact": float(match is not None and match.group(1) == case.answers[0].strip())}
