// What a device tells of itself: counted memory, throttled readings, the driver's facts.

#include "kernels/device_state.h"

#include <chrono>
#include <cstdlib>
#include <dlfcn.h>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cuda/nvml.h"
#include "kernels/cuda/throttled.h"

namespace swaa::kernels {
namespace {

using cuda::Nvml;
using cuda::Throttled;

TEST(MemoryCounterTest, AddsUpByKindFromAnyThread) {
  MemoryCounter counter;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        for (int j = 0; j < 1000; ++j) {
          counter.Add(MemoryKind::kWeights, 1);
          counter.Add(MemoryKind::kKv, int64_t{1} << 32);
          counter.Add(MemoryKind::kWorkspace, 3);
        }
      });
    }
  }
  const MemoryUse use = counter.Use(/*free=*/77);
  EXPECT_EQ(use.weights, 4000);
  EXPECT_EQ(use.kv, int64_t{4000} << 32);
  EXPECT_EQ(use.workspace, 12000);
  EXPECT_EQ(use.free, 77);
}

TEST(ThrottledTest, ReadsOnceAPeriod) {
  int readings = 0;
  const Throttled<int> hourly(std::chrono::hours(1), [&] { return ++readings; });
  EXPECT_EQ(readings, 0);
  EXPECT_EQ(hourly.Get(), 1);
  EXPECT_EQ(hourly.Get(), 1);
  const Throttled<int> unthrottled({}, [&] { return ++readings; });
  EXPECT_EQ(unthrottled.Get(), 2);
  EXPECT_EQ(unthrottled.Get(), 3);
}

TEST(NvmlTest, TellsOfTheCardAtTheAddress) {
  const auto nvml = Nvml::Open(FAKE_NVML, "0000:3b:00.0");
  ASSERT_NE(nvml, nullptr);
  const DeviceFacts facts = nvml->Read();
  EXPECT_EQ(facts.name, "Card A");
  EXPECT_EQ(facts.count, 2);
  EXPECT_EQ(facts.clock_hertz, 1755e6);
  EXPECT_DOUBLE_EQ(facts.power_watts.value(), 349.5);
  EXPECT_DOUBLE_EQ(facts.power_limit_watts.value(), 700);
  EXPECT_EQ(facts.temperature_celsius, 61);
}

TEST(NvmlTest, WhatTheCardDoesNotTellIsAbsent) {
  const auto nvml = Nvml::Open(FAKE_NVML, "0000:5e:00.0");
  ASSERT_NE(nvml, nullptr);
  const DeviceFacts facts = nvml->Read();
  EXPECT_EQ(facts.name, "Card B");
  EXPECT_FALSE(facts.clock_hertz || facts.power_watts || facts.power_limit_watts ||
               facts.temperature_celsius);
}

TEST(NvmlTest, NothingWithoutALibraryThatStartsAndKnowsTheCard) {
  EXPECT_EQ(Nvml::Open("libno-such-library.so.1", "0000:3b:00.0"), nullptr);
  EXPECT_EQ(Nvml::Open("libm.so.6", "0000:3b:00.0"), nullptr);  // a library of something else
  EXPECT_EQ(Nvml::Open(FAKE_NVML, "0000:00:00.0"), nullptr);
  setenv("FAKE_NVML_BROKEN", "1", 1);
  EXPECT_EQ(Nvml::Open(FAKE_NVML, "0000:3b:00.0"), nullptr);
  unsetenv("FAKE_NVML_BROKEN");
}

TEST(NvmlTest, ShutsDownWhatItStarted) {
  void* library = dlopen(FAKE_NVML, RTLD_NOW);
  ASSERT_NE(library, nullptr) << dlerror();
  const auto users = reinterpret_cast<int (*)()>(dlsym(library, "FakeNvmlUsers"));
  ASSERT_NE(users, nullptr);
  {
    const auto nvml = Nvml::Open(FAKE_NVML, "0000:3b:00.0");
    EXPECT_EQ(users(), 1);
  }
  EXPECT_EQ(Nvml::Open(FAKE_NVML, "0000:00:00.0"), nullptr);  // started, then card unknown
  EXPECT_EQ(users(), 0);
  dlclose(library);
}

}  // namespace
}  // namespace swaa::kernels
