"""What operators see: control plane, metrics, reflection, the command line."""

import concurrent.futures
import fcntl
import json
import os
import pathlib
import re
import socket
import subprocess
import time

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

import harness
from harness import BINARY, Server, collect, control, request, trailer

DATA = pathlib.Path(__file__).resolve().parents[1] / "data"


def test_server_and_model_info(server):
    info = server.control.GetServerInfo(control.GetServerInfoRequest())
    assert info.version and info.instance_id and info.backend == "cpu" and info.device
    assert info.kv_page_tokens == 64 and info.max_loras == 8
    assert not info.HasField("device_facts")  # no driver on the CPU
    # 3 KV heads of 64 dimensions, K and V, f32.
    assert info.kv_page_bytes == 64 * 3 * 64 * 2 * 4
    assert 0 < info.kv_total_pages * info.kv_page_bytes <= 512 << 20
    model = server.control.GetModelInfo(control.GetModelInfoRequest())
    assert (model.num_layers, model.num_attention_heads, model.num_kv_heads, model.head_dim) == \
        (30, 9, 3, 64)
    assert (model.vocab_size, model.max_context_tokens) == (49152, 8192)
    assert model.architecture == "llama" and model.supports_chat and not model.supports_thinking
    assert model.served_model_name == "smollm2-135m-instruct" and model.eos_token_ids
    with pytest.raises(grpc.RpcError) as caught:
        server.control.GetModelInfo(control.GetModelInfoRequest(model="other"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_recipes_are_listed_resolved(server):
    listed = server.control.ListRecipes(control.ListRecipesRequest())
    assert listed.default_recipe_name == "full"
    recipes = {named.name: named.recipe for named in listed.named_recipes}
    assert set(recipes) == {"full", "quality", "balanced", "fast", "memory", "decode", "window"}
    assert recipes["full"].ByteSize() == 0
    assert recipes["quality"].sliding_window_tokens == 4096 and recipes["quality"].sink_tokens == 100
    assert list(recipes["fast"].full_attention_layers.layers.indices) == list(range(1, 30, 4))
    assert list(recipes["decode"].full_attention_decode.layers.indices) == list(range(30))
    assert not recipes["memory"].HasField("full_attention_decode")
    assert all(named.description for named in listed.named_recipes)


def test_adapters(server):
    assert not server.control.ListLoras(control.ListLorasRequest()).lora_adapters
    for call, message, code in [
        (server.control.LoadLora, control.LoadLoraRequest(lora_name="a", source_path="a"),
         grpc.StatusCode.FAILED_PRECONDITION),
        (server.control.UnloadLora, control.UnloadLoraRequest(lora_name="a"),
         grpc.StatusCode.NOT_FOUND),
    ]:
        with pytest.raises(grpc.RpcError) as caught:
            call(message)
        assert caught.value.code() == code and '"a"' in caught.value.details()
        assert trailer(caught.value, "swaa-error-reason")


def test_reflection(server):
    call = server.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    # ServerReflectionRequest.list_services = "*"; the names come back as plain strings.
    answer = next(iter(call(iter([b"\x3a\x01*"]), timeout=60)))
    for service in (b"swaa.v1.InferenceService", b"swaa.v1.ControlService", b"grpc.health.v1.Health"):
        assert service in answer


def wire_fields(message):
    """(number, value) of a serialised message's fields: varints and bytes."""
    at = 0

    def varint():
        nonlocal at
        number = shift = 0
        while True:
            byte = message[at]
            at += 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    while at < len(message):
        tag = varint()
        value = varint()
        if tag & 7 == 2:
            at += value
            value = message[at - value:at]
        yield tag >> 3, value


def test_generates_by_reflection_alone(server):
    """As grpcurl does: nothing of the proto files but what the server says of them."""
    call = server.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    pool = descriptor_pool.DescriptorPool()
    added = set()

    def add(serialised):
        file = descriptor_pb2.FileDescriptorProto.FromString(serialised)
        if file.name in added:
            return
        added.add(file.name)
        for name in file.dependency:
            ask(b"\x1a", name)  # file_by_filename
        pool.Add(file)

    def ask(field, name):
        text = name.encode()
        answer = next(iter(call(iter([field + bytes([len(text)]) + text]), timeout=60)))
        found = [value for number, value in wire_fields(answer) if number == 4]
        assert found, f"{name} is not described: {answer}"
        files = [value for _, value in wire_fields(found[0])]
        names = {descriptor_pb2.FileDescriptorProto.FromString(one).name: one for one in files}
        for one in names.values():
            add(one)

    for service in ("swaa.v1.InferenceService", "swaa.v1.ControlService"):
        ask(b"\x22", service)  # file_containing_symbol
        assert pool.FindServiceByName(service).methods
    method = pool.FindServiceByName("swaa.v1.InferenceService").FindMethodByName("Generate")
    make = message_factory.MessageFactory(pool).GetPrototype
    message = make(method.input_type)(prompt="The sea")
    message.stopping_options.max_tokens = 3
    generate = server.channel.unary_stream(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=make(method.output_type).FromString)
    last = list(generate(message, timeout=60))[-1]
    assert last.finished.usage.completion_tokens == 3


def test_errors_carry_their_details(server):
    """google.rpc.Status with ErrorInfo and RetryInfo, by hand."""
    error = harness.refused(server.inference, request("x", recipe="nope"))
    status = dict(wire_fields(trailer(error, "grpc-status-details-bin")))
    assert status[1] == grpc.StatusCode.NOT_FOUND.value[0]
    assert status[2].decode() == error.details()
    detail = dict(wire_fields(status[3]))
    assert detail[1] == b"type.googleapis.com/google.rpc.ErrorInfo"
    info = dict(wire_fields(detail[2]))
    assert (info[1], info[2]) == (b"recipe_not_found", b"swaa.v1")


def test_counters_move_while_a_request_runs(server):
    server.await_idle()
    before = server.metrics()
    message = request("one two three", max_tokens=3000, recipe="window")
    message.stopping_options.ignore_eos = True
    call = server.inference.Generate(message)
    seen = 0
    for response in call:
        seen += len(response.token_delta.tokens)
        if seen >= 20:
            break
    page = server.metrics()

    def grown(name, **labels):
        return sample(page, name, **labels) - sample(before, name, **labels)

    assert server.load().running_requests == 1
    assert grown("swaa_generation_tokens_total", recipe="window") >= 20
    assert grown("swaa_attended_keys_total", recipe="window") >= 30 * 20 * 3
    assert grown("swaa_time_to_first_token_seconds_count", recipe="window", prompt_len="le_2k") == 1
    call.cancel()
    server.await_idle()
    assert sample(page, "process_resident_memory_bytes") > 100 << 20
    assert sample(page, "process_open_fds") > 5
    assert sample(page, "process_cpu_seconds_total") > 0
    assert sample(page, "process_start_time_seconds") == pytest.approx(time.time(), abs=3600)
    assert sample(page, "swaa_connections_open") >= 1


def sample(page, name, **labels):
    """The value of one series."""
    for line in page.splitlines():
        match = re.fullmatch(re.escape(name) + r"(?:\{(.*)\})? (\S+)", line)
        if match and dict(re.findall(r'(\w+)="([^"]*)"', match[1] or "")) == labels:
            return float(match[2])
    return 0.0


def test_metrics(server):
    server.await_idle()
    before = server.metrics()
    answer = collect(server.inference, request("one two three", max_tokens=5, recipe="window"))
    harness.refused(server.inference, request("x", recipe="nope"))
    server.await_idle()
    page = server.metrics()

    def grown(name, **labels):
        return sample(page, name, **labels) - sample(before, name, **labels)

    assert grown("swaa_requests_total", recipe="window", finish_reason="length",
                 grpc_code="OK") == 1
    assert grown("swaa_requests_total", recipe="none", finish_reason="none",
                 grpc_code="NOT_FOUND") == 1
    assert grown("swaa_requests_rejected_total", reason="recipe_not_found") == 1
    assert grown("swaa_prompt_tokens_total", recipe="window", source="computed") == 3
    assert grown("swaa_generation_tokens_total", recipe="window") == 5
    assert grown("swaa_attended_keys_total", recipe="window") == \
        answer.finished.stats.attended_keys
    assert grown("swaa_attended_keys_full_equivalent_total", recipe="window") == \
        answer.finished.stats.full_attention_attended_keys
    assert grown("swaa_time_to_first_token_seconds_count", recipe="window", prompt_len="le_2k") == 1
    assert grown("swaa_inter_token_latency_seconds_count", recipe="window") == 4
    for name in ("duration", "queue", "prefill", "decode"):
        assert grown(f"swaa_request_{name}_seconds_count", recipe="window") == 1
    assert grown("swaa_attended_keys_ratio_count", recipe="window") == 1
    assert grown("swaa_step_duration_seconds_count", phase="prefill") == 1
    assert grown("swaa_step_duration_seconds_count", phase="decode") == 4
    assert grown("swaa_batch_tokens_sum") == 3 + 4
    assert sample(page, "swaa_requests_running") == sample(page, "swaa_kv_cache_usage_ratio") == 0
    assert 0 < sample(page, "swaa_kv_cache_capacity_bytes") <= 512 << 20
    memory = {kind: sample(page, "swaa_device_memory_bytes", kind=kind)
              for kind in ("weights", "kv", "workspace", "free")}
    assert 100e6 < memory["weights"] < 1e9
    # The zero page beside those that the pool hands out.
    assert memory["kv"] == sample(page, "swaa_kv_cache_capacity_bytes") + 64 * 3 * 64 * 2 * 4
    # Logits of 64 rows at least.
    assert 64 * 49152 * 4 <= memory["workspace"] < 1e9
    assert 0 < memory["free"] < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # Nothing is told that no driver tells.
    assert "swaa_device_clock" not in page and "swaa_device_power" not in page
    assert 'swaa_recipe_info{' in page and 'swaa_build_info{' in page
    assert 'recipe="custom"' in page
    lint = subprocess.run(["promtool", "check", "metrics"], input=page, text=True,
                          capture_output=True, check=False)
    assert lint.returncode == 0 and not lint.stdout + lint.stderr, lint.stdout + lint.stderr


@pytest.mark.parametrize("flows", [False, True], ids=["for ever", "for a while"])
def test_a_log_that_nobody_reads_stops_nothing(flows):
    """Behind a pipe of a page, and with more lines than may wait for it."""
    unread, output = os.pipe()
    fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, 4096)
    server = Server("--kv-cache-bytes", "64MiB", model=DATA / "tiny-llama31", output=output)
    os.close(output)
    sent = 0
    while sample(server.metrics(), "swaa_log_lines_lost_total") < 100:
        assert sent < 20000, "its lines all found room"
        calls = [server.inference.Generate(request(ids=[1], max_tokens=1, request_id=f'{"x" * 120}{one}'),
                                           timeout=300) for one in range(sent, sent + 100)]
        for call in calls:
            assert list(call)[-1].HasField("finished")
        sent += 100
    with open(unread, encoding="utf-8") as log, \
            concurrent.futures.ThreadPoolExecutor(1) as reader:
        reading = reader.submit(log.read) if flows else None
        assert server.stop() == 0
        if not flows:
            return
        lines = reading.result().splitlines()
    told = [re.search(r"log: (\d+) lines were lost here", line) for line in lines]
    lost = sum(int(one[1]) for one in told if one)
    ended = [re.search(r" info request id=x+(\d+) .*status=OK", line) for line in lines]
    numbers = [int(one[1]) for one in ended if one]
    assert len(set(numbers)) == len(numbers) and len(numbers) + lost >= sent and lost >= 100
    assert lines[-1].endswith("stopped")


def test_gauges_while_a_request_runs(server):
    message = request("word " * 300, max_tokens=2000, recipe="full")
    message.stopping_options.ignore_eos = True
    call = server.inference.Generate(message)
    for _ in range(4):  # the gauges are those of the last whole step
        next(call)
    page = server.metrics()
    held = sample(page, "swaa_kv_cache_bytes", recipe="full")
    assert sample(page, "swaa_requests_running") == 1
    assert held >= 30 * 5 * 64 * 3 * 64 * 2 * 4
    assert sample(page, "swaa_kv_cache_full_equivalent_bytes", recipe="full") == held
    assert sample(page, "swaa_kv_cache_usage_ratio") > 0
    call.cancel()
    server.await_idle()


def test_the_load_counts_what_waits_to_be_read(server):
    channel = server.new_channel()
    stub = harness.inference_grpc.InferenceServiceStub(channel)
    message = request("word " * 6000, max_tokens=1)
    until = time.monotonic() + 120
    load = server.load()
    while load.unread_requests == 0:
        assert time.monotonic() < until, "nobody ever waited to be read"
        calls = [stub.Generate(message) for _ in range(48)]
        load = server.load()
        for call in calls:
            call.cancel()
    assert load.unread_bytes >= load.unread_requests * 5 * 6000
    server.await_load(lambda load: (load.unread_requests, load.unread_bytes) == (0, 0),
                      "nobody who waits to be read", 60)
    server.await_idle()
    channel.close()


def run(*arguments, stdin=None):
    return subprocess.run([BINARY, *arguments], text=True, capture_output=True, input=stdin,
                          timeout=600, check=False)


def test_generate_command(server):
    address = f"--address=127.0.0.1:{server.port}"
    plain = run("generate", "The three primary colours are red, yellow and", address,
                "--max-tokens", "6", "--temperature", "0")
    assert plain.returncode == 0 and "blue" in plain.stdout
    assert "recipe full: 9 prompt + 6 output tokens" in plain.stderr
    as_json = run("generate", "one two three four", address, "--json", "--max-tokens=4",
                  "--temperature=0", "--window", "8", "--sinks=2", "--full-layers=odd",
                  "--full-decode", "1:4", "--logprobs", "2", "--token-timing")
    answer = json.loads(as_json.stdout)
    assert answer["completion_tokens"] == len(answer["tokens"]) == 4
    assert all(len(token["top"]) == 2 and token["ms"] > 0 for token in answer["tokens"])
    wrong = run("generate", "x", address, "--recipe", "nope")
    assert wrong.returncode == 1 and "NOT_FOUND" in wrong.stderr and "nope" in wrong.stderr


def test_chat_command(server):
    turns = run("chat", f"--address=127.0.0.1:{server.port}", "--max-tokens", "12",
                "--temperature", "0", "--recipe", "balanced", stdin="Hello!\nAnd again.\n/quit\n")
    assert turns.returncode == 0 and turns.stdout.strip()
    costs = re.findall(r"recipe balanced: (\d+) prompt", turns.stderr)
    assert len(costs) == 2 and int(costs[1]) > int(costs[0]) + 5, "the second turn has the first"


def test_clients_take_every_option_and_stop_at_a_sensible_length(server):
    address = f"127.0.0.1:{server.port}"

    def generate(*flags):
        result = run("generate", "One, two, three,", "--address", address, "--temperature", "0",
                     "--json", *flags)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    assert generate("--ignore-eos")["completion_tokens"] == 256
    plain = generate("--max-tokens", "12")
    assert " four" in plain["text"]
    stopped = generate("--max-tokens", "12", "--stop", " five,never")
    assert stopped["finish_reason"] == "FINISH_REASON_STOP"
    assert plain["text"].startswith(stopped["text"]) and " five" not in stopped["text"]
    assert " five" in generate("--stop", " five", "--include-stop")["text"]
    token = plain["tokens"][1]["id"]
    assert generate("--stop-token-ids", str(token))["tokens"][-1]["id"] == token
    biased = generate("--max-tokens", "2", "--logit-bias", f"{token}:100")
    assert [one["id"] for one in biased["tokens"]] == [token, token]
    drawn = generate("--max-tokens", "4", "--temperature", "1", "--top-k", "1", "--top-p", "0.5",
                     "--min-p", "0.1", "--frequency-penalty", "0.1", "--presence-penalty", "0.1",
                     "--repetition-penalty", "1.01", "--seed", "3", "--min-tokens", "4",
                     "--priority", "5", "--cache-salt", "s", "--request-id", "mine")
    assert drawn["completion_tokens"] == 4 and drawn["request_id"] == "mine"
    refused = run("generate", "x", "--address", address, "--logit-bias", "many")
    assert refused.returncode == 2 and "--logit-bias" in refused.stderr


def test_info_recipes_abort_and_version(server):
    address = ["--address", f"127.0.0.1:{server.port}"]
    info = run("info", *address)
    assert info.returncode == 0, info.stderr
    for word in ("smollm2-135m-instruct", "30 layers", "context 8192", "0 run"):
        assert word in info.stdout
    listed = run("recipes", *address)
    assert listed.returncode == 0 and "full (the default)\n" in listed.stdout
    assert "window 2048, sinks 10, full layers 1,5,9" in listed.stdout
    message = request("x", max_tokens=4000, request_id="to abort")
    message.stopping_options.ignore_eos = True
    call = server.inference.Generate(message)
    next(call)
    assert run("abort", "to abort", *address).stdout == "aborted 1\n"
    for _ in call:
        pass
    gone = run("abort", "to abort", *address)
    assert gone.returncode == 1 and "request_not_found" in gone.stderr
    assert run("abort", "--all", *address).stdout == "aborted 0\n"
    assert run("abort", *address).returncode == 2
    assert re.fullmatch(r"swaa \d+\.\d+\.\d+\n", run("--version").stdout)


@pytest.mark.parametrize("command", ["generate x", "chat", "info", "recipes", "abort x"])
def test_without_a_server_it_says_how_to_start_one(command):
    result = run(*command.split(), "--address", "127.0.0.1:1",
                 **({"stdin": "hi\n"} if command == "chat" else {}))
    assert result.returncode == 1
    assert "swaa serve" in result.stderr and "127.0.0.1:1" in result.stderr


@pytest.mark.parametrize("arguments,words", [
    (["--model", "/no/such.gguf"], ["/no/such.gguf"]),
    ([], ["--model"]),
    (["--model", "x", "--kv-cache-bytes", "2GB"], ["--kv-cache-bytes", "2GB", "2GiB"]),
    (["--model", "x", "--threads", "many"], ["--threads", "many"]),
    (["--model", "x", "--threads", "-1"], ["--threads", "-1", "from 0"]),
    (["--model", "x", "--listen-address", "nowhere"], ["--listen-address", "nowhere", "HOST:PORT"]),
    (["--model", "x", "--load-format", "fast"], ["--load-format", "fast", "dummy"]),
    (["--model", "x", "--log-format", "xml"], ["--log-format", "xml", "json"]),
    (["--model", "x", "--log-level", "loud"], ["--log-level", "loud", "debug"]),
    (["--model", "x", "--no-such-flag"], ["--no-such-flag", "--listen-address"]),
    (["--model", "x", "--max-running-requests", "0"], ["--max-running-requests", "at least 1"]),
    (["--model", "x", "--threads", "100000"], ["--threads", "100000", "at most 1024"]),
    (["--model", "x", "--max-running-requests", "1000000"],
     ["--max-running-requests", "1000000", "at most 65536"]),
    (["--model", "x", "--max-batch-tokens", "2147483647"],
     ["--max-batch-tokens", "2147483647", "at most 1048576"]),
    (["--model", "x", "--max-queued-requests", "2147483647"],
     ["--max-queued-requests", "2147483647", "at most 1048576"]),
    (["--model", "x", "stray"], ["stray"]),
    (["--model", "x", "--default-recipe", "balancd"],
     ["--default-recipe", "balancd", "did you mean balanced?"]),
    (["--model", "x", "--prefix-cache", "maybe"], ["--prefix-cache", "maybe", "on or off"]),
], ids=lambda value: " ".join(value) if value and value[0].startswith("--m") else "")
def test_wrong_command_lines(arguments, words):
    result = run("serve", *arguments)
    assert result.returncode != 0
    for word in words:
        assert word in result.stderr, result.stderr


def test_values_that_only_the_model_can_judge():
    model = ["--model", str(harness.model_path()), "--kv-cache-bytes", "64MiB",
             "--listen-address", "127.0.0.1:0"]
    for flags, words in [
        (["--dtype", "f8"], ["f8", "f32"]),
        (["--instruction-set", "sse"], ["sse", "avx2"]),
        (["--kv-cache-bytes", "1KiB"], ["kv_cache_bytes", "1024", "at least"]),
        (["--max-running-requests", "60000", "--max-batch-tokens", "1000000"],
         ["--max-running-requests", "--max-batch-tokens"]),
        (["--kv-cache-bytes", "900TiB"], ["not enough memory", "lower kv_cache_bytes"]),
    ]:
        result = run("serve", *model, *flags)
        assert result.returncode == 1
        for word in words:
            assert word in result.stderr, result.stderr


def test_a_taken_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for flag in ("--listen-address", "--metrics-address"):
            result = run("serve", "--model", str(harness.model_path()), "--kv-cache-bytes", "64MiB",
                         "--listen-address", "127.0.0.1:0", flag, address)
            assert result.returncode == 1
            assert flag in result.stderr and address in result.stderr
            assert "loading" not in result.stderr, "found before the model is loaded"


def test_help():
    assert "serve" in run("--help").stdout
    text = run("serve", "--help").stdout
    for flag in ("model", "listen-address", "metrics-address", "served-model-name",
                 "default-recipe", "max-batch-tokens", "max-running-requests",
                 "max-queued-requests", "kv-cache-bytes", "config", "prefix-cache", "threads", "load-format", "dtype",
                 "instruction-set", "drain-grace-seconds", "log-format", "log-level"):
        assert f"--{flag}\n" in text
    assert "[4MiB]" in text  # a default as people write it


def test_served_name_default_recipe_and_dummy_weights():
    server = Server("--served-model-name", "mine", "--default-recipe", "memory", "--load-format",
                    "dummy", "--kv-cache-bytes", "64MiB")
    answer = collect(server.inference, request("x", model="mine", max_tokens=2))
    assert answer.accepted.model == "mine" and answer.accepted.recipe_name == "memory"
    assert server.stop() == 0, server.log()
