// The model of a step's time: it finds what made the time, and says how far it can be trusted.

#include "engine/schedule/step_time_model.h"

#include <random>

#include <gtest/gtest.h>

#include "tests/unit/testing/seed.h"

namespace swaa {
namespace {

struct Costs {
  double overhead = 0.004;
  double prefill_token = 3e-6;
  double decode_token = 2e-5;
  double prefill_key = 4e-11;
  double decode_key = 9e-11;

  double Of(const StepWork& work) const {
    return prefill_token * static_cast<double>(work.prefill_tokens) +
           decode_token * static_cast<double>(work.decode_tokens) +
           prefill_key * static_cast<double>(work.prefill_keys) +
           decode_key * static_cast<double>(work.decode_keys);
  }
};

// A step that prefills, decodes, or both, in turn.
StepWork RandomStep(std::mt19937* random, int kind) {
  const auto upto = [&](int64_t most) {
    return static_cast<int64_t>((*random)() % static_cast<uint32_t>(most)) + 1;
  };
  StepWork work;
  if (kind != 1) {
    work.prefill_tokens = upto(4096);
    work.prefill_keys = work.prefill_tokens * upto(60'000) * 36;
  }
  if (kind != 0) {
    work.decode_tokens = upto(64);
    work.decode_keys = work.decode_tokens * upto(60'000) * 36;
  }
  return work;
}

TEST(StepTimeModel, FindsWhatMadeTheTime) {
  const uint32_t seed = testing::Seed();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  std::normal_distribution<double> noise(1, 0.03);
  const Costs costs;
  StepTimeModel model;
  double durations = 0;
  double attributed = 0;
  for (int i = 0; i < 6000; ++i) {
    const StepWork step = RandomStep(&random, i % 3);
    const double seconds = (costs.overhead + costs.Of(step)) * noise(random);
    if (i >= 3000) {
      durations += seconds;
      attributed += *model.Cost(step, step) + costs.overhead;
    }
    model.Observe(step, seconds);
  }
  EXPECT_NEAR(attributed / durations, 1, 0.01);
  const StepTimeModel::Quality quality = model.quality();
  EXPECT_NEAR(quality.closure_ratio, 1, 0.01);
  EXPECT_NEAR(quality.error_ratio, 0.03 * 0.8, 0.01) << "the mean of |N(0, 0.03)|";
  EXPECT_EQ(quality.steps, 6000 - 3 * 32);
  for (int kind = 0; kind < 3; ++kind) {
    const StepWork step = RandomStep(&random, kind);
    for (const StepWork& part : {StepWork{.prefill_tokens = 2000, .prefill_keys = 2'000'000'000},
                                 StepWork{.decode_tokens = 40, .decode_keys = 100'000'000}}) {
      const bool in_kind = part.decode_tokens > 0 ? kind != 0 : kind != 1;
      if (!in_kind) continue;
      EXPECT_NEAR(*model.Cost(step, part) / costs.Of(part), 1, kind == 2 ? 0.2 : 0.05) << kind;
    }
  }
}

TEST(StepTimeModel, KnowsNothingOfStepsThatItHasNotSeen) {
  StepTimeModel model;
  const StepWork decode{.decode_tokens = 1, .decode_keys = 100};
  for (int i = 0; i < 31; ++i) model.Observe(decode, 0.01);
  EXPECT_FALSE(model.Cost(decode, decode).has_value());
  model.Observe(decode, 0.01);
  ASSERT_TRUE(model.Cost(decode, decode).has_value());
  // Steps that are all alike tell no overhead apart.
  EXPECT_NEAR(*model.Cost(decode, decode), 0.01, 1e-9);
  const StepWork prefill{.prefill_tokens = 64, .prefill_keys = 100};
  EXPECT_FALSE(model.Cost(prefill, prefill).has_value());
}

// More keys never cost less, whatever the noise says.
TEST(StepTimeModel, HasNoNegativeCosts) {
  const uint32_t seed = testing::Seed();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  StepTimeModel model;
  for (int i = 0; i < 400; ++i) {
    const StepWork step = RandomStep(&random, 2);
    const double keys = static_cast<double>(step.prefill_keys) * 1e-12;
    model.Observe(step, std::max(1e-4, 0.02 - keys));
  }
  const StepWork step = RandomStep(&random, 2);
  EXPECT_EQ(*model.Cost(step, {.prefill_keys = 1'000'000'000}), 0);
}

// Noise in a narrow range of work makes slopes that are far off where the work is ten times as
// much.
TEST(StepTimeModel, LearnsLongPromptsSoonAfterShortOnes) {
  const uint32_t seed = testing::Seed();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  std::normal_distribution<double> noise(1, 0.05);
  const Costs costs;
  StepTimeModel model;
  const auto run = [&](int steps, int64_t least_keys) {
    for (int i = 0; i < steps; ++i) {
      StepWork step{.decode_tokens = 1 + static_cast<int64_t>(random() % 8)};
      step.decode_keys = step.decode_tokens * (least_keys + static_cast<int64_t>(random() % 1000));
      model.Observe(step, (costs.overhead + costs.Of(step)) * noise(random));
    }
  };
  run(2000, 0);
  run(8, 2'000'000);
  const StepWork step{.decode_tokens = 4, .decode_keys = 8'000'000};
  EXPECT_NEAR((*model.Cost(step, step) + costs.overhead) / (costs.Of(step) + costs.overhead), 1,
              0.1);
}

TEST(StepTimeModel, FollowsADeviceThatChanges) {
  const uint32_t seed = testing::Seed();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  StepTimeModel model;
  Costs costs;
  const auto run = [&](int steps) {
    for (int i = 0; i < steps; ++i) {
      const StepWork step = RandomStep(&random, 0);
      model.Observe(step, costs.overhead + costs.Of(step));
    }
  };
  run(2000);
  EXPECT_LT(model.quality().error_ratio, 1e-6);
  costs.prefill_key *= 2;
  run(100);
  EXPECT_GT(model.quality().error_ratio, 0.001) << "it says when it is wrong";
  run(60'000);
  const StepWork part{.prefill_keys = 1'000'000'000};
  EXPECT_NEAR(*model.Cost(RandomStep(&random, 0), part) / costs.Of(part), 1, 0.05);
}

}  // namespace
}  // namespace swaa
