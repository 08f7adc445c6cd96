"""Thinking sections, on a small model with random weights whose output is forced: its marks are
tokens of the vocabulary, or text, or the template opens the section itself."""

import json
import os
import pathlib
import pty
import subprocess

import pytest

import harness
from harness import Server, collect, generation, recipes, request, tokenize

DATA = pathlib.Path(__file__).parent.parent / "data"
THOUGHTS = "<think>\nThe user says: 漢字 🙂 a < b, so </thinking> is no end.\n</think>"
ANSWER = "\n\nHello <b>you</b> é."
BEGINNING = "{{- '<|im_start|>assistant\\n' }}"


def write_model(folder, kind):
    """The tiny Qwen3 with the vocabulary and the template of a model that thinks."""
    tokenizer = json.loads((DATA / "tokenizers/qwen3_tiny/tokenizer.json").read_text())
    options = json.loads((DATA / "tokenizers/qwen3_tiny/tokenizer_config.json").read_text())
    config = json.loads((DATA / "tiny-qwen3/config.json").read_text())
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    assert "<think>" in ids and "</think>" in ids
    if kind == "text":
        tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"]
                                     if "think>" not in token["content"]]
    if kind == "opened":
        template = options["chat_template"]
        begins = template.rindex(BEGINNING)
        options["chat_template"] = (template[:begins] + BEGINNING +
                                    "{{- '<think>\\n' }}{%- endif %}")
    config.update(vocab_size=max(ids.values()) + 1, eos_token_id=ids["<|im_end|>"],
                  bos_token_id=None)
    for name, content in (("tokenizer.json", tokenizer), ("tokenizer_config.json", options),
                          ("config.json", config)):
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module", params=["tokens", "text", "opened"])
def thinker(request, tmp_path_factory):
    server = Server("--load-format", "dummy", "--dtype", "f32", "--kv-cache-bytes", "64MiB",
                    model=write_model(tmp_path_factory.mktemp("thinker"), request.param))
    server.kind = request.param
    yield server
    assert server.stop() == 0, server.log()


def chat(*contents, thinking=None, forced=()):
    """A chat whose answer is `forced`."""
    message = request(max_tokens=max(1, len(forced)))
    for i, content in enumerate(contents):
        role = generation.ROLE_ASSISTANT if i % 2 else generation.ROLE_USER
        message.chat.messages.add(role=role, content=content)
    message.chat.continue_final_message = len(contents) % 2 == 0
    message.forced_output_ids.ids.extend(forced)
    if thinking is not None:
        message.recipe.thinking_mode = thinking
    return message


def sections(answer):
    """(is_reasoning, text) of text that came of the same section one after the other."""
    parts = []
    for delta in answer.deltas:
        if parts and parts[-1][0] == delta.is_reasoning:
            parts[-1] = (delta.is_reasoning, parts[-1][1] + delta.text)
        elif delta.text:
            parts.append((delta.is_reasoning, delta.text))
    return parts


def what_is_written(server):
    """The answer as the model writes it: without the mark that the template has written."""
    return THOUGHTS.removeprefix("<think>\n") if server.kind == "opened" else THOUGHTS


def test_sections_come_apart_whole(thinker):
    thoughts = what_is_written(thinker)
    ids = tokenize(thinker.inference, thoughts + ANSWER)
    counts = set()
    for per_delta in (None, 3, 0):
        message = chat("Hi", forced=ids)
        if per_delta is not None:
            message.response_options.tokens_per_delta = per_delta
        answer = collect(thinker.inference, message)
        assert answer.ids == ids
        assert sections(answer) == [(True, thoughts), (False, ANSWER)]
        usage = answer.finished.usage
        assert usage.completion_tokens == len(ids)
        assert usage.reasoning_tokens == sum(len(delta.tokens) for delta in answer.deltas
                                             if delta.is_reasoning)
        counts.add(usage.reasoning_tokens)
    assert len(counts) == 1 and 0 < counts.pop() < len(ids)


@pytest.mark.parametrize("stop, found", [
    ("\n\nHe", True), ("</think>\n\nHe", True), ("nk>\n\nHee", True), ("< b, so", False),
    ("</think>\n\nHee, never", False), ("end.\n</think>\n\nHeee, never", False)])
