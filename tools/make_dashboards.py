#!/usr/bin/env python3
"""Writes the Grafana dashboards of deploy/grafana/.

    tools/make_dashboards.py [FOLDER]      default: deploy/grafana

The boards' contents are here, how Grafana wants them written is in lib/grafana.py. Every query is
run against a real server's series by tests/integration/test_boards.py.
"""

import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools" / "lib"))

from grafana import (  # noqa: E402
    dashboard, graph, label_variable, stat, table, target, text)

# Label selectors: of everything, and of what has a recipe or an experiment.
SERVER = 'job=~"$job",instance=~"$instance"'
RECIPE = SERVER + ',recipe=~"$recipe"'
EXPERIMENT = SERVER + ',experiment=~"$experiment"'

VARIABLES = (label_variable("job", "Job", "swaa_build_info"),
             label_variable("instance", "Server", 'swaa_build_info{job=~"$job"}'))
RECIPE_VARIABLE = label_variable("recipe", "Recipe", f"swaa_generation_tokens_total{{{SERVER}}}")
EXPERIMENT_VARIABLE = label_variable("experiment", "Experiment",
                                     f"swaa_experiment_assignments_total{{{SERVER}}}")

TOKENS = "suffix: tok/s"
TIMES = "suffix: ×"

KINDS = """\
A speed-up is only ever a measured one, and each kind answers its own question:

| kind | question | how far to trust it |
|---|---|---|
| `attributed` | How many device seconds does the recipe cost? From a model of a step's time, fitted while serving, applied to each request's own tokens and keys. | while the model's error is below 10 % |
| `shadow` | How fast is it alone on an idle device? Finished requests are computed again under both recipes, one after the other. | always; for requests as they come in quiet hours if many are dropped |
| `switchback` | What will users see if all switch? All traffic takes one arm by turns. In the report (GetReport), not here. | after 12 pairs of turns |
| `observed` | What does one user gain today? Latencies by arm in one shared batch: every recipe slows all others, so it understates, and may even turn round, what a recipe gains. | never a verdict |

*Attended keys* are counted exactly and are no time: 4 times fewer keys may go with 1.4 times less time."""


def rate(metric, by, selector=SERVER):
    return f"sum by ({by}) (rate({metric}{{{selector}}}[$__rate_interval]))"


def total(metric, selector=SERVER):
    return f"sum(rate({metric}{{{selector}}}[$__rate_interval]))"


def quantile(share, metric, by="", selector=SERVER):
    """Absent, and not NaN, where nothing came."""
    labels = ", ".join(filter(None, (by, "le")))
    return f"histogram_quantile({share}, {rate(metric + '_bucket', labels, selector)}) >= 0"


def quantiles(metric, selector=SERVER):
    return [target(quantile(share, metric, "", selector), name)
            for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))]


def ratio(part, whole):
    """Absent, and not 0/0, where there is nothing to divide by."""
    return f"{part} / ({whole} > 0)"


def mean(metric, by, selector=SERVER):
    return ratio(rate(metric + "_sum", by, selector), rate(metric + "_count", by, selector))


def health():
    failed = f"sum(instance:swaa_requests_failed:rate5m{{{SERVER}}})"
    return [
        stat("Servers up", "Servers that answered Prometheus' last scrape.",
             f"sum(up{{{SERVER}}})", warning=1, reverse=True),
        stat("Alerts", "Alerts of deploy/prometheus/alert_rules.yaml that fire now, of all jobs.",
             'count(ALERTS{alertname=~"Swaa.+",alertstate="firing"}) or vector(0)', warning=1),
        stat("Requests", "Requests that ended, refused ones included.",
             total("swaa_requests_total"), "reqps"),
        stat("Failed", "Share of requests that ended by the server's own fault, over 5 minutes. "
             "Needs the recording rules.",
             ratio(failed, f"sum(instance:swaa_requests:rate5m{{{SERVER}}})"), "percentunit",
             warning=0.005, critical=0.02),
        stat("Refused", "Share of requests that were refused before they were accepted, whoever was at "
             "fault; the reasons are below.",
             ratio(total("swaa_requests_rejected_total"), total("swaa_requests_total")),
             "percentunit", warning=0.05, critical=0.2),
        stat("Running", "Requests in the engine: in the current batch, or preempted and coming back.",
             f"sum(swaa_requests_running{{{SERVER}}})"),
        stat("Waiting", "Requests in the queue, those included that wait to be parsed and tokenised.",
             f"sum(swaa_requests_waiting{{{SERVER}}})", warning=50, critical=500),
        stat("KV cache", "The fullest server's pages in use. Pages that only the prefix cache holds are "
             "free on demand and not counted.",
             f"max(swaa_kv_cache_usage_ratio{{{SERVER}}})", "percentunit", warning=0.8,
             critical=0.95),
    ]


