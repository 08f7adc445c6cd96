#!/usr/bin/env python3
"""Keeps a server under mixed, rude traffic and checks that nothing is lost, doubled or left behind.

    tests/soak/soak.py --binary build/bin/swaa --stubs build/python [--requests 10000]

Starts a server in f32 with a pool too small for its load, so that requests are preempted and cached
prefixes evicted, and sends requests of all kinds of recipe: greedy and seeded, plain and forced,
with and without log-probabilities, some with prompts of up to 9 kB of text. Some clients cancel,
run into their deadline, drop their connection, are aborted, read slowly, stop reading until they are
cut off, or send nonsense. At the end
  - every stream had exactly one end, and everybody who read on had the whole answer,
  - every completed answer was token for token what the request gives alone,
  - whoever stopped reading was cut off, and nobody else,
  - what ended early had begun as the answer alone begins,
  - no page, request or stream is left, and memory no longer grows.
Prints one table; exits with 1 at the first broken promise, naming the seed.
"""

import argparse
import collections
import json
import os
import pathlib
import queue
import random
import shutil
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=str(ROOT / "build/bin/swaa"))
    parser.add_argument("--stubs", default=str(ROOT / "build/python"))
    parser.add_argument("--model", default=str(ROOT / "tests/data/tiny-llama"))
    parser.add_argument("--requests", type=int, default=10000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--kinds", type=int, default=60, help="different requests")
    parser.add_argument("--kv-cache-bytes", default="800KiB")
    parser.add_argument("--memory-growth-mib", type=int, default=24,
                        help="most resident memory that the second half may add")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    return parser.parse_args()


options = arguments()
os.environ["SWAA_BINARY"] = options.binary
sys.path[:0] = [options.stubs, str(ROOT / "tests/integration")]

import grpc  # noqa: E402
import harness  # noqa: E402
from harness import control, generation, recipes  # noqa: E402

# What a client may do, and how often.
BEHAVIOURS = {"reads to the end": 58, "cancels": 10, "deadline": 8, "disconnects": 7, "slow reader": 5,
              "stops reading": 2, "aborts": 5, "nonsense": 5}

# A window of a connection's own that does not grow, so that the server notices soon who stops.
SMALL_WINDOW = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024)]
CUT_OFF_SECONDS = 120  # at most, on however slow a machine


def random_recipe(rng, layers=2):
    recipe = recipes.Recipe()
    if rng.random() < 0.25:
        return recipe
    recipe.sliding_window_tokens = rng.choice([1, 16, 31, 64, 65, 100, 128])
    if rng.random() < 0.5:
        recipe.sink_tokens = rng.choice([1, 16, 64, 70])
    if rng.random() < 0.4:
        recipe.full_attention_layers.layers.indices.append(rng.randrange(layers))
    if rng.random() < 0.4:
        recipe.full_attention_decode.layers.indices.append(rng.randrange(layers))
    return recipe


