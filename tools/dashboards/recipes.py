"""What each recipe is used for, costs and saves."""

from dashboards.grafana import dashboard, graph, table, target, text
from dashboards.queries import (
    KINDS, RECIPE, RECIPE_VARIABLE, SERVER, TIMES, TOKENS, VARIABLES, mean, quantile, rate,
    ratio)


def recipe_use():
    return [
        table("Recipes",
              "The registered recipes. sliding_window_tokens: how many keys a query sees, empty "
              "for full attention; sink_tokens: first tokens that stay visible; layers that never "
              "slide, and layers that see everything while decoding.",
              f"max by (recipe, sliding_window_tokens, sink_tokens, full_attention_layers, "
              f"full_attention_decode) (swaa_recipe_info{{{RECIPE}}})",
              ["recipe", "sliding_window_tokens", "sink_tokens", "full_attention_layers",
               "full_attention_decode"]),
        graph("Requests",
              "By recipe; custom: a recipe that the request gave in full; none: refused before the "
              "recipe was known.",
              [target(rate("swaa_requests_total", "recipe", RECIPE), "{{recipe}}")], "reqps",
              stacked=True),
        graph("Output", "Output tokens by recipe.",
              [target(rate("swaa_generation_tokens_total", "recipe", RECIPE), "{{recipe}}")],
              TOKENS, stacked=True),
        graph("Prompt tokens from the prefix cache",
              "A rarely used recipe finds fewer of its prompts' blocks in the cache: beyond its "
              "window every recipe has blocks of its own. Compare latencies only where this is "
              "alike.",
              [target(ratio(rate("swaa_prompt_tokens_total", "recipe", RECIPE + ',source="cached"'),
                            rate("swaa_prompt_tokens_total", "recipe", RECIPE)), "{{recipe}}")],
              "percentunit", most=1),
    ]


def recipe_latency():
    limits = 'prompt_len:swaa_time_to_first_token_seconds:limit'
    return [
        graph("Time to first token, p95, by prompt's length",
              "`observed`: all recipes share one batch, so each slows the others. le_8k: prompts "
              "of 2,049 to 8,192 tokens.",
              [target(quantile(0.95, "swaa_time_to_first_token_seconds", "recipe, prompt_len",
                               RECIPE), "{{recipe}} {{prompt_len}}")], "s", width=12),
        graph("Time to first token against its limit",
              "Over 5 minutes, as a share of the limit that the alert has for the prompt's length; "
              "above 100 % it fires. All servers of the job. Needs the recording rules.",
              [target('recipe_prompt_len:swaa_time_to_first_token_seconds:p95_rate5m'
                      '{job=~"$job",recipe=~"$recipe"} / on (prompt_len) group_left () ' + limits,
                      "{{recipe}} {{prompt_len}}")], "percentunit", limit=1, width=12),
        graph("Inter-token latency, p95",
              "`observed`: in one shared batch. Over 5 minutes, of all servers of the job. Needs "
              "the recording rules.",
              [target('recipe:swaa_inter_token_latency_seconds:p95_rate5m'
                      '{job=~"$job",recipe=~"$recipe"}', "{{recipe}}")], "s", limit=0.2),
        graph("Waiting in the queue, p95",
              "From arrival to admission. Recipes that need many pages wait longer.",
              [target(quantile(0.95, "swaa_request_queue_seconds", "recipe", RECIPE),
                      "{{recipe}}")], "s"),
        graph("Request duration, p95", "From arrival to the last word.",
              [target(quantile(0.95, "swaa_request_duration_seconds", "recipe", RECIPE),
                      "{{recipe}}")], "s"),
    ]