def traffic():
    return [
        graph("Requests by end", "How requests ended: the reason for finishing (stop: the model or a stop string "
              "ended it; length: max_tokens; none: an error) and the gRPC code that the client got.",
              [target(rate("swaa_requests_total", "finish_reason, grpc_code"),
                      "{{finish_reason}} {{grpc_code}}")], "reqps", stacked=True),
        graph("Refusals by reason", "Requests that ended before they were accepted. queue_full and the two "
              "out_of_memory mean too much load; never_fits, not_found and limits are the clients' errors.",
              [target(rate("swaa_requests_rejected_total", "reason"), "{{reason}}")], "reqps",
              stacked=True),
        graph("Tokens", "Prompt tokens that were computed, prompt tokens that the prefix cache saved, and "
              "output tokens.",
              [target(rate("swaa_prompt_tokens_total", "source"), "prompt, {{source}}"),
               target(total("swaa_generation_tokens_total"), "output")], TOKENS),
    ]


def latency():
    return [
        graph("Time to first token", "From a request's arrival to its first output token: waiting plus prefill. "
              "Depends above all on the prompt's length; by length it is on the recipes' board.",
              quantiles("swaa_time_to_first_token_seconds"), "s"),
        graph("Inter-token latency", "Between two sendings of tokens to one stream: how smoothly text flows. "
              "People read about 10 tokens a second.",
              quantiles("swaa_inter_token_latency_seconds"), "s"),
        graph("Where requests' time goes", "Mean seconds a request spends waiting in the queue, on its prompt "
              "(prefill) and on its output (decode).",
              [target(ratio(total(f"swaa_request_{phase}_seconds_sum"),
                            total(f"swaa_request_{phase}_seconds_count")), phase)
               for phase in ("queue", "prefill", "decode")], "s", stacked=True),
    ]


def engine():
    return [
        graph("Running and waiting", "Requests in the engine and in the queue. A queue that stays means that more "
              "comes than can be served.",
              [target(f"sum(swaa_requests_running{{{SERVER}}})", "running"),
               target(f"sum(swaa_requests_waiting{{{SERVER}}})", "waiting"),
               target(f"sum(swaa_unread_requests{{{SERVER}}})", "of these unread")], width=6),
        graph("KV cache by recipe", "Bytes of keys and values by recipe, and what only the prefix cache holds, against the "
              "pool's size.",
              [target(f"sum by (recipe) (swaa_kv_cache_bytes{{{SERVER}}})",
                      "{{recipe}}"),
               target(f"sum(swaa_kv_cache_evictable_bytes{{{SERVER}}})", "prefix cache only"),
               target(f"sum(swaa_kv_cache_capacity_bytes{{{SERVER}}})", "capacity")], "bytes",
              width=6),
        graph("KV cache usage", "Share of the pages in use, those left out that only the prefix cache holds.",
              [target(f"max by (instance) (swaa_kv_cache_usage_ratio{{{SERVER}}})",
                      "{{instance}}")], "percentunit", most=1, limit=0.9, width=6),
        graph("Preemptions", "A second: a running request lost its pages to another and is computed again; work "
              "and time are lost.",
              [target(rate("swaa_preemptions_total", "instance"), "{{instance}}")], "ops", width=6),
        graph("Step duration, p95", "Device time of a step, by what it does: only prompts (prefill), only outputs "
              "(decode), or both (mixed). All running requests wait for it.",
              [target(quantile(0.95, "swaa_step_duration_seconds", "phase"), "{{phase}}")], "s"),
        graph("Tokens in a step", "Mean size of the batch. Near scheduling.max_batch_tokens the server is busy "
              "with prompts.",
              [target(mean("swaa_batch_tokens", "instance"), "{{instance}}")]),
        graph("Device busy", "Share of the time in which the device computes, over 5 minutes. Near 100 % only "
              "replicas or cheaper recipes help. Needs the recording rules.",
              [target(f"instance:swaa_device_busy:ratio_rate5m{{{SERVER}}}", "{{instance}}")],
              "percentunit"),
    ]


