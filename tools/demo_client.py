#!/usr/bin/env python3
"""The demo's client: what each recipe gains and loses on one server, in two tables.

Usage: PYTHONPATH=build/python demo_client.py --address HOST:PORT
"""

import argparse
import concurrent.futures
import functools
import os
import statistics
import sys
import textwrap
import time

import demo_text
import swaa

WINDOW = 512
SINKS = 16
DECODE_TOKENS = 48
CASES = 3

RECIPES = [
    ("full attention", swaa.Recipe()),
    (f"W={WINDOW}", swaa.Recipe(WINDOW)),
    (f"W={WINDOW}, K={SINKS}", swaa.Recipe(WINDOW, SINKS)),
    (f"W={WINDOW}, D=all", swaa.Recipe(WINDOW, full_attention_decode=swaa.ALL)),
    (f"W={WINDOW}, K={SINKS}, D=all", swaa.Recipe(WINDOW, SINKS, None, swaa.ALL)),
    (f"W={WINDOW}, K={SINKS}, F=even", swaa.Recipe(WINDOW, SINKS, swaa.EVEN)),
    (
        f"W={WINDOW}, K={SINKS}, F=every 4th, D=all",
        swaa.Recipe(WINDOW, SINKS, swaa.Stride(0, 4), swaa.ALL),
    ),
    (f"W={WINDOW}, K={SINKS}, F=even, D=all", swaa.Recipe(WINDOW, SINKS, swaa.EVEN, swaa.ALL)),
]
NAME_WIDTH = 34


def say(text):
    """A line of progress: drawn over on a terminal, printed elsewhere."""
    if sys.stdout.isatty():
        print(f"\r\033[K  {text}", end="", flush=True)
    else:
        print(f"  {text}", flush=True)


def say_paragraphs(*paragraphs):
    """Explanations around a table, as wide as the table."""
    print()
    for paragraph in paragraphs:
        print(textwrap.fill(paragraph, 98), end="\n\n")


def clear():
    if sys.stdout.isatty():
        print("\r\033[K", end="", flush=True)


def greedy(client, prompt, tokens, recipe, **options):
    """An answer of exactly so many greedy tokens, and the seconds that it took here."""
    started = time.monotonic()
    answer = client.generate(
        prompt, recipe=recipe, max_tokens=tokens, temperature=0, ignore_eos=True, **options
    ).result()
    return answer, time.monotonic() - started


def all_at_once(calls, on_done):
    """Makes all calls together; returns what they return, in order."""
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(call) for call in calls]
        for done, _ in enumerate(concurrent.futures.as_completed(futures), 1):
            on_done(done)
        return [future.result() for future in futures]


def measure_costs(client):
    """Runs the long prompt under each recipe: first one by one, then all at once."""
    prompt = demo_text.story()

    def cold_calls(occasion):
        # Every request computes its whole prompt: a salt of its own keeps it from the prefix cache.
        return [
            functools.partial(
                greedy, client, prompt, DECODE_TOKENS, recipe, cache_salt=f"{occasion} {index}"
            )
            for index, (_, recipe) in enumerate(RECIPES)
        ]

    # The first request pays for what is set up on first use.
    greedy(client, prompt[:2000], 4, swaa.Recipe())
    alone = []
    for index, call in enumerate(cold_calls("one by one")):
        say(f"one by one, {index + 1} of {len(RECIPES)}: {RECIPES[index][0]} …")
        alone.append(call())
    say(f"all {len(RECIPES)} at once …")
    started = time.monotonic()
    together = all_at_once(
        cold_calls("at once"), lambda done: say(f"all at once: {done} of {len(RECIPES)} done …")
    )
    seconds_together = time.monotonic() - started
    clear()
    return alone, together, seconds_together


