// Bench: the flags of `swaa bench`.

#include "tools/bench/options.h"

#include <cmath>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/types/optional.h"
#include "base/status_macros.h"

ABSL_FLAG(std::string, bench_recipes, "full=1,{\"sliding_window_tokens\":512,\"sink_tokens\":16}=1",
          "the mix: NAME=WEIGHT or {JSON}=WEIGHT, with commas between; a name as the server lists "
          "them, or a swaa.v1.Recipe as protobuf JSON, such as "
          "full=1,balanced=2,{\"sliding_window_tokens\":512,\"sink_tokens\":16}=1; without =WEIGHT "
          "it weighs 1; empty: the server's default recipe");
ABSL_FLAG(absl::optional<int64_t>, bench_num_requests, absl::nullopt,
          "requests to send and measure; absent: 40, or as many as --duration takes");
ABSL_FLAG(absl::Duration, bench_duration, absl::InfiniteDuration(),
          "send no request after this time, such as 60s or 5m; those sent are waited for");
ABSL_FLAG(absl::optional<int32_t>, bench_concurrency, absl::nullopt,
          "most requests in flight; absent: 8 in a closed loop, 4096 with --request-rate");
ABSL_FLAG(bool, bench_mixed, false,
          "send requests of all recipes at once, into one batch, as with --request-rate; else "
          "recipes take turns, twice each, so that what one gains shows");
ABSL_FLAG(double, bench_request_rate, 0,
          "open loop: requests per second, whether answers have come or not; 0: closed loop, the "
          "next request is sent when one ends");
ABSL_FLAG(double, bench_burstiness, 1,
          "with --request-rate: 1 is a Poisson process; intervals are gamma-distributed with this "
          "shape, so below 1 comes in bursts and above 1 is more even");
ABSL_FLAG(int64_t, bench_warmup_requests, 0,
          "requests sent before the measured ones, as a closed loop, with prompts of their own");
ABSL_FLAG(std::string, bench_prompt_tokens, "4000",
          "prompt lengths: 4000, a range 100:2000, or lognormal:MEAN:SIGMA:MIN:MAX; "
          "the n-th request of every recipe has the same");
ABSL_FLAG(std::string, bench_output_tokens, "64", "output lengths, written alike");
ABSL_FLAG(std::string, bench_prompt_kind, "ids",
          "ids: random token ids, exactly as many as drawn; text: prose, about as many");
ABSL_FLAG(uint32_t, bench_shared_prefix_tokens, 0,
          "tokens before every prompt, on top of --prompt-tokens, that prompts share");
ABSL_FLAG(uint32_t, bench_shared_prefixes, 1, "how many different shared prefixes there are");
ABSL_FLAG(uint64_t, bench_seed, 0, "the same seed and flags send the same requests");
ABSL_FLAG(
    std::string, bench_cache_salt, "",
    "separates the prefix cache; empty: a new one for each run, so that it finds nothing that "
    "an earlier run with the same seed left");
ABSL_FLAG(bool, bench_ignore_eos, true,
          "generate as many tokens as drawn; --noignore-eos lets the model end earlier");
ABSL_FLAG(float, bench_temperature, 0, "0 is greedy");
ABSL_FLAG(std::string, bench_goodput, "",
          "objectives in milliseconds that make a request count as good: "
          "ttft:500,tpot:50,e2el:4000, any of them");
ABSL_FLAG(absl::Duration, bench_deadline, absl::InfiniteDuration(),
          "deadline of each request, such as 30s");
ABSL_FLAG(bool, bench_retry, false,
          "let gRPC retry UNAVAILABLE and RESOURCE_EXHAUSTED, five attempts, as the server's "
          "pushback says; latencies then count from the first attempt");
ABSL_FLAG(uint64_t, bench_experiment_units, 0,
          "send each request for one of so many experiment units, so that the server's experiments "
          "choose the recipes; needs --recipes \"\"");
ABSL_FLAG(std::string, bench_outcome, "",
          "after the run, record an outcome of 0 or 1 for every request, with a chance by arm: "
          "thumbs_up:control=0.6,small=0.5; to see that an experiment's report finds it");
ABSL_FLAG(int32_t, bench_connections, 1, "connections to spread the requests over");
ABSL_FLAG(absl::Duration, bench_poll_interval, absl::Seconds(1),
          "how often the server's load (KV memory by recipe) is asked for");
ABSL_FLAG(std::string, bench_json, "",
          "write the results to this file, with the keys of `vllm bench serve`");
ABSL_FLAG(bool, bench_detailed, false, "with --json: every single request too");
ABSL_FLAG(
    std::string, bench_plot, "",
    "write latency.vl.json and kv_memory.vl.json, Vega-Lite plots over time by recipe, into this "
    "folder; any Vega-Lite viewer shows them");

