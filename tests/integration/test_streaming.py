"""What comes back of a request that is in order."""

import math

import pytest

import harness
from harness import Server, collect, generation, recipes, request, tokenize

PROMPT = "The three primary colours are red, yellow and"


def test_greedy_answer_is_complete_and_repeatable(stub):
    first = collect(stub, request(PROMPT, max_tokens=10))
    again = collect(stub, request(PROMPT, max_tokens=10))
    assert first.ids == again.ids and len(first.ids) == 10
    assert first.text == again.text and "blue" in first.text
    assert [len(delta.tokens) for delta in first.deltas] == [1] * 10
    assert first.finished.finish_reason == generation.FINISH_REASON_LENGTH
    assert first.accepted.model == "smollm2-135m-instruct"
    assert first.accepted.recipe_name == "full" and first.accepted.request_id
    assert first.accepted.prompt_tokens == first.finished.usage.prompt_tokens == 9
    assert first.finished.usage.completion_tokens == 10
    assert not any(delta.is_reasoning for delta in first.deltas)


def test_statistics_of_full_attention_are_the_formula(stub):
    finished = collect(stub, request(PROMPT, max_tokens=10)).finished
    computed = 9 + 10 - 1  # the last token is never attended from
    assert finished.stats.attended_keys == 30 * computed * (computed + 1) // 2
    assert finished.stats.full_attention_attended_keys == finished.stats.attended_keys
    assert finished.stats.peak_kv_cache_bytes == finished.stats.full_attention_kv_cache_bytes > 0
    assert 0 < finished.stats.prefill_time_us <= finished.stats.time_to_first_token_us
    assert finished.stats.decode_time_us > 0


def test_a_window_attends_fewer_keys_and_is_echoed_resolved(stub):
    recipe = recipes.Recipe(sliding_window_tokens=4, sink_tokens=2)
    recipe.full_attention_layers.stride.first = 1
    recipe.full_attention_layers.stride.step = 10
    answer = collect(stub, request(PROMPT, max_tokens=4, recipe=recipe))
    resolved = answer.accepted.resolved_recipe
    assert answer.accepted.recipe_name == ""
    assert resolved.sliding_window_tokens == 4 and resolved.sink_tokens == 2
    assert list(resolved.full_attention_layers.layers.indices) == [1, 11, 21]
    assert not resolved.HasField("full_attention_decode")
    visible = [min(i + 1, 4 + min(2, max(0, i - 3))) for i in range(12)]
    assert answer.finished.stats.attended_keys == 27 * sum(visible) + 3 * 12 * 13 // 2


def test_token_ids_give_what_the_prompt_gives(stub):
    ids = tokenize(stub, PROMPT)
    assert len(ids) == 9
    by_text = collect(stub, request(PROMPT))
    by_ids = collect(stub, request(ids=ids))
    assert by_ids.ids == by_text.ids and by_ids.text == by_text.text


def test_chat_is_rendered_in_the_models_format_and_ends_itself(stub):
    message = request(max_tokens=40)
    message.chat.messages.add(role=generation.ROLE_SYSTEM, content="You answer in one sentence.")
    message.chat.messages.add(role=generation.ROLE_USER, content="What is the capital of France?")
    answer = collect(stub, message)
    assert "Paris" in answer.text and "<|im_end|>" not in answer.text
    assert answer.finished.finish_reason == generation.FINISH_REASON_STOP
    end = answer.finished.stop_match.eos_token_id
    assert answer.ids[-1] == end and answer.finished.usage.completion_tokens == len(answer.ids)
    message.stopping_options.include_stop_in_output = True
    shown = collect(stub, message)
    assert shown.ids == answer.ids and shown.text == answer.text + "<|im_end|>"
    message.stopping_options.ignore_eos = True
    assert len(collect(stub, message).ids) == 40


def test_special_tokens_in_chat_contents_are_plain_text(stub):
    lengths = []
    for content in ("a b", "a <|im_end|> b"):
        message = request(max_tokens=1)
        message.chat.messages.add(role=generation.ROLE_USER, content=content)
        lengths.append(collect(stub, message).accepted.prompt_tokens)
    assert lengths[1] - lengths[0] > 2
    assert len(tokenize(stub, "a <|im_end|> b")) - len(tokenize(stub, "a b")) <= 2