def print_costs(alone, together, seconds_together):
    full = alone[0][0].stats
    full_seconds = full.prefill_seconds + full.decode_seconds
    say_paragraphs(
        "Each request chooses its recipe: a window of W tokens, K first tokens that stay visible, "
        "layers F that never slide, layers D that see everything while decoding.",
        f"What a recipe costs: a prompt of {full.prompt_tokens:,} tokens, {DECODE_TOKENS} tokens of "
        'output. "Keys" is the share of full attention\'s (query, key) pairs that were attended; the '
        "speed-up is counted from these pairs and observed from the times, one request at a time; "
        "the last column is the same with all requests at once.",
    )
    print(
        f"  {'':{NAME_WIDTH}}{'first':>8}{'decode':>10}{'KV cache, MB':>15}{'keys':>7}"
        f"{'times':>14}{'at once':>9}"
    )
    print(
        f"  {'recipe':{NAME_WIDTH}}{'token':>8}{'tokens/s':>10}{'peak  of full':>15}{'':>7}"
        f"{'fewer faster':>14}{'seconds':>9}"
    )
    print("  " + "─" * (NAME_WIDTH + 63))
    for (name, _), (answer, _), (_, seconds) in zip(RECIPES, alone, together):
        stats = answer.stats
        # The first token comes out of the prompt's last step, the others are decoded.
        rate = (DECODE_TOKENS - 1) / max(stats.decode_seconds, 1e-9)
        fewer = stats.full_attention_attended_keys / stats.attended_keys
        faster = full_seconds / (stats.prefill_seconds + stats.decode_seconds)
        print(
            f"  {name:{NAME_WIDTH}}{stats.time_to_first_token_seconds:>6.2f} s{rate:>10.1f}"
            f"{stats.peak_kv_cache_bytes / 1e6:>7.1f}"
            f"{stats.full_attention_kv_cache_bytes / 1e6:>8.1f}{1 / fewer:>7.0%}"
            f"{fewer:>7.2f}{faster:>7.2f}{seconds:>9.1f}"
        )
    held = sum(answer.stats.peak_kv_cache_bytes for answer, _ in together) / 1e6
    would = sum(answer.stats.full_attention_kv_cache_bytes for answer, _ in together) / 1e6
    say_paragraphs(
        f"One after another they took {sum(seconds for _, seconds in alone):.1f} s, all at once "
        f"in one batch {seconds_together:.1f} s. Together they held at most {held:,.0f} MB of keys and "
        f"values, where full attention for all would have held {would:,.0f} MB."
    )


def measure_quality(client):
    """Returns the first key, its prompt's length, and (answer, mean log-probability) per recipe."""
    cases = [demo_text.pass_key_case(case) for case in range(CASES)]
    # A digit is one token.
    key_ids = [client.tokenize(key)[-len(key) :] for _, key in cases]
    rows, prompt_tokens = [], 0
    for index, (_, recipe) in enumerate(RECIPES):
        say(f"the hidden keys, {index + 1} of {len(RECIPES)}: {RECIPES[index][0]} …")
        ask = functools.partial(greedy, client, recipe=recipe)
        calls = [functools.partial(ask, cases[0][0], len(key_ids[0]))]
        for (prompt, _), ids in zip(cases, key_ids):
            calls.append(functools.partial(ask, prompt, len(ids), forced_output=ids, logprobs=0))
        (answer, _), *scored = all_at_once(calls, lambda done: None)
        logprobs = [p for result, _ in scored for p in result.logprobs]
        rows.append((answer.text, statistics.fmean(logprobs)))
        prompt_tokens = answer.stats.prompt_tokens
    clear()
    return cases[0][1], prompt_tokens, rows


def print_quality(key, prompt_tokens, rows):
    say_paragraphs(
        f"What a recipe loses: a five-digit pass key stands early in a prompt of about "
        f"{round(prompt_tokens, -2):,} tokens, out of the window's sight at its end. The answer is "
        f"the greedy one; the log-probability is that of the true digits, mean of {CASES} prompts "
        "with a key each (0 is certain; a digit guessed blindly has −2.3).",
    )
    print(
        f"  {'recipe':{NAME_WIDTH}}{'answer, true is ' + key:<24}"
        f"{'log-probability of the true one':>32}"
    )
    print("  " + "─" * (NAME_WIDTH + 56))
    for (name, _), (answer, logprob) in zip(RECIPES, rows):
        shown = answer.replace("\n", "⏎")
        mark = "✓" if answer == key else " "
        print(f"  {name:{NAME_WIDTH}}{shown + ' ' + mark:<24}{logprob:>32.2f}")
    scores = [logprob for _, logprob in rows]
    best = max(range(2, len(rows)), key=lambda index: scores[index])
    recovered = (scores[best] - scores[1]) / (scores[0] - scores[1])
    say_paragraphs(
        f"The window alone loses {scores[0] - scores[1]:.2f} against full attention. Of that, "
        f"{RECIPES[best][0]} brings back {recovered:.0%}, at the cost that the first table shows."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", required=True, help="of the server's gRPC port, HOST:PORT")
    args = parser.parse_args()
    with swaa.Client(args.address) as client:
        client.wait_until_ready(timeout_seconds=60)
        print_costs(*measure_costs(client))
        print_quality(*measure_quality(client))


if __name__ == "__main__":
    try:
        main()
    except swaa.Error as error:
        clear()
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        # Open streams would keep the interpreter; the server notices that they end.
        clear()
        os._exit(130)
