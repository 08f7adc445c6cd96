"""Tuning, but for what needs PyTorch (test_training.py): masks, packing, examples, presets."""

import itertools
import json
import random

import numpy as np
import pytest

import swaa
from swaa import presets
from swaa.evaluation import retrieval
from swaa.evaluation.cases import Case
from swaa.tuning import cli, examples, facts
from swaa.tuning.masks import LayerMask, layer_masks, visible
from swaa.tuning.packing import NO_TARGET, Example, pack, steps
from swaa.tuning.settings import Settings


def formula(recipe, full, decode, layer, i, j, prompt_tokens):
    """The contract's own words."""
    window = recipe.sliding_window_tokens
    return j <= i and (window is None or layer in full or i - j < window
                       or j < (recipe.sink_tokens or 0)
                       or (layer in decode and i >= prompt_tokens))


def test_masks_are_the_formula():
    prompt, tokens, layers = 9, 14, 4
    places = np.arange(tokens)
    choices = {None: (), "all": range(4), swaa.ODD: (1, 3), (2,): (2,)}
    for window, sinks, full, decode in itertools.product((1, 5), (None, 3), choices, choices):
        recipe = swaa.Recipe(window, sinks, full, decode)
        for layer, mask in enumerate(layer_masks(recipe, layers)):
            seen = visible(mask, np.True_, places[:, None], places[None, :],
                           (places >= prompt)[:, None])
            for i, j in itertools.product(range(tokens), repeat=2):
                assert seen[i, j] == formula(recipe, choices[full], choices[decode], layer, i, j,
                                             prompt), (str(recipe), layer, i, j)
    assert layer_masks(swaa.Recipe(), 3) == [LayerMask()] * 3


def test_masks_refuse_what_a_server_refuses():
    for recipe, says in ((swaa.Recipe(sink_tokens=4), "sink_tokens.*set a window"),
                         (swaa.Recipe(full_attention_decode="all"), "full_attention_decode"),
                         (swaa.Recipe(0), "sliding_window_tokens: 0"),
                         (swaa.Recipe(8, full_attention_layers=(4,)), "4.*layers 0 to 3"),
                         (swaa.Recipe(8, full_attention_layers=()), "no layer"),
                         (swaa.Recipe(8, full_attention_layers=swaa.Stride(1, 0)), "step 0")):
        with pytest.raises(ValueError, match=says):
            layer_masks(recipe, 4)


def made_examples(rng, count):
    return [Example(tuple(rng.randrange(1, 300) for _ in range(rng.randint(1, 30))),
                    tuple(rng.randrange(1, 300) for _ in range(rng.randint(1, 6))))
            for _ in range(count)]


def test_rows_hold_every_example_once():
    seed = random.randrange(1 << 30)
    print("seed", seed)
    made = made_examples(random.Random(seed), 50)
    rows = pack(made, 64)
    found = []
    for row in rows:
        assert len(row) <= 64
        assert len({len(part) for part in (row.ids, row.positions, row.documents, row.is_answer,
                                           row.targets)}) == 1
        for document in set(row.documents):
            places = [k for k in range(len(row)) if row.documents[k] == document]
            ids = [row.ids[k] for k in places]
            assert [row.positions[k] for k in places] == list(range(len(places)))
            prompt = [row.is_answer[k] for k in places].index(True)
            found.append(Example(tuple(ids[:prompt]), tuple(ids[prompt:])))
            # Each answer token is the target of the position before it, and nothing else is one.
            assert [row.targets[k] for k in places] == (
                [NO_TARGET] * (prompt - 1) + ids[prompt:] + [NO_TARGET])
    key = (lambda example: (example.prompt_ids, example.answer_ids))
    assert sorted(found, key=key) == sorted(made, key=key)
    filled = rows[0].filled(64)
    assert len(filled) == 64 and filled.num_targets == rows[0].num_targets
    assert set(filled.documents[len(rows[0]):]) <= {-1}
    for wrong, says in ((Example((1,), ()), "empty"), (Example((1,) * 64, (1,)), "65 tokens")):
        with pytest.raises(ValueError, match=says):
            pack([wrong], 64)


