"""Retrieval tasks made from a seed: pass key, several needles, and values of keys.

Lengths are in words of prose; a word is about 1.25 tokens of SmolLM2's vocabulary.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence

from swaa.evaluation.answers import AnswerTask, begins_with, recalled
from swaa.evaluation.cases import Case
from swaa.evaluation.prose import prose

_COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")


def pass_key(lengths: Sequence[int] = (400, 800, 1200),
             depths: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9), cases: int = 4,
             seed: int = 0) -> AnswerTask:
    """A five-digit number, said twice at a depth of a text (0 its begin, 1 its end), is asked for
    at the end. `cases` of each length and depth."""
    made = []
    for words in lengths:
        for depth in depths:
            for number in range(cases):
                rng = random.Random(f"pass_key {seed} {words} {depth} {number}")
                key = str(rng.randint(10000, 99999))
                paragraphs = prose(words, rng.randrange(1 << 30))
                paragraphs.insert(round(depth * len(paragraphs)),
                                  f"The pass key is {key}. Remember it. {key} is the pass key.")
                prompt = "\n\n".join(paragraphs) + "\n\nWhat is the pass key? The pass key is "
                made.append(Case(prompt, (key,), {"words": words, "depth": depth}))
    return AnswerTask("pass_key", made, 5, begins_with)


def multi_needle(lengths: Sequence[int] = (600, 1200), needles: int = 3, cases: int = 8,
                 seed: int = 0) -> AnswerTask:
    """`needles` boxes of different colours hold a number each, all over the text; all are asked."""
    if not 1 <= needles <= len(_COLOURS):
        raise ValueError(f"needles: {needles}; take 1 to {len(_COLOURS)}")
    made = []
    for words in lengths:
        for number in range(cases):
            rng = random.Random(f"multi_needle {seed} {words} {number}")
            colours = rng.sample(_COLOURS, needles)
            values = [str(rng.randint(100, 999)) for _ in colours]
            paragraphs = prose(words, rng.randrange(1 << 30))
            for colour, value in zip(colours, values):
                paragraphs.insert(rng.randrange(len(paragraphs) + 1),
                                  f"The number in the {colour} box is {value}.")
            names = ", ".join(colours[:-1]) + (" and " if needles > 1 else "") + colours[-1]
            prompt = ("\n\n".join(paragraphs) + f"\n\nThe numbers in the {names} boxes, in this "
                      "order and divided by commas, are")
            made.append(Case(prompt, (" " + ", ".join(values),),
                             {"words": words, "needles": needles}))
    return AnswerTask("multi_needle", made, 6 * needles, recalled)


def key_value(pairs: Sequence[int] = (10, 20), cases: int = 8, seed: int = 0) -> AnswerTask:
    """A JSON object of random names with random values; the value of one is asked for."""
    made = []
    for count in pairs:
        for number in range(cases):
            rng = random.Random(f"key_value {seed} {count} {number}")
            words = [(uuid.UUID(int=rng.getrandbits(128)).hex[:12], str(rng.randint(10000, 99999)))
                     for _ in range(count)]
            place = rng.randrange(count)
            key, value = words[place]
            lines = ",\n".join(f' "{name}": "{held}"' for name, held in words)
            prompt = f'JSON data:\n{{\n{lines}\n}}\n\nThe value of the key "{key}" is "'
            made.append(Case(prompt, (value,),
                             {"pairs": count, "depth": round(place / max(1, count - 1), 2)}))
    return AnswerTask("key_value", made, 6, begins_with)
