"""Whether the servers are well, and where time and memory go."""

from dashboards.grafana import dashboard, graph, stat, table, target
from dashboards.queries import (
    SERVER, TOKENS, VARIABLES, mean, quantile, quantiles, rate, ratio, total)


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
        stat("Refused",
             "Share of requests that were refused before they were accepted, whoever was at fault; "
             "the reasons are below.",
             ratio(total("swaa_requests_rejected_total"), total("swaa_requests_total")),
             "percentunit", warning=0.05, critical=0.2),
        stat("Running",
             "Requests in the engine: in the current batch, or preempted and coming back.",
             f"sum(swaa_requests_running{{{SERVER}}})"),
        stat("Waiting",
             "Requests in the queue, those included that wait to be parsed and tokenised.",
             f"sum(swaa_requests_waiting{{{SERVER}}})", warning=50, critical=500),
        stat("KV cache",
             "The fullest server's pages in use. Pages that only the prefix cache holds are free "
             "on demand and not counted.",
             f"max(swaa_kv_cache_usage_ratio{{{SERVER}}})", "percentunit", warning=0.8,
             critical=0.95),
    ]


def traffic():
    return [
        graph("Requests by end",
              "How requests ended: the reason for finishing (stop: the model or a stop string "
              "ended it; length: max_tokens; none: an error) and the gRPC code that the client "
              "got.",
              [target(rate("swaa_requests_total", "finish_reason, grpc_code"),
                      "{{finish_reason}} {{grpc_code}}")], "reqps", stacked=True),
        graph("Refusals by reason",
              "Requests that ended before they were accepted. queue_full and the two out_of_memory "
              "mean too much load; never_fits, not_found and limits are the clients' errors.",
              [target(rate("swaa_requests_rejected_total", "reason"), "{{reason}}")], "reqps",
              stacked=True),
        graph("Tokens",
              "Prompt tokens that were computed, prompt tokens that the prefix cache saved, and "
              "output tokens.",
              [target(rate("swaa_prompt_tokens_total", "source"), "prompt, {{source}}"),
               target(total("swaa_generation_tokens_total"), "output")], TOKENS),
    ]


def latency():
    return [
        graph("Time to first token",
              "From a request's arrival to its first output token: waiting plus prefill. Depends "
              "above all on the prompt's length; by length it is on the recipes' board.",
              quantiles("swaa_time_to_first_token_seconds"), "s"),
        graph("Inter-token latency",
              "Between two sendings of tokens to one stream: how smoothly text flows. People read "
              "about 10 tokens a second.",
              quantiles("swaa_inter_token_latency_seconds"), "s"),
        graph("Where requests' time goes",
              "Mean seconds a request spends waiting in the queue, on its prompt (prefill) and on "
              "its output (decode).",
              [target(ratio(total(f"swaa_request_{phase}_seconds_sum"),
                            total(f"swaa_request_{phase}_seconds_count")), phase)
               for phase in ("queue", "prefill", "decode")], "s", stacked=True),
    ]


def engine():
    return [
        graph("Running and waiting",
              "Requests in the engine and in the queue. A queue that stays means that more comes "
              "than can be served.",
              [target(f"sum(swaa_requests_running{{{SERVER}}})", "running"),
               target(f"sum(swaa_requests_waiting{{{SERVER}}})", "waiting"),
               target(f"sum(swaa_unread_requests{{{SERVER}}})", "of these unread")], width=6),
        graph("KV cache by recipe",
              "Bytes of keys and values by recipe, and what only the prefix cache holds, against "
              "the pool's size.",
              [target(f"sum by (recipe) (swaa_kv_cache_bytes{{{SERVER}}})",
                      "{{recipe}}"),
               target(f"sum(swaa_kv_cache_evictable_bytes{{{SERVER}}})", "prefix cache only"),
               target(f"sum(swaa_kv_cache_capacity_bytes{{{SERVER}}})", "capacity")], "bytes",
              width=6),
        graph("KV cache usage",
              "Share of the pages in use, those left out that only the prefix cache holds.",
              [target(f"max by (instance) (swaa_kv_cache_usage_ratio{{{SERVER}}})",
                      "{{instance}}")], "percentunit", most=1, limit=0.9, width=6),
        graph("Preemptions",
              "A second: a running request lost its pages to another and is computed again; work "
              "and time are lost.",
              [target(rate("swaa_preemptions_total", "instance"), "{{instance}}")], "ops", width=6),
        graph("Step duration, p95",
              "Device time of a step, by what it does: only prompts (prefill), only outputs "
              "(decode), or both (mixed). All running requests wait for it.",
              [target(quantile(0.95, "swaa_step_duration_seconds", "phase"), "{{phase}}")], "s"),
        graph("Tokens in a step",
              "Mean size of the batch. Near scheduling.max_batch_tokens the server is busy with "
              "prompts.",
              [target(mean("swaa_batch_tokens", "instance"), "{{instance}}")]),
        graph("Device busy",
              "Share of the time in which the device computes, over 5 minutes. Near 100 % only "
              "replicas or cheaper recipes help. Needs the recording rules.",
              [target(f"instance:swaa_device_busy:ratio_rate5m{{{SERVER}}}", "{{instance}}")],
              "percentunit"),
    ]


