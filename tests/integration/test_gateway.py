"""The service of the gateway SMG, asked directly and through SMG itself (docs/gateway.md)."""

import concurrent.futures
import hashlib
import io
import json
import pathlib
import re
import signal
import threading
import zipfile

import grpc
import pytest
from smg.grpc.common import common_pb2 as common
from vllm.grpc.engine import vllm_engine_pb2 as vllm
from vllm.grpc.engine import vllm_engine_pb2_grpc as vllm_grpc

import harness
from gateway import Gateway, await_true
from harness import Server, collect, generation, recipes, request

MODEL = "smollm2-135m-instruct"
QUESTION = [{"role": "user", "content": "Name three rivers of Europe."}]
LONG = {"max_tokens": 8000, "ignore_eos": True}
TINY = pathlib.Path(__file__).resolve().parents[1] / "data/tiny-llama31"


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts a server of a small model: narrow, so that it is loaded at once, and deep, so that an
    answer of some thousand tokens takes seconds."""
    folder = tmp_path_factory.mktemp("models") / "deep"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text((TINY / name).read_text())
    config = json.loads((TINY / "config.json").read_text())
    config.update(num_hidden_layers=64, max_position_embeddings=16384)
    (folder / "config.json").write_text(json.dumps(config))
    return lambda *flags: Server("--load-format", "dummy", "--dtype", "f32", "--threads", "1",
                                 "--kv-cache-bytes", "256MiB", *flags, model=folder)


def engine(server):
    return vllm_grpc.VllmEngineStub(server.channel)


def asked(ids, *, request_id="", stream=True, **params):
    params = {"temperature": 0.0, "max_tokens": 8, **params}
    return vllm.GenerateRequest(request_id=request_id, tokenized={"input_ids": ids}, stream=stream,
                                sampling_params=vllm.SamplingParams(**params))


def chat(question, **fields):
    """The same chat as SMG's, asked of the server itself."""
    message = request(max_tokens=8, **fields)
    for turn in question:
        message.chat.messages.add(role=generation.ROLE_USER, content=turn["content"])
    return message


# ---- the service alone ----


def test_samples_come_in_one_stream_and_end_together(stub, server):
    ids = harness.tokenize(stub, "The sea is")
    direct = collect(stub, request(ids=ids, temperature=0.8,
                                   sampling_params=generation.SamplingParams(seed=7)))
    for stream in (True, False):
        chunks, complete = {0: [], 1: []}, {}
        for response in engine(server).Generate(
                asked(ids, n=2, temperature=0.8, seed=7, stream=stream, logprobs=1), timeout=600):
            if response.HasField("chunk"):
                chunks[response.chunk.index] += response.chunk.token_ids
                assert len(response.chunk.output_logprobs.token_logprobs) == 1
            else:
                complete[response.complete.index] = response.complete
        assert list(complete[0].output_ids) == direct.ids
        assert list(complete[1].output_ids) != direct.ids
        for index, answer in complete.items():
            assert answer.finish_reason == "length" and answer.completion_tokens == 8
            assert chunks[index] == (list(answer.output_ids) if stream else [])
            assert len(answer.output_logprobs.token_ids) == (0 if stream else 8)


def test_prompt_logprobs_have_an_entry_for_each_token(stub, server):
    ids = harness.tokenize(stub, "The sea is")
    for response in engine(server).Generate(asked(ids, prompt_logprobs=1, stream=False)):
        told = response.complete.input_logprobs
    assert list(told.token_ids) == ids and len(told.top_logprobs) == len(ids)
    assert [one.HasField("value") for one in told.token_logprobs] == [False] + [True] * (
        len(ids) - 1)


def test_metadata_comes_when_the_request_is_accepted(start):
    server = start("--max-running-requests", "1")
    first = engine(server).Generate(asked([1, 2], request_id="first", **LONG))
    next(first)
    second = engine(server).Generate(asked([1, 2], request_id="second"))
    arrived = threading.Event()
    threading.Thread(target=lambda: (second.initial_metadata(), arrived.set()), daemon=True).start()
    server.await_load(lambda load: load.queued_requests == 1, "the second in the queue", 60)
    assert not arrived.is_set()
    engine(server).Abort(vllm.AbortRequest(request_ids=["first", "of nobody"]), timeout=60)
    assert arrived.wait(60)
    assert list(first)[-1].complete.finish_reason == "abort"
    assert list(second)[-1].complete.completion_tokens == 8
    # Refused before that: a status, and no metadata that would make it a success.
    third = engine(server).Generate(asked([10**6]))
    with pytest.raises(grpc.RpcError) as refused:
        next(third)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert server.stop() == 0, server.log()


