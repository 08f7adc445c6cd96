// Tests: what a slot remembers, and that nothing else decides its draws.

#include "kernels/cpu/sampler.h"

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cpu/draw_token.h"

namespace swaa::kernels::cpu {
namespace {

constexpr int32_t kVocab = 300;

std::vector<float> RandomLogits(std::mt19937& random, size_t count) {
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

std::shared_ptr<const SamplingParams> Params(SamplingParams params) {
  return std::make_shared<const SamplingParams>(std::move(params));
}

std::shared_ptr<const std::vector<int32_t>> Prompt(std::vector<int32_t> prompt) {
  return std::make_shared<const std::vector<int32_t>>(std::move(prompt));
}

ScoredToken SampleOne(CpuSampler& sampler, const std::vector<float>& logits, LogitsRow row) {
  std::vector<ScoredToken> results(1);
  sampler.Sample(logits.data(), {&row, 1}, results);
  return results[0];
}

// A slot that drew n tokens draws the next as one does that was set up with them: what preemption
// rests on.
TEST(CpuSamplerTest, ASlotSetUpAnewWithItsOutputGoesOnAlike) {
  for (uint32_t seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    const SamplingParams params{.temperature = 0.8f,
                                .frequency_penalty = 0.5f,
                                .presence_penalty = 0.3f,
                                .repetition_penalty = 1.2f,
                                .seed = seed};
    SlotSetup setup{.slot = 1,
                    .sampling = Params(params),
                    .prompt = Prompt(std::vector<int32_t>{3, 5, 5, 299}),
                    .output = {7, 3}};
    CpuSampler through(3, kVocab), anew(3, kVocab);
    through.SetUp({&setup, 1});
    for (uint32_t t = 2; t < 40; ++t) {
      const std::vector<float> logits = RandomLogits(random, kVocab);
      const LogitsRow row{.slot = 1, .output_index = t};
      anew.SetUp({&setup, 1});
      EXPECT_EQ(anew.drawn(1), -1);
      const int32_t token = SampleOne(through, logits, row).token;
      EXPECT_EQ(SampleOne(anew, logits, row).token, token);
      EXPECT_EQ(through.drawn(1), token);
      const SlotHistory history(kVocab, *setup.prompt, setup.output);
      EXPECT_EQ(DrawToken(logits, params, {.output_index = t, .history = &history}), token);
      setup.output.push_back(token);
    }
  }
}

TEST(CpuSamplerTest, RowsOfACallBelongToTheirSlots) {
  std::mt19937 random(3);
  constexpr int32_t kSlots = 8;
  CpuSampler sampler(kSlots, kVocab);
  std::vector<SlotSetup> setups;
  std::vector<LogitsRow> rows;
  for (int32_t slot = 0; slot < kSlots; ++slot) {
    setups.push_back({.slot = slot, .sampling = Params({.seed = static_cast<uint64_t>(slot)})});
    rows.push_back({.row = slot, .slot = kSlots - 1 - slot, .output_index = 5});
  }
  sampler.SetUp(setups);
  const std::vector<float> logits = RandomLogits(random, kSlots * kVocab);
  std::vector<ScoredToken> results(kSlots);
  sampler.Sample(logits.data(), rows, results);
  for (int32_t i = 0; i < kSlots; ++i) {
    const std::span<const float> own(logits.data() + i * kVocab, kVocab);
    const SamplingParams params{.seed = static_cast<uint64_t>(kSlots - 1 - i)};
    EXPECT_EQ(results[i].token, DrawToken(own, params, {.output_index = 5}));
    EXPECT_EQ(sampler.drawn(rows[i].slot), results[i].token);
    EXPECT_TRUE(results[i].top.empty());
  }
}

TEST(CpuSamplerTest, KnownTokensAreScoredAndChangeNothing) {
  std::mt19937 random(4);
  CpuSampler sampler(1, kVocab);
  const SlotSetup setup{.sampling = Params({.temperature = 0, .frequency_penalty = 2}),
                        .prompt = Prompt(std::vector<int32_t>{})};
  sampler.SetUp({&setup, 1});
  const std::vector<float> logits = RandomLogits(random, kVocab);
  const ScoredToken best = SampleOne(sampler, logits, {.known_token = 17, .alternatives = 3});
  EXPECT_EQ(best.token, 17);
  EXPECT_EQ(best.logprob, ScoreToken(logits, 17, 0).logprob);
  ASSERT_EQ(best.top.size(), 3u);
  EXPECT_EQ(sampler.drawn(0), -1);
  const LogitsRow known{.known_token = best.top[0].first};
  EXPECT_EQ(SampleOne(sampler, logits, known).token, best.top[0].first);
  EXPECT_EQ(SampleOne(sampler, logits, {}).token, best.top[0].first);
}

TEST(CpuSamplerTest, ForbiddenTokensAreForbiddenOnlyWhereTheRowSaysSo) {
  CpuSampler sampler(1, 4);
  const SlotSetup setup{.sampling = Params({.temperature = 0}), .forbidden = {2, 3}};
  sampler.SetUp({&setup, 1});
  const std::vector<float> logits = {0, 1, 2, 3};
  EXPECT_EQ(SampleOne(sampler, logits, {.forbid = true}).token, 1);
  EXPECT_EQ(SampleOne(sampler, logits, {}).token, 3);
}

// A request leaves nothing behind for the next one in its slot.
TEST(CpuSamplerTest, ANewRequestForgetsTheFormer) {
  CpuSampler sampler(1, 4);
  const SlotSetup penalised{.sampling = Params({.temperature = 0, .repetition_penalty = 2}),
                            .prompt = Prompt(std::vector<int32_t>{3}),
                            .forbidden = {2}};
  const std::vector<float> logits = {0, 1, 2, 2.5f};
  sampler.SetUp({&penalised, 1});
  EXPECT_EQ(SampleOne(sampler, logits, {.forbid = true}).token, 3);  // 1.25 against 1
  EXPECT_EQ(SampleOne(sampler, logits, {}).token, 2);
  const SlotSetup plain{.sampling = Params({.temperature = 0})};
  sampler.SetUp({&plain, 1});
  EXPECT_EQ(SampleOne(sampler, logits, {.forbid = true}).token, 3);
}

}  // namespace
}  // namespace swaa::kernels::cpu
