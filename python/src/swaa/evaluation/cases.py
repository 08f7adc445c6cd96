"""What a task asks: cases, each with its right answer, and how one case is measured."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Union

from swaa.client import Client
from swaa.generation import Generation, Stats
from swaa.recipe import Recipe

Attribute = Union[int, float, str]


@dataclasses.dataclass(frozen=True)
class Case:
    """One question. `prompt` is text to go on with, or the messages of a chat."""
    prompt: str | tuple[Mapping[str, str], ...]
    # Right answers; the first is the one whose log-probability is measured.
    answers: tuple[str, ...]
    # What the case is an instance of, such as its depth; columns of the tables.
    attributes: Mapping[str, Attribute] = dataclasses.field(default_factory=dict)

    @property
    def id(self) -> str:
        """A digest of what is asked: the same question has the same id in every run."""
        content = json.dumps([self.prompt, self.answers], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one case gave under one recipe."""
    metrics: Mapping[str, float]
    stats: Stats
    answer: str = ""


class Task(Protocol):
    """A kind of question. `measure` is called from several threads at once."""
    name: str

    def cases(self) -> Sequence[Case]:
        """The same ones at every call."""

    def measure(self, client: Client, case: Case, recipe: Recipe | str) -> Measurement:
        """Asks a server. Raises swaa.Error."""


class Tokenizer:
    """Splits texts the way the server does; remembers what it has split. Thread-safe."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], tuple[list[int], list[int]]] = {}

    def split(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """The ids of a context, and those that `continuation` adds to it.

        Both are split as one text, so that a token across the border is the continuation's.
        """
        key = (context, continuation)
        with self._lock:
            if key in self._known:
                return self._known[key]
        whole = self._client.tokenize(context + continuation)
        border = len(self._client.tokenize(context))
        parts = whole[:border], whole[border:]
        if not parts[1]:
            raise ValueError(f"{continuation!r} adds no token to its context")
        with self._lock:
            self._known[key] = parts
        return parts

    def answer(self, text: str) -> list[int]:
        """The ids of a text that follows a special token, as an answer in a chat does."""
        return self.split("\n", text)[1]


def ask(client: Client, prompt: Any, **options: Any) -> Generation:
    """The whole answer to a prompt: text, token ids, or a chat's messages."""
    is_chat = isinstance(prompt, tuple)
    stream = client.chat(prompt, **options) if is_chat else client.generate(prompt, **options)
    return stream.result()


def salt(case: Case, recipe: Recipe | str) -> str:
    """Keeps the cases and recipes of a run out of each other's prefix cache: costs are whole."""
    return hashlib.sha256(f"{case.id} {recipe}".encode()).hexdigest()[:32]