def test_an_answer_goes_on_where_it_was_cut(stub):
    message = request(max_tokens=40)
    message.chat.messages.add(role=generation.ROLE_USER, content="What is the capital of France?")
    whole = collect(stub, message)
    words = whole.text.split(" ")
    assert len(words) > 5
    begun = " ".join(words[:3])
    message.chat.messages.add(role=generation.ROLE_ASSISTANT, content=begun)
    message.chat.continue_final_message = True
    # Rounding may differ later on: what was decoded is prompt now.
    assert (begun + collect(stub, message).text).startswith(" ".join(words[:5]))


def test_a_stop_string_that_is_a_special_token_stops(stub):
    message = request(max_tokens=40)
    message.chat.messages.add(role=generation.ROLE_SYSTEM, content="You answer in one sentence.")
    message.chat.messages.add(role=generation.ROLE_USER, content="What is the capital of France?")
    message.stopping_options.ignore_eos = True
    message.stopping_options.stop_strings.append("<|im_end|>")
    answer = collect(stub, message)
    assert answer.finished.finish_reason == generation.FINISH_REASON_STOP
    assert answer.finished.stop_match.stop_token_id == answer.ids[-1]


HARD_TEXT = "naïve 🙂👩‍👩‍👧 漢字 العربية e\u0301 \U0001d518 end"


def test_forced_output_is_streamed_as_whole_utf8(stub):
    ids = tokenize(stub, HARD_TEXT)
    for per_delta in (None, 3, 0):
        message = request(PROMPT, max_tokens=len(ids))
        message.forced_output_ids.ids.extend(ids)
        message.response_options.output_logprobs = 0
        if per_delta is not None:
            message.response_options.tokens_per_delta = per_delta
        answer = collect(stub, message)
        assert answer.ids == ids and answer.text == HARD_TEXT
        assert "\ufffd" not in "".join(delta.text for delta in answer.deltas)
        assert all(token.logprob < 0 for token in answer.tokens)
        sizes = [len(delta.tokens) for delta in answer.deltas]
        if per_delta == 0:
            assert sizes == [len(ids)]
        elif per_delta == 3:
            assert all(size == 3 for size in sizes[:-1]) and sizes[-1] <= 3


def test_a_character_cut_off_by_the_end_becomes_a_replacement(stub):
    ids = tokenize(stub, "\U0001d518")
    assert len(ids) > 1
    message = request(PROMPT, max_tokens=1)
    message.forced_output_ids.ids.extend(ids[:1])
    answer = collect(stub, message)
    assert answer.text == "\ufffd" and answer.ids == ids[:1]


def test_forced_output_goes_on_where_generation_would(stub):
    whole = collect(stub, request(PROMPT, max_tokens=8))
    message = request(PROMPT, max_tokens=8)
    message.forced_output_ids.ids.extend(whole.ids[:5])
    assert collect(stub, message).ids == whole.ids


def test_output_logprobs(stub):
    message = request(PROMPT, max_tokens=3)
    message.response_options.output_logprobs = 5
    for token in collect(stub, message).tokens:
        assert len(token.top_logprobs) == 5
        # Greedy: the token itself is the likeliest.
        assert token.top_logprobs[0].token_id == token.token_id
        assert token.top_logprobs[0].logprob == token.logprob
        values = [top.logprob for top in token.top_logprobs]
        assert values == sorted(values, reverse=True) and sum(map(math.exp, values)) <= 1.0001
    message.response_options.ClearField("output_logprobs")
    assert not any(token.HasField("logprob") for token in collect(stub, message).tokens)


def test_prompt_logprobs(stub):
    ids = tokenize(stub, PROMPT)
    message = request(PROMPT, max_tokens=1)
    message.response_options.prompt_logprobs = 2
    events = collect(stub, message).prompt_logprobs
    tokens = []
    for event in events:
        assert event.first_position == len(tokens)
        tokens.extend(event.tokens)
    assert [token.token_id for token in tokens] == ids
    assert not tokens[0].HasField("logprob") and not tokens[0].top_logprobs
    assert all(token.logprob < 0 and len(token.top_logprobs) == 2 for token in tokens[1:])
    # The likeliest is certain: "red, yellow," goes on as it began.
    assert tokens[-1].top_logprobs[0].logprob > -0.5


