"""How a client reaches its server: channel options, retries, TLS and tokens."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
from typing import Any

import grpc

_MAX_MESSAGE_BYTES = 16 << 20  # The server's own limit of a request.
_LOOPBACK = re.compile(r"(?:ipv[46]:)?(?:127(?:\.\d+){3}|\[::1\]|localhost)(?::\d+)?|unix:.*")
_HEALTHY = b"\x08\x01"


@dataclasses.dataclass(frozen=True)
class Tls:
    """Paths of PEM files. Without roots, the system's; with certificate and key, mutual TLS."""
    root_certificates: str | os.PathLike[str] | None = None
    certificate: str | os.PathLike[str] | None = None
    private_key: str | os.PathLike[str] | None = None
    # The name that the server's certificate must have, if not the address's.
    server_name: str = ""

    def credentials(self) -> grpc.ChannelCredentials:
        """Raises ValueError for half a pair, OSError for a file that cannot be read."""
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("Tls: certificate and private_key go together; give both or neither")
        pem = [None if path is None else pathlib.Path(path).read_bytes()
               for path in (self.root_certificates, self.private_key, self.certificate)]
        return grpc.ssl_channel_credentials(*pem)


@dataclasses.dataclass(frozen=True)
class Retry:
    """How often gRPC tries a refused call again, and when where the server does not say when.

    Only calls that the server has not begun are tried again. What it refuses for good is not.
    """
    max_attempts: int = 5  # gRPC itself makes no more than five.
    initial_backoff_seconds: float = 0.2
    max_backoff_seconds: float = 10.0
    multiplier: float = 2.0

    def method_config(self) -> dict[str, Any]:
        """As gRPC's service config has it."""
        policy = {
            "maxAttempts": self.max_attempts,
            "initialBackoff": f"{self.initial_backoff_seconds:.3f}s",
            "maxBackoff": f"{self.max_backoff_seconds:.3f}s",
            "backoffMultiplier": self.multiplier,
            "retryableStatusCodes": ["RESOURCE_EXHAUSTED", "UNAVAILABLE"],
        }
        return {"name": [{"service": "swaa.v1.InferenceService"}], "retryPolicy": policy}


def channel_options(tls: Tls | None, retry: Retry | None, balance: bool) -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = [
        # gRPC tries a call again only while its request fits; its own limit is 256 KiB.
        ("grpc.per_rpc_retry_buffer_size", _MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ]
    config: dict[str, Any] = {}
    if retry is not None and retry.max_attempts > 1:
        config["methodConfig"] = [retry.method_config()]
    else:
        options.append(("grpc.enable_retries", 0))
    if balance:
        # Servers that do not serve, draining ones too, are left out by gRPC's own health checks.
        config["loadBalancingConfig"] = [{"round_robin": {}}]
        config["healthCheckConfig"] = {"serviceName": ""}
    if config:
        options.append(("grpc.service_config", json.dumps(config)))
    if tls is not None and tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def open_channel(module: Any, address: str, tls: Tls | None, retry: Retry | None,
                 balance: bool) -> Any:
    """A channel of `module`, which is grpc or grpc.aio."""
    options = channel_options(tls, retry, balance)
    if tls is None:
        return module.insecure_channel(address, options=options)
    return module.secure_channel(address, tls.credentials(), options=options)


def metadata(address: str, tls: Tls | None, token: str | None) -> tuple[tuple[str, str], ...]:
    """What goes with every call. Raises ValueError where a token would cross a network in clear."""
    if token is None:
        return ()
    if tls is None and not _LOOPBACK.fullmatch(address):
        raise ValueError(f"a token for {address} would be sent in clear; give tls=Tls(...)")
    return (("authorization", f"Bearer {token}"),)


def health_method(channel: Any) -> Any:
    """grpc.health.v1's Check: two messages of one field each are not worth another package."""
    return channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=lambda name: b"\x0a" + bytes([len(name)]) + name.encode(),
        response_deserializer=lambda data: data == _HEALTHY)