def prefix_cache():
    cached = rate("swaa_prompt_tokens_total", "instance", SERVER + ',source="cached"')
    return [
        graph("Prompt tokens from the prefix cache", "Share of the prompts' tokens whose keys and values were "
              "there already: equal beginnings are computed once.",
              [target(ratio(cached, rate("swaa_prompt_tokens_total", "instance")),
                      "{{instance}}")], "percentunit", most=1),
        graph("Prefix cache", "Blocks of 64 tokens that can be found again.",
              [target(f"sum by (instance) (swaa_prefix_cache_blocks{{{SERVER}}})", "{{instance}}")]),
        graph("Unread bytes", "Bytes of requests that wait to be parsed and tokenised; bounded by "
              "scheduling.max_unread_bytes.",
              [target(f"sum by (instance) (swaa_unread_bytes{{{SERVER}}})", "{{instance}}")], "bytes"),
    ]


def device():
    return [
        graph("Device memory", "weights and kv (the whole pool) and workspace as they were taken; free: what the "
              "device has left.",
              [target(f"sum by (kind) (swaa_device_memory_bytes{{{SERVER}}})", "{{kind}}")], "bytes",
              stacked=True),
        graph("Temperature", "Of the card. Only with a GPU whose driver tells it.",
              [target(f"swaa_device_temperature_celsius{{{SERVER}}}", "{{instance}}")], "celsius",
              limit=85, width=5),
        graph("Power", "That the card draws. Only with a GPU whose driver tells it.",
              [target(f"swaa_device_power_watts{{{SERVER}}}", "{{instance}}")], "watt", width=5),
        graph("Clock", "Of the card's multiprocessors; it falls when the card is too hot or draws too much. Only "
              "with a GPU whose driver tells it.",
              [target(f"swaa_device_clock_hertz{{{SERVER}}}", "{{instance}}")], "hertz", width=6),
    ]


def process():
    return [
        graph("Processors", "Cores that the process keeps busy.",
              [target(rate("process_cpu_seconds_total", "instance"), "{{instance}}")], width=6),
        graph("Memory of the process", "Bytes of the machine's memory that it holds, weights and KV pool of a CPU included.",
              [target(f"process_resident_memory_bytes{{{SERVER}}}", "{{instance}}")], "bytes",
              width=6),
        graph("Connections", "Open connections to the gRPC port, and those refused (too many) or cut off (for "
              "what they sent) a second.",
              [target(f"sum(swaa_connections_open{{{SERVER}}})", "open"),
               target(total("swaa_connections_accepted_total"), "accepted/s"),
               target(total("swaa_connections_refused_total"), "refused/s"),
               target(total("swaa_connections_cut_off_total"), "cut off/s")], width=6),
        graph("Log lines left out", "A second. The log is bounded; here requests are refused faster than it "
              "takes lines.",
              [target(rate("swaa_log_lines_suppressed_total", "instance"), "{{instance}}")], width=6),
        table("Servers", "What runs where.", f"swaa_build_info{{{SERVER}}}",
              ["instance", "version", "model", "backend"], width=12),
        stat("Configuration's age", "Since the oldest configuration in force was loaded.",
             f"time() - min(swaa_config_last_load_timestamp_seconds{{{SERVER}}})", "s", width=4,
             height=7),
        stat("Configurations refused", "Servers that run with an older configuration because the present file is "
             "wrong; their log says what.",
             f"sum(1 - swaa_config_last_reload_successful{{{SERVER}}})", warning=1, width=4,
             height=7),
        stat("Up since", "The youngest process.",
             f"time() - max(process_start_time_seconds{{{SERVER}}})", "s", width=4, height=7),
    ]


