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
  const DeviceCollector collector(
      1, [&](int32_t) { return use; }, [](int32_t) { return kernels::DeviceFacts{}; });
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
  const DeviceCollector collector(
      1, [](int32_t) { return kernels::MemoryUse{}; }, [&](int32_t) { return facts; });
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

TEST(DeviceCollectorTest, EachOfSeveralRanksHasSamplesOfItsOwn) {
  const DeviceCollector collector(
      2, [](int32_t rank) { return kernels::MemoryUse{.weights = 7 + rank}; },
      [](int32_t rank) {
        return rank == 0 ? kernels::DeviceFacts{} : kernels::DeviceFacts{.power_watts = 300};
      });
  const std::string page = Page(collector);
  EXPECT_THAT(page, HasSubstr("swaa_device_memory_bytes{kind=\"weights\",rank=\"0\"} 7\n"));
  EXPECT_THAT(page, HasSubstr("swaa_device_memory_bytes{kind=\"weights\",rank=\"1\"} 8\n"));
  EXPECT_THAT(page, HasSubstr("swaa_device_power_watts{rank=\"1\"} 300\n"));
  EXPECT_THAT(page, Not(HasSubstr("swaa_device_power_watts{rank=\"0\"}")));
}

}  // namespace
}  // namespace swaa::server
