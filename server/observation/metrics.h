// What Prometheus sees. Names and labels are a contract with dashboards and rules.

#ifndef SWAA_SERVER_OBSERVATION_METRICS_H_
#define SWAA_SERVER_OBSERVATION_METRICS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include "absl/base/thread_annotations.h"
#include "engine/engine.h"
#include "server/generate/worker_pool.h"
#include "server/observation/metrics_edges.h"
#include "server/observation/request_log.h"
#include "server/recipes/recipe_catalog.h"

namespace swaa::server {

// "le_2k" ... "gt_128k".
std::string PromptLengthClass(int64_t prompt_tokens);

// Counters and histograms of everything that has happened. Thread-safe. The label `recipe` is a
// registered name or "custom"; "none", in swaa_requests_total alone, for requests refused before
// their recipe was known. So there are as many label values as registered recipes and two, however
// often those change: the series of a removed recipe go, and what still runs under its name counts
// as custom.
class Metrics {
 public:
  Metrics(const RecipeCatalog& recipes, const std::string& version, const std::string& model_name,
          const std::string& backend, MetricsEdges edges = {});

  // Follows a reload: series for new names; none for those that are gone.
  void SetRecipes(const RecipeCatalog& recipes);
  // A reload has ended, well or not.
  void OnConfigReload(bool ok);

  // From the engine thread.
  void OnStep(const StepRecord& step);
  // Time between two sendings of tokens to one stream.
  void OnInterTokenLatency(const std::string& recipe_label, absl::Duration latency);
  // While a request runs: its first token, and what a sending of tokens adds.
  void OnFirstToken(const std::string& recipe_label, int64_t prompt_tokens, absl::Duration latency);
  void OnTokens(const std::string& recipe_label, const LiveCounts& added);
  // Counts what was not counted while it ran (record.counted).
  void OnRequestEnd(const RequestRecord& record);
  // A request was computed again under its own recipe and another, each alone.
  void OnShadowSpeedup(const std::string& recipe_label, double ratio);

  const std::shared_ptr<prometheus::Registry>& registry() const { return registry_; }

 private:
  // The series of one recipe label.
  struct RecipeSeries {
    prometheus::Histogram* inter_token = nullptr;
    prometheus::Histogram* duration = nullptr;
    prometheus::Histogram* queue = nullptr;
    prometheus::Histogram* prefill = nullptr;
    prometheus::Histogram* decode = nullptr;
    prometheus::Histogram* attended_ratio = nullptr;
    prometheus::Counter* prompt_computed = nullptr;
    prometheus::Counter* prompt_cached = nullptr;
    prometheus::Counter* generated = nullptr;
    prometheus::Counter* attended = nullptr;
    prometheus::Counter* attended_full = nullptr;
    prometheus::Counter* device_seconds = nullptr;
    prometheus::Histogram* attributed_speedup = nullptr;
    prometheus::Histogram* shadow_speedup = nullptr;
    prometheus::Gauge* info = nullptr;
    // Made as they come.
    std::map<std::pair<std::string, std::string>, prometheus::Counter*> ended;  // reason, code
    std::map<std::string, prometheus::Histogram*> first_token;                  // by prompt length
    // Takes everything above out of the registry.
    std::vector<std::function<void()>> removers;
  };

  template <typename T, typename... Arguments>
  T* AddSeries(prometheus::Family<T>* family, const prometheus::Labels& labels,
               RecipeSeries* series, const Arguments&... arguments);
  RecipeSeries MakeSeries(const std::string& label) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetRecipeInfo(const NamedRecipe& named, RecipeSeries* series)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  RecipeSeries* SeriesOf(const std::string& label) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CountEnd(const RequestRecord& record, const std::string& label, RecipeSeries* series)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ObserveTimes(const RequestRecord& record, const std::string& label, RecipeSeries* series)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ObserveFirstToken(const std::string& label, int64_t prompt_tokens, absl::Duration latency,
                         RecipeSeries* series) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const MetricsEdges edges_;
  std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Family<prometheus::Counter>* requests_;
  prometheus::Family<prometheus::Counter>* rejected_;
  prometheus::Family<prometheus::Histogram>* time_to_first_token_;
  prometheus::Family<prometheus::Gauge>* recipe_info_;
  prometheus::Histogram* batch_tokens_;
  prometheus::Counter* reloads_ok_;
  prometheus::Counter* reloads_failed_;
  prometheus::Gauge* last_load_;
  prometheus::Gauge* last_reload_ok_;
  prometheus::Gauge* model_error_;
  prometheus::Gauge* model_closure_;
  prometheus::Gauge* model_overhead_;
  prometheus::Counter* shadow_seconds_;
  std::map<std::string, prometheus::Histogram*> step_duration_;  // by phase

  std::mutex mutex_;
  // By label.
  std::map<std::string, RecipeSeries> series_ ABSL_GUARDED_BY(mutex_);
  RecipeSeries none_ ABSL_GUARDED_BY(mutex_);  // its counters alone
};

// What the server holds right now, asked of the engine when Prometheus scrapes, so that it is never
// stale.
class LoadCollector : public prometheus::Collectable {
 public:
  struct Facts {
    int64_t page_bytes = 0;
    int32_t max_loras = 0;  // in memory at once
  };

  // The functions are called from the exposer's threads. `recipe_names` are the registered ones;
  // what runs under another label counts as custom.
  LoadCollector(Facts facts, std::function<std::vector<std::string>()> recipe_names,
                std::function<EngineLoad()> load, std::function<AdmissionLoad()> unread);
  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const Facts facts_;
  const std::function<std::vector<std::string>()> recipe_names_;
  const std::function<EngineLoad()> load_;
  const std::function<AdmissionLoad()> unread_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_OBSERVATION_METRICS_H_
