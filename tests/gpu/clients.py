#!/usr/bin/env python3
"""The server on a GPU under many Python clients: mixed recipes, cancels in mid-stream, deadlines,
dropped connections; nothing may be left at the end, and SIGTERM ends it with 0.

    tests/gpu/clients.py --binary bin/swaa --stubs python --model FILE [--seconds 60] [--clients 64]

Prints one table; exits with 1 at the first broken promise. Needs grpcio and protobuf.
"""

import argparse
import collections
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--stubs", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--load-format", default="auto")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--kv-cache-bytes", default="", help="small: requests are preempted")
    parser.add_argument("--longest-prompt", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    return parser.parse_args()


options = arguments()
sys.path.insert(0, options.stubs)

import grpc  # noqa: E402
from swaa.v1 import control_service_pb2 as control  # noqa: E402
from swaa.v1 import control_service_pb2_grpc as control_grpc  # noqa: E402
from swaa.v1 import generation_pb2 as generation  # noqa: E402
from swaa.v1 import inference_service_pb2_grpc as inference_grpc  # noqa: E402

RECIPES = ["full", "quality", "balanced", "fast", "memory", "decode", "window"]
BEHAVIOURS = {"reads to the end": 70, "cancels": 12, "deadline": 8, "disconnects": 10}


def start(folder):
    port_file = folder / "port"
    log = open(folder / "log", "w")
    flags = ["--kv-cache-bytes", options.kv_cache_bytes] if options.kv_cache_bytes else []
    process = subprocess.Popen(
        [options.binary, "serve", "--model", options.model, "--load-format", options.load_format,
         "--device", options.device, "--listen-address", "127.0.0.1:0", "--port-file", port_file,
         *flags], stdout=log, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 300
    while not port_file.exists() or not port_file.read_text().strip():
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"the server did not start:\n{(folder / 'log').read_text()[-3000:]}")
        time.sleep(0.1)
    return process, f"127.0.0.1:{port_file.read_text().strip()}"


def random_request(rng):
    request = generation.GenerateRequest()
    length = int(2 ** rng.uniform(2, (options.longest_prompt).bit_length() - 1))
    request.token_ids.ids.extend(rng.randrange(1000, 40000) for _ in range(length))
    if rng.random() < 0.5:
        request.recipe_name = rng.choice(RECIPES)
    else:
        request.recipe.sliding_window_tokens = rng.choice([1, 63, 64, 65, 512])
        request.recipe.sink_tokens = rng.choice([0, 1, 16, 100])
    request.sampling_params.temperature = rng.choice([0, 0.7])
    request.sampling_params.seed = rng.randrange(1 << 30)
    if rng.random() < 0.3:
        request.sampling_params.top_p = 0.9
    if rng.random() < 0.2:
        request.sampling_params.repetition_penalty = 1.1
    request.stopping_options.max_tokens = rng.randrange(1, 300)
    request.stopping_options.ignore_eos = True
    return request


class Clients:
    def __init__(self, address):
        self.address = address
        self.counts = collections.Counter()
        self.faults = []
        self.tokens = 0
        self.lock = threading.Lock()

    def run(self, number, until):
        rng = random.Random(options.seed + number)
        while time.monotonic() < until and not self.faults:
            behaviour = rng.choices(list(BEHAVIOURS), BEHAVIOURS.values())[0]
            try:
                outcome, tokens = self.one(rng, behaviour)
            except Exception as error:  # told by the main thread
                outcome, tokens = f"{behaviour}: {error!r}", 0
                self.faults.append(outcome)
            with self.lock:
                self.counts[f"{behaviour}: {outcome}"] += 1
                self.tokens += tokens

    def one(self, rng, behaviour):
        request = random_request(rng)
        channel = grpc.insecure_channel(self.address)
        try:
            call = inference_grpc.InferenceServiceStub(channel).Generate(
                request, timeout=rng.uniform(0.01, 0.5) if behaviour == "deadline" else 120)
            return self.read(call, request, behaviour, rng.randrange(1, 20), channel)
        finally:
            channel.close()

    def read(self, call, request, behaviour, stop_at, channel):
        tokens, finished = 0, None
        try:
            for event in call:
                tokens += len(event.token_delta.tokens)
                if event.HasField("finished"):
                    finished = event.finished
                if behaviour == "cancels" and tokens >= stop_at:
                    call.cancel()
                if behaviour == "disconnects" and tokens >= stop_at:
                    channel.close()
                    return "gone", tokens
        except grpc.RpcError as error:
            if behaviour == "deadline" and error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                return "DEADLINE_EXCEEDED", tokens
            if behaviour == "cancels" and error.code() == grpc.StatusCode.CANCELLED:
                return "CANCELLED", tokens
            if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                return "RESOURCE_EXHAUSTED", tokens
            raise
        if finished is None:
            raise RuntimeError("the stream ended without its end")
        if tokens != request.stopping_options.max_tokens:
            raise RuntimeError(f"{tokens} tokens of {request.stopping_options.max_tokens}")
        return "finished", tokens


def await_idle(address):
    """Load once nothing runs; what is left after ten seconds is a fault."""
    stub = control_grpc.ControlServiceStub(grpc.insecure_channel(address))
    deadline = time.monotonic() + 10
    while True:
        load = stub.GetLoad(control.GetLoadRequest())
        idle = load.running_requests == 0 and load.queued_requests == 0 and load.used_kv_pages == 0
        if idle or time.monotonic() > deadline:
            return idle, load
        time.sleep(0.1)


def main():
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        process, address = start(folder)
        clients = Clients(address)
        until = time.monotonic() + options.seconds
        threads = [threading.Thread(target=clients.run, args=(i, until))
                   for i in range(options.clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        alive = process.poll() is None
        idle, load = await_idle(address) if alive else (False, None)
        process.send_signal(signal.SIGTERM)
        status = process.wait(timeout=60)
        for outcome, count in sorted(clients.counts.items()):
            print(f"{count:8}  {outcome}")
        print(f"{clients.tokens / options.seconds:.0f} tokens/s; idle at the end: {idle}; exit {status}")
        if not idle or status != 0 or clients.faults:
            print(load, (folder / "log").read_text()[-3000:], *clients.faults[:5], sep="\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
