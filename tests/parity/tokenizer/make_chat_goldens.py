#!/usr/bin/env python3
"""Writes goldens/chats.json: the tokens of chats as transformers' apply_chat_template gives them.

Usage, from the repository's root, with the virtual environment of make_tokenizer_goldens.py:

    /tmp/goldens/bin/python tests/parity/tokenizer/make_chat_goldens.py

The tokenizers are those of tests/data, the templates those of tests/parity/jinja and variants of ChatML that differ where
marks alone do not tell.
"""

import json
import pathlib
import sys

from transformers import PreTrainedTokenizerFast

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests/parity/jinja"))
import chats  # noqa: E402

LOOP = "{% for message in messages %}"
MESSAGE = "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
END = "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
VARIANTS = {
    "no_newline": LOOP + MESSAGE.replace(" + '\\n'}}", "}}") + END,
    "tools_default": "{% if tools %}{{ '<|im_start|>system\\nUse tools.<|im_end|>\\n' }}{% endif %}" + LOOP + MESSAGE + END,
    "system_dropped": LOOP + "{% if message['role'] != 'system' %}" + MESSAGE + "{% endif %}" + END,
    "eos_after_answer": LOOP + MESSAGE + "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}" + END,
    "prefix_for_user": LOOP + "{% if message['role']=='user' %}{% set content = 'Q: ' + message['content'] %}{% else %}"
                       "{% set content = message['content'] %}{% endif %}" + MESSAGE.replace("message['content']", "content") + END,
    "trimmed": LOOP + MESSAGE.replace("message['content']", "message['content'] | trim") + END,
    "title_roles": LOOP + MESSAGE.replace("message['role']", "message['role'] | title") + END,
    "outside_text": "Chat:\n" + LOOP + "\n  " + MESSAGE + "\n" + END,
    "alternating": "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role here') }}{% endif %}" + LOOP + MESSAGE + END,
}
CHATS = [
    [("user", "Hello there")],
    [("system", "Be terse."), ("user", " 2+2? ")],
    [("user", "Hi"), ("assistant", "Hello,\n how can I help?"), ("user", "日本 it's 3")],
]
# A folder of tests/data, its special tokens, and templates of tests/parity/jinja that fit it.
FOLDERS = {
    "tiny-llama": ["chatml", "chatml_default_system", "chatml_generation", "vicuna"],
    "tokenizers/qwen3_tiny": ["chatml", "qwen25_tools", "qwen3"],
    "tokenizers/llama3_tiny": ["llama3", "llama2"],
}


def main():
    lines = []
    for folder, names in FOLDERS.items():
        path = ROOT / "tests/data" / folder
        config = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
        fast = PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"), bos_token=config.get("bos_token"), eos_token=config.get("eos_token"))
        templates = {name: chats.template(name) for name in names}
        if folder == "tiny-llama":
            templates.update(VARIANTS)
        for name, template in templates.items():
            cases = []
            for chat in CHATS:
                messages = [{"role": role, "content": content} for role, content in chat]
                for tools in ([None, chats.TOOLS] if "tools" in template else [None]):
                    case = {"messages": chat, "tools": tools}
                    try:
                        case["ids"] = fast.apply_chat_template(messages, tools=tools, chat_template=template, add_generation_prompt=True,
                                                               tokenize=True, return_dict=False)
                    except Exception as error:  # What the template refuses.
                        case["refused"] = str(error)
                    if chat[-1][0] == "user" and "ids" in case and tools is None and name != "vicuna":
                        answered = messages + [{"role": "assistant", "content": "I think that "}]
                        case["continued"] = fast.apply_chat_template(answered, chat_template=template, continue_final_message=True,
                                                                     tokenize=True, return_dict=False)
                    cases.append(case)
            lines.append(json.dumps({"folder": folder, "name": name, "template": template, "cases": cases}, ensure_ascii=False))
    path = ROOT / "tests/parity/tokenizer/goldens/chats.json"
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    print(f"{len(lines)} templates, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
