// The gauges of what the server computes on.

#include "server/observation/device_collector.h"

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "server/observation/family_builder.h"

namespace swaa::server {

DeviceCollector::DeviceCollector(int32_t ranks, std::function<kernels::MemoryUse(int32_t)> memory,
                                 std::function<kernels::DeviceFacts(int32_t)> facts)
    : ranks_(ranks), memory_(std::move(memory)), facts_(std::move(facts)) {}

std::vector<prometheus::MetricFamily> DeviceCollector::Collect() const {
  FamilyBuilder memory("swaa_device_memory_bytes", "Device memory, by what it is for.");
  FamilyBuilder clock("swaa_device_clock_hertz", "Clock of the card's multiprocessors.");
  FamilyBuilder power("swaa_device_power_watts", "Power that the card draws.");
  FamilyBuilder temperature("swaa_device_temperature_celsius", "Temperature of the card.");
  for (int32_t rank = 0; rank < ranks_; ++rank) {
    std::vector<prometheus::ClientMetric::Label> labels;
    if (ranks_ > 1) labels.push_back({"rank", std::to_string(rank)});
    const kernels::MemoryUse use = memory_(rank);
    for (const auto& [kind, bytes] : {std::pair<const char*, int64_t>{"weights", use.weights},
                                      {"kv", use.kv},
                                      {"workspace", use.workspace},
                                      {"free", use.free}}) {
      std::vector<prometheus::ClientMetric::Label> with_kind = {{"kind", kind}};
      with_kind.insert(with_kind.end(), labels.begin(), labels.end());
      memory.Add(static_cast<double>(bytes), std::move(with_kind));
    }
    const kernels::DeviceFacts facts = facts_(rank);
    const auto add = [&labels](FamilyBuilder& family, const std::optional<double>& value) {
      if (value.has_value()) family.Add(*value, labels);
    };
    add(clock, facts.clock_hertz);
    add(power, facts.power_watts);
    add(temperature, facts.temperature_celsius);
  }
  std::vector<prometheus::MetricFamily> families = {memory.Take()};
  // An absent fact is an absent family: zero would be a reading.
  for (FamilyBuilder* family : {&clock, &power, &temperature}) {
    prometheus::MetricFamily taken = family->Take();
    if (!taken.metric.empty()) families.push_back(std::move(taken));
  }
  return families;
}

}  // namespace swaa::server
