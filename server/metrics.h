// Server room: what Prometheus sees. Names and labels are a contract with dashboards and rules.

#ifndef SWAA_SERVER_METRICS_H_
#define SWAA_SERVER_METRICS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include "engine/engine.h"
#include "server/recipe_catalog.h"
#include "server/request_log.h"

namespace swaa::server {

// "le_2k" ... "gt_128k".
std::string PromptLengthClass(int64_t prompt_tokens);

// Counters and histograms of everything that has happened. Thread-safe. The label `recipe` is a
// registered name or "custom"; "none", in swaa_requests_total alone, for requests refused before
// their recipe was known.
class Metrics {
 public:
  Metrics(const RecipeCatalog& recipes, const std::string& version, const std::string& model_name,
          const std::string& backend);

  // From the engine thread.
  void OnStep(const StepRecord& step);
  // Time between two sendings of tokens to one stream.
  void OnInterTokenLatency(const std::string& recipe_label, absl::Duration latency);
  void OnRequestEnd(const RequestRecord& record);

  const std::shared_ptr<prometheus::Registry>& registry() const { return registry_; }

 private:
  // The series of one recipe label.
  struct RecipeSeries {
    prometheus::Histogram* inter_token = nullptr;
    prometheus::Histogram* duration = nullptr;
    prometheus::Histogram* queue = nullptr;
    prometheus::Histogram* prefill = nullptr;
    prometheus::Histogram* decode = nullptr;
    prometheus::Histogram* speedup_counted = nullptr;
    prometheus::Counter* prompt_computed = nullptr;
    prometheus::Counter* prompt_cached = nullptr;
    prometheus::Counter* generated = nullptr;
    prometheus::Counter* attended = nullptr;
    prometheus::Counter* attended_full = nullptr;
  };

  RecipeSeries MakeSeries(const std::string& label);
  void AddRecipeInfo(const std::string& label, const Recipe& recipe);
  void CountTokens(const RequestRecord& record, const RecipeSeries& series);
  void ObserveTimes(const RequestRecord& record, const RecipeSeries& series);

  std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Family<prometheus::Counter>* requests_;
  prometheus::Family<prometheus::Counter>* rejected_;
  prometheus::Family<prometheus::Histogram>* time_to_first_token_;
  prometheus::Counter* preemptions_;
  prometheus::Histogram* batch_tokens_;
  std::map<std::string, prometheus::Histogram*> step_duration_;  // by phase
  std::map<std::string, RecipeSeries> series_;                   // by label; fixed when made
};

// What the server holds right now, asked of the engine when Prometheus scrapes, so that it is never
// stale.
class LoadCollector : public prometheus::Collectable {
 public:
  struct Facts {
    std::vector<std::string> recipe_labels;
    int64_t page_bytes = 0;
    int64_t weight_bytes = 0;
  };

  // `load` is called from the exposer's threads.
  LoadCollector(Facts facts, std::function<EngineLoad()> load);
  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const Facts facts_;
  const std::function<EngineLoad()> load_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_METRICS_H_