def test_epochs_take_every_example_in_an_order_of_their_own():
    made = made_examples(random.Random(3), 40)
    per_epoch = -(-len(pack(made, 64)) // 2)

    def ids(count):
        return [[row.ids for row in rows]
                for rows in itertools.islice(steps(made, 64, 2, seed=5), count)]

    # Packed in another order, an epoch may have a row more or less.
    first = ids(3 * per_epoch)
    assert first == ids(3 * per_epoch)
    assert sum(len(e) for e in made) in itertools.accumulate(
        sum(map(len, rows)) for rows in first)
    assert first[0] not in first[1:]


def test_learning_rates_rise_and_fall():
    settings = Settings(swaa.Recipe(8), steps=100, learning_rate=1.0, warm_up_steps=10)
    rates = [settings.learning_rate_at(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == 1
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[100] == pytest.approx(0.1)
    for wrong, field in (({"targets": "x"}, "targets"), ({"steps": 0}, "steps")):
        with pytest.raises(ValueError, match=field):
            Settings(**{"recipe": swaa.Recipe(8), "steps": 1, **wrong}).check()


def test_facts_stand_in_the_text_and_differ_from_what_evaluation_asks():
    made = facts.fact_cases(facts.python_texts(), (60, 90), 200, seed=4)
    assert made == facts.fact_cases(facts.python_texts(), (60, 90), 200, seed=4)
    assert len({case.prompt for case in made}) == 200
    for case in made:
        assert case.answers[0] in case.prompt and "pass key" not in case.prompt
        assert 50 < len(case.prompt.split()) < 200
    measured = retrieval.pass_key((60,), (0.5,), 1, seed=4).cases()[0].prompt
    question = measured.rsplit("\n", 1)[1].replace("pass key", "{name}")
    assert question not in facts._QUESTIONS
    with pytest.raises(ValueError, match="words: 60 to 90"):
        facts.fact_cases(["short"], (60, 90), 1, seed=4)


def test_examples_of_given_answers(client, tmp_path):
    chat = ({"role": "user", "content": "What is the capital of France?"},)
    cases = [Case("The three primary colours are red, yellow and", (" blue",)),
             Case(chat, ("It is Paris.",))]
    path = tmp_path / "examples.jsonl"
    assert examples.prepare(cases, path, client) == {"kept": 2}
    made = {len(example.prompt_ids): example for example in examples.read_examples(path)}
    text = made.pop(9)
    assert list(text.prompt_ids + text.answer_ids) == client.tokenize(
        "The three primary colours are red, yellow and blue")
    (chatted,) = made.values()
    end = client.model_info().eos_token_ids
    assert chatted.answer_ids[-1] in end and not set(chatted.answer_ids[:-1]) & set(end)
    # What the server answers to this prompt is what it answers to the chat.
    options = {"temperature": 0, "max_tokens": 8}
    assert client.generate(list(chatted.prompt_ids), **options).result().ids == \
        client.chat(chat, **options).result().ids
    with pytest.raises(ValueError, match="no answer"):
        examples.prepare([Case("x", ())], tmp_path / "none.jsonl", client)
    with pytest.raises(ValueError, match="no server"):
        examples.prepare([Case(chat, ("x",))], tmp_path / "none.jsonl", None)


def test_full_attention_answers_and_is_judged(server, client, tmp_path, capsys):
    """By the command; a second run takes up where a first one broke off."""
    data = tmp_path / "prompts.jsonl"
    question = [{"role": "user", "content": "What is the capital of France?"}]
    data.write_text("".join(json.dumps(record) + "\n" for record in (
        {"messages": question, "answer": "Paris"}, {"messages": question, "answer": "Oslo"},
        {"messages": [{"role": "user", "content": "Count from 1 to 900."}]})))
    path = tmp_path / "examples.jsonl"
    command = ["prepare", "--address", server.address, "--data", str(data), "--format", "chat",
               "--answers", "full-attention", "--max-tokens", "40", "--output", str(path)]
    assert cli.main(command) == 0
    assert capsys.readouterr().out == "1 cut, 1 kept, 1 wrong\n"
    (example,) = examples.read_examples(path)
    answer = client.chat(question, temperature=0, max_tokens=40).result()
    assert list(example.answer_ids) == answer.ids and answer.finish_reason == "stop"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:2]) + "\n" + lines[2][:30])
    assert cli.main(command) == 0
    assert capsys.readouterr().out == "1 cut, 1 kept, 1 wrong\n"
    assert [example] == examples.read_examples(path)


def test_prompts_of_all_formats(tmp_path, capsys):
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "Text.", "question": "Q?", "answer": "A"}\n')
    (case,) = examples.read_cases(path, "plain", chat=False)
    assert case.prompt == "Text.\n\nQ?\nAnswer:" and case.answers == (" A",)
    path.write_text('{"prompt": "a"}\n{"prompt": "b", "answer": "c"}\n')
    assert [case.answers for case in examples.read_cases(path, "completion")] == [(), ("c",)]
    with pytest.raises(ValueError, match="data.jsonl:1.*chat.*messages"):
        examples.read_cases(path, "chat")
    made = tmp_path / "facts.jsonl"
    assert cli.main(["facts", "--count", "3", "--words", "50", "60", "--output", str(made)]) == 0
    assert len(examples.read_cases(made, "completion")) == 3
    assert cli.main(["facts", "--texts", str(path), "--output", str(made)]) == 1
    assert "words: 150 to 700" in capsys.readouterr().err


def test_presets_are_recipes_with_sources(capsys):
    for preset in presets.PRESETS:
        assert preset.source and swaa.Recipe.parse(str(preset.recipe)) == preset.recipe
        assert preset.accuracy is not None or preset.tuned_accuracy is not None
        layer_masks(preset.recipe, 36)
    found = presets.presets_for("Qwen/Qwen3-4B-Thinking-2507")
    assert found and all(preset.model == "qwen3-4b-thinking-2507" for preset in found)
    assert presets.presets_for("Qwen3-4B") == []
    for layers, count in zip(presets.LIGHT_TRANSFER.values(), (36, 48, 32), strict=True):
        assert len(set(layers)) == count // 2 and max(layers) < count
    assert presets.lazy_layers_for("meta-llama/Llama-3.1-8B-Instruct")[:2] == (0, 1)
    assert presets.lazy_layers_for("x") is None
    assert cli.main(["presets", "instruct"]) == 0
    listed = capsys.readouterr().out
    assert "W=2048,F=1:2,D=all  58.8 tuned" in listed and "llama-3.1-8b-instruct  F=0+1+4" in listed
    assert cli.main(["presets", "unknown-model"]) == 1
