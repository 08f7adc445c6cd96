"""Tuning itself, on tiny random models, where PyTorch, transformers and PEFT are installed.

`tools/setup tuning` brings them; they are too large to be brought for every run of the tests.
"""

import json
import os
import pathlib
import random

import pytest

import swaa

NEEDED = "not installed here; `tools/setup tuning` brings it (3 GB)"
torch = pytest.importorskip("torch", reason=NEEDED)
pytest.importorskip("transformers", reason=NEEDED)
pytest.importorskip("peft", reason=NEEDED)

from swaa.tuning import cli, lazy_layers, masks, model, packing, training  # noqa: E402
from swaa.tuning.settings import Settings  # noqa: E402

DATA = pathlib.Path(__file__).resolve().parents[2] / "tests/data"
RECIPES = ("full", "W=16", "W=16,K=4", "W=16,K=4,D=all", "W=16,K=4,F=odd", "W=16,F=0,D=1")
LAYERS = 2


@pytest.fixture(autouse=True)
def one_thread():
    """Two that wait for one another on a loaded machine take a hundred times as long."""
    torch.set_num_threads(1)


def serving(name, *flags):
    return swaa.LocalServer(os.environ["SWAA_BINARY"], DATA / name,
                            ("--dtype", "f32", "--kv-cache-bytes", "16MiB", "--threads", "1",
                             *flags))


def load(name="tiny-llama31"):
    return model.load_base(DATA / name, "cpu", torch.float32)


