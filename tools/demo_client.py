#!/usr/bin/env python3
"""The demo's client: what each recipe gains and loses on one server, in two tables.

Usage: demo_client.py --address HOST:PORT
"""

import argparse
import concurrent.futures
import os
import pathlib
import statistics
import sys
import textwrap
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

# First: it says where the package of the tree is.
from swaa_client import Client, Unavailable, gen, greedy_request, recipe  # noqa: E402

import demo_text  # noqa: E402
import grpc  # noqa: E402

WINDOW = 512
SINKS = 16
DECODE_TOKENS = 48
CASES = 3

RECIPES = [
    ("full attention", recipe()),
    (f"W={WINDOW}", recipe(WINDOW)),
    (f"W={WINDOW}, K={SINKS}", recipe(WINDOW, SINKS)),
    (f"W={WINDOW}, D=all", recipe(WINDOW, full_decode=True)),
    (f"W={WINDOW}, K={SINKS}, D=all", recipe(WINDOW, SINKS, full_decode=True)),
    (f"W={WINDOW}, K={SINKS}, F=even", recipe(WINDOW, SINKS, 2)),
    (f"W={WINDOW}, K={SINKS}, F=every 4th, D=all", recipe(WINDOW, SINKS, 4, True)),
    (f"W={WINDOW}, K={SINKS}, F=even, D=all", recipe(WINDOW, SINKS, 2, True)),
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


def all_at_once(client, requests, on_done):
    """Sends all requests together; returns their results in order."""
    with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
        futures = [pool.submit(client.generate, request) for request in requests]
        for done, _ in enumerate(concurrent.futures.as_completed(futures), 1):
            on_done(done)
        return [future.result() for future in futures]


def measure_costs(client):
    """Runs the long prompt under each recipe: first one by one, then all at once."""
    prompt = demo_text.story()

    def cold_requests(occasion):
        # Every request computes its whole prompt: a salt of its own keeps it from the prefix cache.
        requests = [greedy_request(prompt, DECODE_TOKENS, r) for _, r in RECIPES]
        for index, request in enumerate(requests):
            request.cache_salt = f"{occasion} {index}"
        return requests

    # The first request pays for what is set up on first use.
    client.generate(greedy_request(prompt[:2000], 4, recipe()))
    alone = []
    requests = cold_requests("one by one")
    for index, request in enumerate(requests):
        say(f"one by one, {index + 1} of {len(requests)}: {RECIPES[index][0]} …")
        alone.append(client.generate(request))
    say(f"all {len(requests)} at once …")
    requests = cold_requests("at once")
    started = time.monotonic()
    together = all_at_once(
        client, requests, lambda done: say(f"all at once: {done} of {len(requests)} done …")
    )
    seconds_together = time.monotonic() - started
    clear()
    return alone, together, seconds_together


def print_costs(alone, together, seconds_together):
    full = alone[0]
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
    for (name, _), one, many in zip(RECIPES, alone, together):
        stats = one.stats
        share = stats.attended_keys / stats.full_attention_attended_keys
        print(
            f"  {name:{NAME_WIDTH}}{stats.time_to_first_token_us * 1e-6:>6.2f} s"
            f"{one.decode_tokens_per_second:>10.1f}{stats.peak_kv_cache_bytes / 1e6:>7.1f}"
            f"{stats.full_attention_kv_cache_bytes / 1e6:>8.1f}{share:>7.0%}"
            f"{one.counted_speedup:>7.2f}{full.server_seconds / one.server_seconds:>7.2f}"
            f"{many.seconds:>9.1f}"
        )
    held = sum(r.stats.peak_kv_cache_bytes for r in together) / 1e6
    would = sum(r.stats.full_attention_kv_cache_bytes for r in together) / 1e6
    say_paragraphs(
        f"One after another they took {sum(r.seconds for r in alone):.1f} s, all at once in one "
        f"batch {seconds_together:.1f} s. Together they held at most {held:,.0f} MB of keys and "
        f"values, where full attention for all would have held {would:,.0f} MB."
    )


def measure_quality(client):
    """Returns the first key, its prompt's length, and (answer, mean log-probability) per recipe."""
    cases = [demo_text.pass_key_case(case) for case in range(CASES)]
    key_ids = []
    for _, key in cases:
        # Prompt log-probabilities carry the ids of the prompt's tokens; a digit is one token.
        options = gen.ResponseOptions(prompt_logprobs=0)
        result = client.generate(greedy_request(key, 1, recipe(), response_options=options))
        key_ids.append(result.prompt_token_ids[-len(key) :])
    rows, prompt_tokens = [], 0
    for index, (_, message) in enumerate(RECIPES):
        say(f"the hidden keys, {index + 1} of {len(RECIPES)}: {RECIPES[index][0]} …")
        requests = [greedy_request(cases[0][0], len(key_ids[0]), message)]
        for (prompt, _), ids in zip(cases, key_ids):
            request = greedy_request(prompt, len(ids), message)
            request.forced_output_ids.ids.extend(ids)
            request.response_options.output_logprobs = 0
            requests.append(request)
        answer, *scored = all_at_once(client, requests, lambda done: None)
        logprobs = [p for result in scored for p in result.logprobs]
        rows.append((answer.text, statistics.fmean(logprobs)))
        prompt_tokens = answer.prompt_tokens
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
    client = Client(args.address)
    client.wait_until_ready(timeout_seconds=60)
    print_costs(*measure_costs(client))
    print_quality(*measure_quality(client))
    client.close()


if __name__ == "__main__":
    try:
        main()
    except Unavailable as error:
        clear()
        sys.exit(f"demo: {error}")
    except grpc.RpcError as error:
        clear()
        sys.exit(f"demo: the server answered {error.code().name}: {error.details()}")
    except KeyboardInterrupt:
        # Open streams would keep the interpreter; the server notices that they end.
        clear()
        os._exit(130)
