"""Client of the SWAA inference server, where every request chooses its own attention recipe.

    from swaa import Client

    with Client("127.0.0.1:50051") as client:
        for delta in client.generate("The sea is", recipe="balanced", max_tokens=64):
            print(delta, end="", flush=True)

`swaa.evaluation` measures what recipes gain and lose; it needs the extra `swaa[eval]`.
"""

from swaa.aio import AsyncClient, AsyncStream
from swaa.client import Client, Stream
from swaa.connection import Retry, Tls
from swaa.errors import (AlreadyExists, Cancelled, DeadlineExceeded, Error, InvalidArgument,
                         NotFound, OutOfRange, PermissionDenied, ResourceExhausted, Unauthenticated,
                         Unavailable)
from swaa.generation import Delta, Generation, Stats, Token
from swaa.local_server import LocalServer
from swaa.recipe import ALL, EVEN, ODD, Recipe, Stride
from swaa.requests import ChatMessage, RequestOptions

__all__ = [
    "ALL", "EVEN", "ODD", "AlreadyExists", "AsyncClient", "AsyncStream", "Cancelled", "ChatMessage",
    "Client", "DeadlineExceeded", "Delta", "Error", "Generation", "InvalidArgument", "LocalServer",
    "NotFound", "OutOfRange", "PermissionDenied", "Recipe", "RequestOptions", "ResourceExhausted",
    "Retry", "Stats", "Stream", "Stride", "Tls", "Token", "Unauthenticated", "Unavailable",
]
