#!/usr/bin/env python3
"""Makes tests/data/configs/expected.json: what transformers makes of every config.json in that folder.

    python3 -m venv /tmp/goldens
    /tmp/goldens/bin/pip install torch transformers
    /tmp/goldens/bin/python tests/parity/goldens/make_config_goldens.py

Models are built without memory for their weights. Of each: the names and shapes of its tensors in
safetensors files ("{}" stands for the layer and, behind it, for the expert; all must be alike), and its
rotary frequencies and attention factor.
"""

import json
import pathlib
import re

import torch
import transformers

CONFIGS = pathlib.Path(__file__).parent.parent.parent / "data" / "configs"


def tensors_of(model, layers):
    """{name with {} for the layer: shape}."""
    patterns = {}
    tied = set(model.all_tied_weights_keys)
    for name, tensor in model.state_dict().items():
        if name in tied:
            continue
        pattern, count = re.subn(r"\.layers\.\d+\.", ".layers.{}.", name)
        shape, seen = list(tensor.shape), 0
        if pattern in patterns:
            assert patterns[pattern][0] == shape, name
            seen = patterns[pattern][1]
        patterns[pattern] = (shape, seen + 1)
        assert count <= 1
    for pattern, (_, seen) in patterns.items():
        assert seen == (layers if "{}" in pattern else 1), pattern
    return dict(sorted(item for pattern, (shape, _) in patterns.items() for item in saved(pattern, shape)))


def saved(pattern, shape):
    """(pattern, shape) of the tensors that save_pretrained makes of one: experts, which transformers holds in
    one tensor, are files' own."""
    prefix, _, part = pattern.rpartition(".experts.")
    if part == "gate_up_proj":
        assert shape[1] % 2 == 0
        return [(f"{prefix}.experts.{{}}.{name}.weight", [shape[1] // 2, shape[2]]) for name in ("gate_proj", "up_proj")]
    if part == "down_proj":
        return [(f"{prefix}.experts.{{}}.down_proj.weight", shape[1:])]
    return [(pattern, shape)]


def expected(path):
    config = transformers.AutoConfig.for_model(**json.loads(path.read_text()))
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    # Frequencies are computed, not stored: those of the meta device hold nothing.
    rotary = type(model.model.rotary_emb)(config)
    result = {"layers": config.num_hidden_layers,
              "attention_factor": float(rotary.attention_scaling),
              "inverse_frequencies": [float(f"{x:.9g}") for x in rotary.inv_freq.tolist()],
              "tensors": tensors_of(model, config.num_hidden_layers)}
    return result


def main():
    paths = sorted(path for path in CONFIGS.glob("*.json") if path.name != "expected.json")
    result = {"transformers": transformers.__version__,
              "models": {path.stem: expected(path) for path in paths}}
    (CONFIGS / "expected.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")
    print(f"{len(paths)} configurations, {(CONFIGS / 'expected.json').stat().st_size} bytes")


if __name__ == "__main__":
    main()