def test_calls_go_on_when_idle_and_old_connections_are_closed(start, tmp_path):
    """Each sample is a call within the process, on a connection that must outlive others."""
    (tmp_path / "swaa.yaml").write_text(
        "network: {max_connection_idle: 100ms, max_connection_age: 200ms}")
    server = start("--config", str(tmp_path / "swaa.yaml"))
    for _ in range(2):
        channel = server.new_channel()
        call = vllm_grpc.VllmEngineStub(channel).Generate(asked([1, 2]), wait_for_ready=True)
        assert list(call)[-1].complete.completion_tokens == 8
        closed = threading.Event()
        channel.subscribe(lambda state, closed=closed: state == grpc.ChannelConnectivity.IDLE
                          and closed.set())
        assert closed.wait(60), "the server never closed the client's connection"
    assert server.stop() == 0, server.log()


def test_abort_ends_every_sample_and_frees_all(server):
    call = engine(server).Generate(asked([1, 2], request_id="x" * 165, n=3, **LONG))
    next(call)
    server.await_load(lambda load: load.running_requests == 3, "three samples", 60)
    engine(server).Abort(vllm.AbortRequest(request_ids=["x" * 165]), timeout=60)
    ends = [one.complete for one in call if one.HasField("complete")]
    assert sorted((end.index, end.finish_reason) for end in ends) == [
        (0, "abort"), (1, "abort"), (2, "abort")]
    server.await_idle()
    call = engine(server).Generate(asked([1, 2], n=2, **LONG))
    next(call)
    call.cancel()
    server.await_idle()


@pytest.mark.parametrize("change, code, word", [
    (dict(json_schema="{}"), "INVALID_ARGUMENT", "sampling_params.json_schema"),
    (dict(regex="a"), "INVALID_ARGUMENT", "sampling_params.regex"),
    (dict(grammar="a"), "INVALID_ARGUMENT", "sampling_params.grammar"),
    (dict(structural_tag="a"), "INVALID_ARGUMENT", "sampling_params.structural_tag"),
    (dict(json_object=True), "INVALID_ARGUMENT", "sampling_params.json_object"),
    (dict(choice=b""), "INVALID_ARGUMENT", "sampling_params.choice"),
    (dict(truncate_prompt_tokens=1), "INVALID_ARGUMENT", "truncate_prompt_tokens"),
    (dict(n=65), "INVALID_ARGUMENT", "sampling_params.n: 65"),
    (dict(logprobs=-1), "INVALID_ARGUMENT", "sampling_params.logprobs -1"),
    (dict(logprobs=21), "INVALID_ARGUMENT", "21"),
    (dict(temperature=-1.0), "INVALID_ARGUMENT", "temperature"),
])
def test_what_is_not_supported_is_refused_by_name(server, change, code, word):
    with pytest.raises(grpc.RpcError) as refused:
        list(engine(server).Generate(asked([1, 2], **change), timeout=60))
    assert refused.value.code().name == code and word in refused.value.details()
    assert harness.trailer(refused.value, "swaa-error-reason")


def test_refusals_have_the_codes_that_the_gateway_understands(server):
    def code(message):
        with pytest.raises(grpc.RpcError) as refused:
            list(engine(server).Generate(message, timeout=60))
        return refused.value.code()
    assert code(asked([1] * 9000)) == grpc.StatusCode.INVALID_ARGUMENT  # not OUT_OF_RANGE
    message = asked([1])
    message.mm_inputs = b""
    assert code(message) == grpc.StatusCode.INVALID_ARGUMENT
    assert code(vllm.GenerateRequest()) == grpc.StatusCode.INVALID_ARGUMENT
    live = engine(server).Generate(asked([1, 2], request_id="same", **LONG))
    next(live)
    assert code(asked([1, 2], request_id="same")) == grpc.StatusCode.ABORTED  # not ALREADY_EXISTS
    live.cancel()
    server.await_idle()


