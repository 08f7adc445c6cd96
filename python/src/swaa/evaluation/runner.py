"""Runs tasks under recipes against a server, into a folder from which a run that broke off goes on.

The folder has `run.json`, which says what was measured, and `records.jsonl`: a line for each case
under each recipe, written as it is done.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from swaa.client import Client
from swaa.evaluation.cases import Case, Task
from swaa.evaluation.prose import prose
from swaa.evaluation.scoring import in_parallel
from swaa.recipe import Recipe

# How many are done, and of how many.
Progress = Callable[[int, int], None]
Recipes = Mapping[str, Recipe]


class RunMismatch(Exception):
    """The folder holds a run against another model."""


def parse_recipes(text: str, client: Client) -> dict[str, Recipe]:
    """Recipes by their labels, from names of the server's and texts that Recipe.parse takes,
    divided by semicolons. Raises ValueError for what is neither."""
    named = client.recipes()
    recipes = {}
    for part in text.split(";"):
        label = part.strip()
        if label in named:
            recipes[label] = named[label]
            continue
        if "=" not in label and label != "full":
            raise ValueError(f"there is no recipe {label!r}; there are {', '.join(sorted(named))}; "
                             "one in full is written like W=512,K=16,F=odd,D=all")
        recipes[str(Recipe.parse(label))] = Recipe.parse(label)
    return recipes


def warm_up(client: Client, requests: int, concurrency: int = 8) -> bool:
    """Sends short requests, `requests` at most, until the server's step-time model knows what steps
    that prefill, decode and do both cost; whether it does."""
    rng = random.Random(0)

    def one(words: int) -> bool:
        # Of different lengths, so that some prefill while others decode.
        answer = client.generate("\n\n".join(prose(words, words)), max_tokens=rng.randint(2, 12),
                                 temperature=0.0, ignore_eos=True, cache_salt=str(rng.random()))
        return answer.result().stats.attributed_device_seconds is not None

    known = 0
    for _ in range(0, requests, concurrency):
        lengths = [rng.randint(20, 200) for _ in range(concurrency)]
        # Three rounds in a row: one alone may have met none of a kind that is still unknown.
        known = known + 1 if all(in_parallel(one, lengths, concurrency)) else 0
        if known == 3:
            return True
    return False


def evaluate(client: Client, tasks: Sequence[Task], recipes: Recipes,
             folder: str | os.PathLike[str], *, concurrency: int = 8,
             progress: Progress | None = None) -> None:
    """Measures every case under every recipe; what the folder holds already is not measured again.

    Raises swaa.Error where the server refuses, with all that was written kept, and RunMismatch.
    """
    path = pathlib.Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    _check_run(client, path / "run.json")
    records = path / "records.jsonl"
    done = {_key(record) for record in read_records(records)}
    work = [(task, case, label, recipe) for task in tasks for case in task.cases()
            for label, recipe in recipes.items() if (task.name, case.id, label) not in done]
    total = len(work)
    # A line that a crash cut off is ended here, so that the next one stands alone.
    torn = records.exists() and not records.read_bytes().endswith(b"\n") and records.stat().st_size
    with open(records, "a", encoding="utf-8") as out, \
            concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        if torn:
            out.write("\n")
        futures = [pool.submit(_measure, client, *item) for item in work]
        try:
            for number, future in enumerate(concurrent.futures.as_completed(futures), 1):
                out.write(json.dumps(future.result()) + "\n")
                out.flush()
                if progress is not None:
                    progress(number, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def print_progress(done: int, total: int) -> None:
    """A line that is drawn over; nothing where nobody looks."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{done} of {total}", end=end, file=sys.stderr, flush=True)


def read_records(path: pathlib.Path) -> list[dict[str, Any]]:
    """The records of a file; none where there is no file. A line that was cut off is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def _key(record: Mapping[str, Any]) -> tuple[str, str, str]:
    return record["task"], record["case"], record["recipe"]


def _measure(client: Client, task: Task, case: Case, label: str, recipe: Recipe) -> dict[str, Any]:
    measured = task.measure(client, case, recipe)
    return {"task": task.name, "case": case.id, "recipe": label,
            "recipe_config": recipe.to_config(), "attributes": dict(case.attributes),
            "metrics": dict(measured.metrics), "stats": dataclasses.asdict(measured.stats),
            "answer": measured.answer}


def _check_run(client: Client, path: pathlib.Path) -> None:
    model, server = client.model_info(), client.server_info()
    facts = {"model": model.served_model_name, "num_layers": model.num_layers,
             "max_context_tokens": model.max_context_tokens, "backend": server.backend,
             "device": server.device, "server_version": server.version}
    if not path.exists():
        path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        return
    known = json.loads(path.read_text(encoding="utf-8"))
    for name in ("model", "num_layers", "backend"):
        if known[name] != facts[name]:
            raise RunMismatch(f"{path}: the run is of {name} {known[name]!r}, the server's is "
                              f"{facts[name]!r}; take another folder")
