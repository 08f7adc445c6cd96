// Bench: the results as JSON.

#include "tools/bench/report.h"

namespace swaa::tools::bench {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kMegabyte = 1e6;

Json Nullable(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

// mean_NAME, median_NAME, std_NAME, p90_NAME, p99_NAME.
void AddDistribution(const std::string& name, const Distribution& distribution, Json* json) {
  const auto add = [&](const char* which, double value) {
    (*json)[which + name] = distribution.count == 0 ? Json(nullptr) : Json(value);
  };
  add("mean_", distribution.mean);
  add("median_", distribution.median);
  add("std_", distribution.standard_deviation);
  add("p90_", distribution.p90);
  add("p99_", distribution.p99);
}

void AddSummary(const Summary& summary, Json* json) {
  Json& out = *json;
  out["completed"] = summary.completed;
  out["failed"] = summary.sent - summary.completed;
  out["total_input_tokens"] = summary.total_input_tokens;
  out["total_output_tokens"] = summary.total_output_tokens;
  out["total_cached_input_tokens"] = summary.cached_input_tokens;
  out["request_throughput"] = summary.request_throughput;
  out["request_goodput"] = Nullable(summary.request_goodput);
  out["output_throughput"] = summary.output_throughput;
  out["total_token_throughput"] = summary.total_token_throughput;
  AddDistribution("ttft_ms", summary.ttft_ms, json);
  AddDistribution("tpot_ms", summary.tpot_ms, json);
  AddDistribution("itl_ms", summary.itl_ms, json);
  AddDistribution("e2el_ms", summary.e2el_ms, json);
  AddDistribution("send_delay_ms", summary.send_delay_ms, json);
  AddDistribution("queue_ms", summary.queue_ms, json);
  AddDistribution("prefill_ms", summary.prefill_ms, json);
  AddDistribution("decode_ms", summary.decode_ms, json);
  AddDistribution("peak_kv_mb", summary.peak_kv_mb, json);
  AddDistribution("full_attention_kv_mb", summary.full_attention_kv_mb, json);
  out["attended_keys"] = summary.attended_keys;
  out["full_attention_attended_keys"] = summary.full_attention_attended_keys;
  out["preemptions"] = summary.preemptions;
  out["failures"] = Json::object();
  for (const auto& [kind, count] : summary.failures) out["failures"][kind] = count;
}

Json SampleJson(const LoadSample& sample) {
  Json json;
  json["seconds"] = sample.seconds;
  json["running_requests"] = sample.load.running_requests();
  json["queued_requests"] = sample.load.queued_requests();
  json["used_kv_pages"] = sample.load.used_kv_pages();
  json["evictable_kv_pages"] = sample.load.evictable_kv_pages();
  json["total_kv_pages"] = sample.load.total_kv_pages();
  json["recipes"] = Json::object();
  for (const v1::RecipeLoad& recipe : sample.load.recipes()) {
    json["recipes"][recipe.recipe_name()] = {
        {"running_requests", recipe.running_requests()},
        {"queued_requests", recipe.queued_requests()},
        {"kv_mb", static_cast<double>(recipe.kv_cache_bytes()) / kMegabyte},
        {"full_attention_kv_mb",
         static_cast<double>(recipe.full_attention_kv_cache_bytes()) / kMegabyte}};
  }
  return json;
}

Json RequestJson(const RequestRecord& record, const BenchOptions& options) {
  Json json;
  json["recipe"] = options.arms[record.arm].label;
  json["scheduled_seconds"] = record.scheduled_seconds;
  json["sent_seconds"] = record.sent_seconds;
  json["error"] = record.completed() ? Json(nullptr) : Json(record.error_code);
  json["input_tokens"] = record.prompt_tokens;
  json["output_tokens"] = record.usage.completion_tokens();
  json["cached_input_tokens"] = record.usage.cached_prompt_tokens();
  const bool any = record.first_token_seconds >= 0;
  json["ttft_ms"] = any ? Json(record.ttft_ms()) : Json(nullptr);
  json["e2el_ms"] = record.e2el_ms();
  json["itl_ms"] = record.token_gaps_ms;
  json["queue_ms"] = static_cast<double>(record.stats.queue_time_us()) / 1e3;
  json["peak_kv_mb"] = static_cast<double>(record.stats.peak_kv_cache_bytes()) / kMegabyte;
  return json;
}

}  // namespace

Json ReportJson(const Report& report, const BenchOptions& options, const LoadResult& result) {
  Json json;
  json["date"] = report.date;
  json["backend"] = "swaa";
  json["model_id"] = report.model;
  json["num_prompts"] = report.overall.sent;
  // As vLLM writes a loop that waits for answers only.
  json["request_rate"] = options.request_rate > 0 ? Json(options.request_rate) : Json("inf");
  json["burstiness"] = options.burstiness;
  json["max_concurrency"] = options.max_in_flight;
  json["seed"] = options.seed;
  json["in_turns"] = report.in_turns;
  json["interrupted"] = report.interrupted;
  json["duration"] = report.duration_seconds;
  AddSummary(report.overall, &json);
  json["max_output_tokens_per_s"] = report.peaks.output_tokens_per_second;
  json["max_concurrent_requests"] = report.peaks.concurrent_requests;
  json["recipes"] = Json::object();
  for (const ArmReport& arm : report.arms) {
    Json& out = json["recipes"][arm.label];
    out["weight"] = arm.weight;
    AddSummary(arm.summary, &out);
    out["speedup_over_full"] = nullptr;
    out["attended_keys_ratio"] = nullptr;
    if (!arm.speedup) continue;
    out["speedup_over_full"] = {{"output_throughput", Nullable(arm.speedup->throughput)},
                                {"ttft", Nullable(arm.speedup->ttft)},
                                {"tpot", Nullable(arm.speedup->tpot)},
                                {"e2el", Nullable(arm.speedup->e2el)}};
    out["attended_keys_ratio"] = Nullable(arm.speedup->counted);
  }
  json["load"] = Json::array();
  for (const LoadSample& sample : result.samples) json["load"].push_back(SampleJson(sample));
  if (options.detailed) {
    json["requests"] = Json::array();
    for (const RequestRecord& record : result.records) {
      json["requests"].push_back(RequestJson(record, options));
    }
  }
  return json;
}

}  // namespace swaa::tools::bench
