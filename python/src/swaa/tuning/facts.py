"""Made examples that hide facts in texts and ask for one, to learn to find what a window hides.

Names, wordings, numbers and depths vary, and other facts stand beside the one that is asked for, so
that nothing but finding it helps. `swaa.evaluation.retrieval` asks in words that do not occur here.
"""

from __future__ import annotations

import pydoc_data.topics
import random
from collections.abc import Sequence

from swaa.evaluation.cases import Case

_NAMES = (
    "access code", "locker number", "ticket number", "serial number", "door code",
    "phone extension", "invoice number", "room number", "account number", "magic number",
    "secret number", "case number", "registration number", "answer to the riddle",
    "flight number", "reference", "membership number", "combination of the safe",
    "number on the label", "batch number", "customer number", "PIN", "lucky number", "password",
    "tracking number", "catalogue number", "winning number", "code word in digits",
    "index of the chapter", "number of the patent", "vault code", "order id",
)
_STATEMENTS = (
    "Note: {name} = {value}.", "They agreed on {value} as the {name}.", "The {name}: {value}.",
    "Remember that the {name} has been {value} since May. Again: {value}.", "{value} ({name})",
    "Do not forget the {name}, which reads {value}.", "For the {name} they wrote down {value}.",
    "One important thing here: use {value} for the {name}. Keep {value} in mind.",
    "The {name} was changed to {value} yesterday.", "Somebody had chosen {value} for the {name}.",
    "Here comes the {name}: {value}. Please memorize {value}.",
)
_QUESTIONS = (
    "What was the {name}? It was ", "The {name} of which the text speaks is the number ",
    "Question: What is the {name}?\nAnswer: ", "Which number is the {name}?\n", "The {name}: ",
    "According to the text above, the {name} reads ", "Tell me the {name}.\nWith pleasure: ",
    "Q: Do you remember the {name}?\nA: Yes, it is ", "As was said before, the {name} should be ",
)


def python_texts() -> list[str]:
    """English that every Python has: its manual's topics."""
    return [text for _, text in sorted(pydoc_data.topics.topics.items()) if len(text) > 4000]


def fact_cases(texts: Sequence[str], words: tuple[int, int], count: int, seed: int) -> list[Case]:
    """`count` prompts of a piece of a text, from words[0] to words[1] words long, with one to four
    facts in it and a question for one of them; its value is the answer. The same for the same seed.

    Raises ValueError where no text has so many words.
    """
    long_enough = [lines for lines in (text.splitlines() for text in texts)
                   if sum(len(line.split()) for line in lines) >= words[1]]
    if not long_enough or not 0 < words[0] <= words[1]:
        raise ValueError(f"words: {words[0]} to {words[1]}; none of {len(texts)} texts is so long")
    return [_case(random.Random(f"facts {seed} {number}"), long_enough, words)
            for number in range(count)]


def _case(rng: random.Random, texts: Sequence[Sequence[str]], words: tuple[int, int]) -> Case:
    lines = _piece(rng, rng.choice(texts), rng.randint(*words))
    names = rng.sample(_NAMES, rng.randint(1, 4))
    values = [_number(rng) for _ in names]
    for name, value in zip(names, values):
        statement = rng.choice(_STATEMENTS).format(name=name, value=value)
        lines.insert(rng.randrange(len(lines) + 1), statement)
    question = rng.choice(_QUESTIONS).format(name=names[0])
    return Case("\n".join(lines) + rng.choice(("\n", "\n\n")) + question, (values[0],))


def _piece(rng: random.Random, lines: Sequence[str], words: int) -> list[str]:
    """Lines from anywhere, with the first ones after the last."""
    first = rng.randrange(len(lines))
    piece: list[str] = []
    found = 0
    for line in [*lines[first:], *lines[:first]]:
        if found >= words:
            break
        piece.append(line)
        found += len(line.split())
    return piece


def _number(rng: random.Random) -> str:
    digits = rng.randint(3, 7)
    return str(rng.randrange(10 ** (digits - 1), 10 ** digits))