def prefix_cache():
    cached = rate("swaa_prompt_tokens_total", "instance", SERVER + ',source="cached"')
    return [
        graph("Prompt tokens from the prefix cache",
              "Share of the prompts' tokens whose keys and values were there already: equal "
              "beginnings are computed once.",
              [target(ratio(cached, rate("swaa_prompt_tokens_total", "instance")),
                      "{{instance}}")], "percentunit", most=1),
        graph("Prefix cache", "Blocks of 64 tokens that can be found again.",
              [target(f"sum by (instance) (swaa_prefix_cache_blocks{{{SERVER}}})",
                      "{{instance}}")]),
        graph("Unread bytes", "Bytes of requests that wait to be parsed and tokenised; bounded by "
              "scheduling.max_unread_bytes.",
              [target(f"sum by (instance) (swaa_unread_bytes{{{SERVER}}})",
                      "{{instance}}")], "bytes"),
    ]


def device():
    return [
        graph("Device memory",
              "weights and kv (the whole pool) and workspace as they were taken; free: what the "
              "device has left.",
              [target(f"sum by (kind) (swaa_device_memory_bytes{{{SERVER}}})",
                      "{{kind}}")], "bytes",
              stacked=True),
        graph("Temperature", "Of the card. Only with a GPU whose driver tells it.",
              [target(f"swaa_device_temperature_celsius{{{SERVER}}}", "{{instance}}")], "celsius",
              limit=85, width=5),
        graph("Power", "That the card draws. Only with a GPU whose driver tells it.",
              [target(f"swaa_device_power_watts{{{SERVER}}}", "{{instance}}")], "watt", width=5),
        graph("Clock",
              "Of the card's multiprocessors; it falls when the card is too hot or draws too much. "
              "Only with a GPU whose driver tells it.",
              [target(f"swaa_device_clock_hertz{{{SERVER}}}", "{{instance}}")], "hertz", width=6),
    ]


def process():
    return [
        graph("Processors", "Cores that the process keeps busy.",
              [target(rate("process_cpu_seconds_total", "instance"), "{{instance}}")], width=6),
        graph("Memory of the process",
              "Bytes of the machine's memory that it holds, weights and KV pool of a CPU included.",
              [target(f"process_resident_memory_bytes{{{SERVER}}}", "{{instance}}")], "bytes",
              width=6),
        graph("Connections",
              "Open connections to the gRPC port, and those refused (too many) or cut off (for "
              "what they sent) a second.",
              [target(f"sum(swaa_connections_open{{{SERVER}}})", "open"),
               target(total("swaa_connections_accepted_total"), "accepted/s"),
               target(total("swaa_connections_refused_total"), "refused/s"),
               target(total("swaa_connections_cut_off_total"), "cut off/s")], width=6),
        graph("Log lines left out",
              "A second. The log is bounded: requests are refused faster than it takes lines. Those "
              "that are lost are more than whoever reads the log has taken.",
              [target(rate("swaa_log_lines_suppressed_total", "instance"), "{{instance}}"),
               target(rate("swaa_log_lines_lost_total", "instance"), "{{instance}} lost")],
              width=6),
        table("Servers", "What runs where.", f"swaa_build_info{{{SERVER}}}",
              ["instance", "version", "model", "backend"], width=12),
        stat("Configuration's age", "Since the oldest configuration in force was loaded.",
             f"time() - min(swaa_config_last_load_timestamp_seconds{{{SERVER}}})", "s", width=4,
             height=7),
        stat("Configurations refused",
             "Servers that run with an older configuration because the present file is wrong; "
             "their log says what.",
             f"sum(1 - swaa_config_last_reload_successful{{{SERVER}}})", warning=1, width=4,
             height=7),
        stat("Up since", "The youngest process.",
             f"time() - max(process_start_time_seconds{{{SERVER}}})", "s", width=4, height=7),
    ]


def board():
    return dashboard(
        "swaa-overview", "SWAA / Overview",
        "Whether the servers are well, and where time and memory go.",
        VARIABLES,
        [("Health", health()), ("Traffic", traffic()), ("Latency", latency()),
         ("Engine", engine()), ("Prompts", prefix_cache()), ("Device", device()),
         ("Process", process())])
