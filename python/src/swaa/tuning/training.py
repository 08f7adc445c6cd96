"""LoRA under a recipe's mask: steps, checkpoints, and an adapter in PEFT's form.

The folder of a run is the adapter itself, `adapter_config.json` and `adapter_model.safetensors`,
which a server loads; its `training/` has what a run that broke off goes on from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import peft
import torch

from swaa.tuning.masks import LayerMask, layer_masks
from swaa.tuning.model import RowMasks, answer_logits, row_for
from swaa.tuning.packing import Example, Row, pack, steps
from swaa.tuning.settings import Progress, Settings


def train(base: Any, examples: Sequence[Example], settings: Settings,
          folder: str | os.PathLike[str], *, device: str = "cpu", checkpoint_every: int = 50,
          report: Callable[[Progress], None] | None = None) -> Any:
    """Tunes an adapter of `base`, which swaa.tuning.model.load_base loaded, into `folder`.

    A run that broke off goes on from its last checkpoint when it is called again, and ends with the
    same adapter as one that did not. Returns the tuned PEFT model. Raises ValueError for settings
    that cannot be, and for a folder that holds another run.
    """
    run = _Run(base, examples, settings, pathlib.Path(folder), device)
    run.resume()
    for number, rows in enumerate(steps(examples, settings.row_tokens, settings.rows_per_step,
                                        settings.seed)):
        if number < run.done:
            continue
        if number >= settings.steps:
            break
        progress = run.step(rows)
        if report is not None:
            report(progress)
        if run.done % checkpoint_every == 0:
            run.checkpoint()
    run.checkpoint()
    run.save_adapter()
    return run.model


class _Run:
    """A run's model and optimizer, and the files of its folder."""

    def __init__(self, base: Any, examples: Sequence[Example], settings: Settings,
                 folder: pathlib.Path, device: str) -> None:
        settings.check()
        if not examples:
            raise ValueError("there are no examples")
        pack(examples, settings.row_tokens)  # Faults of examples show before the first step.
        self._settings = settings
        self._folder = folder
        self._state = folder / "training"
        self._device = device
        self.done = 0
        layers = base.config.num_hidden_layers
        self._masks = layer_masks(settings.recipe, layers)
        self._full_masks = [LayerMask()] * layers
        self._autocast = base.dtype if base.dtype != torch.float32 else None
        self._check_folder(base, examples)
        torch.manual_seed(settings.seed)
        self.model = peft.get_peft_model(base, peft.LoraConfig(
            task_type="CAUSAL_LM", r=settings.rank, lora_alpha=settings.alpha, use_rslora=True,
            target_modules=list(settings.modules)))
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=settings.learning_rate,
                                            weight_decay=0.0)

    def step(self, rows: Sequence[Row]) -> Progress:
        """One step of the optimizer, by the mean loss of all answer tokens of its rows."""
        started = time.monotonic()
        targets = sum(row.num_targets for row in rows)
        total = 0.0
        for row in rows:
            loss = self._loss(row_for(row, self._settings.row_tokens, self._device)) / targets
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        rate = self._settings.learning_rate_at(self.done)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.done += 1
        progress = Progress(self.done, total, rate, sum(map(len, rows)),
                            time.monotonic() - started)
        with open(self._state / "progress.jsonl", "a", encoding="utf-8") as out:
            out.write(json.dumps(dataclasses.asdict(progress)) + "\n")
        return progress

    def _loss(self, row: Row) -> Any:
        """Summed over the row's answer tokens."""
        with torch.autocast(torch.device(self._device).type, self._autocast,
                            enabled=self._autocast is not None):
            logits, targets = answer_logits(
                self.model, row, RowMasks(row, self._masks, self._device), self._device)
            if self._settings.targets == "answers":
                return torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
            with torch.no_grad(), self.model.disable_adapter():
                wanted, _ = answer_logits(
                    self.model, row, RowMasks(row, self._full_masks, self._device), self._device)
            return torch.nn.functional.kl_div(
                logits.log_softmax(-1), wanted.log_softmax(-1), reduction="sum", log_target=True)

    def checkpoint(self) -> None:
        """Appears under its name only when it is whole."""
        part = self._state / "checkpoint.part"
        torch.save({"step": self.done, "optimizer": self._optimizer.state_dict(),
                    "adapter": peft.get_peft_model_state_dict(self.model,
                                                              save_embedding_layers=False)}, part)
        part.replace(self._state / "checkpoint.pt")

    def resume(self) -> None:
        saved = self._state / "checkpoint.pt"
        if saved.exists():
            state = torch.load(saved, map_location=self._device, weights_only=True)
            peft.set_peft_model_state_dict(self.model, state["adapter"])
            self._optimizer.load_state_dict(state["optimizer"])
            self.done = state["step"]
        # Steps after the checkpoint are taken again.
        log = self._state / "progress.jsonl"
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        log.write_text("".join(line + "\n" for line in lines[:self.done]), encoding="utf-8")

    def save_adapter(self) -> None:
        self.model.save_pretrained(self._folder, save_embedding_layers=False)

    def _check_folder(self, base: Any, examples: Sequence[Example]) -> None:
        """Writes what the run is, or compares it with what the folder holds."""
        self._state.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        for example in examples:
            digest.update(repr((example.prompt_ids, example.answer_ids)).encode())
        facts = {**dataclasses.asdict(self._settings), "recipe": self._settings.recipe.to_config(),
                 "modules": list(self._settings.modules), "examples": digest.hexdigest(),
                 "base": f"{base.config.model_type} of {base.config.num_hidden_layers} layers, "
                         f"{base.config.hidden_size} wide, {base.dtype}"}
        path = self._state / "run.json"
        if not path.exists():
            path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
            return
        known = json.loads(path.read_text(encoding="utf-8"))
        for name, value in facts.items():
            if known.get(name) != value:
                raise ValueError(f"{path}: the run's {name} is {known.get(name)!r}, not {value!r}; "
                                 "take another folder")

