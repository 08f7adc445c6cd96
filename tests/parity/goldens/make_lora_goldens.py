#!/usr/bin/env python3
"""Makes adapters of the tiny models, as PEFT saves them, and data/lora.json, the log-probabilities
under them that tests/parity/model_parity_test.cc compares the server's with.

    python3 -m venv /tmp/goldens
    /tmp/goldens/bin/pip install torch transformers peft safetensors tokenizers gguf numpy
    /tmp/goldens/bin/python tests/parity/goldens/make_lora_goldens.py

Run make_family_goldens.py first: it makes the models.
"""

import random
import shutil

import peft
import torch
import transformers

import make_model_goldens as models

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS = {
    # Ranks and scales of their own for some modules, and rsLoRA.
    "tiny-llama31-lora": ("tiny-llama31", {
        "r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": ALL,
        "rank_pattern": {"v_proj": 2, "layers.1.mlp.down_proj": 6},
        "alpha_pattern": {"layers.0.*": 3, "up_proj": 9}}),
    # What most adapters are, beside biases.
    "tiny-qwen2-lora": ("tiny-qwen2", {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}),
}


def make_adapter(name, base, options, seed):
    model = transformers.AutoModelForCausalLM.from_pretrained(models.TEST_DATA / base, dtype=torch.float32)
    torch.manual_seed(seed)
    model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **options)).eval()
    for key, parameter in model.named_parameters():
        if "lora_" in key:
            # Large enough to change what is likely.
            parameter.copy_((torch.randn_like(parameter) * 0.15).to(torch.bfloat16))
    folder = models.TEST_DATA / name
    shutil.rmtree(folder, ignore_errors=True)
    # bfloat16 in the file: the very same numbers.
    saved = {key: value.to(torch.bfloat16) for key, value in model.state_dict().items() if "lora_" in key}
    model.peft_config["default"].base_model_name_or_path = base
    model.save_pretrained(folder, state_dict=saved)
    (folder / "README.md").unlink(missing_ok=True)
    for file in folder.iterdir():
        file.chmod(0o644)
    return model


def main():
    torch.set_grad_enabled(False)
    cases = []
    for seed, (name, (base, options)) in enumerate(ADAPTERS.items(), start=61):
        model = make_adapter(name, base, options, seed)
        rng = random.Random(seed)
        case = models.case(model, name, [rng.randrange(3, 320) for _ in range(70)], 12)
        cases.append({"model": base, "adapter": name, **case})
    # The rows of Q and K lie in another order in this file; the adapter's do not.
    cases.append({**cases[0], "model": "tiny-llama31.gguf", "name": "tiny-llama31.gguf, lora"})
    models.write("lora.json", {"transformers": transformers.__version__, "peft": peft.__version__, "cases": cases})


if __name__ == "__main__":
    main()