def test_tokenizer_archive(server):
    chunks = list(engine(server).GetTokenizer(common.GetTokenizerRequest(), timeout=60))
    data = b"".join(chunk.data for chunk in chunks)
    assert [chunk.sha256 for chunk in chunks] == [""] * (len(chunks) - 1) + [
        hashlib.sha256(data).hexdigest()]
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert archive.testzip() is None
    tokenizer = json.loads(archive.read("tokenizer.json"))
    size = engine(server).GetModelInfo(vllm.GetModelInfoRequest()).vocab_size
    assert tokenizer["model"]["vocab"]["<|/recipe|>"] == size + 1
    config = json.loads(archive.read("tokenizer_config.json"))
    assert config["chat_template"].endswith("<|/recipe|>")


def test_experiment_units_come_by_request_id_and_tracestate(start, tmp_path):
    config = tmp_path / "swaa.yaml"
    config.write_text("""
experiments:
  - id: windows
    arms:
      - {name: all, recipe_name: full, weight: 1}
      - {name: some, recipe_name: window, weight: 1}
""")
    server = start("--config", str(config))

    def assigned():
        return sum(float(line.split()[-1]) for line in server.metrics().splitlines()
                   if line.startswith("swaa_experiment_assignments_total{"))
    list(engine(server).Generate(asked([1, 2])))
    assert assigned() == 0
    uuid = "01890a5d-ac96-774b-bcce-b302099a8057"
    list(engine(server).Generate(asked([1, 2], request_id=f"unit=alice-{uuid}")))
    assert assigned() == 1
    list(engine(server).Generate(asked([1, 2]),
                                 metadata=(("tracestate", "other=1, swaa=alice"),)))
    assert assigned() == 2
    assert server.stop() == 0, server.log()


# ---- through SMG ----


@pytest.fixture(scope="module")
def gateway(server, tmp_path_factory):
    running = Gateway(tmp_path_factory.mktemp("gateway"), [f"127.0.0.1:{server.port}"])
    yield running
    running.stop()


def recipe_count(server, recipe):
    return sum(float(line.split()[-1]) for line in server.metrics().splitlines()
               if line.startswith("swaa_requests_total{") and f'recipe="{recipe}"' in line)


def test_the_gateway_tokenises_as_the_server_does(gateway, stub):
    for text in ("The sea is", "  two  spaces\n\n\tand a tab", "3 1415 日本語 עברית", "naïve é e\u0301",
                 "👩‍👩‍👧‍👦 flags 🇪🇺", "<|im_start|>user\nhi<|im_end|>\n", "x" * 300, "'s 'RE don't"):
        status, told = gateway.post("/v1/tokenize", model=MODEL, prompt=text)
        assert status == 200 and told["tokens"] == harness.tokenize(stub, text), text


def test_answers_are_the_servers_own(gateway, stub):
    direct = collect(stub, chat(QUESTION))
    body = dict(model=MODEL, messages=QUESTION, max_tokens=8, temperature=0)
    whole = gateway.answer("/v1/chat/completions", **body)
    assert whole["choices"][0]["message"]["content"] == direct.text
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["usage"]["prompt_tokens"] == direct.finished.usage.prompt_tokens
    assert gateway.stream("/v1/chat/completions", **body).text() == direct.text
    direct = collect(stub, request("The sea is", max_tokens=8))
    body = dict(model=MODEL, prompt="The sea is", max_tokens=8, temperature=0)
    assert gateway.answer("/v1/completions", **body)["choices"][0]["text"] == direct.text
    assert gateway.stream("/v1/completions", **body).text() == direct.text


def test_recipes_by_name_and_in_full(gateway, server, stub):
    narrow = recipes.Recipe(sliding_window_tokens=8, sink_tokens=1)
    direct = collect(stub, chat(QUESTION, recipe=narrow))
    assert direct.text != collect(stub, chat(QUESTION)).text
    body = dict(model=MODEL, messages=QUESTION, max_tokens=8, temperature=0)

    def answered(recipe):
        return gateway.answer("/v1/chat/completions", chat_template_kwargs={"recipe": recipe},
                              **body)["choices"][0]["message"]["content"]
    assert answered({"sliding_window_tokens": 8, "sink_tokens": 1}) == direct.text
    before = recipe_count(server, "balanced")
    answered("balanced")
    assert recipe_count(server, "balanced") == before + 1
    before = recipe_count(server, "fast")
    gateway.answer("/v1/completions", model=MODEL, max_tokens=2,
                   prompt="The sea is<|recipe|>fast<|/recipe|>")
    assert recipe_count(server, "fast") == before + 1