def overview():
    return dashboard(
        "swaa-overview", "SWAA / Overview", "Whether the servers are well, and where time and memory go.",
        VARIABLES,
        [("Health", health()), ("Traffic", traffic()), ("Latency", latency()),
         ("Engine", engine()), ("Prompts", prefix_cache()), ("Device", device()),
         ("Process", process())])


def recipe_use():
    return [
        table("Recipes", "The registered recipes. sliding_window_tokens: how many keys a query sees, empty for "
              "full attention; sink_tokens: first tokens that stay visible; layers that never slide, and layers "
              "that see everything while decoding.",
              f"max by (recipe, sliding_window_tokens, sink_tokens, full_attention_layers, "
              f"full_attention_decode) (swaa_recipe_info{{{RECIPE}}})",
              ["recipe", "sliding_window_tokens", "sink_tokens", "full_attention_layers",
               "full_attention_decode"]),
        graph("Requests", "By recipe; custom: a recipe that the request gave in full; none: refused before the recipe "
              "was known.",
              [target(rate("swaa_requests_total", "recipe", RECIPE), "{{recipe}}")], "reqps",
              stacked=True),
        graph("Output", "Output tokens by recipe.",
              [target(rate("swaa_generation_tokens_total", "recipe", RECIPE), "{{recipe}}")],
              TOKENS, stacked=True),
        graph("Prompt tokens from the prefix cache", "A rarely used recipe finds fewer of its prompts' blocks "
              "in the cache: beyond its window every recipe has blocks of its own. Compare latencies only where "
              "this is alike.",
              [target(ratio(rate("swaa_prompt_tokens_total", "recipe", RECIPE + ',source="cached"'),
                            rate("swaa_prompt_tokens_total", "recipe", RECIPE)), "{{recipe}}")],
              "percentunit", most=1),
    ]


