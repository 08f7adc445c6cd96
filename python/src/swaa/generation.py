"""What a server answers: pieces as they come, and the whole with what it cost."""

from __future__ import annotations

import dataclasses

from swaa.recipe import Recipe
from swaa.v1 import generation_pb2

_FINISH_REASONS = {
    generation_pb2.FINISH_REASON_STOP: "stop",
    generation_pb2.FINISH_REASON_LENGTH: "length",
    generation_pb2.FINISH_REASON_CANCELLED: "cancelled",
}


@dataclasses.dataclass(frozen=True)
class Token:
    id: int
    # Natural logarithm; None where none was asked for, and at the prompt's first position.
    logprob: float | None = None
    # (token id, log-probability), most likely first.
    alternatives: tuple[tuple[int, float], ...] = ()

    @classmethod
    def from_proto(cls, info: generation_pb2.TokenInfo) -> Token:
        return cls(info.token_id, info.logprob if info.HasField("logprob") else None,
                   tuple((top.token_id, top.logprob) for top in info.top_logprobs))


@dataclasses.dataclass(frozen=True)
class Delta:
    """What is new since the last one. Its text is whole UTF-8 and may be empty."""
    text: str
    tokens: tuple[Token, ...] = ()
    is_reasoning: bool = False

    def __str__(self) -> str:
        return self.text


@dataclasses.dataclass(frozen=True)
class Stats:
    """What a request cost, as the server measured it; the fields of RequestStats and Usage."""
    prompt_tokens: int
    completion_tokens: int
    cached_prompt_tokens: int
    queue_seconds: float
    prefill_seconds: float
    decode_seconds: float
    time_to_first_token_seconds: float
    peak_kv_cache_bytes: int
    full_attention_kv_cache_bytes: int
    attended_keys: int
    full_attention_attended_keys: int
    preemptions: int
    # By the server's model of a step's time; None until it is fitted.
    attributed_device_seconds: float | None

    @classmethod
    def from_proto(cls, finished: generation_pb2.Finished) -> Stats:
        usage, stats = finished.usage, finished.stats
        attributed = stats.HasField("attributed_device_time_us")
        return cls(
            usage.prompt_tokens, usage.completion_tokens, usage.cached_prompt_tokens,
            stats.queue_time_us * 1e-6, stats.prefill_time_us * 1e-6, stats.decode_time_us * 1e-6,
            stats.time_to_first_token_us * 1e-6, stats.peak_kv_cache_bytes,
            stats.full_attention_kv_cache_bytes, stats.attended_keys,
            stats.full_attention_attended_keys, stats.preemptions,
            stats.attributed_device_time_us * 1e-6 if attributed else None)


@dataclasses.dataclass(frozen=True)
class Generation:
    """A whole answer."""
    text: str
    tokens: tuple[Token, ...]
    # Where prompt_logprobs were asked for, else empty.
    prompt: tuple[Token, ...]
    finish_reason: str  # stop, length or cancelled
    # The stop string, or the id of the stop or end token, that ended it.
    stop: str | int | None
    stats: Stats
    request_id: str
    model: str
    recipe_name: str  # Empty for a recipe given in full.
    recipe: Recipe  # As the server resolved it: layers as numbers.
    # Empty where the request was in no experiment.
    experiment_id: str
    experiment_arm: str
    outcome_token: bytes

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens]

    @property
    def logprobs(self) -> list[float]:
        """Of the output's tokens; empty where none were asked for."""
        return [token.logprob for token in self.tokens if token.logprob is not None]


class Collector:
    """Gathers the events of one stream. Not thread-safe."""

    def __init__(self) -> None:
        self.accepted: generation_pb2.Accepted | None = None
        self._prompt: list[Token] = []
        self._deltas: list[Delta] = []
        self._finished: generation_pb2.Finished | None = None

    def take(self, response: generation_pb2.GenerateResponse) -> Delta | None:
        """The delta that the event is, if it is one."""
        event = response.WhichOneof("event")
        if event == "accepted":
            self.accepted = response.accepted
        elif event == "prompt_logprobs":
            self._prompt += [Token.from_proto(info) for info in response.prompt_logprobs.tokens]
        elif event == "finished":
            self._finished = response.finished
        elif event == "token_delta":
            delta = response.token_delta
            self._deltas.append(Delta(
                delta.text, tuple(map(Token.from_proto, delta.tokens)), delta.is_reasoning))
            return self._deltas[-1]
        return None

    @property
    def is_complete(self) -> bool:
        return self.accepted is not None and self._finished is not None

    def generation(self) -> Generation:
        """The whole answer; raises RuntimeError before its end has come."""
        accepted, finished = self.accepted, self._finished
        if accepted is None or finished is None:
            raise RuntimeError("the stream has not ended: read it to its end first")
        match = finished.stop_match.WhichOneof("match")
        return Generation(
            "".join(delta.text for delta in self._deltas),
            tuple(token for delta in self._deltas for token in delta.tokens), tuple(self._prompt),
            _FINISH_REASONS.get(finished.finish_reason, "unknown"),
            getattr(finished.stop_match, match) if match else None, Stats.from_proto(finished),
            accepted.request_id, accepted.model, accepted.recipe_name,
            Recipe.from_proto(accepted.resolved_recipe), accepted.experiment_id,
            accepted.experiment_arm, finished.outcome_token)
