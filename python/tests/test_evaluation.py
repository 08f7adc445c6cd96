"""Tasks, runs, tables, plots, layers and recommendations against a real server."""

import json
import math
import os
import random
import subprocess

import pytest

import swaa
import yaml
from conftest import model_path
from swaa.evaluation import (answers, cases, cli, layers, recommendation, records, results,
                             retrieval, runner, scoring, statistics, texts)

WINDOW = swaa.Recipe(64)
RECIPES = {"full": swaa.Recipe(), "W=64": WINDOW}


def small_pass_key():
    return retrieval.pass_key(lengths=(100,), depths=(0.1, 0.9), cases=2, seed=3)


def test_forced_scores_are_those_of_the_prompt(client):
    """What forced output gives under full attention, the prompt's own log-probabilities give."""
    ids = client.tokenize("The harbour master counted the barrels twice, and nobody minded.")
    read = client.generate(ids, max_tokens=1, prompt_logprobs=0).result()
    score, _ = scoring.continuation_score(client, ids[:6], ids[6:], "full")
    assert score == pytest.approx(sum(token.logprob for token in read.prompt[6:]), abs=1e-2)
    likeliest = client.generate(ids, max_tokens=4, temperature=0, ignore_eos=True).result().ids
    assert scoring.continuation_score(client, ids, likeliest, "full")[1]
    assert not scoring.continuation_score(client, ids, [likeliest[0] + 1], "full")[1]


def test_a_context_and_what_follows_split_as_one_text(client):
    tokenizer = cases.Tokenizer(client)
    before, after = tokenizer.split("The capital of France is", " Paris")
    assert before + after == client.tokenize("The capital of France is Paris") and len(after) == 1
    assert tokenizer.answer("Paris") == client.tokenize("\nParis")[1:]
    with pytest.raises(ValueError, match="adds no token"):
        tokenizer.split("The capital", "")


