"""Question answering over JSONL files, in the formats that benchmarks are published in.

| format | members of a record | graded by |
|---|---|---|
| plain | `prompt` (context and instruction), `question`, `answer` | words |
| longmemeval | `question`, `answer`, `question_date`, `haystack_{dates,sessions}` | words |
| longbench | `context`, `input`, `answers` | words |
| longbench_v2 | `context`, `question`, `choice_A` to `choice_D`, `answer` (a letter) | the letter |

LongMemEval (arXiv 2410.10813) and LongBench (arXiv 2308.14508, 2412.15204) are graded there by
other models or by measures of each data set; words (`contains`, `exact`, `f1`) compare recipes with
one another, not with published figures.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from swaa.evaluation.answers import AnswerTask, chosen_letter, question_answering
from swaa.evaluation.cases import Attribute, Case

_SHORT = "Answer in as few words as possible."


def _plain(record: Mapping[str, Any]) -> tuple[str, list[str], dict[str, Attribute]]:
    return f"{record['prompt']}\n\n{record['question']}", _strings(record["answer"]), {}


def _longmemeval(record: Mapping[str, Any]) -> tuple[str, list[str], dict[str, Attribute]]:
    sessions = []
    for date, turns in zip(record["haystack_dates"], record["haystack_sessions"], strict=True):
        lines = [f"{turn['role']}: {turn['content']}" for turn in turns]
        sessions.append(f"Session of {date}:\n" + "\n".join(lines))
    text = ("Earlier conversations between a user and an assistant:\n\n" + "\n\n".join(sessions)
            + f"\n\nToday is {record['question_date']}. {_SHORT}\n{record['question']}")
    return text, _strings(record["answer"]), {"kind": str(record.get("question_type", ""))}


def _longbench(record: Mapping[str, Any]) -> tuple[str, list[str], dict[str, Attribute]]:
    text = f"{record['context']}\n\n{_SHORT}\n{record['input']}"
    return text, _strings(record["answers"]), {"kind": str(record.get("dataset", ""))}


def _longbench_v2(record: Mapping[str, Any]) -> tuple[str, list[str], dict[str, Attribute]]:
    choices = "\n".join(f"{letter}. {record[f'choice_{letter}']}" for letter in "ABCD")
    text = (f"{record['context']}\n\n{record['question']}\n{choices}\n"
            "Answer with the letter of the right choice alone.")
    if record["answer"] not in tuple("ABCD"):
        raise ValueError(f"answer is {record['answer']!r}, not a letter A to D")
    return text, [record["answer"]], {"kind": str(record.get("domain", "")),
                                      "difficulty": str(record.get("difficulty", ""))}


_Reader = Callable[[Mapping[str, Any]], tuple[str, list[str], dict[str, Attribute]]]
FORMATS: Mapping[str, _Reader] = {"plain": _plain, "longmemeval": _longmemeval,
                                  "longbench": _longbench, "longbench_v2": _longbench_v2}


def question_file(path: str | os.PathLike[str], form: str, *, chat: bool = True,
                  max_tokens: int = 32, limit: int | None = None) -> AnswerTask:
    """A task of a JSONL file's first `limit` records. With `chat`, each is a user's message; else
    text to go on with after "Answer:".

    Raises ValueError for a format that is none, or a record that is not of it, with its line.
    """
    if form not in FORMATS:
        raise ValueError(f"format: {form!r}; take one of {', '.join(FORMATS)}")
    cases: list[Case] = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if limit is not None and len(cases) >= limit:
                break
            if not line.strip():
                continue
            try:
                text, answers, attributes = FORMATS[form](json.loads(line))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}:{number}: no record of the format {form}: "
                                 f"{type(error).__name__} {error}") from None
            if chat:
                cases.append(Case(({"role": "user", "content": text},), tuple(answers), attributes))
            else:
                rights = tuple(f" {answer}" for answer in answers)
                cases.append(Case(f"{text}\nAnswer:", rights, attributes))
    if not cases:
        raise ValueError(f"{path}: no record in it")
    grade = chosen_letter if form == "longbench_v2" else question_answering
    return AnswerTask(form, cases, max_tokens, grade)


def _strings(answer: Any) -> list[str]:
    answers = answer if isinstance(answer, list) else [answer]
    if not answers or not all(str(one).strip() for one in answers):
        raise ValueError("the answer is empty")
    return [str(one) for one in answers]