def made_examples(seed, count):
    """The answer is a part of the prompt, out of the window's sight."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        prompt = [rng.randrange(3, 300) for _ in range(rng.randint(40, 90))]
        made.append(packing.Example(tuple(prompt), tuple(prompt[5:10])))
    return made


def scores(tuned, examples, recipe):
    """Log-probabilities of all answers, by transformers, from one packed row."""
    (row,) = packing.pack(examples, 4096)
    layers = masks.layer_masks(recipe, LAYERS)
    with torch.no_grad():
        logits, targets = model.answer_logits(
            tuned, row, model.RowMasks(row, layers, "cpu"), "cpu")
    return logits.log_softmax(-1).gather(1, targets[:, None])[:, 0].tolist()


def served_scores(client, examples, recipe):
    """The same by the server, each example for itself."""
    return [logprob for example in examples for logprob in client.generate(
        example.prompt_ids, forced_output=example.answer_ids, max_tokens=len(example.answer_ids),
        logprobs=0, recipe=recipe).result().logprobs]


@pytest.mark.parametrize("name", ["tiny-llama31", "tiny-qwen2", "tiny-qwen3"])
def test_a_packed_row_scores_what_the_server_scores(name):
    base, examples = load(name), made_examples(name, 4)
    found = {}
    with serving(name) as server, swaa.Client(server.address, timeout_seconds=300) as client:
        for text in RECIPES:
            recipe = swaa.Recipe.parse(text)
            found[text] = scores(base, examples, recipe)
            assert found[text] == pytest.approx(
                served_scores(client, examples, recipe), abs=1e-3), text
    # Every recipe is one of its own: a mask that showed too much would be seen.
    for one in RECIPES:
        for other in RECIPES:
            assert one == other or found[one] != pytest.approx(found[other], abs=1e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_flex_attention_sees_what_the_whole_mask_shows():
    on_gpu = model.load_base(DATA / "tiny-llama31", "cuda", torch.float32)
    examples = made_examples(1, 6)
    row = model.row_for(packing.pack(examples, 4096)[0], 1024, "cuda")
    for text in RECIPES:
        recipe = swaa.Recipe.parse(text)
        seen = model.RowMasks(row, masks.layer_masks(recipe, LAYERS), "cuda")
        with torch.no_grad():
            logits, targets = model.answer_logits(on_gpu, row, seen, "cuda")
        assert logits.log_softmax(-1).gather(1, targets[:, None])[:, 0].tolist() == pytest.approx(
            scores(load(), examples, recipe), abs=1e-3), text


def settings(**changes):
    return Settings(**{"recipe": swaa.Recipe.parse("W=16,K=4,F=1"), "steps": 24, "row_tokens": 512,
                       "rows_per_step": 2, "learning_rate": 1e-2, "warm_up_steps": 4, **changes})


class Interrupted(Exception):
    pass


def train(folder, wanted=None, until=None):
    """The losses, and the model where the run came to its end."""
    losses = []

    def report(progress):
        losses.append(progress.loss)
        if progress.step == until:
            raise Interrupted

    try:
        tuned = training.train(load(), made_examples(1, 40), wanted or settings(), folder,
                               checkpoint_every=5, report=report)
    except Interrupted:
        return losses, None
    return losses, tuned


def test_the_server_serves_what_was_tuned(tmp_path):
    """The loss falls, on unseen examples too; the server computes the same with the adapter."""
    losses, tuned = train(tmp_path / "adapter")
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    examples, recipe = made_examples(2, 4), settings().recipe
    with tuned.disable_adapter():
        before = scores(tuned, examples, recipe)
    after = scores(tuned, examples, recipe)
    assert sum(after) > sum(before) + 1
    config = tmp_path / "swaa.yaml"
    config.write_text(f"lora: {{roots: [{tmp_path}]}}\n")
    with serving("tiny-llama31", "--config", str(config)) as server, \
            swaa.Client(server.address, timeout_seconds=300) as client:
        assert client.load_lora("tuned", "adapter").rank == 16
        with_adapter = swaa.Recipe(16, 4, (1,), lora_name="tuned")
        assert served_scores(client, examples, with_adapter) == pytest.approx(after, abs=1e-3)
        assert served_scores(client, examples, recipe) == pytest.approx(before, abs=1e-3)


def test_a_run_that_broke_off_ends_as_one_that_did_not(tmp_path):
    whole, _ = train(tmp_path / "whole")
    begun, _ = train(tmp_path / "broken", until=13)
    rest, _ = train(tmp_path / "broken")
    assert begun == whole[:13] and rest == whole[10:]
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()
    log = (tmp_path / "broken/training/progress.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in log] == whole
    with pytest.raises(ValueError, match="run.json: the run's steps is 24, not 25"):
        train(tmp_path / "whole", settings(steps=25))


def test_full_attentions_distribution_is_learnt(tmp_path):
    losses, _ = train(tmp_path / "adapter", settings(targets="full-attention"))
    assert 0 < sum(losses[-4:]) < 0.8 * sum(losses[:4])
    # Without a window there is nothing to learn.
    losses, _ = train(tmp_path / "none", settings(
        targets="full-attention", recipe=swaa.Recipe(), steps=1))
    assert losses[0] == pytest.approx(0, abs=1e-5)


def test_the_command(tmp_path, capsys):
    data = tmp_path / "examples.jsonl"
    data.write_text("".join(json.dumps({
        "case": str(number), "outcome": "kept", "prompt_ids": example.prompt_ids,
        "answer_ids": example.answer_ids}) + "\n"
        for number, example in enumerate(made_examples(3, 8))))
    command = ["train", "--model", str(DATA / "tiny-llama31"), "--data", str(data), "--recipe",
               "W=16,K=4", "--steps", "2", "--device", "cpu", "--dtype", "bfloat16", "--row-tokens",
               "88", "--output", str(tmp_path / "adapter")]
    assert cli.main(command) == 0
    said = capsys.readouterr()
    assert "step 2 of 2: loss" in said.out and "LoadLora" in said.out
    assert "longer than a row of 88 tokens" in said.err
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (16, 32, True)
    assert sorted(config["target_modules"]) == ["k_proj", "q_proj", "v_proj"]
    lazy = ["lazy-layers", "--model", str(DATA / "tiny-llama31"), "--data", str(data), "--sinks",
            "4", "--recent", "16", "--last", "8"]
    assert cli.main(lazy) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == LAYERS + 1 and said[-1] in ("F=0", "F=1")
    assert cli.main(["train", *command[1:-1], str(tmp_path / "x"), "--model", "/none"]) == 1
    assert "there is no /none" in capsys.readouterr().err


def test_lazy_ratios_are_shares_of_attention():
    """Beside the weights that transformers' own attention gives."""
    import transformers
    ids = [3 + k * 11 % 300 for k in range(60)]
    ratios = lazy_layers.lazy_ratios(load(), ids, sinks=4, recent=16, last=8)
    plain = transformers.AutoModelForCausalLM.from_pretrained(
        DATA / "tiny-llama31", dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        weights = plain(torch.tensor([ids]), output_attentions=True).attentions
    for layer in range(LAYERS):
        last = weights[layer][0, :, -8:]
        expected = (last[..., :4].sum(-1) + last[..., -16:].sum(-1)).mean()
        assert ratios[layer] == pytest.approx(float(expected), abs=1e-5)
    assert lazy_layers.lazy_counts([[.9, .1, .5, .2], [.8, .3, .2, .4]]) == [2, 0, 1, 1]
    assert lazy_layers.least_lazy([[.9, .1, .5, .2], [.8, .3, .2, .4]], 2) == (1, 3)
    with pytest.raises(ValueError, match="20 tokens"):
        lazy_layers.lazy_ratios(load(), ids[:20], sinks=4, recent=16)
