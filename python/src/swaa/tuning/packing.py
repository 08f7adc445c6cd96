"""Examples as token ids, and rows that hold several of them side by side.

A row is what a model reads at once. Every document in it has positions of its own from 0 and a
number of its own, by which swaa.tuning.masks keeps them apart: an example gives the same loss in
any company as alone.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence

NO_TARGET = -100
# Rows that still take examples, at most, while they are packed.
_OPEN_ROWS = 64


@dataclasses.dataclass(frozen=True)
class Example:
    """A prompt and the answer to learn."""
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)


@dataclasses.dataclass
class Row:
    """Documents one after another; all lists have one entry for each token."""
    ids: list[int] = dataclasses.field(default_factory=list)
    positions: list[int] = dataclasses.field(default_factory=list)
    # The document's number in this row; -1 for what fills it up.
    documents: list[int] = dataclasses.field(default_factory=list)
    # Positions of the answer are computed in the decode phase.
    is_answer: list[bool] = dataclasses.field(default_factory=list)
    # The next token where it is one of the answer's, else NO_TARGET.
    targets: list[int] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_targets(self) -> int:
        return sum(target != NO_TARGET for target in self.targets)

    def add(self, example: Example) -> None:
        prompt = len(example.prompt_ids)
        self.documents += [self.documents[-1] + 1 if self.documents else 0] * len(example)
        self.ids += [*example.prompt_ids, *example.answer_ids]
        self.positions += range(len(example))
        self.is_answer += [position >= prompt for position in range(len(example))]
        self.targets += [*[NO_TARGET] * (prompt - 1), *example.answer_ids, NO_TARGET]

    def filled(self, tokens: int) -> Row:
        """The row with fillers up to so many tokens, which see one another alone."""
        missing = tokens - len(self)
        return Row(self.ids + [0] * missing, self.positions + list(range(missing)),
                   self.documents + [-1] * missing, self.is_answer + [False] * missing,
                   self.targets + [NO_TARGET] * missing)


def pack(examples: Sequence[Example], row_tokens: int) -> list[Row]:
    """Rows of at most `row_tokens` tokens: each example goes into the first row that has room.

    Raises ValueError for an example that is longer than a row, or that has no prompt or no answer.
    """
    rows: list[Row] = []
    first_open = 0
    for number, example in enumerate(examples):
        if not example.prompt_ids or not example.answer_ids:
            raise ValueError(f"example {number}: its prompt or its answer is empty")
        if len(example) > row_tokens:
            raise ValueError(f"example {number} has {len(example)} tokens, a row {row_tokens}; "
                             "take longer rows or leave it out")
        row = next((row for row in rows[first_open:]
                    if len(row) + len(example) <= row_tokens), None)
        if row is None:
            row = Row()
            rows.append(row)
            first_open = max(first_open, len(rows) - _OPEN_ROWS)
        row.add(example)
    return rows


def steps(examples: Sequence[Example], row_tokens: int, rows_per_step: int,
          seed: int) -> Iterator[list[Row]]:
    """The rows of each step, without end: every epoch packs the examples in an order of its own,
    the same for the same seed. An epoch's last step may have fewer rows."""
    epoch = 0
    while True:
        order = list(examples)
        random.Random(f"order {seed} {epoch}").shuffle(order)
        rows = pack(order, row_tokens)
        for first in range(0, len(rows), rows_per_step):
            yield rows[first:first + rows_per_step]
        epoch += 1
