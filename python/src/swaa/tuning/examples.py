"""Examples from prompts: token ids as the server splits and renders them, one JSON line each.

Answers are given, or they are what full attention says (self-distillation), which the server is
asked for; where a right answer is known, what full attention says without it is left out.
"""

from __future__ import annotations

import collections
import concurrent.futures
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from swaa.client import Client
from swaa.evaluation.answers import question_answering
from swaa.evaluation.cases import Case, Tokenizer, ask
from swaa.evaluation.records import question_file
from swaa.evaluation.runner import read_records
from swaa.generation import Generation
from swaa.recipe import Recipe
from swaa.tuning.packing import Example

ANSWERS = ("given", "full-attention")
# Beside those of swaa.evaluation.records: texts to go on with, and chats.
FORMATS = ("completion", "chat")


class Splitter(Protocol):
    """Ids of a context, and those that its continuation adds to it."""

    def split(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Both of one text."""


class LocalTokenizer:
    """A model's tokenizer by transformers, which needs no server; it needs `swaa[tune]`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        import transformers
        path = pathlib.Path(path)
        where = {"gguf_file": path.name} if path.is_file() else {}
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(
            path.parent if path.is_file() else path, local_files_only=True, **where)

    def split(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        whole = list(self._tokenizer(context + continuation).input_ids)
        border = len(self._tokenizer(context).input_ids)
        return whole[:border], whole[border:]


def read_cases(path: str | os.PathLike[str], form: str, chat: bool = True) -> Sequence[Case]:
    """The prompts of a JSONL file. `completion`: `prompt`, a text to go on with, and `answer`;
    `chat`: `messages`, as Client.chat takes them, and `answer`; both may lack the answer. Others
    are swaa.evaluation.records'. Raises ValueError with the line of what is no such record."""
    if form not in FORMATS:
        return question_file(path, form, chat=chat).cases()
    cases = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                answers = (record["answer"],) if "answer" in record else ()
                prompt = record["prompt"] if form == "completion" else tuple(record["messages"])
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}:{number}: no record of the format {form}: "
                                 f"{type(error).__name__} {error}") from None
            cases.append(Case(prompt, answers))
    return cases


def write_cases(path: str | os.PathLike[str], cases: Sequence[Case]) -> None:
    """Texts with an answer, in the format `completion`."""
    with open(path, "w", encoding="utf-8") as out:
        for case in cases:
            out.write(json.dumps({"prompt": case.prompt, "answer": case.answers[0]}) + "\n")


def read_examples(path: str | os.PathLike[str]) -> list[Example]:
    """What prepare wrote, in an order that does not depend on who answered first."""
    records = [record for record in read_records(pathlib.Path(path)) if "answer_ids" in record]
    return [Example(tuple(record["prompt_ids"]), tuple(record["answer_ids"]))
            for record in sorted(records, key=lambda record: str(record["case"]))]


def prepare(cases: Sequence[Case], path: str | os.PathLike[str], client: Client | None, *,
            answers: str = "given", splitter: Splitter | None = None, max_tokens: int = 512,
            concurrency: int = 8,
            progress: Callable[[int, int], None] | None = None) -> Mapping[str, int]:
    """Makes examples of cases, into a file from which a run that broke off goes on.

    `client` may be None where answers are given, prompts are texts, and there is a splitter.
    Returns how many became examples (`kept`), were `wrong`, or did not end within `max_tokens`
    (`cut`). Raises ValueError for cases that lack what is asked for, and swaa.Error.
    """
    if answers not in ANSWERS:
        raise ValueError(f"answers: {answers!r}; take one of {', '.join(ANSWERS)}")
    maker = _Maker(client, answers, splitter, max_tokens)
    known = {record["case"]: record for record in read_records(pathlib.Path(path))}
    missing = [case for case in {case.id: case for case in cases}.values() if case.id not in known]
    outcomes = collections.Counter(str(record["outcome"]) for record in known.values())
    with open(path, "a", encoding="utf-8") as out, \
            concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        if out.tell():
            out.write("\n")  # Ends a line that a crash cut off.
        futures = [pool.submit(maker.record, case) for case in missing]
        try:
            for number, future in enumerate(concurrent.futures.as_completed(futures), 1):
                record = future.result()
                outcomes[record["outcome"]] += 1
                out.write(json.dumps(record) + "\n")
                out.flush()
                if progress is not None:
                    progress(number, len(missing))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return outcomes


class _Maker:
    """Makes the records of cases; for several threads."""

    def __init__(self, client: Client | None, answers: str, splitter: Splitter | None,
                 max_tokens: int) -> None:
        self._client = client
        self._answers = answers
        self._splitter = splitter or (Tokenizer(client) if client is not None else None)
        self._max_tokens = max_tokens

    def record(self, case: Case) -> dict[str, Any]:
        if self._answers == "given":
            if not case.answers:
                raise ValueError("a prompt has no answer; give all of them, or let full attention "
                                 "answer")
            prompt, answer = (self._given_text(case) if isinstance(case.prompt, str)
                              else self._given_chat(case))
            return self._example(case, prompt, answer)
        said = self._ask(case.prompt, max_tokens=self._max_tokens)
        if case.answers and not question_answering(said.text, case)["contains"]:
            return {"case": case.id, "outcome": "wrong"}
        if not isinstance(case.prompt, str) and said.finish_reason != "stop":
            return {"case": case.id, "outcome": "cut"}
        return self._example(case, [token.id for token in said.prompt], said.ids)

    @staticmethod
    def _example(case: Case, prompt: Sequence[int], answer: Sequence[int]) -> dict[str, Any]:
        return {"case": case.id, "outcome": "kept", "prompt_ids": list(prompt),
                "answer_ids": list(answer)}

    def _given_text(self, case: Case) -> tuple[list[int], list[int]]:
        if self._splitter is None:
            raise ValueError("neither a server nor a tokenizer to split texts; give one of them")
        return self._splitter.split(str(case.prompt), case.answers[0])

    def _given_chat(self, case: Case) -> tuple[list[int], list[int]]:
        """The answer as the chat template writes it, with the token that ends a turn."""
        prompt = self._rendered(case.prompt)
        turn = {"role": "assistant", "content": case.answers[0]}
        whole = self._rendered((*case.prompt, turn))
        ends = set(self._server().model_info().eos_token_ids)
        end = next((place for place, token in enumerate(whole)
                    if place >= len(prompt) and token in ends), None)
        if whole[:len(prompt)] != prompt or end is None:
            raise ValueError("the chat template does not write an answer where the model begins "
                             "one; let full attention answer instead")
        return prompt, whole[len(prompt):end + 1]

    def _rendered(self, messages: Any) -> list[int]:
        # Under the smallest window reading costs least.
        read = self._ask(messages, recipe=Recipe(1), max_tokens=1)
        return [token.id for token in read.prompt]

    def _ask(self, prompt: Any, **options: Any) -> Generation:
        return ask(self._server(), prompt, **{"recipe": Recipe(), "temperature": 0.0,
                                              "prompt_logprobs": 0, **options})

    def _server(self) -> Client:
        if self._client is None:
            raise ValueError("there is no server, which chats and full attention's answers need")
        return self._client
