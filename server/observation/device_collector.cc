// The gauges of what the server computes on.

#include "server/observation/device_collector.h"

#include <cstdint>
#include <optional>
#include <utility>

#include "server/observation/family_builder.h"

namespace swaa::server {

DeviceCollector::DeviceCollector(std::function<kernels::MemoryUse()> memory,
                                 std::function<kernels::DeviceFacts()> facts)
    : memory_(std::move(memory)), facts_(std::move(facts)) {}

std::vector<prometheus::MetricFamily> DeviceCollector::Collect() const {
  const kernels::MemoryUse use = memory_();
  const kernels::DeviceFacts facts = facts_();
  FamilyBuilder memory("swaa_device_memory_bytes", "Device memory, by what it is for.");
  for (const auto& [kind, bytes] : {std::pair<const char*, int64_t>{"weights", use.weights},
                                    {"kv", use.kv},
                                    {"workspace", use.workspace},
                                    {"free", use.free}}) {
    memory.Add(static_cast<double>(bytes), {{"kind", kind}});
  }
  std::vector<prometheus::MetricFamily> families = {memory.Take()};
  // An absent fact is an absent family: zero would be a reading.
  const auto add = [&](const char* name, const char* help, const std::optional<double>& value) {
    if (value.has_value()) families.push_back(FamilyBuilder(name, help).Add(*value).Take());
  };
  add("swaa_device_clock_hertz", "Clock of the card's multiprocessors.", facts.clock_hertz);
  add("swaa_device_power_watts", "Power that the card draws.", facts.power_watts);
  add("swaa_device_temperature_celsius", "Temperature of the card.", facts.temperature_celsius);
  return families;
}

}  // namespace swaa::server
