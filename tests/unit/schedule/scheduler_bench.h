// A scheduler with a hashing device, and the loop between them, as the scheduler's tests run it.

#ifndef SWAA_TESTS_UNIT_SCHEDULE_SCHEDULER_BENCH_H_
#define SWAA_TESTS_UNIT_SCHEDULE_SCHEDULER_BENCH_H_

#include <memory>
#include <optional>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "engine/schedule/scheduler.h"
#include "tests/unit/testing/fake_device.h"
#include "tests/unit/testing/recording_sink.h"

namespace swaa {

inline constexpr int32_t kLayers = 3;
inline constexpr int32_t kContext = 2048;

// `depth`: steps in flight.
inline DeviceInfo Info(int32_t pages, int32_t depth, int32_t slots = 32) {
  return {.num_layers = kLayers,
          .num_pages = pages + 1,
          .page_bytes = 100,
          .num_slots = slots,
          .max_pages_per_layer = kContext / 64,
          .max_step_tokens = 512,
          .max_steps_in_flight = depth};
}

inline Recipe FullAttention() {
  return {.layer_full = std::vector<bool>(kLayers), .decode_full = std::vector<bool>(kLayers)};
}

inline std::vector<int32_t> RandomTokens(std::mt19937* random, size_t count) {
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>((*random)() % 256);
  return tokens;
}

struct Case {
  GenerationRequest request;
  std::shared_ptr<testing::RecordingSink> sink = std::make_shared<testing::RecordingSink>();
  std::vector<int32_t> expected;
};

// A scheduler, its device, and the loop between them.
struct Bench {
  Bench(DeviceInfo info, SchedulerOptions options_in)
      : tokenizer(testing::MakeByteTokenizer()),
        device(info),
        options(options_in),
        scheduler(options_in, info, tokenizer.get()) {}

  absl::Status Add(const Case& c, SteadyTime now = SteadyClock::now()) {
    const absl::StatusOr<int32_t> most = MaxOutputTokens(c.request, options, device.info());
    if (!most.ok()) return most.status();
    scheduler.Add(c.request, c.sink, *most, now);
    return absl::OkStatus();
  }

  // As the engine does it: submits as many steps as the device takes, commits the oldest.
  void Step() {
    while (scheduler.steps_in_flight() < device.info().max_steps_in_flight) {
      std::optional<swaa::Step> step = scheduler.NextStep(SteadyClock::now());
      if (!step.has_value()) break;
      device.Submit(*std::move(step));
    }
    if (scheduler.steps_in_flight() == 0) return;
    if (looks_ahead) scheduler.LookAhead();
    last_step = scheduler.Commit(device.Collect(), SteadyClock::now());
    PoisonFreePages();
  }

  // What nobody holds may be read neither by a step in flight nor by a later one.
  void PoisonFreePages() {
    const PagePool& pool = scheduler.pool();
    for (int32_t page = 1; page <= pool.total_pages(); ++page) {
      if (pool.references(page) == 0 && !pool.registered(page)) device.Poison(page);
    }
  }

  bool done() const { return scheduler.idle() && scheduler.steps_in_flight() == 0; }

  void RunToEnd() {
    for (int i = 0; i < 100000 && !done(); ++i) Step();
    ASSERT_TRUE(done());
    ExpectNothingHeld();
  }

  void ExpectNothingHeld() const {
    const EngineLoad load = scheduler.Load();
    EXPECT_EQ(load.used_pages, 0);
    EXPECT_EQ(load.running, 0);
    EXPECT_TRUE(load.recipes.empty());
  }

  std::unique_ptr<Tokenizer> tokenizer;
  testing::FakeDevice device;
  SchedulerOptions options;
  Scheduler scheduler;
  Scheduler::CommittedStep last_step;
  bool looks_ahead = true;
};

}  // namespace swaa

#endif  // SWAA_TESTS_UNIT_SCHEDULE_SCHEDULER_BENCH_H_