def test_stop_strings_keep_sections(thinker, stop, found):
    """Forced output is never cut, so the stop ends in what the model is made to say behind it."""
    thoughts = what_is_written(thinker)
    ids = tokenize(thinker.inference, thoughts + "\n\nH")
    e = tokenize(thinker.inference, "e")[0]
    message = chat("Hi", forced=ids)
    message.sampling_params.logit_bias[e] = 100
    message.stopping_options.max_tokens = len(ids) + 3
    message.stopping_options.stop_strings.append(stop)
    whole = thoughts + "\n\nHeee"
    expected = whole[:whole.find(stop)] if found else whole
    for per_delta in (1, 0):
        message.response_options.tokens_per_delta = per_delta
        answer = collect(thinker.inference, message)
        in_order = [(True, expected[:len(thoughts)]), (False, expected[len(thoughts):])]
        assert sections(answer) == [part for part in in_order if part[1]]
        assert answer.finished.stop_match.stop_string == (stop if found else "")
        usage = answer.finished.usage
        assert usage.completion_tokens == len(answer.ids)
        assert usage.reasoning_tokens < usage.completion_tokens


def test_thoughts_that_are_cut_off_stay_thoughts(thinker):
    thoughts = what_is_written(thinker)[:-5]
    ids = tokenize(thinker.inference, thoughts)
    answer = collect(thinker.inference, chat("Hi", forced=ids))
    assert sections(answer) == [(True, thoughts)]
    assert answer.finished.finish_reason == generation.FINISH_REASON_LENGTH
    assert answer.finished.usage.reasoning_tokens == len(ids)


def test_an_answer_that_goes_on_is_where_it_was(thinker):
    """In its thoughts or behind them."""
    ids = tokenize(thinker.inference, "sure.\n</think>\n\nYes.")
    answer = collect(thinker.inference, chat("Hi", "<think>\nI am", forced=ids))
    assert sections(answer) == [(True, "sure.\n</think>"), (False, "\n\nYes.")]
    ids = tokenize(thinker.inference, "ll.")
    answer = collect(thinker.inference, chat("Hi", "<think>\nI am.\n</think>\n\nWe", forced=ids))
    assert sections(answer) == [(False, "ll.")]
    assert answer.finished.usage.reasoning_tokens == 0


def test_a_prompt_may_open_a_section(thinker):
    ids = tokenize(thinker.inference, "so</think>!")
    for prompt, inside in (("<|im_start|>assistant\n<think>\n", True),
                           ("<think> in a question<|im_start|>assistant\n", False)):
        message = request(prompt, max_tokens=len(ids))
        message.forced_output_ids.ids.extend(ids)
        answer = collect(thinker.inference, message)
        assert sections(answer) == ([(True, "so</think>"), (False, "!")] if inside
                                    else [(False, "so</think>!")])


def test_the_switch_and_earlier_thoughts(thinker):
    def prompt_tokens(*contents, thinking=None):
        message = chat(*contents, thinking=thinking)
        return collect(thinker.inference, message).accepted.prompt_tokens

    if thinker.kind == "opened":
        error = harness.refused(thinker.inference, chat("Hi", thinking=recipes.THINKING_MODE_ENABLED))
        assert harness.trailer(error, "swaa-error-reason") == "thinking_mode_not_supported"
    else:
        by_default = prompt_tokens("Hi")
        assert prompt_tokens("Hi", thinking=recipes.THINKING_MODE_ENABLED) == by_default
        closed = prompt_tokens("Hi", thinking=recipes.THINKING_MODE_DISABLED)
        assert closed == by_default + len(tokenize(thinker.inference, "<think>\n\n</think>\n\n"))
        ids = tokenize(thinker.inference, "Yes.")
        answer = collect(thinker.inference, chat("Hi", forced=ids,
                                                 thinking=recipes.THINKING_MODE_DISABLED))
        assert sections(answer) == [(False, "Yes.")]
    thoughtful = prompt_tokens("Hi", THOUGHTS + "\n\nYes.", "And?")
    assert thoughtful == prompt_tokens("Hi", "Yes.", "And?"), "earlier thoughts are dropped"


def test_a_terminal_shows_thoughts_dimmed(thinker):
    """Whatever else the model is made to say, it begins where the template leaves it."""
    token = tokenize(thinker.inference, "e")[0]
    command = [harness.BINARY, "chat", "--address", f"127.0.0.1:{thinker.port}", "--max-tokens", "3",
               "--temperature", "0", "--logit-bias", f"{token}:100"]
    master, slave = pty.openpty()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=slave,
                               stderr=subprocess.DEVNULL)
    os.close(slave)
    process.stdin.write(b"Hi\n")
    process.stdin.close()
    shown = b""
    try:
        while chunk := os.read(master, 4096):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(master)
    assert process.wait(60) == 0
    expected = b"\x1b[2meee\x1b[0m" if thinker.kind == "opened" else b"eee"
    assert shown.strip() == expected
    plain = subprocess.run(command, input=b"Hi\n", stdout=subprocess.PIPE,
                           stderr=subprocess.DEVNULL, timeout=600, check=True)
    assert plain.stdout.strip() == b"eee"
