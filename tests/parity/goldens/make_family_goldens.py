#!/usr/bin/env python3
"""Makes tiny random models of the families, in both kinds of file, and data/families.json, the
log-probabilities that tests/parity/model_parity_test.cc compares the server's with.

    python3 -m venv /tmp/goldens
    /tmp/goldens/bin/pip install torch transformers safetensors tokenizers gguf numpy
    /tmp/goldens/bin/python tests/parity/goldens/make_family_goldens.py

Weights are bfloat16 in the folder and in the GGUF file beside it, the very same numbers; GGUF files
order the rows of llama's Q and K and name everything as llama.cpp's converter does.
"""

import json
import math
import random
import shutil

import gguf
import numpy as np
import torch
import transformers

import make_model_goldens as models

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "num_attention_heads": 2,
         "num_key_value_heads": 1, "vocab_size": 320, "max_position_embeddings": 512, "bos_token_id": 1,
         "eos_token_id": 2, "tie_word_embeddings": True}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
FAMILIES = {
    "tiny-llama31": (transformers.LlamaConfig, {
        "head_dim": 32, "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
                            "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}),
    "tiny-qwen2": (transformers.Qwen2Config, {"hidden_size": 64, "rope_parameters": YARN}),
    "tiny-qwen3": (transformers.Qwen3Config, {
        "head_dim": 32, "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 3.0}}),
    # One layer, and biases everywhere: no GGUF file of llama.cpp's has them.
    "tiny-qwen3-biased": (transformers.Qwen3Config, {
        "head_dim": 32, "num_hidden_layers": 1, "attention_bias": True, "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}),
    "tiny-qwen3moe": (transformers.Qwen3MoeConfig, {
        "head_dim": 32, "moe_intermediate_size": 16, "num_experts": 8, "num_experts_per_tok": 3,
        "norm_topk_prob": True, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}),
    # A dense layer before the mixture, and experts stacked as transformers 5 holds them. GGUF files of
    # llama.cpp's have neither that nor shares that are not normalised.
    "tiny-qwen3moe-stacked": (transformers.Qwen3MoeConfig, {
        "head_dim": 32, "moe_intermediate_size": 24, "num_experts": 5, "num_experts_per_tok": 2,
        "decoder_sparse_step": 2, "norm_topk_prob": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}),
}
# Of router logits, whose deviation is about 1.4: nearer to each other than this, the last chosen expert and the
# first that is not might change places by rounding to bfloat16.
ROUTING_MARGIN = 0.05
PARTS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
         "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
         "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
NAMES = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
         "lm_head.weight": "output.weight"}


def make_folder(name, config_class, changes, seed):
    folder = models.TEST_DATA / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = config_class(**{**SIZES, **changes})
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            # Large enough for attention to be far from uniform.
            scale = 0.5 if "bias" in key else 0.2 if "norm" in key else 0.25
            parameter.copy_(torch.randn_like(parameter) * scale + (1.0 if "norm" in key else 0.0))
    model.to(torch.bfloat16).save_pretrained(folder, save_original_format=not name.endswith("stacked"))
    (folder / "generation_config.json").unlink(missing_ok=True)
    models.make_tiny_tokenizer(folder)
    for file in folder.iterdir():
        file.chmod(0o644)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def routing_margins(model, tokens):
    """[tokens]: of all layers the smallest distance between the last chosen expert's logit and the next one's."""
    gates = [layer.mlp.gate for layer in model.model.layers if hasattr(layer.mlp, "gate")]
    logits = []
    hooks = [gate.register_forward_hook(lambda _, __, out: logits.append(out[0])) for gate in gates]
    model(torch.tensor([tokens]))
    for hook in hooks:
        hook.remove()
    count = model.config.num_experts_per_tok
    margins = []
    for of_layer in logits:
        top = of_layer.topk(count + 1, -1).values
        margins.append(top[:, count - 1] - top[:, count])
    return torch.stack(margins).min(0).values


def decisive_tokens(model, rng, count, following):
    """Random tokens, and after them a greedy continuation, whose choice of experts is no near tie."""
    tokens = []
    while True:
        tokens.append(rng.randrange(3, 320))
        if routing_margins(model, tokens)[-1] < ROUTING_MARGIN:
            tokens.pop()
        elif len(tokens) == count:
            continued = tokens + models.greedy(model, tokens, following)["tokens"]
            if routing_margins(model, continued)[count:].min() >= ROUTING_MARGIN:
                return tokens
            tokens.pop()


def gguf_name(name):
    if name in NAMES:
        return NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{PARTS[part]}.{kind}"


def interleaved(rows, heads):
    """As llama.cpp's converter orders Q and K of architecture llama."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def llama3_factors(rope, head_dim):
    """Llama 3's scaling as the tensor that llama.cpp's converter makes of it."""
    factors = []
    for i in range(0, head_dim, 2):
        wave = 2 * math.pi * rope["rope_theta"] ** (i / head_dim)
        context, low, high = (rope["original_max_position_embeddings"], rope["low_freq_factor"],
                              rope["high_freq_factor"])
        share = min(max((context / wave - low) / (high - low), 0), 1)
        factors.append(1 / ((1 - share) / rope["factor"] + share))
    return np.array(factors, np.float32)


def add_tokenizer(writer, folder):
    data = json.loads((folder / "tokenizer.json").read_text())
    tokens = sorted(data["model"]["vocab"], key=data["model"]["vocab"].get)
    special = {token["content"] for token in data["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in data["model"]["merges"]])
    writer.add_eos_token_id(2)


def gguf_tensors(name, values):
    """(name, values) of each tensor that llama.cpp's converter makes of one of transformers'."""
    if not name.endswith((".gate_up_proj", ".down_proj", ".mlp.gate.weight")):
        return [(gguf_name(name), values)]
    layer, part = name.split(".")[2], name.split(".mlp.")[1]
    if part == "gate.weight":
        return [(f"blk.{layer}.ffn_gate_inp.weight", values)]
    if part == "experts.down_proj":
        return [(f"blk.{layer}.ffn_down_exps.weight", values)]
    gate, up = np.split(values, 2, axis=1)
    return [(f"blk.{layer}.ffn_gate_exps.weight", gate), (f"blk.{layer}.ffn_up_exps.weight", up)]


def write_gguf(name, model):
    folder, config = models.TEST_DATA / name, model.config
    arch, head_dim = config.model_type.replace("_", ""), model.model.layers[0].self_attn.head_dim
    writer = gguf.GGUFWriter(str(models.TEST_DATA / f"{name}.gguf"), arch)
    writer.add_name(name)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if arch == "qwen3moe":
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    add_tokenizer(writer, folder)
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(rope, head_dim))
    for key, tensor in model.state_dict().items():
        if key in model.all_tied_weights_keys:
            continue
        values = tensor.numpy()
        if arch == "llama" and ("q_proj" in key or "k_proj" in key):
            values = interleaved(values, values.shape[0] // head_dim)
        for stored, part in gguf_tensors(key, values):
            bits = gguf.quants.quantize(np.ascontiguousarray(part), gguf.GGMLQuantizationType.BF16)
            writer.add_tensor(stored, bits, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    torch.set_grad_enabled(False)
    cases = []
    for seed, (name, (config_class, changes)) in enumerate(FAMILIES.items(), start=21):
        with torch.enable_grad():
            model = make_folder(name, config_class, changes, seed)
        rng = random.Random(seed)
        if "moe" in name:
            tokens = decisive_tokens(model, rng, 100, 16)
        else:
            tokens = [rng.randrange(3, 320) for _ in range(100)]
        case = models.case(model, name, tokens, 16)
        cases.append({"model": name, **case})
        if not name.endswith(("biased", "stacked")):
            write_gguf(name, model)
            cases.append({"model": name + ".gguf", **case, "name": name + ".gguf"})
    models.write("families.json", {"transformers": transformers.__version__, "cases": cases})


if __name__ == "__main__":
    main()