def recipe_latency():
    limits = 'prompt_len:swaa_time_to_first_token_seconds:limit'
    return [
        graph("Time to first token, p95, by prompt's length", "`observed`: all recipes share one batch, so each "
              "slows the others. le_8k: prompts of 2,049 to 8,192 tokens.",
              [target(quantile(0.95, "swaa_time_to_first_token_seconds", "recipe, prompt_len",
                               RECIPE), "{{recipe}} {{prompt_len}}")], "s", width=12),
        graph("Time to first token against its limit", "Over 5 minutes, as a share of the limit that the alert has for "
              "the prompt's length; above 100 % it fires. All servers of the job. Needs the recording rules.",
              [target('recipe_prompt_len:swaa_time_to_first_token_seconds:p95_rate5m'
                      '{job=~"$job",recipe=~"$recipe"} / on (prompt_len) group_left () ' + limits,
                      "{{recipe}} {{prompt_len}}")], "percentunit", limit=1, width=12),
        graph("Inter-token latency, p95", "`observed`: in one shared batch. Over 5 minutes, of all servers of the "
              "job. Needs the recording rules.",
              [target('recipe:swaa_inter_token_latency_seconds:p95_rate5m'
                      '{job=~"$job",recipe=~"$recipe"}', "{{recipe}}")], "s", limit=0.2),
        graph("Waiting in the queue, p95", "From arrival to admission. Recipes that need many pages wait longer.",
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
        graph("Attended keys, of full attention's", "Counted exactly: query-key pairs that were computed, over "
              "those that full attention would have. Work, not time. All servers of the job, over 5 minutes. Needs "
              "the recording rules.",
              [target('recipe:swaa_attended_keys:ratio_rate5m{job=~"$job",recipe=~"$recipe"}',
                      "{{recipe}}")], "percentunit"),
        graph("Fewer keys a request", "Mean over requests of full attention's keys over the recipe's.",
              [target(mean("swaa_attended_keys_ratio", "recipe", RECIPE), "{{recipe}}")], TIMES),
        graph("KV cache held", "Bytes that running requests hold now, by recipe, and what the same requests would "
              "hold under full attention.",
              [target(held, "{{recipe}}"), target(full, "{{recipe}}, if full")], "bytes"),
    ]


def speedups():
    def by_kind(kind):
        return [target('recipe_kind:swaa_speedup_ratio:mean1h'
                       f'{{job=~"$job",recipe=~"$recipe",kind="{kind}"}}', "{{recipe}}")]
    return [
        text("What the kinds of speed-up mean", KINDS, height=9),
        graph("Speed-up, attributed", "Mean of the last hour's requests: full attention's device seconds over the "
              "recipe's, both by the model of a step's time. Not to be trusted while the model's error is above 10 %. "
              "Needs the recording rules.", by_kind("attributed"), TIMES),
        graph("Speed-up, shadow", "Mean of the last hour's comparisons: requests computed again under both recipes, "
              "each alone on the device. Needs shadow.share above 0 and the recording rules.",
              by_kind("shadow"), TIMES),
        graph("How many were measured", "Speed-ups of the last hour by kind and recipe: a mean of few says little. "
              "Needs the recording rules.",
              [target('recipe_kind:swaa_speedup_samples:increase1h'
                      '{job=~"$job",recipe=~"$recipe"}', "{{recipe}} {{kind}}")]),
        graph("Device seconds a request", "`attributed`: what a request's own tokens and keys cost on average. Recipes "
              "with longer prompts cost more; for like with like look at the speed-up.",
              [target(ratio(rate("swaa_attributed_device_seconds_total", "recipe", RECIPE),
                            rate("swaa_speedup_ratio_count", "recipe",
                                 RECIPE + ',kind="attributed"')), "{{recipe}}")], "s"),
        graph("Device time by recipe", "`attributed`: seconds of device time a second, by the recipe that caused it. "
              "What is missing to the device's busy share is overhead (reading weights) that no request causes alone.",
              [target(rate("swaa_attributed_device_seconds_total", "recipe", RECIPE),
                      "{{recipe}}")], "percentunit", stacked=True),
        graph("Model of a step's time", "error: mean absolute error over mean duration, to be below 10 %; closure: "
              "modelled over measured time, to be near 100 %; overhead: the share of the time that no request's work "
              "explains.",
              [target(f"max(swaa_step_model_{name}_ratio{{{SERVER}}})", name)
               for name in ("error", "closure", "overhead")], "percentunit"),
    ]


def agreement():
    return [
        graph("Equal choices", "`shadow`: share of the answers' tokens at which both recipes would choose the same. A "
              "first sign of lost quality, no measure of it. Needs shadow.share above 0.",
              [target(ratio(rate("swaa_shadow_equal_argmax_total", "recipe", RECIPE),
                            rate("swaa_shadow_tokens_total", "recipe", RECIPE)), "{{recipe}}")],
              "percentunit", most=1, width=12),
        graph("Difference of log-probabilities", "`shadow`: mean a token since the server's start, under the recipe that "
              "answered, less that under the other. Each answer favours the recipe that wrote it.",
              [target(f"avg by (recipe) (swaa_shadow_logprob_difference_mean{{{RECIPE}}})",
                      "{{recipe}}")], least=None, width=12),
    ]


def recipes():
    return dashboard(
        "swaa-recipes", "SWAA / Recipes", "What each attention recipe is used for, costs and saves.",
        (*VARIABLES, RECIPE_VARIABLE),
        [("Use", recipe_use()), ("Latency (observed, in one shared batch)", recipe_latency()),
         ("What is saved: work and memory", recipe_savings()),
         ("What is saved: time", speedups()), ("Agreement with the other recipe", agreement())])


EXPERIMENTS_TEXT = """\
An experiment gives each unit (a user, a conversation) one *arm*, and each arm is a recipe. **No verdict is on this
board**: counts of requests are no statistics. `GetReport` has them, with intervals that may be looked at at any time,
the check of the sample ratio and its warnings. Here is whether the experiment runs as it should.

* *assigned*: a request whose unit is in the experiment; *unassigned*: one that could have been and is not, and why
  (`explicit_recipe`: it named its recipe; `no_unit`: it named nobody; `outside`: beyond the experiment's share of
  units; `stopped`: its arm is stopped and it gets control's recipe; `invalid`: its unit's name is too long).
* *outcome*: what a client recorded about an answer, such as a rating.
* *guardrail*: a harm at which the server stops an arm by itself."""


def arms():
    assigned = "swaa_experiment_assignments_total"
    return [
        text("How to read this", EXPERIMENTS_TEXT, height=7),
        graph("Assigned requests", "By experiment and arm.",
              [target(rate(assigned, "experiment, arm", EXPERIMENT), "{{experiment}} {{arm}}")],
              "reqps"),
        graph("Share of an arm", "Of its experiment's requests of the last hour. Units are divided by the weights, "
              "requests only roughly: some units send more. The report tests the units. Needs the recording rules.",
              [target('experiment_arm:swaa_experiment_assignments:increase1h'
                      '{job=~"$job",experiment=~"$experiment"} / on (job, experiment) group_left () '
                      '(sum by (job, experiment) (experiment_arm:swaa_experiment_assignments:increase1h'
                      '{job=~"$job",experiment=~"$experiment"}) > 0)', "{{experiment}} {{arm}}")],
              "percentunit", most=1),
        graph("Unassigned requests", "By reason; of all experiments.",
              [target(rate("swaa_experiment_unassigned_total", "reason"), "{{reason}}")], "reqps",
              stacked=True),
        graph("Outcomes", "That clients recorded, by experiment and arm.",
              [target(rate("swaa_experiment_outcomes_total", "experiment, arm", EXPERIMENT),
                      "{{experiment}} {{arm}}")], "ops"),
        graph("Outcomes a request", "Where arms differ in this, outcomes go missing in one of them, and what they say "
              "is biased.",
              [target(ratio(rate("swaa_experiment_outcomes_total", "experiment, arm", EXPERIMENT),
                            rate(assigned, "experiment, arm", EXPERIMENT)),
                      "{{experiment}} {{arm}}")]),
        graph("Observations lost", "Since the servers' start: what storage could not take and the report does not "
              "know.",
              [target(f"sum by (instance) (swaa_experiment_dropped_observations_total{{{SERVER}}})",
                      "{{instance}}")]),
    ]


def stops():
    return [
        graph("Stopped arms", "On how many servers an arm is stopped, by a guardrail or by StopExperiment. It should "
              "be none or all of them.",
              [target(f"sum by (experiment, arm) (swaa_experiment_arm_stopped{{{EXPERIMENT}}})",
                      "{{experiment}} {{arm}}")], width=12),
        graph("Stops by guardrails", "How often a guardrail has stopped an arm since the servers' start. The log "
              "says which metric and how much.",
              [target(f"sum by (experiment, arm) "
                      f"(swaa_experiment_guardrail_stops_total{{{EXPERIMENT}}})",
                      "{{experiment}} {{arm}}")], width=12),
    ]


def shadows():
    return [
        text("What the kinds of speed-up mean", KINDS, height=9),
        graph("Comparisons", "`shadow`: finished requests that were computed again under two recipes, by the recipe "
              "that answered.",
              [target(rate("swaa_shadow_requests_total", "recipe"), "{{recipe}}")], "reqps"),
        graph("Comparisons not made", "Chosen and not computed again, by reason and prompt's length. queue_full: more "
              "are chosen than there is time for; not_computed: the server refused or ended it, as when it drains. Where long prompts are missing, "
              "speed-ups speak for short ones.",
              [target(rate("swaa_shadow_dropped_total", "reason, prompt_len"),
                      "{{reason}} {{prompt_len}}")], "reqps", stacked=True),
        graph("Cost of comparisons", "Seconds of device time a second that comparing takes from real requests.",
              [target(rate("swaa_shadow_device_seconds_total", "instance"), "{{instance}}")],
              "percentunit"),
    ]


def experiments():
    return dashboard(
        "swaa-experiments", "SWAA / Experiments", "Whether experiments run as they should.",
        (*VARIABLES, EXPERIMENT_VARIABLE),
        [("Arms", arms()), ("Stops", stops()), ("Comparisons", shadows())])


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "deploy" / "grafana"
    folder.mkdir(parents=True, exist_ok=True)
    for name, board in (("overview", overview()), ("recipes", recipes()),
                        ("experiments", experiments())):
        with open(folder / f"{name}.json", "w", encoding="utf-8") as file:
            json.dump(board, file, indent=1, ensure_ascii=False)
            file.write("\n")


if __name__ == "__main__":
    main()
