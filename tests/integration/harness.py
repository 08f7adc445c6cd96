"""A server process, and a client that collects what a stream says."""

import atexit
import dataclasses
import os
import pathlib
import re
import resource
import signal
import subprocess
import tempfile
import time

import grpc
from swaa.v1 import control_service_pb2 as control
from swaa.v1 import control_service_pb2_grpc as control_grpc
from swaa.v1 import generation_pb2 as generation
from swaa.v1 import inference_service_pb2_grpc as inference_grpc
from swaa.v1 import recipe_pb2 as recipes

BINARY = os.environ["SWAA_BINARY"]
START_SECONDS = 600


def model_path():
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    default = pathlib.Path(cache) / "swaa" / "smollm2-135m-instruct.gguf"
    path = pathlib.Path(os.environ.get("SWAA_TEST_MODEL") or default)
    assert path.exists(), (
        f"the test model {path} is missing: run tools/setup, which brings it, "
        "or name a GGUF file of SmolLM2-135M-Instruct in SWAA_TEST_MODEL")
    return path


class Server:
    """`swaa serve` on free loopback ports, ready when the constructor returns."""

    def __init__(self, *flags, model=None, wait=True, limits=(), program=(BINARY,), output=None):
        """`limits`: (resource.RLIMIT_..., number) pairs, soft and hard, for the process; `program`:
        what is to be the server, before its flags; `output`: a file that has what it says, instead
        of the log's."""
        self.folder = tempfile.TemporaryDirectory(prefix="swaa-test-")
        self.port_file = pathlib.Path(self.folder.name) / "port"
        self.log_file = pathlib.Path(self.folder.name) / "log"
        self.log_stream = open(self.log_file, "wb")
        self.process = subprocess.Popen(
            [*program, "serve", "--model", str(model or model_path()),
             "--listen-address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0",
             "--port-file", str(self.port_file), *flags],
            stdout=output or self.log_stream, stderr=subprocess.STDOUT,
            preexec_fn=lambda: [resource.setrlimit(kind, (most, most)) for kind, most in limits])
        atexit.register(self.process.kill)  # where a test failed before it stopped it
        if wait:
            self.await_ready()

    def await_ready(self):
        until = time.monotonic() + START_SECONDS
        while not self.port_file.exists():
            assert self.process.poll() is None, f"the server ended:\n{self.log()}"
            assert time.monotonic() < until, f"the server is not ready:\n{self.log()}"
            time.sleep(0.05)
        self.port = int(self.port_file.read_text())
        self.metrics_port = int(pathlib.Path(f"{self.port_file}.metrics").read_text())
        self.channel = self.new_channel()
        self.inference = inference_grpc.InferenceServiceStub(self.channel)
        self.control = control_grpc.ControlServiceStub(self.channel)

    def new_channel(self, options=()):
        # A pool of its own: otherwise channels to one address share a connection.
        chosen = {"grpc.use_local_subchannel_pool": 1, "grpc.enable_retries": 0, **dict(options)}
        return grpc.insecure_channel(f"127.0.0.1:{self.port}", options=list(chosen.items()))

    def log(self):
        return self.log_file.read_text()

    def await_log(self, pattern, after=0, seconds=300):
        """A match in the log beyond its first `after` characters, waited for: lines are written
        beside what they tell of, not before it."""
        until = time.monotonic() + seconds
        while not (found := re.search(pattern, self.log()[after:])):
            assert time.monotonic() < until, f"never said: {pattern}\n{self.log()[-4000:]}"
            time.sleep(0.02)
        return found

    def load(self):
        return self.control.GetLoad(control.GetLoadRequest())

    def await_load(self, condition, what, seconds=300):
        until = time.monotonic() + seconds
        while True:
            load = self.load()
            if condition(load):
                return load
            assert time.monotonic() < until, f"never came: {what}; the load is\n{load}"
            time.sleep(0.02)

    def await_idle(self):
        return self.await_load(
            lambda load: (load.used_kv_pages, load.running_requests, load.queued_requests) ==
            (0, 0, 0), "an empty server")

    def metrics(self):
        import urllib.request
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics") as page:
            return page.read().decode()

    def resident_bytes(self):
        for line in open(f"/proc/{self.process.pid}/status", encoding="ascii"):
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) << 10
        raise AssertionError("the server is gone")

    def stop(self, with_signal=signal.SIGTERM):
        """Ends it; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        return self.await_exit()

    def await_exit(self, seconds=300):
        """Waits until it ends by itself; the exit code."""
        try:
            code = self.process.wait(seconds)
            assert code != 0 or not self.port_file.exists(), "who waits for it gets an old port"
            return code
        finally:
            self.process.kill()
            self.process.wait()
            self.log_stream.close()


@dataclasses.dataclass
class Answer:
    """Everything that one stream said."""
    accepted: generation.Accepted = None
    deltas: list = dataclasses.field(default_factory=list)
    prompt_logprobs: list = dataclasses.field(default_factory=list)
    finished: generation.Finished = None

    @property
    def text(self):
        return "".join(delta.text for delta in self.deltas)

    @property
    def tokens(self):
        return [token for delta in self.deltas for token in delta.tokens]

    @property
    def ids(self):
        return [token.token_id for token in self.tokens]

    def take(self, response):
        event = response.WhichOneof("event")
        assert self.finished is None, "an event came after the last one"
        if event == "accepted":
            assert self.accepted is None and not self.deltas
            self.accepted = response.accepted
        elif event == "token_delta":
            self.deltas.append(response.token_delta)
        elif event == "prompt_logprobs":
            assert not self.deltas, "prompt log-probabilities come before the first token"
            self.prompt_logprobs.append(response.prompt_logprobs)
        else:
            assert event == "finished"
            self.finished = response.finished


def request(prompt=None, *, ids=None, max_tokens=8, temperature=0.0, recipe=None, **fields):
    """A request; `recipe` is a name or a Recipe, other fields are the proto's."""
    message = generation.GenerateRequest(**fields)
    if prompt is not None:
        message.prompt = prompt
    if ids is not None:
        message.token_ids.ids.extend(ids)
    if max_tokens is not None:
        message.stopping_options.max_tokens = max_tokens
    if temperature is not None:
        message.sampling_params.temperature = temperature
    if isinstance(recipe, str):
        message.recipe_name = recipe
    elif recipe is not None:
        message.recipe.CopyFrom(recipe)
    return message


def collect(stub, message, timeout=600):
    answer = Answer()
    for response in stub.Generate(message, timeout=timeout):
        answer.take(response)
    assert answer.accepted is not None and answer.finished is not None
    return answer


def refused(stub, message, timeout=60):
    """The error that a request ends with before any event."""
    call = stub.Generate(message, timeout=timeout)
    try:
        first = next(iter(call))
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"was not refused but answered\n{first}")


def trailer(error, name):
    values = [value for key, value in error.trailing_metadata() or () if key == name]
    assert len(values) <= 1
    return values[0] if values else None


def tokenize(stub, text):
    """Token ids of a prompt, as the server itself sees it."""
    message = request(text, max_tokens=1)
    message.response_options.prompt_logprobs = 0
    answer = collect(stub, message)
    return [token.token_id for event in answer.prompt_logprobs for token in event.tokens]
