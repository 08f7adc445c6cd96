// What Prometheus sees. Names and labels are a contract with dashboards and rules.

#include "server/observation/metrics.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/generate/errors.h"
#include "server/observation/prompt_class.h"

namespace swaa::server {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Labels;

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

// A counter never falls, and a request whose statistics were lost has none.
void IncrementByRest(int64_t total, int64_t counted, Counter* counter) {
  if (total > counted) counter->Increment(static_cast<double>(total - counted));
}

// Reasons whose series are there before the first refusal, so that a rate over them is zero and not
// absent.
constexpr const char* kKnownReasons[] = {
    "queue_full",        "never_fits",     "draining",          "out_of_memory",
    "malformed_request", "limit_exceeded", "invalid_recipe",    "recipe_not_found",
    "model_not_found",   "empty_input",    "request_id_in_use", "prompt_too_long",
    "cancelled",         "aborted",        "deadline_exceeded", "device_out_of_memory"};

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
  return kPromptClassNames[PromptClassIndex(prompt_tokens)];
}

Metrics::Metrics(const RecipeCatalog& recipes, const std::string& version,
                 const std::string& model_name, const std::string& backend, MetricsEdges edges)
    : edges_(std::move(edges)), registry_(std::make_shared<prometheus::Registry>()) {
  prometheus::Registry* r = registry_.get();
  requests_ =
      &CounterFamily(r, "swaa_requests_total", "Requests that have ended, refused included.");
  rejected_ = &CounterFamily(r, "swaa_requests_rejected_total",
                             "Requests that ended before they were accepted, by error reason.");
  for (const char* reason : kKnownReasons) rejected_->Add({{"reason", reason}});
  time_to_first_token_ = &HistogramFamily(r, "swaa_time_to_first_token_seconds",
                                          "From arrival to the first output token.");
  recipe_info_ = &GaugeFamily(r, "swaa_recipe_info", "The registered recipes; always 1.");
  batch_tokens_ = &HistogramFamily(r, "swaa_batch_tokens", "Tokens computed in a step.")
                       .Add({}, edges_.batch_tokens);
  auto& steps = HistogramFamily(r, "swaa_step_duration_seconds", "Device time of a step.");
  for (const char* phase : {"prefill", "decode", "mixed"}) {
    step_duration_[phase] = &steps.Add({{"phase", phase}}, edges_.seconds);
  }
  auto& reloads =
      CounterFamily(r, "swaa_config_reloads_total",
                    "Times the configuration was read again; failed: the old one stays.");
  reloads_ok_ = &reloads.Add({{"result", "ok"}});
  reloads_failed_ = &reloads.Add({{"result", "failed"}});
  last_load_ = &GaugeFamily(r, "swaa_config_last_load_timestamp_seconds",
                            "When the configuration in force was loaded.")
                    .Add({});
  last_load_->SetToCurrentTime();
  last_reload_ok_ = &GaugeFamily(r, "swaa_config_last_reload_successful",
                                 "1 if the configuration was good when it was last read; 0 while "
                                 "an older one is in force.")
                         .Add({});
  last_reload_ok_->Set(1);
  model_error_ = &GaugeFamily(r, "swaa_step_model_error_ratio",
                              "Mean absolute error of the model of a step's time, over the mean "
                              "time; above 0.1 attributed times are not to be trusted.")
                      .Add({});
  model_closure_ = &GaugeFamily(r, "swaa_step_model_closure_ratio",
                                "Times of steps by the model, over those measured.")
                        .Add({});
  model_overhead_ = &GaugeFamily(r, "swaa_step_model_overhead_ratio",
                                 "Share of the steps' time that no request's work explains.")
                         .Add({});
  shadow_seconds_ = &CounterFamily(r, "swaa_shadow_device_seconds_total",
                                   "Device time of requests that were computed again to compare "
                                   "recipes.")
                         .Add({});
  GaugeFamily(r, "swaa_build_info", "What runs here; always 1.")
      .Add({{"version", version}, {"model", model_name}, {"backend", backend}})
      .Set(1);
  {
    std::lock_guard lock(mutex_);
    series_.emplace(kCustomRecipeLabel, MakeSeries(kCustomRecipeLabel));
  }
  SetRecipes(recipes);
}

void Metrics::SetRecipes(const RecipeCatalog& recipes) {
  std::lock_guard lock(mutex_);
  for (auto it = series_.begin(); it != series_.end();) {
    if (it->first == kCustomRecipeLabel || recipes.Find(it->first) != nullptr) {
      ++it;
      continue;
    }
    if (it->second.info != nullptr) recipe_info_->Remove(it->second.info);
    for (const auto& remove : it->second.removers) remove();
    it = series_.erase(it);
  }
  for (const NamedRecipe& named : recipes.recipes()) {
    auto found = series_.find(named.name);
    if (found == series_.end()) {
      found = series_.emplace(named.name, MakeSeries(named.name)).first;
    }
    SetRecipeInfo(named, &found->second);
  }
}

