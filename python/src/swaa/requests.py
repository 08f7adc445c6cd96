"""What a caller asks for, made into a GenerateRequest."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Union

from swaa.recipe import Recipe
from swaa.v1 import generation_pb2


class RequestOptions(TypedDict, total=False):
    """Options of a generation; None counts as absent. generation.proto explains them."""
    recipe: Union[str, Recipe, None]  # A name of the server's, or in full.
    model: str
    request_id: str
    priority: int
    cache_salt: str
    experiment_unit_id: str
    # Output already known, computed as if it had been generated; counts towards max_tokens.
    forced_output: Sequence[int]
    # Sampling; temperature 0 is greedy.
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    frequency_penalty: float
    presence_penalty: float
    repetition_penalty: float
    seed: int
    logit_bias: Mapping[int, float]
    # Where it ends.
    max_tokens: int
    min_tokens: int
    stop: Sequence[str]
    stop_token_ids: Sequence[int]
    ignore_eos: bool
    include_stop_in_output: bool
    # Log-probabilities with so many alternatives, at most 20; 0: of the chosen tokens alone.
    logprobs: int
    prompt_logprobs: int
    # 0: all at the end.
    tokens_per_delta: int
    # The call's deadline; the client's own where absent.
    timeout_seconds: Union[float, None]


# Options and the fields of GenerateRequest that they set.
_FIELDS = {
    "model": "model", "request_id": "request_id", "priority": "priority",
    "cache_salt": "cache_salt", "experiment_unit_id": "experiment_unit_id",
    "forced_output": "forced_output_ids.ids",
    **{name: f"sampling_params.{name}" for name in (
        "temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty",
        "repetition_penalty", "seed", "logit_bias")},
    **{name: f"stopping_options.{name}" for name in (
        "max_tokens", "min_tokens", "stop_token_ids", "ignore_eos", "include_stop_in_output")},
    "stop": "stopping_options.stop_strings",
    "logprobs": "response_options.output_logprobs",
    "prompt_logprobs": "response_options.prompt_logprobs",
    "tokens_per_delta": "response_options.tokens_per_delta",
}


@dataclasses.dataclass(frozen=True)
class ChatMessage:
    """One message of a chat. `fields` are further members that the chat template sees."""
    role: str  # system, user, assistant or tool
    content: str = ""
    fields: Mapping[str, Any] | None = None


# A message may also be a mapping with role, content and further members, as other APIs have it.
Message = Union[ChatMessage, Mapping[str, Any]]
# Text, or token ids.
Prompt = Union[str, Sequence[int]]


def generation_request(prompt: Prompt,
                       options: Mapping[str, Any]) -> generation_pb2.GenerateRequest:
    request = generation_pb2.GenerateRequest()
    if isinstance(prompt, str):
        request.prompt = prompt
    else:
        request.token_ids.SetInParent()
        request.token_ids.ids.extend(prompt)
    return _with_options(request, options)


def chat_request(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None,
                 continue_final_message: bool,
                 options: Mapping[str, Any]) -> generation_pb2.GenerateRequest:
    request = generation_pb2.GenerateRequest()
    request.chat.SetInParent()
    for message in messages:
        role, content, fields = _parts(message)
        added = request.chat.messages.add(content=content)
        try:
            added.role = generation_pb2.Role.Value(f"ROLE_{role.upper()}")
        except ValueError:
            raise ValueError(
                f"a message's role is {role!r}; take system, user, assistant or tool") from None
        if fields:
            added.fields_json = json.dumps(fields)
    if tools is not None:
        request.chat.tools_json = json.dumps(list(tools))
    if continue_final_message:
        request.chat.continue_final_message = True
    return _with_options(request, options)


def _parts(message: Message) -> tuple[str, str, Mapping[str, Any] | None]:
    if isinstance(message, ChatMessage):
        return message.role, message.content, message.fields
    fields = dict(message)
    role, content = fields.pop("role", ""), fields.pop("content", None)
    if content is not None and not isinstance(content, str):
        # A list of parts, as some templates take it.
        fields["content"], content = content, None
    return role, content or "", fields


def _with_options(request: generation_pb2.GenerateRequest,
                  options: Mapping[str, Any]) -> generation_pb2.GenerateRequest:
    for name, value in options.items():
        if value is None or name == "timeout_seconds":
            continue
        if name == "recipe":
            if isinstance(value, Recipe):
                request.recipe.CopyFrom(value.to_proto())
            else:
                request.recipe_name = value
        elif name in _FIELDS:
            _set(request, _FIELDS[name], value)
        else:
            raise TypeError(f"there is no option {name!r}; there are recipe, timeout_seconds, "
                            + ", ".join(sorted(_FIELDS)))
    return request


def _set(message: Any, path: str, value: Any) -> None:
    *parents, field = path.split(".")
    for parent in parents:
        message = getattr(message, parent)
    if isinstance(value, Mapping):
        getattr(message, field).update(value)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        message.SetInParent()
        getattr(message, field).extend(value)
    else:
        setattr(message, field, value)