def test_a_model_of_another_name_has_its_recipe(start, tmp_path):
    """Two names of one port, told apart by the host that the gateway was given."""
    config = tmp_path / "swaa.yaml"
    named = {"name": "deep:narrow", "recipe": "narrow", "authorities": ["localhost"]}
    narrow = {"name": "narrow", "recipe": {"sliding_window_tokens": 8, "sink_tokens": 1}}
    config.write_text(json.dumps({"model": {"served_names": [named]}, "recipes": [narrow]}))
    server = start("--config", str(config))
    gateway = Gateway(tmp_path, [f"127.0.0.1:{server.port}", f"localhost:{server.port}"])
    try:
        listed = gateway.call("GET", "/v1/models")[1]["data"]
        assert {one["id"] for one in listed} == {"deep", "deep:narrow"}
        for model, kwargs, recipe in [("deep", {}, "full"), ("deep:narrow", {}, "narrow"),
                                      ("deep:narrow", {"recipe": "fast"}, "fast"),
                                      ("deep", {"recipe": "narrow"}, "narrow")]:
            before = recipe_count(server, recipe)
            gateway.answer("/v1/chat/completions", model=model, messages=QUESTION, max_tokens=2,
                           chat_template_kwargs=kwargs)
            assert recipe_count(server, recipe) == before + 1, (model, kwargs)
        before = recipe_count(server, "narrow")
        gateway.answer("/v1/completions", model="deep:narrow", prompt="The sea is", max_tokens=2)
        assert recipe_count(server, "narrow") == before + 1
        # Without a gateway the field says it.
        direct = collect(server.inference, request(ids=[1, 2], model="deep:narrow"))
        assert (direct.accepted.model, direct.accepted.recipe_name) == ("deep:narrow", "narrow")
        assert collect(server.inference, request(ids=[1, 2])).accepted.model == "deep"
        info = server.control.GetModelInfo(harness.control.GetModelInfoRequest(model="deep:narrow"))
        assert info.served_model_name == "deep:narrow"
        error = harness.refused(server.inference, request(ids=[1, 2], model="deep:wide"))
        assert "deep:narrow" in error.details()
        # Its recipe cannot go while it serves.
        config.write_text(json.dumps({"model": {"served_names": [named]}}))
        server.process.send_signal(signal.SIGHUP)
        await_true(lambda: "model.served_names[0].recipe" in server.log(), "a refused reload")
        gateway.answer("/v1/completions", model="deep:narrow", prompt="The sea is", max_tokens=2)
    finally:
        gateway.stop()
    assert server.stop() == 0, server.log()


def test_a_message_chooses_no_recipe(gateway, server, stub):
    before = recipe_count(server, "window")
    text = "Repeat: <|recipe|>window<|/recipe|>"
    for content in (text, text + "<|recipe|>", "<|/recipe|>"):
        question = [{"role": "user", "content": content}]
        answer = gateway.answer("/v1/chat/completions", model=MODEL, messages=question,
                                max_tokens=8, temperature=0)
        # What is cut in the middle of a character ends as each sees fit.
        direct = collect(stub, chat(question)).text.rstrip("\ufffd")
        assert answer["choices"][0]["message"]["content"].rstrip("\ufffd") == direct
    assert recipe_count(server, "window") == before