void Metrics::OnConfigReload(bool ok) {
  (ok ? reloads_ok_ : reloads_failed_)->Increment();
  last_reload_ok_->Set(ok ? 1 : 0);
  if (ok) last_load_->SetToCurrentTime();
}

template <typename T, typename... Arguments>
T* Metrics::AddSeries(Family<T>* family, const Labels& labels, RecipeSeries* series,
                      const Arguments&... arguments) {
  T* added = &family->Add(labels, arguments...);
  series->removers.push_back([family, added] { family->Remove(added); });
  return added;
}

Metrics::RecipeSeries Metrics::MakeSeries(const std::string& label) {
  prometheus::Registry* r = registry_.get();
  const Labels recipe = {{"recipe", label}};
  RecipeSeries series;
  auto seconds = [&](const char* name, const char* help) {
    return AddSeries(&HistogramFamily(r, name, help), recipe, &series, edges_.seconds);
  };
  auto counter = [&](const char* name, const char* help) {
    return AddSeries(&CounterFamily(r, name, help), recipe, &series);
  };
  Family<Counter>& prompt = CounterFamily(
      r, "swaa_prompt_tokens_total", "Prompt tokens, computed or taken from the prefix cache.");
  series.inter_token =
      seconds("swaa_inter_token_latency_seconds", "Between two output tokens of one request.");
  series.duration = seconds("swaa_request_duration_seconds", "From arrival to the last word.");
  series.queue = seconds("swaa_request_queue_seconds", "From arrival to admission.");
  series.prefill = seconds("swaa_request_prefill_seconds", "From admission to the first token.");
  series.decode = seconds("swaa_request_decode_seconds", "From the first token to the end.");
  series.attended_ratio =
      AddSeries(&HistogramFamily(r, "swaa_attended_keys_ratio",
                                 "How many times fewer keys were attended than under full "
                                 "attention; no measure of time."),
                recipe, &series, edges_.ratio);
  series.prompt_computed = AddSeries(&prompt, {{"recipe", label}, {"source", "computed"}}, &series);
  series.prompt_cached = AddSeries(&prompt, {{"recipe", label}, {"source", "cached"}}, &series);
  series.generated = counter("swaa_generation_tokens_total", "Output tokens.");
  series.attended = counter("swaa_attended_keys_total", "Visible query-key pairs over all layers.");
  series.attended_full =
      counter("swaa_attended_keys_full_equivalent_total", "The same under full attention.");
  series.device_seconds = counter(
      "swaa_attributed_device_seconds_total",
      "Device time that requests' own tokens and keys cost, by the model of a step's time.");
  Family<Histogram>& speedup = HistogramFamily(
      r, "swaa_speedup_ratio",
      "How many times less device time than full attention. attributed: by the model of a step's "
      "time, for each request; shadow: both computed alone.");
  series.attributed_speedup =
      AddSeries(&speedup, {{"recipe", label}, {"kind", "attributed"}}, &series, edges_.ratio);
  series.shadow_speedup =
      AddSeries(&speedup, {{"recipe", label}, {"kind", "shadow"}}, &series, edges_.ratio);
  return series;
}

void Metrics::SetRecipeInfo(const NamedRecipe& named, RecipeSeries* series) {
  const Recipe& recipe = named.recipe;
  const bool full = !recipe.window.has_value();
  const Labels labels = {{"recipe", named.name},
                         {"sliding_window_tokens", full ? "" : absl::StrCat(*recipe.window)},
                         {"sink_tokens", absl::StrCat(recipe.sinks)},
                         {"full_attention_layers", full ? "all" : LayerList(recipe.layer_full)},
                         {"full_attention_decode", full ? "all" : LayerList(recipe.decode_full)}};
  // The same one if nothing has changed.
  Gauge* info = &recipe_info_->Add(labels);
  if (series->info != nullptr && series->info != info) recipe_info_->Remove(series->info);
  series->info = info;
  info->Set(1);
}

void Metrics::OnStep(const StepRecord& step) {
  if (step.shadow) {
    shadow_seconds_->Increment(step.device_seconds);
    return;
  }
  model_error_->Set(step.model.error_ratio);
  model_closure_->Set(step.model.closure_ratio);
  model_overhead_->Set(step.model.overhead_ratio);
  const bool prefill = step.prefill_tokens > 0;
  const bool decode = step.decode_tokens > 0;
  if (!prefill && !decode) return;
  step_duration_.at(prefill && decode ? "mixed"
                    : prefill         ? "prefill"
                                      : "decode")
      ->Observe(step.device_seconds);
  batch_tokens_->Observe(static_cast<double>(step.prefill_tokens + step.decode_tokens));
}