def test_prompt_and_forced_output_have_the_same_logprobs(stub):
    ids = tokenize(stub, PROMPT)
    message = request(ids=ids, max_tokens=1)
    message.response_options.prompt_logprobs = 0
    as_prompt = [token.logprob for event in collect(stub, message).prompt_logprobs
                 for token in event.tokens][4:]
    message = request(ids=ids[:4], max_tokens=5)
    message.forced_output_ids.ids.extend(ids[4:])
    message.response_options.output_logprobs = 0
    as_output = [token.logprob for token in collect(stub, message).tokens]
    assert as_output == pytest.approx(as_prompt, abs=1e-3)


def test_a_stop_string_across_tokens(stub):
    whole = collect(stub, request(PROMPT, max_tokens=16))
    ends = []
    for delta in whole.deltas:
        ends.append((ends[-1] if ends else 0) + len(delta.text))
    # Two characters on either side of a token's end, where they first occur.
    stop, cut = next((whole.text[end - 2:end + 2], end - 2) for end in ends[2:-2]
                     if whole.text.find(whole.text[end - 2:end + 2]) == end - 2)
    message = request(PROMPT, max_tokens=16)
    message.stopping_options.stop_strings.extend(["never to be seen", stop])
    answer = collect(stub, message)
    assert answer.text == whole.text[:cut]
    assert answer.finished.finish_reason == generation.FINISH_REASON_STOP
    assert answer.finished.stop_match.stop_string == stop
    assert answer.ids == whole.ids[:len(answer.ids)]
    assert answer.finished.usage.completion_tokens == len(answer.ids)
    message.stopping_options.include_stop_in_output = True
    shown = collect(stub, message)
    assert stop in shown.text and whole.text.startswith(shown.text)


def test_held_back_text_comes_when_no_stop_string_does(stub):
    whole = collect(stub, request(PROMPT, max_tokens=6))
    message = request(PROMPT, max_tokens=6)
    message.stopping_options.stop_strings.append(whole.text[-3:] + " and what never follows")
    assert collect(stub, message).text == whole.text


def test_a_stop_token(stub):
    whole = collect(stub, request(PROMPT, max_tokens=8))
    position = next(i for i in range(2, 8) if whole.ids.index(whole.ids[i]) == i)
    message = request(PROMPT, max_tokens=8)
    message.stopping_options.stop_token_ids.append(whole.ids[position])
    answer = collect(stub, message)
    assert answer.ids == whole.ids[:position + 1]
    assert answer.text == "".join(delta.text for delta in whole.deltas[:position])
    assert answer.finished.stop_match.stop_token_id == whole.ids[position]
    message.stopping_options.min_tokens = 8
    assert len(collect(stub, message).ids) == 8


def test_a_seed_repeats_and_another_differs(stub):
    def draw(seed):
        message = request(PROMPT, max_tokens=12, temperature=1.5)
        message.sampling_params.seed = seed
        message.sampling_params.top_k = 200
        message.sampling_params.frequency_penalty = 0.5
        return collect(stub, message).ids
    assert draw(7) == draw(7)
    assert len({tuple(draw(seed)) for seed in (7, 8, 9)}) > 1


def test_a_seed_holds_in_company():
    """In f32, where company changes no logit; unit tests say how rarely rounding changes a draw."""
    server = Server("--kv-cache-bytes", "128MiB", "--dtype", "f32")
    prompts = ["Once upon a time", "The best way to learn is", "My favourite animal is the",
               "Yesterday in the city of"]

    def start(prompt, seed, salt):
        message = request(prompt, max_tokens=12, temperature=1.0, cache_salt=salt)
        message.sampling_params.seed = seed
        message.stopping_options.ignore_eos = True
        return server.inference.Generate(message, timeout=300)

    def ids(call):
        answer = harness.Answer()
        for response in call:
            answer.take(response)
        return answer.ids

    seen = set()
    for prompt in prompts:
        alone = [ids(start(prompt, seed, f"alone {seed}")) for seed in range(8)]
        company = [start(prompt, seed, f"company {seed}") for seed in range(8)]
        assert [ids(call) for call in company] == alone
        seen |= {tuple(one) for one in alone}
    assert len(seen) == 32, "seeds make no difference"
    assert server.stop() == 0, server.log()


def test_logit_bias_forces_a_token(stub):
    token = tokenize(stub, "A green")[-1]
    message = request(PROMPT, max_tokens=3)
    message.sampling_params.logit_bias[token] = 100
    assert collect(stub, message).text == " green green green"
