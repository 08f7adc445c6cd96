"""The client against a real server."""

import asyncio
import contextlib
import pathlib
import re
import threading
import time
import urllib.request

import grpc
import pytest

import swaa
from conftest import local_server

PROMPT = "The three primary colours are red, yellow and"
GREEDY = {"temperature": 0, "max_tokens": 10}
QUESTION = [swaa.ChatMessage("system", "You answer in one sentence."),
            {"role": "user", "content": "What is the capital of France?"}]


def test_an_answer_comes_in_pieces(client):
    stream = client.generate(PROMPT, **GREEDY)
    pieces = list(stream)
    answer = stream.result()
    assert "".join(map(str, pieces)) == answer.text and "blue" in answer.text
    assert [token for piece in pieces for token in piece.tokens] == list(answer.tokens)
    assert len(answer.ids) == 10 and answer.finish_reason == "length" and answer.stop is None
    assert stream.accepted.request_id == answer.request_id
    assert answer.recipe_name == "full" and answer.recipe == swaa.Recipe()
    assert answer.stats.prompt_tokens == 9 and answer.stats.completion_tokens == 10
    assert answer.stats.attended_keys == answer.stats.full_attention_attended_keys > 0


def requests_of(server):
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics") as page:
        return sum(float(line.split()[-1]) for line in page.read().decode().splitlines()
                   if line.startswith("swaa_requests_total{"))


def test_a_balancing_client_goes_to_every_server_and_past_one_that_drains():
    small = ("--kv-cache-bytes", "256MiB", "--drain-grace-seconds", "300")
    with contextlib.ExitStack() as stack:
        one, two = (stack.enter_context(local_server(*small)) for _ in range(2))
        client = stack.enter_context(swaa.Client(f"ipv4:{one.address},{two.address}", balance=True,
                                                 timeout_seconds=300))
        until = time.monotonic() + 120
        while not (requests_of(one) and requests_of(two)):
            assert time.monotonic() < until, "one server never got a request"
            client.generate(PROMPT, **GREEDY).result()
        # As many as there are servers, by turns.
        streams = [client.generate(PROMPT, max_tokens=600, ignore_eos=True) for _ in range(2)]
        for stream in streams:
            next(stream)
        one.drain()
        for _ in range(16):
            assert client.generate(PROMPT, **GREEDY).result().finish_reason == "length"
        for stream in streams:
            assert len(stream.result().ids) == 600, "a draining server ends what it has begun"


def test_a_prompt_as_ids_gives_the_same(client):
    ids = client.tokenize(PROMPT)
    assert len(ids) == 9
    assert client.generate(ids, **GREEDY).result().ids == client.generate(
        PROMPT, **GREEDY).result().ids


def test_a_recipe_arrives_whole(client):
    recipe = swaa.Recipe(4, 2, swaa.Stride(1, 10), (0, 29))
    answer = client.generate(PROMPT, recipe=recipe, **GREEDY).result()
    assert answer.recipe == swaa.Recipe(4, 2, (1, 11, 21), (0, 29)) and answer.recipe_name == ""
    assert answer.stats.attended_keys < answer.stats.full_attention_attended_keys
    odd, every = tuple(range(1, 30, 2)), tuple(range(30))
    assert client.recipes()["balanced"] == swaa.Recipe(2048, 100, odd, every)
    assert client.generate(PROMPT, recipe="balanced", **GREEDY).result().recipe_name == "balanced"


