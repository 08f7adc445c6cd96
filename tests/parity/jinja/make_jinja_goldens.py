#!/usr/bin/env python3
"""Writes goldens.json: what Jinja, set up as transformers sets it up, makes of the test templates.

Usage: make_jinja_goldens.py, with jinja2 3.1.6, the least version that transformers takes.
"""

import json
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import chats  # noqa: E402
import feature_cases  # noqa: E402
import hf_jinja  # noqa: E402
import random_cases  # noqa: E402

RANDOM_SEED = 20260307
RANDOM_CASES = 400
# What is refused here, though Jinja renders it: see docs/chat.md.
REFUSED = ["keys | string", "count') | string", "range(10)[2:5]", "n.real", "1.5.real", "0x10"]


def answer(template, variables):
    text, error = hf_jinja.render(template, variables)
    return {"text": text} if text is not None else {"refused": error.split(":")[0]}


def main():
    features = [{"template": template, **answer(template, feature_cases.VARIABLES)} for template in feature_cases.cases()
                if not any(part in template for part in REFUSED)]
    rng = random.Random(RANDOM_SEED)
    randoms = []
    while len(randoms) < RANDOM_CASES:
        case = random_cases.template(rng)
        result = answer(case, random_cases.VARIABLES)
        if len(case) < 160 and " at 0x" not in str(result.get("text")) and "text" in result:
            randoms.append({"template": case, **result})
    templates = []
    for name, variables in chats.cases():
        result = answer(chats.template(name), variables)
        templates.append({"name": name, "variables": variables, **result})
    # Conversations are many times the same: they are written once.
    values = []
    for case in templates:
        text = {key: value for key, value in case["variables"].items()}
        if text not in values:
            values.append(text)
        case["variables"] = values.index(text)
    goldens = {"feature_variables": feature_cases.VARIABLES, "random_variables": random_cases.VARIABLES, "chat_variables": values,
               "features": features, "random": randoms, "chats": templates}
    path = pathlib.Path(__file__).resolve().parent / "goldens.json"
    lines = []
    for key, value in goldens.items():
        if isinstance(value, list):
            inner = ",\n".join(json.dumps(item, ensure_ascii=False) for item in value)
            lines.append(f"{json.dumps(key)}: [\n{inner}\n]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{len(features)} features, {len(randoms)} random, {len(templates)} chats of {len(list(chats.TEMPLATES.glob('*.jinja')))} templates, "
          f"{path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
