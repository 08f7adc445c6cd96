"""The demo's prompts: the package's prose, the same on every machine, and hidden keys."""

import random

from swaa.evaluation.prose import prose


def story(words=5100):
    """A long prompt: about 6,000 tokens of prose that asks to be continued."""
    return "Notes from a town by the sea.\n\n" + "\n\n".join(prose(words, seed=1)) + "\n\n"


def pass_key_case(case, words=1200):
    """About 1,500 tokens of prose with a five-digit pass key in its first third.

    Returns (prompt, key): the prompt ends where the key's first digit should follow.
    """
    rng = random.Random(1000 + case)
    key = str(rng.randint(10000, 99999))
    paragraphs = prose(words, seed=100 + case)
    place = rng.randint(len(paragraphs) // 6, len(paragraphs) // 3)
    paragraphs.insert(place, f"The pass key is {key}. Remember it. {key} is the pass key.")
    question = "What is the pass key? The pass key is "
    return "\n\n".join(paragraphs) + "\n\n" + question, key