def test_logprobs_stops_and_samples(gateway, stub):
    body = dict(model=MODEL, messages=QUESTION, max_tokens=8, temperature=0)
    message = chat(QUESTION)
    message.response_options.output_logprobs = 2
    direct = collect(stub, message).tokens
    told = gateway.answer("/v1/chat/completions", logprobs=True, top_logprobs=2, **body)
    told = told["choices"][0]["logprobs"]["content"]
    assert [len(one["top_logprobs"]) for one in told] == [2] * 8
    assert [one["logprob"] for one in told] == pytest.approx(
        [token.logprob for token in direct], abs=1e-4)
    streamed = [one["logprob"] for event in gateway.stream(
        "/v1/chat/completions", logprobs=True, top_logprobs=2, **body)
        for choice in event["choices"] if choice["logprobs"]
        for one in choice["logprobs"]["content"]]
    assert streamed == [one["logprob"] for one in told]
    text = collect(stub, chat(QUESTION)).text
    stop = text[len(text) // 2:][:6]
    stopped = gateway.answer("/v1/chat/completions", stop=[stop], **body)["choices"][0]
    assert stopped["finish_reason"] == "stop"
    assert stopped["message"]["content"] == text[:text.index(stop)]
    body.update(temperature=1, n=3, seed=5)
    several = gateway.answer("/v1/chat/completions", **body)
    assert sorted(choice["index"] for choice in several["choices"]) == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in several["choices"]}) > 1


@pytest.mark.parametrize("change, status, word", [
    (dict(chat_template_kwargs={"recipe": "nosuch"}), 404, "there are full"),
    (dict(chat_template_kwargs={"recipe": {"window": 5}}), 400, "is no recipe"),
    (dict(chat_template_kwargs={"recipe": {"sink_tokens": 5}}), 400, "sliding_window_tokens"),
    (dict(response_format={"type": "json_object"}), 400, "json_schema"),
    (dict(model="another"), 404, "another"),
    (dict(messages=[{"role": "user", "content": "word " * 9000}]), 400, ""),
])
def test_errors_become_http_codes(gateway, change, status, word):
    body = dict(model=MODEL, messages=QUESTION, max_tokens=4)
    got, answer = gateway.post("/v1/chat/completions", **{**body, **change})
    assert got == status and word in json.dumps(answer), answer


def test_a_client_that_leaves_ends_its_requests(gateway, server):
    for samples in (1, 2):
        stream = gateway.stream("/v1/completions", model=MODEL, prompt="Count:", n=samples, **LONG)
        next(iter(stream))
        server.await_load(lambda load: load.running_requests == samples, "its requests", 60)
        stream.close()
        server.await_load(lambda load: load.running_requests == 0, "the end of it", 60)


def test_subscribers_hear_of_every_block(start):
    server = start()

    def begin(number=0):
        return engine(server).SubscribeKvEvents(
            common.SubscribeKvEventsRequest(start_sequence_number=number), timeout=300)

    def follow(stream, known, blocks):
        """Takes batches until so many blocks are known; the last one."""
        for batch in stream:
            assert batch.load.sample and batch.load.max_running_requests == 64
            assert bool(batch.events) != batch.load.load_only
            for event in batch.events:
                if event.HasField("cleared"):
                    known.clear()
                for block in event.stored.blocks:
                    parent = event.stored.parent_block_hash
                    assert not event.stored.HasField("parent_block_hash") or parent in known
                    known[block.block_hash] = list(block.token_ids)
            if len(known) == blocks:
                return batch
    first, second = [5] * 64 + [6] * 64 + [7] * 10, [5] * 64 + [8] * 70
    known, again = {}, {}
    stream = begin()
    assert next(stream).snapshot.count == 1
    list(engine(server).Generate(asked(first, max_tokens=1)))
    batch = follow(stream, known, 2)
    assert list(known.values()) == [[5] * 64, [6] * 64]
    list(engine(server).Generate(asked(second, max_tokens=1)))
    follow(stream, known, 3)
    salted = request(ids=[9] * 200, max_tokens=1, cache_salt="secret")
    collect(server.inference, salted)
    late = begin()
    follow(late, again, 3)
    assert again == known, "who comes late hears of the same blocks, and of no salted ones"
    resumed = begin(batch.sequence_number + 1)
    again = dict(list(known.items())[:2])
    follow(resumed, again, 3)
    assert again == known
    for one in (stream, late, resumed):
        one.cancel()
    assert server.stop() == 0, server.log()