def recipe_savings():
    held = f"sum by (recipe) (swaa_kv_cache_bytes{{{RECIPE}}})"
    full = f"sum by (recipe) (swaa_kv_cache_full_equivalent_bytes{{{RECIPE}}})"
    return [
        graph("Attended keys, of full attention's",
              "Counted exactly: query-key pairs that were computed, over those that full attention "
              "would have. Work, not time. All servers of the job, over 5 minutes. Needs the "
              "recording rules.",
              [target('recipe:swaa_attended_keys:ratio_rate5m{job=~"$job",recipe=~"$recipe"}',
                      "{{recipe}}")], "percentunit"),
        graph("Fewer keys a request",
              "Mean over requests of full attention's keys over the recipe's.",
              [target(mean("swaa_attended_keys_ratio", "recipe", RECIPE), "{{recipe}}")], TIMES),
        graph("KV cache held",
              "Bytes that running requests hold now, by recipe, and what the same requests would "
              "hold under full attention.",
              [target(held, "{{recipe}}"), target(full, "{{recipe}}, if full")], "bytes"),
    ]


def speedups():
    def by_kind(kind):
        return [target('recipe_kind:swaa_speedup_ratio:mean1h'
                       f'{{job=~"$job",recipe=~"$recipe",kind="{kind}"}}', "{{recipe}}")]
    return [
        text("What the kinds of speed-up mean", KINDS, height=9),
        graph("Speed-up, attributed",
              "Mean of the last hour's requests: full attention's device seconds over the "
              "recipe's, both by the model of a step's time. Not to be trusted while the model's "
              "error is above 10 %. Needs the recording rules.", by_kind("attributed"), TIMES),
        graph("Speed-up, shadow",
              "Mean of the last hour's comparisons: requests computed again under both recipes, "
              "each alone on the device. Needs shadow.share above 0 and the recording rules.",
              by_kind("shadow"), TIMES),
        graph("How many were measured",
              "Speed-ups of the last hour by kind and recipe: a mean of few says little. Needs the "
              "recording rules.",
              [target('recipe_kind:swaa_speedup_samples:increase1h'
                      '{job=~"$job",recipe=~"$recipe"}', "{{recipe}} {{kind}}")]),
        graph("Device seconds a request",
              "`attributed`: what a request's own tokens and keys cost on average. Recipes with "
              "longer prompts cost more; for like with like look at the speed-up.",
              [target(ratio(rate("swaa_attributed_device_seconds_total", "recipe", RECIPE),
                            rate("swaa_speedup_ratio_count", "recipe",
                                 RECIPE + ',kind="attributed"')), "{{recipe}}")], "s"),
        graph("Device time by recipe",
              "`attributed`: seconds of device time a second, by the recipe that caused it. What "
              "is missing to the device's busy share is overhead (reading weights) that no request "
              "causes alone.",
              [target(rate("swaa_attributed_device_seconds_total", "recipe", RECIPE),
                      "{{recipe}}")], "percentunit", stacked=True),
        graph("Model of a step's time",
              "error: mean absolute error over mean duration, to be below 10 %; closure: modelled "
              "over measured time, to be near 100 %; overhead: the share of the time that no "
              "request's work explains.",
              [target(f"max(swaa_step_model_{name}_ratio{{{SERVER}}})", name)
               for name in ("error", "closure", "overhead")], "percentunit"),
    ]


def agreement():
    return [
        graph("Equal choices",
              "`shadow`: share of the answers' tokens at which both recipes would choose the same. "
              "A first sign of lost quality, no measure of it. Needs shadow.share above 0.",
              [target(ratio(rate("swaa_shadow_equal_argmax_total", "recipe", RECIPE),
                            rate("swaa_shadow_tokens_total", "recipe", RECIPE)), "{{recipe}}")],
              "percentunit", most=1, width=12),
        graph("Difference of log-probabilities",
              "`shadow`: mean a token since the server's start, under the recipe that answered, "
              "less that under the other. Each answer favours the recipe that wrote it.",
              [target(f"avg by (recipe) (swaa_shadow_logprob_difference_mean{{{RECIPE}}})",
                      "{{recipe}}")], least=None, width=12),
    ]


def board():
    return dashboard(
        "swaa-recipes", "SWAA / Recipes",
        "What each attention recipe is used for, costs and saves.",
        (*VARIABLES, RECIPE_VARIABLE),
        [("Use", recipe_use()), ("Latency (observed, in one shared batch)", recipe_latency()),
         ("What is saved: work and memory", recipe_savings()),
         ("What is saved: time", speedups()), ("Agreement with the other recipe", agreement())])
