"""The client for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Unpack

import grpc
import grpc.aio

from swaa import connection, requests
from swaa.errors import from_rpc_error
from swaa.generation import Collector, Delta, Generation
from swaa.recipe import Recipe
from swaa.requests import Message, Prompt, RequestOptions
from swaa.v1 import (control_service_pb2, control_service_pb2_grpc, generation_pb2,
                     inference_service_pb2_grpc)


class AsyncStream(AsyncIterator[Delta]):
    """An answer as it comes; `async with` cancels what has not ended. For one task at a time."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._collector = Collector()

    async def __anext__(self) -> Delta:
        """The next piece. Raises Error for a refusal, or for an answer that broke off."""
        try:
            while True:
                response = await self._call.read()
                if response is grpc.aio.EOF:
                    raise StopAsyncIteration
                delta = self._collector.take(response)
                if delta is not None:
                    return delta
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None

    @property
    def accepted(self) -> generation_pb2.Accepted | None:
        """What the server said when it took the request; None before the first piece."""
        return self._collector.accepted

    async def result(self) -> Generation:
        """Reads on to the end; the whole answer, with what was read before."""
        async for _ in self:
            pass
        return self._collector.generation()

    def close(self) -> None:
        """Cancels what has not ended."""
        self._call.cancel()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class AsyncClient:
    """A server, or several alike, for the tasks of one event loop, in which it must be made.

    Takes what Client takes and raises what it raises.
    """

    def __init__(self, address: str, *, tls: connection.Tls | None = None, token: str | None = None,
                 retry: connection.Retry | None = connection.Retry(),
                 timeout_seconds: float | None = None, balance: bool = False) -> None:
        self._metadata = connection.metadata(address, tls, token)
        self._timeout_seconds = timeout_seconds
        self._channel = connection.open_channel(grpc.aio, address, tls, retry, balance)
        self._inference = inference_service_pb2_grpc.InferenceServiceStub(self._channel)
        self._control = control_service_pb2_grpc.ControlServiceStub(self._channel)

    def generate(self, prompt: Prompt, **options: Unpack[RequestOptions]) -> AsyncStream:
        """Goes on with a text or token ids. A text's special tokens are parsed."""
        return self._send(requests.generation_request(prompt, options), options)

    def chat(self, messages: Sequence[Message], *,
             tools: Sequence[Mapping[str, Any]] | None = None, continue_final_message: bool = False,
             **options: Unpack[RequestOptions]) -> AsyncStream:
        """Answers a chat, rendered by the model's own template."""
        return self._send(
            requests.chat_request(messages, tools, continue_final_message, options), options)

    async def model_info(self) -> control_service_pb2.GetModelInfoResponse:
        info: control_service_pb2.GetModelInfoResponse = await self._ask(
            self._control.GetModelInfo, control_service_pb2.GetModelInfoRequest())
        return info

    async def recipes(self) -> dict[str, Recipe]:
        """The server's named recipes."""
        listed = await self._ask(
            self._control.ListRecipes, control_service_pb2.ListRecipesRequest())
        return {named.name: Recipe.from_proto(named.recipe) for named in listed.named_recipes}

    async def load_lora(self, name: str, path: str) -> control_service_pb2.LoraAdapter:
        """As Client.load_lora."""
        answer = await self._ask(self._control.LoadLora, control_service_pb2.LoadLoraRequest(
            lora_name=name, source_path=path))
        adapter: control_service_pb2.LoraAdapter = answer.lora_adapter
        return adapter

    async def unload_lora(self, name: str) -> None:
        """As Client.unload_lora."""
        await self._ask(
            self._control.UnloadLora, control_service_pb2.UnloadLoraRequest(lora_name=name))

    async def list_loras(self) -> dict[str, control_service_pb2.LoraAdapter]:
        """The server's adapters by their names."""
        listed = await self._ask(self._control.ListLoras, control_service_pb2.ListLorasRequest())
        return {adapter.lora_name: adapter for adapter in listed.lora_adapters}

    async def close(self) -> None:
        """Cancels what runs."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _send(self, request: generation_pb2.GenerateRequest,
              options: RequestOptions) -> AsyncStream:
        timeout = options.get("timeout_seconds", self._timeout_seconds)
        return AsyncStream(
            self._inference.Generate(request, timeout=timeout, metadata=self._metadata))

    async def _ask(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, timeout=self._timeout_seconds, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
