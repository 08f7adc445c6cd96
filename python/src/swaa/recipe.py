"""Recipes: what each layer of a request sees, as values that can be compared and written."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Literal, Union

from swaa.v1 import recipe_pb2


@dataclasses.dataclass(frozen=True)
class Stride:
    """Layers `first`, `first` + `step`, ... below the model's number of layers."""
    first: int
    step: int


Layers = Union[Literal["all"], Stride, tuple[int, ...]]

ALL: Literal["all"] = "all"
ODD = Stride(1, 2)
EVEN = Stride(0, 2)
_NAMED: dict[str, Layers] = {"all": ALL, "odd": ODD, "even": EVEN}
_THINKING = {None: recipe_pb2.THINKING_MODE_UNSPECIFIED, True: recipe_pb2.THINKING_MODE_ENABLED,
             False: recipe_pb2.THINKING_MODE_DISABLED}


def parse_layers(text: str) -> Layers:
    """Layers from `all`, `odd`, `even`, a list such as 1+3+5, or first:step such as 1:4.

    Raises ValueError for anything else.
    """
    if text in _NAMED:
        return _NAMED[text]
    if re.fullmatch(r"\d+:\d+", text):
        first, step = text.split(":")
        return Stride(int(first), int(step))
    if re.fullmatch(r"\d+(\+\d+)*", text):
        return tuple(int(number) for number in text.split("+"))
    raise ValueError(f"{text!r} names no layers; write all, odd, even, a list such as 1+3+5, or "
                     "first:step such as 1:4")


def format_layers(layers: Layers) -> str:
    """What parse_layers reads."""
    if isinstance(layers, Stride):
        return f"{layers.first}:{layers.step}"
    return layers if isinstance(layers, str) else "+".join(map(str, layers))


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A recipe in full; without arguments, full attention. Fields mean what recipe.proto says.

    The server judges it: sinks without a window, say, are refused there, with InvalidArgument.
    """
    sliding_window_tokens: int | None = None
    sink_tokens: int | None = None
    full_attention_layers: Layers | None = None
    full_attention_decode: Layers | None = None
    # The chat template's switch; None leaves it to the model.
    thinking: bool | None = None
    lora_name: str = ""

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """A recipe from `W=512,K=16,F=odd,D=all`, in any order and without what it lacks; layers as
        parse_layers takes them. `full` is full attention. Raises ValueError for anything else."""
        fields: dict[str, Any] = {}
        for part in [] if text.strip() == "full" else text.split(","):
            letter, equals, value = part.strip().partition("=")
            if not equals or letter not in "WKFD" or letter in fields:
                raise ValueError(f"{text!r} is no recipe at {part!r}; write it like "
                                 "W=512,K=16,F=odd,D=all, each letter once, or full")
            if letter in "WK" and not value.isdecimal():
                raise ValueError(f"{text!r}: {letter}={value!r} is no number of tokens")
            fields[letter] = int(value) if letter in "WK" else parse_layers(value)
        return cls(fields.get("W"), fields.get("K"), fields.get("F"), fields.get("D"))

    def __str__(self) -> str:
        """A short form that parse reads, but for thinking and adapter."""
        parts = [f"{letter}={value}" for letter, value in (
            ("W", self.sliding_window_tokens), ("K", self.sink_tokens)) if value is not None]
        parts += [f"{letter}={format_layers(value)}" for letter, value in (
            ("F", self.full_attention_layers), ("D", self.full_attention_decode))
            if value is not None]
        if self.thinking is not None:
            parts.append("thinking" if self.thinking else "no thinking")
        if self.lora_name:
            parts.append(f"adapter {self.lora_name}")
        return ",".join(parts) or "full"

    def to_proto(self) -> recipe_pb2.Recipe:
        message = recipe_pb2.Recipe(
            lora_name=self.lora_name, thinking_mode=_THINKING[self.thinking])
        if self.sliding_window_tokens is not None:
            message.sliding_window_tokens = self.sliding_window_tokens
        if self.sink_tokens is not None:
            message.sink_tokens = self.sink_tokens
        _set_layers(message.full_attention_layers, self.full_attention_layers)
        _set_layers(message.full_attention_decode, self.full_attention_decode)
        return message

    @classmethod
    def from_proto(cls, message: recipe_pb2.Recipe) -> Recipe:
        thinking = {mode: value for value, mode in _THINKING.items()}
        return cls(
            message.sliding_window_tokens if message.HasField("sliding_window_tokens") else None,
            message.sink_tokens if message.HasField("sink_tokens") else None,
            _layers(message, "full_attention_layers"), _layers(message, "full_attention_decode"),
            thinking[message.thinking_mode], message.lora_name)

    def to_config(self) -> dict[str, Any]:
        """The recipe as `recipes:` of the server's configuration has it."""
        from google.protobuf import json_format
        config: dict[str, Any] = json_format.MessageToDict(
            self.to_proto(), preserving_proto_field_name=True)
        return config


def _set_layers(message: recipe_pb2.LayerSet, layers: Layers | None) -> None:
    if isinstance(layers, Stride):
        message.stride.first, message.stride.step = layers.first, layers.step
    elif isinstance(layers, str):
        if layers != ALL:
            raise ValueError(f"{layers!r} names no layers; take ALL, a Stride or a tuple")
        message.all = True
    elif layers is not None:
        message.layers.SetInParent()  # No layer at all is the server's to refuse.
        message.layers.indices.extend(layers)


def _layers(message: recipe_pb2.Recipe, field: str) -> Layers | None:
    if not message.HasField(field):
        return None
    layers = getattr(message, field)
    if layers.WhichOneof("selection") == "all":
        return ALL
    if layers.WhichOneof("selection") == "stride":
        return Stride(layers.stride.first, layers.stride.step)
    return tuple(layers.layers.indices)