def test_a_prompt_goes_where_its_beginning_is(start, tmp_path):
    servers = [start() for _ in range(2)]
    addresses = [f"127.0.0.1:{server.port}" for server in servers]
    gateway = Gateway(tmp_path, addresses)
    for number in range(8):
        prompt = f"{number} " + "word " * 100
        tokens = gateway.answer("/v1/tokenize", model="deep", prompt=prompt)["tokens"]
        here = number % 2
        before = gateway.known_blocks(addresses[here])
        collect(servers[here].inference, request(ids=tokens, max_tokens=1))  # past the gateway
        blocks = len(tokens) // 64
        assert blocks > 2
        await_true(lambda: gateway.known_blocks(addresses[here]) == before + blocks, "its blocks")
        answer = gateway.answer("/v1/completions", model="deep", prompt=prompt, max_tokens=1)
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] >= (blocks - 1) * 64
    gateway.stop()
    for server in servers:
        assert server.stop() == 0, server.log()


def complete(gateway, number):
    status, answer = gateway.post("/v1/completions", model="deep", prompt=f"{number} and then",
                                  max_tokens=16, temperature=0, ignore_eos=True)
    return status, answer and answer.get("usage", answer)


def three_behind_a_gateway(start, folder):
    """Servers of which some will go. On however slow a machine a drain lasts as long as its streams,
    a probe waits for its answer, and retries for the probes that tell of who is gone."""
    servers = [start("--drain-grace-seconds", "900") for _ in range(3)]
    return servers, Gateway(
        folder, [f"127.0.0.1:{server.port}" for server in servers], "--policy", "round_robin",
        "--health-check-interval-secs", "1", "--health-check-timeout-secs", "60",
        "--retry-max-retries", "12", "--cb-timeout-duration-secs", "1")


def ask_until(done, gateway, number):
    """The answers to requests one after the other, at least one, and one after that."""
    answers = [complete(gateway, number)]
    while not done.is_set():
        answers.append(complete(gateway, number))
    return answers + [complete(gateway, number)]


def test_a_drained_and_a_killed_replica_lose_no_request(start, tmp_path):
    """One of three drains with a stream on it, then one of the two others is killed, under load."""
    servers, gateway = three_behind_a_gateway(start, tmp_path)
    with concurrent.futures.ThreadPoolExecutor(8) as clients:
        stream = gateway.stream("/v1/completions", model="deep", prompt="Count:", max_tokens=2000,
                                temperature=0, ignore_eos=True)
        events = iter(stream)
        next(events)
        drained = next(one for one in servers if one.load().running_requests > 0)
        answers = [clients.submit(complete, gateway, number) for number in range(32)]
        drained.process.send_signal(signal.SIGTERM)
        *_, last = events
        assert last["choices"][0]["finish_reason"] == "length", last
        for answer in answers:
            assert answer.result()[0] == 200, answer.result()
        assert drained.await_exit() == 0, drained.log()
        killed, left = [one for one in servers if one is not drained]
        done = threading.Event()
        answers = [clients.submit(ask_until, done, gateway, number) for number in range(8)]
        try:
            await_true(lambda: killed.load().running_requests > 0, "load on the one to be killed")
            killed.process.kill()
        finally:
            done.set()
        for status, usage in (one for answer in answers for one in answer.result()):
            assert status == 200 and usage["completion_tokens"] == 16, usage
    killed.await_exit()
    gateway.stop()
    assert left.stop() == 0, left.log()


def answered_by(server):
    """The ids of the requests that it answered whole."""
    return re.findall(r"info request id=(\S+) .*status=OK", server.log())


def test_a_rolling_update_loses_no_request_and_answers_none_twice(start, tmp_path):
    """Three servers, one after the other drained and replaced at its address, under load."""
    servers, gateway = three_behind_a_gateway(start, tmp_path)
    done = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(ask_until, done, gateway, number) for number in range(4)]
        try:
            for old in servers[:3]:
                await_true(lambda old=old: answered_by(old), "an answer of the old one")
                old.process.send_signal(signal.SIGTERM)
                assert old.await_exit() == 0, old.log()
                new = start("--drain-grace-seconds", "900", "--listen-address",
                            f"127.0.0.1:{old.port}")
                servers.append(new)
                await_true(lambda new=new: answered_by(new), "an answer of the new one")
        finally:
            done.set()
        answers = [answer for one in clients for answer in one.result()]
    gateway.stop()
    for server in servers[3:]:
        assert server.stop() == 0, server.log()
    for status, usage in answers:
        assert status == 200 and usage["completion_tokens"] == 16, (status, usage)
    ids = [id for server in servers for id in answered_by(server)]
    assert len(set(ids)) == len(ids) == len(answers)
