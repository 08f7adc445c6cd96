// The gauges of the device against what it tells.

#include "server/observation/device_collector.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

namespace swaa::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string Page(const DeviceCollector& collector) {
  return prometheus::TextSerializer().Serialize(collector.Collect());
}

TEST(DeviceCollectorTest, MemoryIsAskedWhenScraped) {
  kernels::MemoryUse use{.weights = 7, .kv = 200, .workspace = 30, .free = 4000};
  const DeviceCollector collector([&] { return use; }, [] { return kernels::DeviceFacts{}; });
  for (const char* line : {"swaa_device_memory_bytes{kind=\"weights\"} 7\n",
                           "swaa_device_memory_bytes{kind=\"kv\"} 200\n",
                           "swaa_device_memory_bytes{kind=\"workspace\"} 30\n",
                           "swaa_device_memory_bytes{kind=\"free\"} 4000\n"}) {
    EXPECT_THAT(Page(collector), HasSubstr(line));
  }
  use.free = 3000;
  EXPECT_THAT(Page(collector), HasSubstr("swaa_device_memory_bytes{kind=\"free\"} 3000\n"));
}

TEST(DeviceCollectorTest, FactsThatAreNotKnownHaveNoFamily) {
  kernels::DeviceFacts facts;
  const DeviceCollector collector([] { return kernels::MemoryUse{}; }, [&] { return facts; });
  for (const char* name : {"clock", "power", "temperature"}) {
    EXPECT_THAT(Page(collector), Not(HasSubstr(name)));
  }
  facts = {.clock_hertz = 1.755e9, .temperature_celsius = 61};
  EXPECT_THAT(Page(collector), HasSubstr("\nswaa_device_clock_hertz 1755000000\n"));
  EXPECT_THAT(Page(collector), HasSubstr("\nswaa_device_temperature_celsius 61\n"));
  EXPECT_THAT(Page(collector), Not(HasSubstr("power")));
  facts.power_watts = 349.5;
  EXPECT_THAT(Page(collector), HasSubstr("\nswaa_device_power_watts 349.5\n"));
}

}  // namespace
}  // namespace swaa::server