def test_every_option_arrives(client):
    """Each changes what comes back, or is refused by the server under its own name."""
    plain = client.generate(PROMPT, **GREEDY).result()
    stopped = client.generate(PROMPT, stop=["blue"], **GREEDY).result()
    assert stopped.finish_reason == "stop" and stopped.stop == "blue"
    assert client.generate(PROMPT, stop_token_ids=[plain.ids[2]], **GREEDY).result().ids == \
        plain.ids[:3]
    assert client.generate(PROMPT, logit_bias={plain.ids[0]: -100.0},
                           **GREEDY).result().ids[0] != plain.ids[0]
    drawn = [client.generate(PROMPT, temperature=2.0, seed=seed, max_tokens=10).result().ids
             for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(list(client.generate(PROMPT, tokens_per_delta=0, **GREEDY))) == 1
    for option, value, field in (
            ("top_p", 7.0, "sampling_params.top_p"), ("min_p", 7.0, "sampling_params.min_p"),
            ("frequency_penalty", 7.0, "sampling_params.frequency_penalty"),
            ("presence_penalty", 7.0, "sampling_params.presence_penalty"),
            ("repetition_penalty", -1.0, "sampling_params.repetition_penalty"),
            ("logprobs", 21, "response_options.output_logprobs"),
            ("prompt_logprobs", 21, "response_options.prompt_logprobs"),
            ("priority", 1000, "priority"), ("cache_salt", "x" * 129, "cache_salt"),
            ("request_id", "\n", "request_id"),
            ("forced_output", [10**6], "forced_output_ids.ids[0]"),
            ("min_tokens", 11, "stopping_options.min_tokens"), ("model", "gpt", "model"),
            ("experiment_unit_id", "x" * 257, "experiment_unit_id")):
        with pytest.raises(swaa.Error) as refused:
            client.generate(PROMPT, **{**GREEDY, option: value}).result()
        assert refused.value.field == field, refused.value
    with pytest.raises(TypeError, match="max_token.*max_tokens"):
        client.generate(PROMPT, max_token=3)


def test_chat(client):
    answer = client.chat(QUESTION, temperature=0, max_tokens=40).result()
    assert "Paris" in answer.text and answer.finish_reason == "stop"
    begun = answer.text.split(" is")[0]
    rest = client.chat([*QUESTION, {"role": "assistant", "content": begun}],
                       continue_final_message=True, temperature=0, max_tokens=40).result()
    assert (begun + rest.text).startswith(" ".join(answer.text.split(" ")[:4]))
    with pytest.raises(ValueError, match="robot.*assistant"):
        client.chat([{"role": "robot", "content": "x"}])


def test_logprobs_of_forced_output_are_those_of_the_generated(client):
    generated = client.generate(PROMPT, logprobs=3, prompt_logprobs=0, **GREEDY).result()
    forced = client.generate(PROMPT, forced_output=generated.ids, logprobs=0, **GREEDY).result()
    assert forced.ids == generated.ids and forced.text == generated.text
    # The same positions, in rows of other counts: rounding alone is between them.
    assert forced.logprobs == pytest.approx(generated.logprobs, abs=1e-3)
    for token in generated.tokens:
        assert token.alternatives[0] == (token.id, token.logprob) and len(token.alternatives) == 3
    assert generated.prompt[0].logprob is None and len(generated.prompt) == 9
    assert all(token.logprob < 0 for token in generated.prompt[1:])


def test_a_refusal_tells_field_fault_and_way_out(client):
    with pytest.raises(swaa.InvalidArgument) as refused:
        client.generate(PROMPT, recipe=swaa.Recipe(sink_tokens=128)).result()
    error = refused.value
    assert (error.field, error.reason) == ("recipe.sink_tokens", "invalid_recipe")
    assert error.problem == "128 set without sliding_window_tokens"
    assert error.way_out.startswith("set a window") and error.code.name == "INVALID_ARGUMENT"
    for recipe, field in ((swaa.Recipe(8, full_attention_layers=()), "full_attention_layers"),
                          (swaa.Recipe(8, full_attention_decode=(30,)), "full_attention_decode")):
        with pytest.raises(swaa.InvalidArgument) as refused:
            client.generate(PROMPT, recipe=recipe).result()
        assert refused.value.field.startswith(f"recipe.{field}") and refused.value.way_out
    with pytest.raises(swaa.NotFound) as refused:
        client.generate(PROMPT, recipe='a"; b').result()
    assert refused.value.field == "recipe_name" and "balanced" in refused.value.way_out
    with pytest.raises(swaa.OutOfRange) as refused:
        client.generate([5] * 8193).result()
    assert refused.value.reason == "prompt_too_long"


def test_a_deadline_and_a_cancel_end_a_stream(server, client):
    with pytest.raises(swaa.DeadlineExceeded):
        client.generate(PROMPT, max_tokens=8000, ignore_eos=True, timeout_seconds=0.5).result()
    with client.generate(PROMPT, max_tokens=8000, ignore_eos=True) as stream:
        next(stream)
        stream.close()
        with pytest.raises(swaa.Cancelled):
            stream.result()
    with client.generate(PROMPT, max_tokens=8000, ignore_eos=True) as stream:
        next(stream)
        assert client.abort(stream.accepted.request_id) == 1
        assert stream.result().finish_reason == "cancelled"


def test_nobody_answers():
    with swaa.Client("127.0.0.1:1", retry=None) as nobody:
        with pytest.raises(swaa.Unavailable):
            nobody.generate("x").result()
        with pytest.raises(swaa.Unavailable, match="not ready"):
            nobody.wait_until_ready(0)


def rejected(server):
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics") as page:
        return sum(float(line.split()[-1]) for line in page.read().decode().splitlines()
                   if line.startswith("swaa_requests_rejected_total{"))


def await_that(condition):
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_full_queue_is_waited_for(tmp_path):
    """Refused with the server's own word on when to come again, which gRPC's retry then keeps."""
    config = tmp_path / "swaa.yaml"
    config.write_text("retry: {initial_pushback: 3s, min_pushback: 3s, max_pushback: 3s}\n")
    flags = ("--config", str(config), "--max-running-requests", "1", "--max-queued-requests", "1",
             "--kv-cache-bytes", "64MiB")
    long = {"recipe": swaa.Recipe(64), "max_tokens": 8000, "ignore_eos": True}
    with local_server(*flags) as full, swaa.Client(full.address, retry=None) as once, \
            swaa.Client(full.address) as patient:
        running = once.generate(PROMPT, **long)
        next(running)
        queued = once.generate(PROMPT, **long)
        await_that(lambda: once.load().queued_requests == 1)
        with pytest.raises(swaa.ResourceExhausted) as refused:
            once.generate(PROMPT, max_tokens=1).result()
        assert refused.value.retry_after_seconds == 3 and refused.value.can_retry
        before = rejected(full)
        answers = []
        waiting = threading.Thread(
            target=lambda: answers.append(patient.generate(PROMPT, max_tokens=1).result()))
        waiting.start()
        await_that(lambda: rejected(full) > before)
        running.close()
        queued.close()
        waiting.join(120)
        assert len(answers) == 1 and answers[0].stats.completion_tokens == 1
        # More than all of the memory: the server says that no retry will help.
        with pytest.raises(swaa.ResourceExhausted) as refused:
            patient.generate([5] * 5000, max_tokens=3000).result()
        assert not refused.value.can_retry and refused.value.retry_after_seconds is None


def test_the_readmes_snippet(server, capsys):
    readme = (pathlib.Path(__file__).resolve().parents[2] / "README.md").read_text()
    snippet = re.search(r"```python\n(from swaa import .*?)```", readme, re.DOTALL).group(1)
    assert "127.0.0.1:50051" in snippet
    exec(snippet.replace("127.0.0.1:50051", server.address), {})
    text, stats = capsys.readouterr().out.split("Stats(prompt_tokens=")
    assert text.strip() and "attributed_device_seconds" in stats


def test_asyncio(server):
    async def run():
        async with swaa.AsyncClient(server.address) as client:
            first, second = await asyncio.gather(
                client.generate(PROMPT, **GREEDY).result(),
                client.chat(QUESTION, temperature=0, max_tokens=40).result())
            assert "blue" in first.text and "Paris" in second.text
            pieces = [piece async for piece in client.generate(PROMPT, **GREEDY)]
            assert "".join(map(str, pieces)) == first.text
            assert (await client.model_info()).num_layers == 30
            assert "balanced" in await client.recipes()
            with pytest.raises(swaa.InvalidArgument) as refused:
                await client.generate(PROMPT, recipe=swaa.Recipe(0)).result()
            assert refused.value.field == "recipe.sliding_window_tokens"
            with pytest.raises(swaa.NotFound):
                await client.generate(PROMPT, recipe="nothing").result()
            async with client.generate(PROMPT, max_tokens=8000, ignore_eos=True) as stream:
                await anext(stream)
            with pytest.raises(swaa.DeadlineExceeded):
                await client.generate(
                    PROMPT, max_tokens=8000, ignore_eos=True, timeout_seconds=0.5).result()

    asyncio.run(run())


def test_a_token_is_not_sent_in_clear(server):
    with pytest.raises(ValueError, match="example.org.*tls"):
        swaa.Client("example.org:50051", token="secret")
    with pytest.raises(ValueError, match="both or neither"):
        swaa.Client("example.org:50051", tls=swaa.Tls(certificate="client.crt"))
    with swaa.Client(server.address, token="secret") as client:
        assert client.generate(PROMPT, max_tokens=1).result().ids


def test_recipes_as_text():
    for text in ("full", "W=512", "W=512,K=16", "W=512,K=16,F=1:2,D=all", "W=8,F=1+3+5,D=0"):
        assert str(swaa.Recipe.parse(text)) == text
    assert swaa.Recipe.parse("W=512, F=odd, D=even") == swaa.Recipe(
        512, None, swaa.ODD, swaa.EVEN)
    for text in ("", "W", "W=x", "W=1,W=2", "X=1", "W=1,F=1,3", "W=1,F=every"):
        with pytest.raises(ValueError):
            swaa.Recipe.parse(text)
    for recipe in (swaa.Recipe(), swaa.Recipe(5, 0, swaa.ALL, (3,), True, "tuned"),
                   swaa.Recipe(5, thinking=False)):
        assert swaa.Recipe.from_proto(recipe.to_proto()) == recipe
    assert swaa.Recipe(5, 0, swaa.ODD, (3,)).to_config() == {
        "sliding_window_tokens": 5, "sink_tokens": 0,
        "full_attention_layers": {"stride": {"first": 1, "step": 2}},
        "full_attention_decode": {"layers": {"indices": [3]}}}


def test_messages_in_parts():
    for message, parts in {
            'prompt: "a; b" is bad; shorten it': ("prompt", '"a; b" is bad', "shorten it"),
            "chat.messages[1].role: 9 is no value": ("chat.messages[1].role", "9 is no value", ""),
            "the server is shutting down; send it elsewhere":
                ("", "the server is shutting down", "send it elsewhere"),
            'x: an "odd quote; go on': ("x", 'an "odd quote; go on', ""),
    }.items():
        error = swaa.Error(grpc.StatusCode.UNKNOWN, message)
        assert (error.field, error.problem, error.way_out) == parts
