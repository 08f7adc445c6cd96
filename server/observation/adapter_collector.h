// The counters of adapters that come and go.

#ifndef SWAA_SERVER_OBSERVATION_ADAPTER_COLLECTOR_H_
#define SWAA_SERVER_OBSERVATION_ADAPTER_COLLECTOR_H_

#include <vector>

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include "server/adapters/adapter_registry.h"

namespace swaa::server {

// Thread-safe.
class AdapterCollector : public prometheus::Collectable {
 public:
  // The registry outlives it.
  explicit AdapterCollector(const AdapterRegistry* registry) : registry_(registry) {}
  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const AdapterRegistry* const registry_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_OBSERVATION_ADAPTER_COLLECTOR_H_
