// Server room: what Prometheus sees. Names and labels are a contract with dashboards and rules.

#include "server/metrics.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/errors.h"

namespace swaa::server {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Labels;

// 1 ms to 4 hours, about three edges a decade.
const std::vector<double>& SecondsEdges() {
  static const auto* const kEdges =
      new std::vector<double>{0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5,  1,    2,
                              5,     10,    20,    30,   60,   120,  300, 600, 1800, 3600, 14400};
  return *kEdges;
}

const std::vector<double>& RatioEdges() {
  static const auto* const kEdges = new std::vector<double>{
      1, 1.05, 1.1, 1.2, 1.3, 1.5, 1.75, 2, 2.5, 3, 4, 6, 8, 12, 16, 32, 64};
  return *kEdges;
}

const std::vector<double>& BatchEdges() {
  static const auto* const kEdges =
      new std::vector<double>{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192};
  return *kEdges;
}

template <typename Builder>
auto& Register(Builder builder, const std::string& name, const std::string& help,
               prometheus::Registry* registry) {
  return builder.Name(name).Help(help).Register(*registry);
}

Family<Counter>& CounterFamily(prometheus::Registry* registry, const std::string& name,
                               const std::string& help) {
  return Register(prometheus::BuildCounter(), name, help, registry);
}
Family<Histogram>& HistogramFamily(prometheus::Registry* registry, const std::string& name,
                                   const std::string& help) {
  return Register(prometheus::BuildHistogram(), name, help, registry);
}
Family<Gauge>& GaugeFamily(prometheus::Registry* registry, const std::string& name,
                           const std::string& help) {
  return Register(prometheus::BuildGauge(), name, help, registry);
}

double Seconds(absl::Duration duration) { return absl::ToDoubleSeconds(duration); }

std::string LayerList(const std::vector<bool>& layers) {
  std::vector<size_t> indices;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    if (layers[layer]) indices.push_back(layer);
  }
  if (indices.empty()) return "none";
  return indices.size() == layers.size() ? "all" : absl::StrJoin(indices, ",");
}

}  // namespace

std::string PromptLengthClass(int64_t prompt_tokens) {
  if (prompt_tokens <= 2048) return "le_2k";
  if (prompt_tokens <= 8192) return "le_8k";
  if (prompt_tokens <= 32768) return "le_32k";
  if (prompt_tokens <= 131072) return "le_128k";
  return "gt_128k";
}

Metrics::Metrics(const RecipeCatalog& recipes, const std::string& version,
                 const std::string& model_name, const std::string& backend)
    : registry_(std::make_shared<prometheus::Registry>()) {
  prometheus::Registry* r = registry_.get();
  requests_ =
      &CounterFamily(r, "swaa_requests_total", "Requests that have ended, refused included.");
  rejected_ = &CounterFamily(r, "swaa_requests_rejected_total",
                             "Requests that ended before they were accepted, by error reason.");
  time_to_first_token_ = &HistogramFamily(r, "swaa_time_to_first_token_seconds",
                                          "From arrival to the first output token.");
  preemptions_ =
      &CounterFamily(r, "swaa_preemptions_total", "Times a running request lost its pages.")
           .Add({});
  batch_tokens_ =
      &HistogramFamily(r, "swaa_batch_tokens", "Tokens computed in a step.").Add({}, BatchEdges());
  auto& steps = HistogramFamily(r, "swaa_step_duration_seconds", "Device time of a step.");
  for (const char* phase : {"prefill", "decode", "mixed"}) {
    step_duration_[phase] = &steps.Add({{"phase", phase}}, SecondsEdges());
  }
  for (const NamedRecipe& named : recipes.recipes()) {
    series_.emplace(named.name, MakeSeries(named.name));
    AddRecipeInfo(named.name, named.recipe);
  }
  series_.emplace(kCustomRecipeLabel, MakeSeries(kCustomRecipeLabel));
  GaugeFamily(r, "swaa_build_info", "What runs here; always 1.")
      .Add({{"version", version}, {"model", model_name}, {"backend", backend}})
      .Set(1);
}