def make_kinds(rng):
    """Requests over a few common prefixes."""
    documents = [[rng.randrange(3, 300) for _ in range(260)] for _ in range(4)]
    kinds = []
    for _ in range(options.kinds):
        ids = documents[rng.randrange(4)][:rng.randrange(1, 260)]
        ids = ids + [rng.randrange(3, 300) for _ in range(rng.randrange(1, 30))]
        kind = harness.request(ids=ids, max_tokens=rng.choice([1, 5, 20, 60, 200, 220]), recipe=random_recipe(rng),
                               temperature=rng.choice([0.0, 0.0, 0.8]))
        kind.sampling_params.seed = rng.randrange(1 << 40)
        kind.stopping_options.ignore_eos = rng.random() < 0.8
        kind.priority = rng.randrange(3)
        if rng.random() < 0.2:
            kind.response_options.output_logprobs = rng.randrange(3)
        if rng.random() < 0.1:
            kind.response_options.prompt_logprobs = 0
        if rng.random() < 0.2:
            count = rng.randrange(1, kind.stopping_options.max_tokens + 1)
            kind.forced_output_ids.ids.extend(rng.randrange(3, 300) for _ in range(count))
        kinds.append(kind)
    return kinds + [long_kind(rng) for _ in range(options.kinds // 30)]


def long_kind(rng):
    """A prompt of some kB, under a recipe that leaves little of it in the pool."""
    words = "".join(rng.choice("etaoinshrdlu    .,\n") for _ in range(rng.randrange(4000, 9000)))
    recipe = recipes.Recipe(sliding_window_tokens=rng.choice([16, 64, 100]),
                            sink_tokens=rng.choice([0, 4, 64]))
    kind = harness.request(words, max_tokens=rng.choice([1, 20, 100]), recipe=recipe)
    kind.stopping_options.ignore_eos = True
    return kind


def with_long_context(folder, into):
    """The model, for prompts longer than it was made for: what it says is no matter here."""
    copy = pathlib.Path(into) / "model"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    config["max_position_embeddings"] = 32768
    (copy / "config.json").write_text(json.dumps(config))
    return copy


class Soak:
    def __init__(self):
        self.rng = random.Random(options.seed)
        self.folder = tempfile.TemporaryDirectory(prefix="swaa-soak-")
        self.server = harness.Server(
            "--slow-reader-timeout-seconds", "1", "--dtype", "f32", "--kv-cache-bytes", options.kv_cache_bytes, "--max-running-requests",
            "12", "--max-queued-requests", "64", "--max-batch-tokens", "128",
            model=with_long_context(options.model, self.folder.name))
        self.kinds = make_kinds(self.rng)
        self.tasks = queue.Queue()
        self.ends = collections.Counter()
        self.problems = []
        self.lock = threading.Lock()

    def learn_answers(self):
        self.alone = []
        for index, kind in enumerate(self.kinds):
            cold = generation.GenerateRequest()
            cold.CopyFrom(kind)
            cold.cache_salt = f"alone {index}"
            self.alone.append(harness.collect(self.server.inference, cold).ids)

    def one(self, rng, channel, number):
        """Sends one request and behaves; returns how it ended."""
        behaviour = rng.choices(list(BEHAVIOURS), BEHAVIOURS.values())[0]
        index = rng.randrange(len(self.kinds))
        message = generation.GenerateRequest()
        message.CopyFrom(self.kinds[index])
        message.request_id = f"soak-{number}"
        own_channel = None
        if behaviour == "disconnects":
            channel = own_channel = self.server.new_channel()
        if behaviour == "stops reading":
            return behaviour, self.stop_reading(message)
        if behaviour == "nonsense":
            message.recipe.sliding_window_tokens = 0
        timeout = rng.uniform(0.001, 0.3) if behaviour == "deadline" else 300
        stub = harness.inference_grpc.InferenceServiceStub(channel)
        call = stub.Generate(message, timeout=timeout)
        leave_after = rng.randrange(0, 20)
        answer = harness.Answer()
        try:
            for event, response in enumerate(call):
                answer.take(response)
                if behaviour == "slow reader":
                    time.sleep(rng.uniform(0, 0.02))
                if event < leave_after:
                    continue
                if behaviour == "cancels":
                    call.cancel()
                elif behaviour == "disconnects":
                    channel.close()
                elif behaviour == "aborts":
                    self.abort(message.request_id)
            code = grpc.StatusCode.OK
        except grpc.RpcError as error:
            code = error.code()
        except ValueError:  # the channel was closed under the call
            code = grpc.StatusCode.CANCELLED
        if own_channel is not None:
            own_channel.close()
        return behaviour, self.check(behaviour, code, answer, self.alone[index])

    def stop_reading(self, message):
        """Takes one event of a long answer, and no more until the server is tired of it."""
        request_id = message.request_id
        message.CopyFrom(self.kinds[-1])
        message.request_id = request_id
        message.response_options.prompt_logprobs = 20
        channel = self.server.new_channel(SMALL_WINDOW)
        call = harness.inference_grpc.InferenceServiceStub(channel).Generate(message)
        assert next(call).WhichOneof("event") == "accepted"
        line = f"id={request_id} "
        until = time.monotonic() + CUT_OFF_SECONDS
        while line not in self.server.log():
            assert time.monotonic() < until, "it was not cut off"
            time.sleep(0.2)
        try:
            for response in call:
                assert response.WhichOneof("event") != "finished", "it was all there"
        except grpc.RpcError:
            return "cut off"
        finally:
            channel.close()
        raise AssertionError("its stream ended well")

    def abort(self, request_id):
        try:
            self.server.control.Abort(control.AbortRequest(request_id=request_id))
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND, error  # it had ended

    @staticmethod
    def check(behaviour, code, answer, alone):
        """The end's name; raises if it is not one that the behaviour may have."""
        ids = answer.ids
        assert ids == alone[:len(ids)], f"{behaviour}: {ids} instead of {alone}"
        if code == grpc.StatusCode.OK:
            assert answer.finished is not None, f"{behaviour}: OK without a last event"
            if answer.finished.finish_reason == generation.FINISH_REASON_CANCELLED:
                assert behaviour == "aborts"
                return "aborted"
            assert ids == alone, f"{behaviour}: {ids} instead of {alone}"
            assert answer.finished.usage.completion_tokens == len(alone)
            return "complete"
        allowed = {"cancels": {"CANCELLED"}, "disconnects": {"CANCELLED", "UNAVAILABLE"},
                   "deadline": {"DEADLINE_EXCEEDED"}, "nonsense": {"INVALID_ARGUMENT"},
                   "aborts": {"CANCELLED"}}.get(behaviour, set()) | {"RESOURCE_EXHAUSTED"}
        assert code.name in allowed, f"{behaviour}: ended with {code}"
        if behaviour == "nonsense":
            assert answer.accepted is None
        return code.name

    def client(self, seed):
        rng = random.Random(seed)
        channel = self.server.new_channel()
        while not self.problems:
            try:
                number = self.tasks.get_nowait()
            except queue.Empty:
                break
            try:
                end = self.one(rng, channel, number)
            except Exception as problem:  # pylint: disable=broad-except
                with self.lock:
                    self.problems.append(f"request {number}: {problem!r}")
                return
            with self.lock:
                self.ends[end] += 1
        channel.close()

    def send(self, numbers):
        for number in numbers:
            self.tasks.put(number)
        threads = [threading.Thread(target=self.client, args=(self.rng.random(),))
                   for _ in range(options.clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if not self.problems:
            self.server.await_idle()

    def resident_bytes(self):
        for line in open(f"/proc/{self.server.process.pid}/status", encoding="ascii"):
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) << 10
        raise AssertionError("the server is gone")

    def metric(self, name):
        return sum(float(line.rsplit(" ", 1)[1]) for line in self.server.metrics().splitlines()
                   if line.startswith((name + "{", name + " ")))

    def run(self):
        started = time.monotonic()
        self.learn_answers()
        half = options.requests // 2
        self.send(range(half))
        half_bytes = self.resident_bytes()
        if not self.problems:
            self.send(range(half, options.requests))
        self.report(half_bytes, time.monotonic() - started)
        return 1 if self.problems else 0

    def report(self, half_bytes, seconds):
        if not self.problems:
            grown = self.resident_bytes() - half_bytes
            if grown > options.memory_growth_mib << 20:
                self.problems.append(f"the second half took {grown >> 20} MiB more memory")
            counted = self.metric("swaa_requests_total")
            sent = options.requests + len(self.kinds)
            # A deadline can pass before the request has left its client.
            late = self.ends["deadline", "DEADLINE_EXCEEDED"]
            if not sent - late <= counted <= sent:
                self.problems.append(f"{counted:.0f} requests were counted, {sent} were sent")
            readers = sum(count for (behaviour, _), count in self.ends.items()
                          if behaviour in ("reads to the end", "slow reader"))
            complete = sum(self.ends[behaviour, "complete"]
                           for behaviour in ("reads to the end", "slow reader"))
            # The queue has room for all clients: nobody is refused.
            if complete < readers:
                self.problems.append(f"only {complete} of {readers} who read on were answered")
            stopped = self.ends["stops reading", "cut off"]
            cut_off = self.server.log().count("and was cut off")
            if cut_off != stopped:
                self.problems.append(f"{cut_off} were cut off, {stopped} had stopped reading")
            for behaviour in BEHAVIOURS:
                if options.requests >= 500 and not any(
                        behaviour == one for one, _ in self.ends):
                    self.problems.append(f"nobody did this: {behaviour}")
            if self.metric("swaa_preemptions_total") == 0:
                self.problems.append("nothing was preempted: the pool was not too small")
            load = self.server.load()
            print(f"{options.requests} requests in {seconds:.0f} s, seed {options.seed}; preemptions "
                  f"{self.metric('swaa_preemptions_total'):.0f}; resident memory "
                  f"{half_bytes >> 20} MiB half way, {grown / (1 << 20):+.1f} MiB at the end; pages "
                  f"held {load.used_kv_pages} of {load.total_kv_pages}")
            for (behaviour, end), count in sorted(self.ends.items()):
                print(f"  {behaviour:18} {end:20} {count:6}")
            if self.server.stop() != 0:
                self.problems.append("the server did not stop with 0")
        if self.problems:
            print(self.server.log()[-4000:], file=sys.stderr)
            self.server.stop()
        for problem in self.problems:
            print(f"seed {options.seed}: {problem}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(Soak().run())
