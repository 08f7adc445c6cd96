// Tests: draws and log-probabilities against a naive sampler in double precision.

#include "kernels/cpu/draw_token.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/sampling_math.h"

namespace swaa::kernels::cpu {
namespace {

std::vector<float> RandomLogits(std::mt19937& random, size_t vocab, float spread) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(vocab);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// Probabilities after bias, penalties, temperature, top-k, top-p and min-p, by the definitions.
std::vector<double> NaiveProbabilities(const std::vector<float>& logits,
                                       const SamplingParams& params,
                                       const std::vector<int32_t>& prompt,
                                       const std::vector<int32_t>& output,
                                       const std::vector<int32_t>& forbidden) {
  std::vector<double> row(logits.begin(), logits.end());
  for (const auto& [token, bias] : params.logit_bias) row[token] += bias;
  std::set<int32_t> seen(prompt.begin(), prompt.end());
  seen.insert(output.begin(), output.end());
  for (const int32_t token : seen) {
    row[token] = row[token] > 0 ? row[token] / params.repetition_penalty
                                : row[token] * params.repetition_penalty;
  }
  std::map<int32_t, int> counts;
  for (const int32_t token : output) ++counts[token];
  for (const auto& [token, count] : counts) {
    row[token] -= double{params.frequency_penalty} * count + params.presence_penalty;
  }
  const auto is_forbidden = [&](size_t id) {
    return std::count(forbidden.begin(), forbidden.end(), id) > 0;
  };
  std::vector<size_t> ids;
  for (size_t id = 0; id < row.size(); ++id) {
    if (!is_forbidden(id)) ids.push_back(id);
  }
  std::stable_sort(ids.begin(), ids.end(), [&](size_t a, size_t b) { return row[a] > row[b]; });
  if (params.top_k != 0 && ids.size() > params.top_k) ids.resize(params.top_k);
  std::vector<double> weight;
  for (const size_t id : ids)
    weight.push_back(std::exp((row[id] - row[ids[0]]) / params.temperature));
  double total = std::accumulate(weight.begin(), weight.end(), 0.0);
  double passed = 0;
  size_t kept = 0;
  while (kept < ids.size() && (kept == 0 || passed < params.top_p * total))
    passed += weight[kept++];
  if (params.top_p == 1) kept = ids.size();
  while (weight[kept - 1] < params.min_p) --kept;
  total = std::accumulate(weight.begin(), weight.begin() + kept, 0.0);
  std::vector<double> probabilities(row.size(), 0);
  for (size_t i = 0; i < kept; ++i) probabilities[ids[i]] = weight[i] / total;
  return probabilities;
}

struct ChiSquare {
  double statistic = 0;
  int degrees = 0;  // of freedom
};

// Rare outcomes are pooled.
ChiSquare Compare(const std::vector<double>& probabilities, const std::vector<int>& counts,
                  int draws) {
  ChiSquare result{.degrees = -1};
  const auto add = [&](double expected, double count) {
    result.statistic += (count - expected) * (count - expected) / expected;
    ++result.degrees;
  };
  double pooled_expected = 0, pooled_count = 0;
  for (size_t i = 0; i < probabilities.size(); ++i) {
    const double expected = probabilities[i] * draws;
    if (expected >= 10) {
      add(expected, counts[i]);
    } else {
      pooled_expected += expected;
      pooled_count += counts[i];
    }
  }
  if (pooled_expected >= 5) add(pooled_expected, pooled_count);
  result.degrees = std::max(result.degrees, 0);
  return result;
}

TEST(DrawTokenTest, GreedyTakesTheSmallestIdAmongEquals) {
  SamplingParams greedy{.temperature = 0};
  for (uint32_t seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    std::vector<float> logits(1 + random() % 100);
    for (float& logit : logits) logit = static_cast<float>(random() % 5);
    const auto want = std::max_element(logits.begin(), logits.end()) - logits.begin();
    EXPECT_EQ(DrawToken(logits, greedy, {}), want) << "seed " << seed;
  }
}

TEST(DrawTokenTest, GreedyAfterBiasPenaltiesAndForbidden) {
  const std::vector<float> logits = {1.0f, 3.0f, 2.9f, -1.0f};
  SamplingParams params{.temperature = 0};
  EXPECT_EQ(DrawToken(logits, params, {}), 1);
  const std::vector<int32_t> forbidden = {1};
  EXPECT_EQ(DrawToken(logits, params, {.forbidden = forbidden}), 2);
  params.logit_bias = {{3, 10.0f}};
  EXPECT_EQ(DrawToken(logits, params, {}), 3);
  params.logit_bias = {{1, -100.0f}, {2, -100.0f}};
  EXPECT_EQ(DrawToken(logits, params, {}), 0);

  params = {.temperature = 0, .repetition_penalty = 1.1f};
  const std::vector<int32_t> twice = {1, 1}, once = {1};
  const SlotHistory in_prompt(4, twice, {}), in_output(4, {}, twice), once_in_output(4, {}, once);
  EXPECT_EQ(DrawToken(logits, params, {.history = &in_prompt}), 2);
  EXPECT_EQ(DrawToken(logits, params, {.history = &in_output}), 2);
  params = {.temperature = 0,
            .frequency_penalty = 0.06f};  // 0.06 once leaves token 1 first, twice not
  EXPECT_EQ(DrawToken(logits, params, {.history = &once_in_output}), 1);
  EXPECT_EQ(DrawToken(logits, params, {.history = &in_output}), 2);
  EXPECT_EQ(DrawToken(logits, params, {.history = &in_prompt}), 1);
  params = {.temperature = 0, .presence_penalty = 0.06f};
  EXPECT_EQ(DrawToken(logits, params, {.history = &in_output}), 1);
}

TEST(DrawTokenTest, RepetitionPenaltyPushesNegativeLogitsDown) {
  const std::vector<float> logits = {-1.0f, -1.5f};
  const std::vector<int32_t> prompt = {0};
  const SlotHistory history(2, prompt, {});
  const SamplingParams params{.temperature = 0, .repetition_penalty = 2};
  EXPECT_EQ(DrawToken(logits, params, {.history = &history}), 1);
}

TEST(DrawTokenTest, IsAFunctionOfSeedAndIndex) {
  std::mt19937 random(7);
  const std::vector<float> logits = RandomLogits(random, 500, 1);
  std::set<int32_t> by_index, by_seed;
  for (uint64_t t = 0; t < 50; ++t) {
    const SamplingParams params{.seed = 42};
    const int32_t token = DrawToken(logits, params, {.output_index = t});
    EXPECT_EQ(DrawToken(logits, params, {.output_index = t}), token);
    by_index.insert(token);
    by_seed.insert(DrawToken(logits, {.seed = t}, {.output_index = 0}));
  }
  EXPECT_GT(by_index.size(), 20u);
  EXPECT_GT(by_seed.size(), 20u);
}

// What the draw means, for another backend to repeat: written out once more, over every token and
// in the C library's double precision. Only where two scores are closer than the noise's rounding
// may they disagree.
TEST(DrawTokenTest, TakesTheLargestLogitPlusNoise) {
  std::mt19937 random(11);
  for (uint64_t t = 0; t < 300; ++t) {
    SCOPED_TRACE(testing::Message() << "t " << t);
    const size_t vocab = 1 + random() % 2000;
    const std::vector<float> logits = RandomLogits(random, vocab, static_cast<float>(random() % 5));
    const SamplingParams params{.temperature = 0.1f + 0.2f * static_cast<float>(random() % 10),
                                .seed = random()};
    const GumbelKey key = MakeGumbelKey(params.seed, t);
    const auto score = [&](size_t id) {
      const double w = (GumbelBits(key, static_cast<uint32_t>(id)) + 0.5) * 0x1.0p-32;
      return logits[id] / double{params.temperature} - std::log(-std::log1p(-w));
    };
    size_t want = 0;
    for (size_t id = 1; id < vocab; ++id) {
      if (score(id) > score(want)) want = id;
    }
    const int32_t got = DrawToken(logits, params, {.output_index = t});
    EXPECT_NEAR(score(got), score(want), 1e-5) << got << " " << want;
  }
}

// Why noise belongs to tokens: company changes the last bits of logits, and hardly any draw.
TEST(DrawTokenTest, RoundingOfLogitsHardlyEverChangesADraw) {
  constexpr int kDraws = 4000;
  std::mt19937 random(5);
  const std::vector<SamplingParams> all = {
      {}, {.temperature = 0.7f, .top_p = 0.9f, .top_k = 40}, {.top_p = 0.95f}, {.min_p = 0.05f}};
  for (size_t i = 0; i < all.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "params " << i);
    int same = 0;
    for (uint64_t t = 0; t < kDraws; ++t) {
      const std::vector<float> logits = RandomLogits(random, 1000, 3);
      std::vector<float> rounded = logits;
      std::uniform_real_distribution<float> error(-1e-3f, 1e-3f);
      for (float& logit : rounded) logit += error(random);
      const DrawContext context{.output_index = t};
      same += DrawToken(logits, all[i], context) == DrawToken(rounded, all[i], context);
    }
    EXPECT_GE(same, kDraws * 97 / 100);
  }
}

TEST(DrawTokenTest, FrequenciesAgreeWithNaiveProbabilities) {
  constexpr int kDraws = 20000;
  ChiSquare total;
  for (uint32_t seed = 0; seed < 80; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    const auto maybe = [&] { return random() % 2 == 0; };
    const size_t vocab = 2 + random() % 200;
    const std::vector<float> logits = RandomLogits(random, vocab, 1 + random() % 4);
    SamplingParams params{.temperature = 0.3f + 0.1f * static_cast<float>(random() % 15)};
    params.seed = random();
    if (maybe()) params.top_k = 1 + random() % vocab;
    if (maybe()) params.top_p = 0.05f + 0.1f * static_cast<float>(random() % 9);
    if (maybe()) params.min_p = 0.01f * static_cast<float>(1 + random() % 30);
    if (maybe()) params.repetition_penalty = 1.3f;
    if (maybe()) params.frequency_penalty = 0.2f;
    if (maybe()) params.presence_penalty = -0.4f;
    if (maybe()) params.logit_bias = {{random() % vocab, 2.5f}};
    std::vector<int32_t> prompt(random() % 20), output(random() % 20), forbidden;
    for (int32_t& token : prompt) token = static_cast<int32_t>(random() % vocab);
    for (int32_t& token : output) token = static_cast<int32_t>(random() % vocab);
    if (maybe()) forbidden = {static_cast<int32_t>(random() % vocab)};
    const SlotHistory history(static_cast<int64_t>(vocab), prompt, output);
    DrawContext context{.history = &history, .forbidden = forbidden};
    const std::vector<double> want = NaiveProbabilities(logits, params, prompt, output, forbidden);
    std::vector<int> counts(vocab, 0);
    for (int t = 0; t < kDraws; ++t) {
      context.output_index = t;
      const int32_t token = DrawToken(logits, params, context);
      ASSERT_GT(want[token], 0) << "token " << token << " was filtered out";
      ++counts[token];
    }
    // Five deviations of the statistic, whose mean is its degrees of freedom, and what its skew
    // adds where they are few.
    const ChiSquare chi = Compare(want, counts, kDraws);
    EXPECT_LT(chi.statistic, chi.degrees + 5 * std::sqrt(2.0 * chi.degrees) + 12);
    total.statistic += chi.statistic;
    total.degrees += chi.degrees;
  }
  // All together are far more sensitive than one alone.
  EXPECT_LT(total.statistic, total.degrees + 4 * std::sqrt(2.0 * total.degrees));
  EXPECT_GT(total.statistic, total.degrees - 4 * std::sqrt(2.0 * total.degrees));
}

TEST(DrawTokenTest, TopKKeepsExactlyKWithTiesById) {
  const std::vector<float> logits(100, 1.0f);
  std::set<int32_t> drawn;
  for (uint64_t t = 0; t < 400; ++t) {
    drawn.insert(DrawToken(logits, {.top_k = 5}, {.output_index = t}));
  }
  EXPECT_EQ(drawn, (std::set<int32_t>{0, 1, 2, 3, 4}));
}

TEST(DrawTokenTest, ATinyTopPKeepsTheBest) {
  std::mt19937 random(3);
  const std::vector<float> logits = RandomLogits(random, 1000, 2);
  const int32_t best = DrawToken(logits, {.temperature = 0}, {});
  for (uint64_t t = 0; t < 100; ++t) {
    EXPECT_EQ(DrawToken(logits, {.top_p = 1e-9f}, {.output_index = t}), best);
    EXPECT_EQ(DrawToken(logits, {.min_p = 1}, {.output_index = t}), best);
    EXPECT_EQ(DrawToken(logits, {.temperature = 1e-38f}, {.output_index = t}), best);
  }
}

TEST(DrawTokenTest, ForbiddenTokensAreNeverDrawn) {
  const std::vector<float> logits = {50, 0, 0, -20};
  const std::vector<int32_t> forbidden = {0, 2};
  for (uint64_t t = 0; t < 200; ++t) {
    const DrawContext context{.output_index = t, .forbidden = forbidden};
    EXPECT_EQ(DrawToken(logits, {.top_p = 0.5f, .top_k = 2}, context), 1);
    SamplingParams biased;
    biased.logit_bias = {{0, 100.0f}};
    EXPECT_NE(DrawToken(logits, biased, context), 0);
  }
  const std::vector<int32_t> all = {0, 1, 2, 3};
  EXPECT_EQ(DrawToken(logits, {.temperature = 0}, {.forbidden = all}), 0);
}

TEST(DrawTokenTest, SurvivesLogitsThatAreNotFinite) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<std::vector<float>> rows = {
      {NAN, NAN}, {-inf, -inf}, {inf, 0}, {NAN, inf}, {-inf, 1}};
  const std::vector<std::set<int32_t>> possible = {{0, 1}, {0, 1}, {0}, {1}, {1}};
  for (size_t i = 0; i < rows.size(); ++i) {
    for (uint64_t t = 0; t < 20; ++t) {
      const int32_t token = DrawToken(rows[i], {.frequency_penalty = 1}, {.output_index = t});
      EXPECT_TRUE(possible[i].contains(token)) << "row " << i << " drew " << token;
      EXPECT_TRUE(possible[i].contains(DrawToken(rows[i], {.temperature = 0}, {})));
    }
  }
}

