"""Compares engine/jinja with Python's Jinja, template by template.

Usage: compare_with_jinja.py RENDER_LINES [--random N] [--seed S] [--verbose]

RENDER_LINES is the test program build/tests/swaa_render_lines. What Jinja renders must be rendered to the same
text, or be refused as not supported; what Jinja refuses must be refused. Exits with 1 where that does not hold,
and prints the cases.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import chats  # noqa: E402
import feature_cases  # noqa: E402
import hf_jinja  # noqa: E402
import random_cases  # noqa: E402


class Renderer:
    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        encoding="utf-8")

    def render(self, template, variables):
        line = json.dumps({"template": template, "variables": variables}, ensure_ascii=False)
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def differs(wanted, error, answer):
    """Why the answer is wrong, or None."""
    if "text" in answer:
        if wanted is None:
            return f"Jinja refuses ({error}), here it is {answer['text']!r}"
        return None if answer["text"] == wanted else f"wanted {wanted!r}\n        got    {answer['text']!r}"
    if wanted is None or "supported" in answer["error"] or "UNIMPLEMENTED" in answer["error"]:
        return None
    return f"wanted {wanted!r}\n        got    {answer['error']}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--random", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    renderer = Renderer(arguments.program)
    print(f"seed {arguments.seed}")
    failures = refused = count = 0

    def check(template, variables):
        nonlocal failures, refused, count
        count += 1
        wanted, error = hf_jinja.render(template, variables)
        answer = renderer.render(template, variables)
        why = differs(wanted, error, answer)
        if why is not None:
            failures += 1
            print(f"{template!r}\n        {why}")
        elif wanted is not None and "text" not in answer:
            refused += 1
            if arguments.verbose:
                print(f"refused: {template!r}: {answer['error']}")
        elif wanted is None and arguments.verbose:
            print(f"both refuse: {template!r}: {error} / {answer['error']}")

    for template in feature_cases.cases():
        # Before 3.1.6, which transformers wants at least, the sandbox let these two through.
        if hf_jinja.is_old() and template in ("{{ xs.pop() }}", "{{ xs.clear() }}"):
            continue
        check(template, feature_cases.VARIABLES)
    for name, variables in chats.cases():
        check(chats.template(name), variables)
    rng = random.Random(arguments.seed)
    for _ in range(arguments.random):
        check(random_cases.template(rng), random_cases.VARIABLES)
    print(f"{count} templates compared, {failures} differ, {refused} that Jinja renders were refused")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