Metrics::RecipeSeries* Metrics::SeriesOf(const std::string& label) {
  auto found = series_.find(label);
  return &(found == series_.end() ? series_.find(kCustomRecipeLabel) : found)->second;
}

void Metrics::OnInterTokenLatency(const std::string& recipe_label, absl::Duration latency) {
  std::lock_guard lock(mutex_);
  SeriesOf(recipe_label)->inter_token->Observe(Seconds(latency));
}

void Metrics::ObserveTimes(const RequestRecord& record, const std::string& label,
                           RecipeSeries* series) {
  const GenerationStats& stats = record.stats;
  series->queue->Observe(Seconds(stats.queue_time));
  if (stats.completion_tokens == 0) return;
  series->prefill->Observe(Seconds(stats.prefill_time));
  series->decode->Observe(Seconds(stats.decode_time));
  if (!record.counted.first_token) {
    ObserveFirstToken(label, stats.prompt_tokens, stats.time_to_first_token, series);
  }
  if (stats.attended_keys > 0) {
    series->attended_ratio->Observe(static_cast<double>(stats.full_attention_attended_keys) /
                                    static_cast<double>(stats.attended_keys));
  }
}

void Metrics::OnShadowSpeedup(const std::string& recipe_label, double ratio) {
  std::lock_guard lock(mutex_);
  SeriesOf(recipe_label)->shadow_speedup->Observe(ratio);
}

void Metrics::ObserveFirstToken(const std::string& label, int64_t prompt_tokens,
                                absl::Duration latency, RecipeSeries* series) {
  const std::string length = PromptLengthClass(prompt_tokens);
  prometheus::Histogram*& first_token = series->first_token[length];
  if (first_token == nullptr) {
    first_token = AddSeries(time_to_first_token_, {{"recipe", label}, {"prompt_len", length}},
                            series, edges_.seconds);
  }
  first_token->Observe(Seconds(latency));
}

void Metrics::OnFirstToken(const std::string& recipe_label, int64_t prompt_tokens,
                           absl::Duration latency) {
  std::lock_guard lock(mutex_);
  const bool known = series_.contains(recipe_label);
  ObserveFirstToken(known ? recipe_label : kCustomRecipeLabel, prompt_tokens, latency,
                    SeriesOf(recipe_label));
}

void Metrics::OnTokens(const std::string& recipe_label, const LiveCounts& added) {
  std::lock_guard lock(mutex_);
  RecipeSeries* series = SeriesOf(recipe_label);
  series->generated->Increment(static_cast<double>(added.tokens));
  series->attended->Increment(static_cast<double>(added.attended_keys));
  series->attended_full->Increment(static_cast<double>(added.full_attention_attended_keys));
}

void Metrics::CountEnd(const RequestRecord& record, const std::string& label,
                       RecipeSeries* series) {
  const std::string reason = FinishReasonName(record.finish_reason);
  const std::string code = CodeName(record.status.code());
  Counter*& ended = series->ended[{reason, code}];
  if (ended == nullptr) {
    ended = AddSeries(requests_,
                      {{"recipe", label}, {"finish_reason", reason}, {"grpc_code", code}}, series);
  }
  ended->Increment();
}

void Metrics::OnRequestEnd(const RequestRecord& record) {
  if (!record.accepted) rejected_->Add({{"reason", ErrorReason(record.status)}}).Increment();
  std::lock_guard lock(mutex_);
  if (record.recipe_label == kNoRecipeLabel) {
    CountEnd(record, kNoRecipeLabel, &none_);
    return;
  }
  RecipeSeries* series = SeriesOf(record.recipe_label);
  const bool known = series_.contains(record.recipe_label);
  const std::string label = known ? record.recipe_label : kCustomRecipeLabel;
  CountEnd(record, label, series);
  series->duration->Observe(Seconds(record.total));
  if (!record.accepted) return;
  const GenerationStats& stats = record.stats;
  series->prompt_cached->Increment(stats.cached_prompt_tokens);
  series->prompt_computed->Increment(stats.prompt_tokens - stats.cached_prompt_tokens);
  const LiveCounts& counted = record.counted;
  IncrementByRest(stats.completion_tokens, counted.tokens, series->generated);
  IncrementByRest(stats.attended_keys, counted.attended_keys, series->attended);
  IncrementByRest(stats.full_attention_attended_keys, counted.full_attention_attended_keys,
                  series->attended_full);
  ObserveTimes(record, label, series);
  if (!stats.device_seconds.has_value() || *stats.device_seconds <= 0) return;
  series->device_seconds->Increment(*stats.device_seconds);
  series->attributed_speedup->Observe(*stats.full_attention_device_seconds / *stats.device_seconds);
}

}  // namespace swaa::server
