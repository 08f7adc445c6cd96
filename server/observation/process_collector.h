// What the process takes of the machine, and who is connected.

#ifndef SWAA_SERVER_OBSERVATION_PROCESS_COLLECTOR_H_
#define SWAA_SERVER_OBSERVATION_PROCESS_COLLECTOR_H_

#include <cstdint>
#include <functional>
#include <vector>

#include <prometheus/collectable.h>

namespace swaa::server {

// Read from /proc when Prometheus scrapes, under the names that Prometheus' own clients use.
class ProcessCollector : public prometheus::Collectable {
 public:
  struct Connections {
    int64_t accepted = 0;
    int64_t refused = 0;
    int64_t open = 0;
    int64_t cut_off = 0;
  };

  // `connections` is called from the exposer's threads.
  explicit ProcessCollector(std::function<Connections()> connections)
      : connections_(std::move(connections)) {}
  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const std::function<Connections()> connections_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_OBSERVATION_PROCESS_COLLECTOR_H_