namespace swaa::tools::bench {
namespace {

constexpr int kClosedLoopInFlight = 8;
constexpr int kOpenLoopInFlight = 4096;
constexpr int64_t kDefaultRequests = 40;

absl::Status BadFlag(const std::string& name, const std::string& value, const std::string& advice) {
  return absl::InvalidArgumentError(absl::StrCat("--", name, ": \"", value, "\" ", advice));
}

absl::Status CheckAtLeast(const std::string& name, int64_t value, int64_t least) {
  if (value >= least) return absl::OkStatus();
  return BadFlag(name, absl::StrCat(value), absl::StrCat("is too small; at least ", least));
}

absl::Status CheckPositive(const std::string& name, absl::Duration value) {
  if (value > absl::ZeroDuration()) return absl::OkStatus();
  return BadFlag(name, absl::FormatDuration(value), "is no time above 0; give one such as 30s");
}

// The flag's name goes before what its parser says.
template <class T>
absl::StatusOr<T> Named(const std::string& name, absl::StatusOr<T> parsed) {
  if (parsed.ok()) return parsed;
  return absl::Status(parsed.status().code(),
                      absl::StrCat("--", name, ": ", std::string(parsed.status().message())));
}

absl::Status CheckFlags() {
  const double rate = absl::GetFlag(FLAGS_bench_request_rate);
  if (!std::isfinite(rate) || rate < 0) {
    return BadFlag("request-rate", absl::StrCat(rate),
                   "is no rate; give requests per second above 0, or 0 for a closed loop");
  }
  const double burstiness = absl::GetFlag(FLAGS_bench_burstiness);
  if (!std::isfinite(burstiness) || burstiness <= 0) {
    return BadFlag("burstiness", absl::StrCat(burstiness),
                   "is no shape; give a number above 0, 1 for a Poisson process");
  }
  if (burstiness != 1 && rate == 0) {
    return BadFlag("burstiness", absl::StrCat(burstiness),
                   "says nothing about a closed loop; set --request-rate or drop it");
  }
  const float temperature = absl::GetFlag(FLAGS_bench_temperature);
  if (!std::isfinite(temperature) || temperature < 0) {
    return BadFlag("temperature", absl::StrCat(temperature), "is no temperature; 0 or above");
  }
  if (const std::string kind = absl::GetFlag(FLAGS_bench_prompt_kind);
      kind != "ids" && kind != "text") {
    return BadFlag("prompt-kind", kind, "is no kind of prompt; take ids or text");
  }
  if (absl::GetFlag(FLAGS_bench_detailed) && absl::GetFlag(FLAGS_bench_json).empty()) {
    return BadFlag("detailed", "true", "has no file to go to; name one by --json");
  }
  SWAA_RETURN_IF_ERROR(CheckPositive("duration", absl::GetFlag(FLAGS_bench_duration)));
  SWAA_RETURN_IF_ERROR(CheckPositive("deadline", absl::GetFlag(FLAGS_bench_deadline)));
  if (absl::GetFlag(FLAGS_bench_poll_interval) < absl::Milliseconds(10)) {
    return BadFlag("poll-interval", absl::FormatDuration(absl::GetFlag(FLAGS_bench_poll_interval)),
                   "is too small; at least 10ms");
  }
  SWAA_RETURN_IF_ERROR(
      CheckAtLeast("num-requests", absl::GetFlag(FLAGS_bench_num_requests).value_or(1), 1));
  SWAA_RETURN_IF_ERROR(
      CheckAtLeast("concurrency", absl::GetFlag(FLAGS_bench_concurrency).value_or(1), 1));
  SWAA_RETURN_IF_ERROR(
      CheckAtLeast("warmup-requests", absl::GetFlag(FLAGS_bench_warmup_requests), 0));
  if (absl::GetFlag(FLAGS_bench_experiment_units) > 0 &&
      !absl::GetFlag(FLAGS_bench_recipes).empty()) {
    return BadFlag("experiment-units", absl::StrCat(absl::GetFlag(FLAGS_bench_experiment_units)),
                   "has no effect where requests name their recipes; add --recipes \"\"");
  }
  if (!absl::GetFlag(FLAGS_bench_outcome).empty() &&
      absl::GetFlag(FLAGS_bench_experiment_units) == 0) {
    return BadFlag("outcome", absl::GetFlag(FLAGS_bench_outcome),
                   "belongs to requests of an experiment; set --experiment-units");
  }
  SWAA_RETURN_IF_ERROR(CheckAtLeast("connections", absl::GetFlag(FLAGS_bench_connections), 1));
  return CheckAtLeast("shared-prefixes", absl::GetFlag(FLAGS_bench_shared_prefixes), 1);
}

}  // namespace

std::string BenchFlagPrefix() { return "bench_"; }

std::vector<std::string> BenchFlagNames() {
  std::vector<std::string> names = ConnectionFlagNames();
  names.insert(names.end(), {"recipes",
                             "num_requests",
                             "duration",
                             "mixed",
                             "concurrency",
                             "request_rate",
                             "burstiness",
                             "warmup_requests",
                             "prompt_tokens",
                             "output_tokens",
                             "prompt_kind",
                             "shared_prefix_tokens",
                             "shared_prefixes",
                             "seed",
                             "cache_salt",
                             "ignore_eos",
                             "temperature",
                             "goodput",
                             "deadline",
                             "retry",
                             "connections",
                             "experiment_units",
                             "outcome",
                             "poll_interval",
                             "json",
                             "detailed",
                             "plot"});
  return names;
}

absl::StatusOr<BenchOptions> BenchOptionsFromFlags() {
  SWAA_RETURN_IF_ERROR(CheckFlags());
  SWAA_ASSIGN_OR_RETURN(
      LengthDistribution prompt_tokens,
      Named("prompt-tokens", LengthDistribution::Parse(absl::GetFlag(FLAGS_bench_prompt_tokens))));
  SWAA_ASSIGN_OR_RETURN(
      LengthDistribution output_tokens,
      Named("output-tokens", LengthDistribution::Parse(absl::GetFlag(FLAGS_bench_output_tokens))));
  BenchOptions options{.prompt_tokens = prompt_tokens, .output_tokens = output_tokens};
  SWAA_ASSIGN_OR_RETURN(options.connection, ConnectionFromFlags());
  if (const std::string recipes = absl::GetFlag(FLAGS_bench_recipes); !recipes.empty()) {
    SWAA_ASSIGN_OR_RETURN(options.arms, Named("recipes", ParseRecipeMix(recipes)));
  }
  SWAA_ASSIGN_OR_RETURN(options.goodput,
                        Named("goodput", ParseGoodput(absl::GetFlag(FLAGS_bench_goodput))));
  options.duration = absl::GetFlag(FLAGS_bench_duration);
  if (const auto count = absl::GetFlag(FLAGS_bench_num_requests)) {
    options.num_requests = *count;
  } else if (options.duration == absl::InfiniteDuration()) {
    options.num_requests = kDefaultRequests;
  }
  options.request_rate = absl::GetFlag(FLAGS_bench_request_rate);
  options.mixed = absl::GetFlag(FLAGS_bench_mixed);
  options.burstiness = absl::GetFlag(FLAGS_bench_burstiness);
  options.max_in_flight =
      absl::GetFlag(FLAGS_bench_concurrency)
          .value_or(options.request_rate > 0 ? kOpenLoopInFlight : kClosedLoopInFlight);
  options.warmup_requests = absl::GetFlag(FLAGS_bench_warmup_requests);
  options.text_prompts = absl::GetFlag(FLAGS_bench_prompt_kind) == "text";
  options.shared_prefix_tokens = absl::GetFlag(FLAGS_bench_shared_prefix_tokens);
  options.shared_prefixes = absl::GetFlag(FLAGS_bench_shared_prefixes);
  options.seed = absl::GetFlag(FLAGS_bench_seed);
  options.cache_salt = absl::GetFlag(FLAGS_bench_cache_salt);
  if (options.cache_salt.empty()) {
    options.cache_salt = absl::StrCat("bench-", absl::ToUnixNanos(absl::Now()));
  }
  options.ignore_eos = absl::GetFlag(FLAGS_bench_ignore_eos);
  options.temperature = absl::GetFlag(FLAGS_bench_temperature);
  options.deadline = absl::GetFlag(FLAGS_bench_deadline);
  options.retry = absl::GetFlag(FLAGS_bench_retry);
  options.connections = absl::GetFlag(FLAGS_bench_connections);
  options.experiment_units = absl::GetFlag(FLAGS_bench_experiment_units);
  SWAA_ASSIGN_OR_RETURN(options.outcome,
                        Named("outcome", ParsePlantedOutcome(absl::GetFlag(FLAGS_bench_outcome))));
  options.poll_interval = absl::GetFlag(FLAGS_bench_poll_interval);
  options.json_file = absl::GetFlag(FLAGS_bench_json);
  options.detailed = absl::GetFlag(FLAGS_bench_detailed);
  options.plot_folder = absl::GetFlag(FLAGS_bench_plot);
  return options;
}

}  // namespace swaa::tools::bench
