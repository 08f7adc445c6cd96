"""What only a small model shows in no time: one layer, and a prompt that fills the context."""

import json

import harness
from harness import Server, collect, generation, request
from test_thinking import write_model


def test_a_model_of_one_layer_is_served(tmp_path):
    folder = write_model(tmp_path, "tokens")
    config = json.loads((folder / "config.json").read_text())
    config.update(num_hidden_layers=1, layer_types=["full_attention"])
    (folder / "config.json").write_text(json.dumps(config))
    server = Server("--load-format", "dummy", "--kv-cache-bytes", "16MiB", model=folder)
    for recipe in ("full", "window"):
        assert len(collect(server.inference, request("Hi", recipe=recipe)).ids) > 0
    # Its layers are odd ones, of which there is none.
    error = harness.refused(server.inference, request("Hi", recipe="balanced"))
    assert harness.trailer(error, "swaa-error-reason") == "recipe_not_found"
    assert server.stop() == 0, server.log()


def test_a_prompt_as_long_as_the_context_is_scored(tmp_path):
    server = Server("--load-format", "dummy", "--kv-cache-bytes", "16MiB",
                    model=write_model(tmp_path, "tokens"))
    context = server.control.GetModelInfo(
        harness.control.GetModelInfoRequest()).max_context_tokens
    message = request(ids=[5 + i % 50 for i in range(context)], max_tokens=None)
    message.response_options.prompt_logprobs = 0
    answer = collect(server.inference, message)
    scored = [token for event in answer.prompt_logprobs for token in event.tokens]
    assert len(scored) == context and all(token.logprob < 0 for token in scored[1:])
    assert answer.finished.finish_reason == generation.FINISH_REASON_LENGTH
    error = harness.refused(server.inference, request(ids=[5] * (context + 1)))
    assert harness.trailer(error, "swaa-error-reason") == "prompt_too_long"
    assert server.stop() == 0, server.log()
