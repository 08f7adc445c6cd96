"""What the demo and the benchmark share: a plain grpcio client of the server, and its statistics.

Needs the modules that tools/python-stubs makes, in $SWAA_PYTHON_STUBS or build/python.
"""

import os
import pathlib
import sys
import time

_ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, os.environ.get("SWAA_PYTHON_STUBS", str(_ROOT / "build/python")))

import grpc  # noqa: E402
from swaa.v1 import generation_pb2 as gen  # noqa: E402
from swaa.v1 import inference_service_pb2_grpc  # noqa: E402
from swaa.v1 import recipe_pb2  # noqa: E402


class Unavailable(Exception):
    """The server did not become ready."""


class Result:
    """What one Generate stream brought."""

    def __init__(self):
        self.text = ""
        self.token_ids = []
        self.logprobs = []
        self.prompt_token_ids = []
        self.prompt_tokens = 0
        self.stats = None
        self.usage = None
        self.seconds = 0.0

    @property
    def decode_tokens_per_second(self):
        """The first token comes out of the prompt's last step, the others are decoded."""
        decoded = self.usage.completion_tokens - 1
        return decoded / max(self.stats.decode_time_us * 1e-6, 1e-9)

    @property
    def server_seconds(self):
        """From leaving the queue to the last token."""
        return (self.stats.prefill_time_us + self.stats.decode_time_us) * 1e-6

    @property
    def counted_speedup(self):
        return self.stats.full_attention_attended_keys / max(self.stats.attended_keys, 1)


class Client:
    """One connection; its methods may be called from several threads."""

    def __init__(self, address):
        # gRPC retries a call only while its request fits into this buffer (default 256 KiB).
        options = [("grpc.per_rpc_retry_buffer_size", 16 << 20)]
        self._channel = grpc.insecure_channel(address, options=options)
        self._stub = inference_service_pb2_grpc.InferenceServiceStub(self._channel)
        # grpc.health.v1 is two messages of one field each: not worth another package.
        self._health = self._channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=lambda name: b"\x0a" + bytes([len(name)]) + name.encode(),
            response_deserializer=lambda data: data == b"\x08\x01",
        )

    def close(self):
        self._channel.close()

    def is_ready(self):
        try:
            return self._health("swaa.v1.InferenceService", timeout=1)
        except grpc.RpcError:
            return False

    def wait_until_ready(self, timeout_seconds):
        """Returns when requests would be answered; raises Unavailable after the time."""
        started = time.monotonic()
        while not self.is_ready():
            if time.monotonic() - started > timeout_seconds:
                raise Unavailable(f"the server was not ready after {timeout_seconds} s")
            time.sleep(0.1)

    def generate(self, request):
        """Sends a GenerateRequest and gathers its stream. Raises grpc.RpcError."""
        result = Result()
        started = time.monotonic()
        for response in self._stub.Generate(request):
            event = response.WhichOneof("event")
            if event == "accepted":
                result.prompt_tokens = response.accepted.prompt_tokens
            elif event == "prompt_logprobs":
                result.prompt_token_ids += [t.token_id for t in response.prompt_logprobs.tokens]
            elif event == "token_delta":
                result.text += response.token_delta.text
                result.token_ids += [t.token_id for t in response.token_delta.tokens]
                result.logprobs += [t.logprob for t in response.token_delta.tokens]
            elif event == "finished":
                result.stats = response.finished.stats
                result.usage = response.finished.usage
        result.seconds = time.monotonic() - started
        return result


def recipe(window=None, sinks=None, full_layers_step=None, full_decode=False):
    """A Recipe message: `full_layers_step` n keeps layers 0, n, 2n, ... full."""
    message = recipe_pb2.Recipe()
    if window is not None:
        message.sliding_window_tokens = window
    if sinks is not None:
        message.sink_tokens = sinks
    if full_layers_step is not None:
        message.full_attention_layers.stride.step = full_layers_step
    if full_decode:
        message.full_attention_decode.all = True
    return message


def greedy_request(prompt, max_tokens, recipe_message, **fields):
    """A GenerateRequest whose output is exactly `max_tokens` greedy tokens."""
    request = gen.GenerateRequest(prompt=prompt, recipe=recipe_message, **fields)
    request.sampling_params.temperature = 0
    request.stopping_options.max_tokens = max_tokens
    request.stopping_options.ignore_eos = True
    return request
