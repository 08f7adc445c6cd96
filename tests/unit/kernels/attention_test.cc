// Tests of kernels: CPU attention of every instruction set against the definition in double
// precision.

#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>
#include <vector>
#include <xmmintrin.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/kernels/attention_problem.h"
#include "tests/unit/testing/seed.h"

namespace swaa::kernels {
namespace {

using cpu::InstructionSet;

// One for all tests of a run.
uint32_t Seed() {
  static const uint32_t seed = testing::Seed();
  return seed;
}

struct Limits {
  double total;
  double row;
};

// largest_score: f32 rounds a score s by a few s * 6e-8, and the weight by as much.
Limits LimitsOf(const ProblemOptions& options, double largest_score) {
  if (options.kv == DataType::kBf16) return {1e-2, 2.5e-2};
  if (options.out == DataType::kBf16) return {4e-3, 4e-3};
  const double rounding = 5e-7 * largest_score;
  return {1e-5 + rounding, 2e-5 + 2 * rounding};
}

struct NamedKernels {
  std::string name;
  cpu::AttentionKernels kernels;
};

// Every variant that this machine runs, and the best set's with the lowest one's, as a process may
// choose one for prefill and another for decode.
std::vector<NamedKernels> KernelsHere(DataType kv) {
  std::vector<NamedKernels> all;
  for (InstructionSet set : cpu::SupportedInstructionSets()) {
    for (const cpu::AttentionVariant* variant : cpu::AttentionVariantsOf(set, kv)) {
      all.push_back({variant->name, {variant, variant}});
    }
  }
  const cpu::AttentionVariant* low = all.front().kernels.prefill;
  const cpu::AttentionVariant* high = all.back().kernels.prefill;
  all.push_back({std::string(low->name) + " with " + high->name, {low, high}});
  all.push_back({std::string(high->name) + " with " + low->name, {high, low}});
  return all;
}

// Every variant of this machine must answer within the limits of the pages' type.
void ExpectRight(const ProblemOptions& options, const std::vector<SequenceCase>& sequences,
                 int32_t threads = 2) {
  const AttentionProblem problem(options, sequences, Seed());
  double largest_score = 0;
  for (const SequenceCase& sequence : sequences) {
    const double end = sequence.first_position + sequence.queries;
    largest_score = std::max(largest_score, end * std::abs(options.score_slope));
  }
  const Limits limits = LimitsOf(options, largest_score);
  for (const auto& [name, kernels] : KernelsHere(options.kv)) {
    SCOPED_TRACE(::testing::Message()
                 << name << ", heads " << options.shape.heads << "/" << options.shape.kv_heads
                 << " x " << options.shape.head_dim << ", threads " << threads);
    const Errors errors = problem.Compare(problem.Run(kernels, threads));
    EXPECT_LT(errors.total, limits.total);
    EXPECT_LT(errors.worst_row, limits.row) << errors.worst_where;
    if (options.out == DataType::kBf16) {
      EXPECT_GT(errors.total, 5e-4) << "better than bf16 can be: is the reference independent?";
    }
  }
}

struct Types {
  DataType kv;
  DataType out;
};

class AttentionTest : public ::testing::TestWithParam<Types> {
 protected:
  ProblemOptions Options(HeadShape shape) const {
    ProblemOptions options;
    options.shape = shape;
    options.kv = GetParam().kv;
    options.out = GetParam().out;
    return options;
  }
};

INSTANTIATE_TEST_SUITE_P(Pages, AttentionTest,
                         ::testing::Values(Types{DataType::kBf16, DataType::kBf16},
                                           Types{DataType::kBf16, DataType::kF32},
                                           Types{DataType::kF32, DataType::kF32},
                                           Types{DataType::kF32, DataType::kBf16}),
                         [](const auto& info) {
                           return std::string(info.param.kv == DataType::kBf16 ? "Bf16Pages"
                                                                               : "F32Pages") +
                                  (info.param.out == DataType::kBf16 ? "Bf16Out" : "F32Out");
                         });

const int32_t kEdges[] = {1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129};

// All windows with all sinks, in one call: each pair is a sequence.
TEST_P(AttentionTest, WindowsAndSinksAtTileEdges) {
  std::vector<SequenceCase> sequences;
  for (int32_t window : {1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1000}) {
    for (int32_t sinks : {0, 1, 15, 16, 17, 32, 33, 63, 64, 65, 129, 300}) {
      sequences.push_back({0, 150 + (window * 7 + sinks) % 60, {window, sinks}});
    }
  }
  ExpectRight(Options({2, 1, 32}), sequences);
}

// Chunks that begin deep in a sequence, so that whole pages between sinks and window are released.
TEST_P(AttentionTest, ChunksWithReleasedPages) {
  std::vector<SequenceCase> sequences;
  for (int32_t window : kEdges) {
    for (int32_t sinks : {0, 1, 16, 64, 65, 128}) {
      sequences.push_back({300 + window, 1 + (window * 5 + sinks) % 80, {window, sinks}});
      sequences.push_back({511 + sinks, 1, {window, sinks}});
    }
  }
  ExpectRight(Options({3, 1, 64}), sequences);
}

TEST_P(AttentionTest, QueryCountsAndPositions) {
  std::vector<SequenceCase> sequences;
  for (int32_t queries : {1, 2, 5, 15, 16, 17, 31, 33, 64, 65, 129, 257}) {
    for (int32_t position : {0, 1, 31, 63, 64, 65, 200}) {
      sequences.push_back({position, queries, {}});
      sequences.push_back({position, queries, {48, position % 40}});
    }
  }
  ExpectRight(Options({3, 1, 32}), sequences);
}

TEST_P(AttentionTest, HeadShapes) {
  const HeadShape shapes[] = {{9, 3, 64},   {8, 2, 128}, {1, 1, 32},  {2, 2, 96},
                              {7, 1, 160},  {14, 2, 64}, {8, 1, 192}, {16, 1, 224},
                              {20, 1, 256}, {40, 1, 64}, {5, 1, 128}, {12, 2, 128}};
  for (const HeadShape& shape : shapes) {
    ExpectRight(Options(shape), {{0, 70, {}},
                                 {130, 1, {}},
                                 {130, 1, {40, 3}},
                                 {64, 2, {64, 64}},
                                 {100, 3, {}},
                                 {129, 33, {100, 16}}});
  }
}

// Few rows over many keys: tasks are split, parts merged. Some parts of a windowed row see nothing.
TEST_P(AttentionTest, SplitOverKeys) {
  for (int32_t threads : {1, 2, 5}) {
    ExpectRight(Options({6, 2, 64}),
                {{3000, 1, {}}, {2047, 1, {}}, {1500, 24, {}}, {2100, 1, {1024, 64}}}, threads);
    ExpectRight(Options({4, 1, 128}), {{1800, 40, {600, 128}}}, threads);
    // Tasks of several KV heads, of which there are so many that all threads have some.
    ExpectRight(Options({8, 4, 128}), {{2600, 1, {}}, {300, 1, {}}, {2700, 1, {2100, 64}}},
                threads);
    ExpectRight(Options({1, 1, 64}), {{1000, 200, {}}, {900, 1, {850, 10}}}, threads);
  }
}

TEST_P(AttentionTest, ManyTilesOfOneSequence) {
  ExpectRight(Options({2, 1, 64}), {{37, 1000, {}}, {100, 900, {200, 70}}});
}

TEST_P(AttentionTest, LargeScores) {
  ProblemOptions options = Options({4, 2, 64});
  options.score_deviation = 16;  // scores of +-50
  options.round_queries = true;
  ExpectRight(options, {{0, 200, {}}, {300, 1, {}}, {200, 100, {64, 16}}, {700, 1, {100, 64}}});
}

// Maxima that rise (and fall) steadily make every variant rescale what it has summed up.
TEST_P(AttentionTest, ScoresThatRiseAndFall) {
  for (float slope : {0.2f, -0.2f, 3.0f, -3.0f}) {
    ProblemOptions options = Options({4, 2, 64});
    options.round_queries = true;
    options.score_slope = slope;
    ExpectRight(options, {{0, 300, {}}, {600, 1, {}}, {400, 60, {100, 16}}});
  }
}

TEST_P(AttentionTest, SameBitsEveryTime) {
  const AttentionProblem problem(Options({6, 2, 64}),
                                 {{1500, 1, {}}, {600, 100, {128, 20}}, {900, 9, {}}}, Seed());
  for (const auto& [name, kernels] : KernelsHere(GetParam().kv)) {
    const std::vector<float> once = problem.Run(kernels, 3);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(problem.Run(kernels, 3), once) << name;
  }
}

// Random mixes of everything.
TEST_P(AttentionTest, RandomMixes) {
  std::mt19937 random(Seed());
  const auto draw = [&](int32_t low, int32_t high) {
    return std::uniform_int_distribution<int32_t>(low, high)(random);
  };
  for (int round = 0; round < 4; ++round) {
    const int32_t kv_heads = draw(1, 3);
    const HeadShape shape = {kv_heads * draw(1, 6), kv_heads, 32 * draw(1, 4)};
    std::vector<SequenceCase> sequences;
    for (int s = 0; s < 12; ++s) {
      SequenceCase sequence;
      sequence.first_position = draw(0, 400);
      sequence.queries = draw(0, 1) == 0 ? 1 : draw(1, 120);
      if (draw(0, 2) != 0) sequence.span = {draw(1, 300), draw(0, 1) * draw(0, 200)};
      sequences.push_back(sequence);
    }
    ExpectRight(Options(shape), sequences);
  }
}

TEST(AttentionThreadState, FloatingPointModeIsRestored) {
  const unsigned before = _mm_getcsr() & ~0x3fu;  // without the flags of what has happened
  const AttentionProblem problem({}, {{100, 1, {}}, {0, 100, {}}}, Seed());
  for (const auto& [name, kernels] : KernelsHere(DataType::kBf16)) {
    problem.Run(kernels, 2);
    EXPECT_EQ(_mm_getcsr() & ~0x3fu, before) << name;
  }
}

// One small mix for every instruction set there is, so that a run says which of them it left out.
class InstructionSetTest : public ::testing::TestWithParam<InstructionSet> {};

TEST_P(InstructionSetTest, AnswersByItsDefaultKernels) {
  if (GetParam() > cpu::BestInstructionSet()) {
    GTEST_SKIP() << "this processor has no " << Name(GetParam())
                 << ": no test here runs its attention kernels";
  }
  for (DataType kv : {DataType::kBf16, DataType::kF32}) {
    ProblemOptions options;
    options.shape = {6, 2, 64};
    options.kv = kv;
    const AttentionProblem problem(options, {{500, 1, {}}, {90, 70, {80, 5}}}, Seed());
    const Errors errors =
        problem.Compare(problem.Run(cpu::DefaultAttentionKernels(GetParam(), kv), 2));
    EXPECT_LT(errors.total, LimitsOf(options, 0).total);
  }
}

INSTANTIATE_TEST_SUITE_P(All, InstructionSetTest, ::testing::ValuesIn(cpu::AllInstructionSets()),
                         [](const auto& info) { return std::string(Name(info.param)); });

TEST(InstructionSets, AreOrderedFromGenericToBest) {
  const std::vector<InstructionSet> sets = cpu::SupportedInstructionSets();
  ASSERT_FALSE(sets.empty());
  EXPECT_EQ(sets.front(), InstructionSet::kGeneric);
  EXPECT_EQ(sets.back(), cpu::BestInstructionSet());
  std::string names;
  for (InstructionSet set : sets) names += " " + std::string(Name(set));
  std::cout << "instruction sets:" << names << std::endl;
}

}  // namespace
}  // namespace swaa::kernels
