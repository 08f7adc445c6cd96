"""lm-evaluation-harness over the server, where it is installed: `pip install './python[lm-eval]'`.

The scores themselves are tested without it, in test_evaluation.py.
"""

import json

import pytest

lm_eval = pytest.importorskip("lm_eval")

DOCUMENTS = [
    {"question": "The capital of France is", "choices": [" Paris", " Rome", " Berlin"], "right": 0},
    {"question": "The three primary colours are red, yellow and", "right": 0,
     "choices": [" blue", " seven", " house"]},
]


def task(tmp_path, kind, **fields):
    path = tmp_path / "documents.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS))
    return {"task": f"swaa_{kind}", "dataset_path": "json", "test_split": "test",
            "dataset_kwargs": {"data_files": {"test": str(path)}, "cache_dir": str(tmp_path)},
            "output_type": kind, "num_fewshot": 0, **fields}


def test_its_tasks_run_under_a_recipe(server, client, tmp_path):
    from swaa.evaluation.lm_harness import SwaaModel
    tasks = [
        task(tmp_path, "multiple_choice", doc_to_text="{{question}}", doc_to_choice="{{choices}}",
             doc_to_target="{{right}}", target_delimiter="", metric_list=[{"metric": "acc"}]),
        task(tmp_path, "generate_until", doc_to_text="{{question}}", doc_to_target="{{choices[0]}}",
             generation_kwargs={"until": ["\n", ","], "max_gen_toks": 4},
             metric_list=[{"metric": "exact_match"}]),
        task(tmp_path, "loglikelihood_rolling", doc_to_text="", doc_to_target="{{question}}",
             metric_list=[{"metric": "word_perplexity"}]),
    ]
    model = SwaaModel(address=server.address, recipe="W=64;K=4;D=all")
    found = lm_eval.simple_evaluate(model=model, tasks=tasks, bootstrap_iters=0)["results"]
    assert found["swaa_multiple_choice"]["acc,none"] == 1
    assert 1 < found["swaa_loglikelihood_rolling"]["word_perplexity,none"] < 1e5
    assert "exact_match,none" in found["swaa_generate_until"]


def test_a_text_scores_what_its_prompt_scores(server, client):
    from swaa.evaluation.lm_harness import SwaaModel
    model = SwaaModel(address=server.address)
    text = "The harbour master counted the barrels twice."
    ids = [client.model_info().eos_token_ids[0], *client.tokenize(text)]
    read = client.generate(ids, max_tokens=1, prompt_logprobs=0).result()
    assert model._score_text(text) == pytest.approx(
        sum(token.logprob for token in read.prompt[1:]), abs=1e-2)
    whole, _ = model._score(("The harbour master", " counted the barrels twice."))
    with_space, _ = model._score(("The harbour master ", "counted the barrels twice."))
    assert whole == pytest.approx(with_space, abs=1e-3)
    assert model._generate(("The harbour", {"until": [" "], "max_gen_toks": 3})).count(" ") <= 1
