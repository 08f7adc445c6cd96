// The counters of adapters that come and go.

#include "server/observation/adapter_collector.h"

#include "server/observation/family_builder.h"

namespace swaa::server {

std::vector<prometheus::MetricFamily> AdapterCollector::Collect() const {
  const AdapterRegistry::Counts counts = registry_->counts();
  return {
      FamilyBuilder("swaa_lora_loads_total",
                    "Times that an adapter was to be read into memory, by what became of it.",
                    prometheus::MetricType::Counter)
          .Add(static_cast<double>(counts.loads), {{"result", "ok"}})
          .Add(static_cast<double>(counts.failed_loads), {{"result", "failed"}})
          .Take(),
      FamilyBuilder("swaa_lora_evictions_total",
                    "Times that an adapter left the memory to make room for another.",
                    prometheus::MetricType::Counter)
          .Add(static_cast<double>(counts.evictions))
          .Take(),
      FamilyBuilder("swaa_loras_resident", "Adapters whose weights are in memory.")
          .Add(registry_->resident())
          .Take(),
  };
}

}  // namespace swaa::server
