// Server room: the gauges of what the server holds right now.

#include <utility>

#include "server/metrics.h"

namespace swaa::server {
namespace {

// One gauge family under construction.
class GaugeBuilder {
 public:
  GaugeBuilder(const std::string& name, const std::string& help) {
    family_.name = name;
    family_.help = help;
    family_.type = prometheus::MetricType::Gauge;
  }
  GaugeBuilder& Add(double value, std::vector<prometheus::ClientMetric::Label> labels = {}) {
    prometheus::ClientMetric metric;
    metric.gauge.value = value;
    metric.label = std::move(labels);
    family_.metric.push_back(std::move(metric));
    return *this;
  }
  prometheus::MetricFamily Take() { return std::move(family_); }

 private:
  prometheus::MetricFamily family_;
};

}  // namespace

LoadCollector::LoadCollector(Facts facts, std::function<EngineLoad()> load)
    : facts_(std::move(facts)), load_(std::move(load)) {}

std::vector<prometheus::MetricFamily> LoadCollector::Collect() const {
  const EngineLoad load = load_();
  const double capacity = static_cast<double>(load.total_pages * facts_.page_bytes);
  const double usage = load.total_pages == 0 ? 0
                                             : static_cast<double>(load.used_pages) /
                                                   static_cast<double>(load.total_pages);
  GaugeBuilder kv("swaa_kv_cache_bytes", "Bytes of keys and values held, by recipe.");
  GaugeBuilder full("swaa_kv_cache_full_equivalent_bytes",
                    "What the same requests would hold under full attention.");
  for (const std::string& label : facts_.recipe_labels) {
    auto found = load.recipes.find(label);
    const RecipeLoad recipe = found == load.recipes.end() ? RecipeLoad{} : found->second;
    kv.Add(static_cast<double>(recipe.kv_bytes), {{"recipe", label}});
    full.Add(static_cast<double>(recipe.full_attention_kv_bytes), {{"recipe", label}});
  }
  return {
      GaugeBuilder("swaa_requests_running", "Requests in the engine.").Add(load.running).Take(),
      GaugeBuilder("swaa_requests_waiting", "Requests in the queue.").Add(load.queued).Take(),
      GaugeBuilder("swaa_kv_cache_usage_ratio", "Pages in use of all, evictable ones left out.")
          .Add(usage)
          .Take(),
      GaugeBuilder("swaa_kv_cache_capacity_bytes", "Bytes of the page pool.").Add(capacity).Take(),
      kv.Take(),
      full.Take(),
      GaugeBuilder("swaa_device_memory_bytes", "Device memory, by what it is for.")
          .Add(static_cast<double>(facts_.weight_bytes), {{"kind", "weights"}})
          .Add(capacity, {{"kind", "kv_cache"}})
          .Take(),
  };
}

}  // namespace swaa::server