Metrics::RecipeSeries Metrics::MakeSeries(const std::string& label) {
  prometheus::Registry* r = registry_.get();
  const Labels recipe = {{"recipe", label}};
  auto seconds = [&](const char* name, const char* help) {
    return &HistogramFamily(r, name, help).Add(recipe, SecondsEdges());
  };
  auto counter = [&](const char* name, const char* help) {
    return &CounterFamily(r, name, help).Add(recipe);
  };
  Family<Counter>& prompt = CounterFamily(
      r, "swaa_prompt_tokens_total", "Prompt tokens, computed or taken from the prefix cache.");
  RecipeSeries series;
  series.inter_token =
      seconds("swaa_inter_token_latency_seconds", "Between two output tokens of one request.");
  series.duration = seconds("swaa_request_duration_seconds", "From arrival to the last word.");
  series.queue = seconds("swaa_request_queue_seconds", "From arrival to admission.");
  series.prefill = seconds("swaa_request_prefill_seconds", "From admission to the first token.");
  series.decode = seconds("swaa_request_decode_seconds", "From the first token to the end.");
  series.speedup_counted =
      &HistogramFamily(r, "swaa_speedup_ratio",
                       "Full attention against the recipe; counted: by keys attended.")
           .Add({{"recipe", label}, {"kind", "counted"}}, RatioEdges());
  series.prompt_computed = &prompt.Add({{"recipe", label}, {"source", "computed"}});
  series.prompt_cached = &prompt.Add({{"recipe", label}, {"source", "cached"}});
  series.generated = counter("swaa_generation_tokens_total", "Output tokens.");
  series.attended = counter("swaa_attended_keys_total", "Visible query-key pairs over all layers.");
  series.attended_full =
      counter("swaa_attended_keys_full_equivalent_total", "The same under full attention.");
  return series;
}

void Metrics::AddRecipeInfo(const std::string& label, const Recipe& recipe) {
  const bool full = !recipe.window.has_value();
  GaugeFamily(registry_.get(), "swaa_recipe_info", "The registered recipes; always 1.")
      .Add({{"recipe", label},
            {"sliding_window_tokens", full ? "" : absl::StrCat(*recipe.window)},
            {"sink_tokens", absl::StrCat(recipe.sinks)},
            {"full_attention_layers", full ? "all" : LayerList(recipe.layer_full)},
            {"full_attention_decode", full ? "all" : LayerList(recipe.decode_full)}})
      .Set(1);
}

void Metrics::OnStep(const StepRecord& step) {
  const bool prefill = step.prefill_tokens > 0;
  const bool decode = step.decode_tokens > 0;
  if (!prefill && !decode) return;
  step_duration_.at(prefill && decode ? "mixed"
                    : prefill         ? "prefill"
                                      : "decode")
      ->Observe(step.device_seconds);
  batch_tokens_->Observe(step.prefill_tokens + step.decode_tokens);
}

void Metrics::OnInterTokenLatency(const std::string& recipe_label, absl::Duration latency) {
  auto series = series_.find(recipe_label);
  if (series != series_.end()) series->second.inter_token->Observe(Seconds(latency));
}

void Metrics::CountTokens(const RequestRecord& record, const RecipeSeries& series) {
  const GenerationStats& stats = record.stats;
  series.prompt_cached->Increment(stats.cached_prompt_tokens);
  series.prompt_computed->Increment(stats.prompt_tokens - stats.cached_prompt_tokens);
  series.generated->Increment(stats.completion_tokens);
  series.attended->Increment(static_cast<double>(stats.attended_keys));
  series.attended_full->Increment(static_cast<double>(stats.full_attention_attended_keys));
  preemptions_->Increment(stats.preemptions);
}

void Metrics::ObserveTimes(const RequestRecord& record, const RecipeSeries& series) {
  const GenerationStats& stats = record.stats;
  series.queue->Observe(Seconds(stats.queue_time));
  if (stats.completion_tokens == 0) return;
  series.prefill->Observe(Seconds(stats.prefill_time));
  series.decode->Observe(Seconds(stats.decode_time));
  time_to_first_token_
      ->Add(
          {{"recipe", record.recipe_label}, {"prompt_len", PromptLengthClass(stats.prompt_tokens)}},
          SecondsEdges())
      .Observe(Seconds(stats.time_to_first_token));
  if (stats.attended_keys > 0) {
    series.speedup_counted->Observe(static_cast<double>(stats.full_attention_attended_keys) /
                                    static_cast<double>(stats.attended_keys));
  }
}

void Metrics::OnRequestEnd(const RequestRecord& record) {
  requests_
      ->Add({{"recipe", record.recipe_label},
             {"finish_reason", FinishReasonName(record.finish_reason)},
             {"grpc_code", CodeName(record.status.code())}})
      .Increment();
  auto series = series_.find(record.recipe_label);
  if (!record.accepted) {
    rejected_->Add({{"reason", ErrorReason(record.status)}}).Increment();
  } else if (series != series_.end()) {
    CountTokens(record, series->second);
    ObserveTimes(record, series->second);
  }
  if (series != series_.end()) series->second.duration->Observe(Seconds(record.total));
}

}  // namespace swaa::server