def test_a_run_goes_on_where_it_broke_off(client, tmp_path):
    task = small_pass_key()
    assert len({case.id for case in task.cases()}) == 4
    seen = []
    runner.evaluate(client, [task], {"full": swaa.Recipe()}, tmp_path,
                    progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 4) for done in range(1, 5)]
    path = tmp_path / "records.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:3]) + "\n" + lines[3][:50])  # as a crash leaves it
    seen.clear()
    runner.evaluate(client, [task], RECIPES, tmp_path,
                    progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (5, 5), "one that was cut off, and four under the other recipe"
    kept = runner.read_records(path)
    assert len(kept) == 8 and [json.dumps(record) for record in kept[:3]] == lines[:3]
    runner.evaluate(client, [task], RECIPES, tmp_path, progress=lambda *_: pytest.fail("again"))
    (tmp_path / "run.json").write_text(json.dumps(
        {**json.loads((tmp_path / "run.json").read_text()), "model": "another"}))
    with pytest.raises(runner.RunMismatch, match="another.*smollm2"):
        runner.evaluate(client, [task], RECIPES, tmp_path)


def test_a_window_loses_what_it_cannot_see(client, server, tmp_path, capsys):
    """The command from the run to the recommendation, and the files that it leaves."""
    run = str(tmp_path / "run")
    arguments = ["run", "--address", server.address, "--task", "pass_key", "--words", "100,150",
                 "--depths", "0.1", "--cases", "2", "--grid", "W=64,D=-/all",
                 "--warm-up", "8"]
    assert cli.main([*arguments, "--output", run]) == 0
    set_costs(tmp_path / "run/records.jsonl")
    frame = results.load(run)
    summary = results.summarize(frame)
    row = {key: group.iloc[0] for key, group in summary.groupby(["recipe", "metric"])}
    full, window, decode = (row[recipe, "logprob"] for recipe in ("full", "W=64", "W=64,D=all"))
    assert full["mean"] > window["mean"] + 1 and window["difference_high"] < 0
    assert full["low"] <= full["mean"] <= full["high"] and full["cases"] == 4
    assert full["attended_keys_ratio"] == 1 > window["attended_keys_ratio"]
    assert window["mean"] + 1 < decode["mean"], "what decoding sees brings some of it back"
    assert len(json.loads((tmp_path / "run/summary.json").read_text())) == len(summary) == 6
    for plot in ("pass_key-exact-trade-off.svg", "pass_key-logprob-map.svg"):
        assert (tmp_path / "run" / plot).read_text().rstrip().endswith("</svg>")
    chosen = str(tmp_path / "chosen.yaml")
    wanted = ["recommend", run, "--task", "pass_key", "--metric", "logprob", "--output", chosen]
    capsys.readouterr()
    assert cli.main([*wanted, "--maximum-loss", "100"]) == 0
    assert "take W=64\n" in capsys.readouterr().out
    assert cli.main([*wanted, "--maximum-loss", str(full["mean"] - decode["mean"] + 0.5)]) == 0
    assert "take W=64,D=all\n" in capsys.readouterr().out
    config = yaml.safe_load(open(chosen, encoding="utf-8"))
    assert config["recipes"][0]["recipe"]["sliding_window_tokens"] == 64
    check_configuration(chosen)
    assert cli.main([*wanted, "--maximum-loss", "-100"]) == 1
    assert "greater --maximum-loss" in capsys.readouterr().err


def set_costs(path):
    """Device time in proportion to keys: what the server measures depends on the machine's load."""
    kept = runner.read_records(path)
    for record in kept:
        record["stats"]["attributed_device_seconds"] = record["stats"]["attended_keys"] * 1e-9
    path.write_text("".join(json.dumps(record) + "\n" for record in kept))


def check_configuration(path):
    """The server itself takes the file."""
    done = subprocess.run([os.environ["SWAA_BINARY"], "serve", "--check-config", "--config", path,
                           "--model", str(model_path())], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_agreement_and_perplexity(client):
    text = texts.made_texts(1, 100, seed=5)
    task = texts.Agreement(text, max_tokens=8)
    (case,) = task.cases()
    same = task.measure(client, case, "full").metrics
    other = task.measure(client, case, swaa.Recipe(8)).metrics
    assert same["equal_argmax"] == 1 and same["kl"] < 1e-3 and abs(same["logprob_loss"]) < 1e-2
    assert other["equal_argmax"] < 1 and other["kl"] > 0.05 and other["logprob_loss"] > 0.05
    reader = texts.Perplexity(text, bucket_tokens=64)
    full, window = (reader.measure(client, case, recipe).metrics for recipe in ("full", WINDOW))
    # Up to the window's width a window hides nothing.
    assert window["nll_0_64"] == pytest.approx(full["nll_0_64"], abs=1e-2)
    assert window["nll"] > full["nll"] + 0.02
    count = len(client.tokenize(text[0]))
    assert len(full) == 1 + math.ceil(count / 64)


def test_a_lower_bound_of_the_divergence():
    """Over random distributions, beside the true one."""
    seed = random.randrange(1 << 30)
    rng = random.Random(seed)
    for _ in range(200):
        size = rng.randint(2, 30)
        pair = []
        for _ in range(2):
            weights = [rng.expovariate(1) ** 3 + 1e-6 for _ in range(size)]
            pair.append([math.log(weight / sum(weights)) for weight in weights])
        tops = [tuple(sorted(enumerate(logs), key=lambda item: -item[1])[:20]) for logs in pair]
        exact = sum(math.exp(p) * (p - q) for p, q in zip(*pair))
        bound = texts.coarse_kl(*(swaa.Token(0, 0.0, top) for top in tops))
        assert 0 <= bound <= exact + 1e-6, f"seed {seed}"
        if size <= 20:
            assert bound == pytest.approx(exact, abs=1e-6), f"seed {seed}"


RECORDS = {
    "plain": {"prompt": "The key is 5.", "question": "What is the key?", "answer": "5"},
    "longmemeval": {
        "question_id": "q", "question_type": "single-session-user", "question": "What did I buy?",
        "answer": "a lamp", "question_date": "2023/05/30", "haystack_dates": ["2023/05/20"],
        "haystack_sessions": [[{"role": "user", "content": "I bought a lamp."}]]},
    "longbench": {"context": "The key is 5.", "input": "What is the key?", "answers": ["5", "five"],
                  "dataset": "qa"},
    "longbench_v2": {"context": "The key is 5.", "question": "What is the key?", "choice_A": "4",
                     "choice_B": "5", "choice_C": "6", "choice_D": "7", "answer": "B"},
}


@pytest.mark.parametrize("form", RECORDS)
def test_question_files(client, tmp_path, form):
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps(RECORDS[form]) + "\n\n" + json.dumps(RECORDS[form]) + "\n")
    for chat in (True, False):
        task = records.question_file(path, form, chat=chat, max_tokens=8, limit=1)
        (case,) = task.cases()
        text = case.prompt[0]["content"] if chat else case.prompt
        assert "key is 5" in text or "I bought a lamp" in text
        measured = task.measure(client, case, "full")
        assert measured.metrics["logprob"] < 0 and measured.metrics["exact"] in (0.0, 1.0)
    record = dict(RECORDS[form])
    del record["answers" if form == "longbench" else "answer"]
    path.write_text(json.dumps(RECORDS[form]) + "\n" + json.dumps(record) + "\n")
    with pytest.raises(ValueError, match=f":2: no record of the format {form}"):
        records.question_file(path, form)


def test_grades():
    def case(*rights):
        return cases.Case("x", rights)

    assert answers.token_f1("The red lamp.", "a lamp") == pytest.approx(2 / 3)
    assert answers.token_f1("", "lamp") == 0
    said = answers.question_answering("It was the lamp.", case("chair", "a lamp"))
    assert said == {"contains": 1, "exact": 0, "f1": pytest.approx(0.5)}
    assert answers.question_answering("lampshade", case("lamp"))["contains"] == 0
    assert answers.chosen_letter("The answer is B.", case("B"))["exact"] == 1
    assert answers.chosen_letter("A better one", case("B"))["exact"] == 0
    assert answers.recalled("123 and 9", case(" 123, 456")) == {"recall": 0.5, "exact": 0}
    assert answers.begins_with(" 12345.", case("12345")) == {"exact": 1}


def test_layers_are_chosen_in_common_batches(client):
    """Greedy choice is never worse than what it had to choose from; the budget is kept."""
    asked = [cases.Case("The key is 73519. It is well hidden by a long text. The key is ",
                        ("73519",))]
    base = swaa.Recipe(4, 1, full_attention_decode=(0,))
    rounds = []
    choice = layers.greedy(client, asked, base, 2, progress=lambda *r: rounds.append(r))
    assert len(choice.layers) == 2 and set(rounds[0][0]) < set(choice.layers)
    assert rounds[-1] == (choice.layers, choice.score)
    others = [layers.with_layers(base, pair) for pair in ((rounds[0][0][0], layer)
                                                          for layer in range(30))
              if len(set(pair)) == 2]
    scores = scoring.mean_answer_scores(client, asked, others)
    assert choice.score == pytest.approx(max(scores), abs=1e-3)
    losses = layers.leave_one_out(client, asked, base)
    assert len(losses) == 30 and len(layers.most_missed(losses, 3)) == 3
    assert max(losses) == losses[layers.most_missed(losses, 1)[0]]
    with pytest.raises(ValueError, match="budget: 31"):
        layers.greedy(client, asked, base, 31)


def test_intervals():
    low, high = statistics.wilson(8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-3), pytest.approx(0.9433, abs=1e-3))
    assert statistics.wilson(0, 5)[0] == 0 and statistics.wilson(5, 5)[1] == 1
    low, high = statistics.bootstrap([0.1, 0.4, 0.5, 0.9])
    assert 0.1 <= low < 0.475 < high <= 0.9
    assert statistics.interval([0.3]) == pytest.approx((math.nan, math.nan), nan_ok=True)
    # Lower is better in both: (2, 2) is beaten by (1, 2), equal points do not beat each other.
    assert statistics.pareto([(1, 2), (2, 2), (2, 1), (1, 2), (3, 0)]) == [
        True, False, True, True, True]


def test_grids_and_recipe_lists(client):
    grid = recommendation.candidates("W=8/16,K=-/4,D=-/all")
    assert list(grid)[:3] == ["full", "W=8", "W=8,D=all"] and len(grid) == 9
    found = runner.parse_recipes("full; balanced ;W=8,F=odd", client)
    assert list(found) == ["full", "balanced", "W=8,F=1:2"]
    assert found["balanced"].sliding_window_tokens == 2048
    with pytest.raises(ValueError, match="'fastest'.*balanced"):
        runner.parse_recipes("fastest", client)
    with pytest.raises(ValueError, match="Recommended"):
        recommendation.configuration("x", {}, name="Recommended!")
