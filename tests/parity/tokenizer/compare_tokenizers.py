#!/usr/bin/env python3
"""Compares the tokenizer with Hugging Face's `tokenizers` over random and adversarial texts.

Usage, from the repository's root, after building the target encode_texts:

    python3 -m venv /tmp/goldens && /tmp/goldens/bin/pip install tokenizers transformers tiktoken
    /tmp/goldens/bin/python tests/parity/tokenizer/compare_tokenizers.py [--count 100000] [--seed N]
        [--make-real DIR] [--goldens] TOKENIZER.json ...

--make-real DIR first writes DIR/llama3.json, DIR/qwen2.json and DIR/qwen2-literals.json from the real
vocabularies in the PyPI packages llama-models and dashscope, which must be unpacked below DIR
(pip download --no-deps, unzip), and compares them too. Every difference is printed with its text; the exit
status is 1 if there was one. --goldens instead trains tests/data/tokenizers/gpt2_tiny and literals_tiny, and
writes goldens/adversarial.json for tokenizer_parity_test.cc: short texts of each kind with the ids that they
have in every tokenizer of that folder.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import time
import unicodedata

from tokenizers import AddedToken, Tokenizer

import make_tokenizer_goldens as fixed

SPACES = [" ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u2003", "\u3000", "\u0085", "\u180e", "\u200b", ""]
BORDERS = ["a", "Z", "_", "1", "\u0301", "\u200d", "\u24b6", "\u00b2", "\u2160", ".", "é", "中", "😀", "-", ""]


class Corpus:
    """Texts of several kinds; what it yields is a function of the seed and the tokenizer alone."""

    def __init__(self, tokenizer, seed):
        self.rng = random.Random(seed)
        self.tokens = [tokenizer.decode([i], skip_special_tokens=False) for i in
                       self.rng.sample(range(tokenizer.get_vocab_size()), min(4000, tokenizer.get_vocab_size()))]
        self.literals = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        self.decomposed = [unicodedata.normalize("NFD", chr(c)) for c in range(0xA0, 0x3000)
                           if unicodedata.normalize("NFD", chr(c)) != chr(c)]
        self.kinds = [self.any_characters, self.alphabets, self.vocabulary, self.spaces, self.literal_edges,
                      self.mutated, self.runs, self.composed]

    def pick(self, items, most):
        return "".join(self.rng.choice(items) for _ in range(self.rng.randint(1, most)))

    def character(self):
        while True:
            code = self.rng.choice([self.rng.randrange(0x80), self.rng.randrange(0x3000),
                                    self.rng.randrange(0x10000), self.rng.randrange(0x20000)])
            # Unassigned ones have the properties that each library's version of Unicode gives them.
            if unicodedata.category(chr(code)) not in ("Cs", "Cn"):
                return chr(code)

    def any_characters(self):
        return "".join(self.character() for _ in range(self.rng.randint(1, 40)))

    def alphabets(self):
        return "".join(self.pick(self.rng.choice(fixed.ALPHABETS), 9) for _ in range(self.rng.randint(1, 12)))

    def vocabulary(self):
        return self.pick(self.tokens, 20)

    def spaces(self):
        return "".join(self.rng.choice([self.pick(SPACES, 4), self.rng.choice(BORDERS), self.character()])
                       for _ in range(self.rng.randint(1, 20)))

    def literal_edges(self):
        if not self.literals:
            return self.spaces()
        parts = []
        for _ in range(self.rng.randint(1, 6)):
            literal = self.rng.choice(self.literals)
            cut = self.rng.randrange(len(literal) + 1)
            parts += [self.rng.choice(SPACES), self.rng.choice(BORDERS),
                      self.rng.choice([literal, literal, literal, literal[:cut], literal[cut:]])]
        return "".join(parts) + self.rng.choice(SPACES) + self.rng.choice(BORDERS)

    def mutated(self):
        text = list(self.rng.choice(fixed.HARD))
        for _ in range(self.rng.randint(1, 5)):
            text.insert(self.rng.randrange(len(text) + 1), self.rng.choice([self.character(), " ", "\n", "'"]))
            if self.rng.random() < 0.5:
                del text[self.rng.randrange(len(text))]
        return "".join(text)

    def runs(self):
        return "".join(self.rng.choice([self.character(), " ", "\n", "a", "1"]) * self.rng.randint(1, 70)
                       for _ in range(self.rng.randint(1, 4)))

    def composed(self):
        marks = "\u0300\u0301\u0308\u0323\u0327\u0345\u3099\u1161\u11a8\u0338\u08ca\u1acd"
        return "".join(self.rng.choice(["e", "q", "\u1100", "\uac00", "か", "\u212b", "\u0958", " ",
                                        self.rng.choice(self.decomposed)]) + self.pick(marks, 3)
                       for _ in range(self.rng.randint(1, 10)))

    def texts(self, count):
        return [self.kinds[i % len(self.kinds)]() for i in range(count)]


def encode_ours(encoder, path, texts):
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    out = subprocess.run([encoder, path], input=lines, capture_output=True, text=True, check=False)
    if out.returncode != 0:
        sys.exit(f"{path}: {out.stderr}")
    return [json.loads(line) for line in out.stdout.splitlines()]


def compare(encoder, path, count, seed):
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    texts = Corpus(tokenizer, seed).texts(count)
    start = time.time()
    theirs = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
    middle = time.time()
    ours = encode_ours(encoder, path, texts)
    end = time.time()
    wrong = [i for i in range(count) if ours[i] != theirs[i]]
    print(f"{path}: seed {seed}, {count} texts, {sum(map(len, theirs))} tokens, {len(wrong)} differ "
          f"({middle - start:.1f} s theirs, {end - middle:.1f} s ours with its start)", flush=True)
    for i in sorted(wrong, key=lambda i: len(texts[i]))[:10]:
        print(f"  {ascii(texts[i])}\n    theirs {theirs[i]}\n    ours   {ours[i]}")
    return len(wrong)


def make_tiny():
    from tokenizers import pre_tokenizers
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    gpt2 = fixed.train(fixed.QWEN2_REGEX, special, [], nfc=False, bos=None, ignore_merges=False)
    gpt2.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    fixed.save("gpt2_tiny", gpt2, {"eos_token": "<|im_end|>"})
    literals = with_literals(fixed.train(fixed.QWEN2_REGEX, special, [], nfc=True, bos=None, ignore_merges=False))
    fixed.save("literals_tiny", literals, {"eos_token": "<|im_end|>"})


def write_goldens():
    """Short texts of each kind, always the same."""
    make_tiny()
    count, seed, result = 14, 20261125, {}
    for path in sorted(fixed.DATA.glob("*/tokenizer.json")):
        tokenizer = Tokenizer.from_file(str(path))
        corpus = Corpus(tokenizer, seed)
        cases = []
        for kind in corpus.kinds:
            texts = sorted({kind() for _ in range(20 * count)}, key=lambda text: (len(text), text))
            step = max(1, len(texts) // 3 // count)
            cases += [[text, tokenizer.encode(text, add_special_tokens=False).ids]
                      for text in texts[:step * count:step]]
        result[path.parent.name] = cases
    target = fixed.GOLDENS / "adversarial.json"
    fixed.dump_lines(target, result)
    print(f"{target}: {target.stat().st_size} bytes")


# ---- real vocabularies -----------------------------------------------------------------------------------


def from_tiktoken(vocabulary, regex, special, nfc, ignore_merges):
    from transformers.convert_slow_tokenizer import TikTokenConverter
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers
    converter = TikTokenConverter(vocab_file=str(vocabulary), pattern=regex)
    tokenizer = converter.tokenizer()
    tokenizer.model.ignore_merges = ignore_merges
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(regex), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def with_literals(tokenizer):
    """Added tokens with every option, some of which overlap."""
    options = [{"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True}, {"single_word": True},
               {"normalized": True}, {"single_word": True, "normalized": True, "lstrip": True}]
    tokens = [AddedToken(text, **{"normalized": False, **options[i % len(options)]}) for i, text in enumerate(
        ["<tool>", "</tool>", "<mask>", "word", "caf\u00e9", "na\u00efve", "<a>", "<a><b>", "<b> ", "e\u0301t\u00e9", "<x_y>", "\u212b"])]
    tokenizer.add_tokens(tokens)
    return tokenizer


def make_real(folder):
    llama = next(folder.glob("**/llama3/tokenizer.model"))
    qwen = next(folder.glob("**/qwen.tiktoken"))
    made = {
        "llama3": from_tiktoken(llama, fixed.LLAMA3_REGEX, ["<|begin_of_text|>", "<|end_of_text|>",
                                "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], False, True),
        "qwen2": from_tiktoken(qwen, fixed.QWEN2_REGEX, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], True, False),
    }
    made["qwen2-literals"] = with_literals(Tokenizer.from_str(made["qwen2"].to_str()))
    paths = []
    for name, tokenizer in made.items():
        paths.append(folder / f"{name}.json")
        tokenizer.save(str(paths[-1]))
    return paths


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--encoder", default="build/tests/encode_texts")
    parser.add_argument("--make-real", type=pathlib.Path)
    parser.add_argument("--goldens", action="store_true")
    parser.add_argument("tokenizers", nargs="*")
    args = parser.parse_args()
    if args.goldens:
        sys.exit(write_goldens())
    paths = args.tokenizers + (make_real(args.make_real) if args.make_real else [])
    sys.exit(any([compare(args.encoder, path, args.count, args.seed) for path in paths]))


if __name__ == "__main__":
    main()
