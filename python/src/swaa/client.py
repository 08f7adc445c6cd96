"""The client for programs with threads."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Unpack

import grpc

from swaa import connection, requests
from swaa.errors import Unavailable, from_rpc_error
from swaa.generation import Collector, Delta, Generation
from swaa.recipe import Recipe
from swaa.requests import Message, Prompt, RequestOptions
from swaa.v1 import (control_service_pb2, control_service_pb2_grpc, experiment_service_pb2,
                     experiment_service_pb2_grpc, generation_pb2, inference_service_pb2_grpc)


class Stream(Iterator[Delta]):
    """An answer as it comes. Dropped or closed before its end it is cancelled, and costs no more.

    For one thread at a time; `close` may be called from any.
    """

    def __init__(self, client: Client, call: Any) -> None:
        self._client = client  # The channel lives as long as its streams.
        self._call = call
        self._collector = Collector()

    def __next__(self) -> Delta:
        """The next piece. Raises Error for a refusal, or for an answer that broke off."""
        try:
            while True:
                delta = self._collector.take(next(self._call))
                if delta is not None:
                    return delta
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None

    @property
    def accepted(self) -> generation_pb2.Accepted | None:
        """What the server said when it took the request; None before the first piece."""
        return self._collector.accepted

    def result(self) -> Generation:
        """Reads on to the end; the whole answer, with what was read before."""
        for _ in self:
            pass
        return self._collector.generation()

    def close(self) -> None:
        """Cancels what has not ended."""
        self._call.cancel()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Client:
    """A server, or several alike; all methods may be called from several threads.

    Connecting waits for the first call. Every method raises a subclass of swaa.Error for what the
    server refuses, and ValueError or TypeError for what cannot be sent at all.
    """

    def __init__(self, address: str, *, tls: connection.Tls | None = None, token: str | None = None,
                 retry: connection.Retry | None = connection.Retry(),
                 timeout_seconds: float | None = None, balance: bool = False) -> None:
        """`address` is HOST:PORT; `token` a bearer token, which needs TLS unless the address is the
        loopback's; `timeout_seconds` the deadline of calls that name none. With `balance` requests
        go by turns to all healthy servers that the address names, such as those of a headless
        service, dns:///swaa-headless.models:50051; else one connection stays with one server."""
        self._metadata = connection.metadata(address, tls, token)
        self._timeout_seconds = timeout_seconds
        self._channel = connection.open_channel(grpc, address, tls, retry, balance)
        self._inference = inference_service_pb2_grpc.InferenceServiceStub(self._channel)
        self._control = control_service_pb2_grpc.ControlServiceStub(self._channel)
        self._experiments = experiment_service_pb2_grpc.ExperimentServiceStub(self._channel)
        self._health = connection.health_method(self._channel)

    def generate(self, prompt: Prompt, **options: Unpack[RequestOptions]) -> Stream:
        """Goes on with a text or token ids. A text's special tokens are parsed."""
        return self._send(requests.generation_request(prompt, options), options)

    def chat(self, messages: Sequence[Message], *,
             tools: Sequence[Mapping[str, Any]] | None = None, continue_final_message: bool = False,
             **options: Unpack[RequestOptions]) -> Stream:
        """Answers a chat, rendered by the model's own template."""
        return self._send(
            requests.chat_request(messages, tools, continue_final_message, options), options)

    def tokenize(self, text: str) -> list[int]:
        """The ids of a prompt as the server sees it, its beginning-of-sequence included.

        The server computes the prompt for it, under the smallest window.
        """
        generation = self.generate(text, recipe=Recipe(1), max_tokens=1, prompt_logprobs=0).result()
        return [token.id for token in generation.prompt]

    def model_info(self) -> control_service_pb2.GetModelInfoResponse:
        answer: control_service_pb2.GetModelInfoResponse = self._ask(
            self._control.GetModelInfo, control_service_pb2.GetModelInfoRequest())
        return answer

    def server_info(self) -> control_service_pb2.GetServerInfoResponse:
        answer: control_service_pb2.GetServerInfoResponse = self._ask(
            self._control.GetServerInfo, control_service_pb2.GetServerInfoRequest())
        return answer

    def load(self) -> control_service_pb2.GetLoadResponse:
        answer: control_service_pb2.GetLoadResponse = self._ask(
            self._control.GetLoad, control_service_pb2.GetLoadRequest())
        return answer

    def recipes(self) -> dict[str, Recipe]:
        """The server's named recipes."""
        listed = self._ask(self._control.ListRecipes, control_service_pb2.ListRecipesRequest())
        return {named.name: Recipe.from_proto(named.recipe) for named in listed.named_recipes}

    def load_lora(self, name: str, path: str) -> control_service_pb2.LoraAdapter:
        """Loads an adapter from a folder as PEFT saves them, on the server's machine: absolute, or
        below one of its `lora.roots`. Recipes name it by `lora_name`. One that is loaded from this
        path already stays as it is."""
        answer = self._ask(self._control.LoadLora, control_service_pb2.LoadLoraRequest(
            lora_name=name, source_path=path))
        adapter: control_service_pb2.LoraAdapter = answer.lora_adapter
        return adapter

    def unload_lora(self, name: str) -> None:
        """New requests do not find the adapter from now on. Returns when no request has it."""
        self._ask(
            self._control.UnloadLora, control_service_pb2.UnloadLoraRequest(lora_name=name))

    def list_loras(self) -> dict[str, control_service_pb2.LoraAdapter]:
        """The server's adapters by their names."""
        listed = self._ask(self._control.ListLoras, control_service_pb2.ListLorasRequest())
        return {adapter.lora_name: adapter for adapter in listed.lora_adapters}

    def abort(self, request_id: str) -> int:
        """Ends a request, whose stream gets what there is; how many were ended."""
        answer = self._ask(
            self._control.Abort, control_service_pb2.AbortRequest(request_id=request_id))
        return int(answer.aborted_requests)

    def record_outcome(self, generation: Generation, **outcomes: float) -> None:
        """Tells the generation's experiment what the answer was worth. Durable when it returns."""
        request = experiment_service_pb2.RecordOutcomeRequest(
            request_id=generation.request_id, outcome_token=generation.outcome_token)
        for metric, value in outcomes.items():
            request.outcomes.add(metric=metric, value=value)
        self._ask(self._experiments.RecordOutcome, request)

    def wait_until_ready(self, timeout_seconds: float) -> None:
        """Returns when requests would be answered; raises Unavailable after the time."""
        until = time.monotonic() + timeout_seconds
        while True:
            try:
                if self._health("swaa.v1.InferenceService", timeout=5, metadata=self._metadata):
                    return
            except grpc.RpcError:
                pass
            if time.monotonic() > until:
                raise Unavailable(grpc.StatusCode.UNAVAILABLE,
                                  f"the server was not ready after {timeout_seconds:g} s")
            time.sleep(0.1)

    def close(self) -> None:
        """Cancels what runs."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()

    def _send(self, request: generation_pb2.GenerateRequest, options: RequestOptions) -> Stream:
        timeout = options.get("timeout_seconds", self._timeout_seconds)
        return Stream(
            self, self._inference.Generate(request, timeout=timeout, metadata=self._metadata))

    def _ask(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout_seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