TEST(DrawTokenTest, FlatRowsOfALargeVocabularyReachEveryToken) {
  const std::vector<float> logits(152064, 0.25f);
  double mean = 0;
  for (uint64_t t = 0; t < 50; ++t) mean += DrawToken(logits, {}, {.output_index = t}) / 50.0;
  EXPECT_NEAR(mean, 76032, 25000);
}

// A row whose top-p cut lies deep, next to one that is all in one block of tokens.
TEST(DrawTokenTest, TopPOfALargeFlatRowKeepsItsShare) {
  const std::vector<float> logits(100000, 1.0f);
  int beyond = 0;
  for (uint64_t t = 0; t < 200; ++t) {
    const int32_t token = DrawToken(logits, {.top_p = 0.25f}, {.output_index = t});
    EXPECT_LT(token, 25000);
    beyond += token >= 20000;
  }
  EXPECT_GT(beyond, 15);
  EXPECT_LT(beyond, 70);
}

TEST(ScoreTokenTest, AgreesWithDoublePrecision) {
  for (uint32_t seed = 0; seed < 100; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    std::vector<float> logits = RandomLogits(random, 1 + random() % 3000, 1 + random() % 20);
    for (float& logit : logits) logit += 100;
    if (logits.size() > 10) logits[3] = logits[7] = logits[9];
    double total = 0;
    const double max = *std::max_element(logits.begin(), logits.end());
    for (const float logit : logits) total += std::exp(logit - max);
    const auto logprob = [&](int32_t id) { return logits[id] - max - std::log(total); };
    std::vector<int32_t> ids(logits.size());
    std::iota(ids.begin(), ids.end(), 0);
    std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) { return logits[a] > logits[b]; });

    const int32_t token = static_cast<int32_t>(random() % logits.size());
    const int32_t alternatives = static_cast<int32_t>(random() % 21);
    const ScoredToken scored = ScoreToken(logits, token, alternatives);
    EXPECT_EQ(scored.token, token);
    EXPECT_NEAR(scored.logprob, logprob(token), 1e-5);
    ASSERT_EQ(scored.top.size(), std::min<size_t>(alternatives, logits.size()));
    for (size_t i = 0; i < scored.top.size(); ++i) {
      EXPECT_EQ(scored.top[i].first, ids[i]);
      EXPECT_NEAR(scored.top[i].second, logprob(ids[i]), 1e-5);
    }
  }
}

// Log-softmax over 2^17 equal logits: a running sum in single precision would lose most of it.
TEST(ScoreTokenTest, LargeFlatRowsKeepTheirPrecision) {
  const std::vector<float> logits(1 << 17, 3.5f);
  EXPECT_NEAR(ScoreToken(logits, 11, 0).logprob, -17 * std::log(2.0), 1e-6);
}

}  // namespace
}  // namespace swaa::kernels::cpu
