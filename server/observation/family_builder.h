// A family of Prometheus' samples that are computed when they are asked for.

#ifndef SWAA_SERVER_OBSERVATION_FAMILY_BUILDER_H_
#define SWAA_SERVER_OBSERVATION_FAMILY_BUILDER_H_

#include <string>
#include <utility>
#include <vector>

#include <prometheus/metric_family.h>

namespace swaa::server {

// One family of gauges or counters under construction.
class FamilyBuilder {
 public:
  FamilyBuilder(const std::string& name, const std::string& help,
                prometheus::MetricType type = prometheus::MetricType::Gauge) {
    family_.name = name;
    family_.help = help;
    family_.type = type;
  }
  FamilyBuilder& Add(double value, std::vector<prometheus::ClientMetric::Label> labels = {}) {
    prometheus::ClientMetric metric;
    if (family_.type == prometheus::MetricType::Counter) {
      metric.counter.value = value;
    } else {
      metric.gauge.value = value;
    }
    metric.label = std::move(labels);
    family_.metric.push_back(std::move(metric));
    return *this;
  }
  prometheus::MetricFamily Take() { return std::move(family_); }

 private:
  prometheus::MetricFamily family_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_OBSERVATION_FAMILY_BUILDER_H_
