// Which attention kernels compete, and which of their times wins.

#include "kernels/cpu/attention_choice.h"

#include <algorithm>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace swaa::kernels::cpu {
namespace {

using testing::ElementsAre;
using testing::IsSupersetOf;

std::vector<std::string> Names(const std::vector<const AttentionVariant*>& variants) {
  std::vector<std::string> names;
  for (const AttentionVariant* variant : variants) names.emplace_back(variant->name);
  return names;
}

TEST(PreferredFastestTest, ALaterOneMustLeadByATenth) {
  struct Case {
    std::vector<double> seconds;
    size_t chosen;
  };
  for (const Case& c : {Case{{1.0}, 0},
                        {{1.0, 1.0}, 0},
                        {{1.0, 0.95}, 0},
                        {{1.0, 0.92}, 0},
                        {{1.0, 0.90}, 1},
                        {{1.0, 2.0, 0.5}, 2},
                        {{1.0, 0.8, 0.75}, 1},
                        {{1.0, 0.8, 0.7}, 2},
                        {{0.5, 0.8, 0.7}, 0}}) {
    EXPECT_EQ(PreferredFastest(c.seconds), c.chosen) << testing::PrintToString(c.seconds);
  }
}

TEST(AttentionCandidatesTest, ANamedSetCompetesWithItselfAlone) {
  EXPECT_THAT(Names(AttentionCandidates(InstructionSet::kAvx2, true, DataType::kBf16)),
              ElementsAre("avx2/l1", "avx2/l2"));
  EXPECT_THAT(Names(AttentionCandidates(InstructionSet::kAmx, true, DataType::kBf16)),
              ElementsAre("amx"));
  EXPECT_THAT(Names(AttentionCandidates(InstructionSet::kAvx512Bf16, true, DataType::kBf16)),
              ElementsAre("avx512_bf16/l1", "avx512_bf16/l2"));
  EXPECT_THAT(Names(AttentionCandidates(InstructionSet::kAvx512, true, DataType::kF32)),
              ElementsAre("avx512/l1"));
}

TEST(AttentionCandidatesTest, TilesArePreferredAndMustBeBeaten) {
  const std::vector<std::string> names =
      Names(AttentionCandidates(InstructionSet::kAmx, false, DataType::kBf16));
  EXPECT_EQ(names.front(), "amx");
  EXPECT_THAT(names, IsSupersetOf({"avx512_bf16/l1", "avx512_bf16/l2", "avx512/l1", "avx512/l2"}));
}

TEST(AttentionCandidatesTest, NothingAboveTheSetCompetes) {
  for (InstructionSet set : AllInstructionSets()) {
    for (DataType kv : {DataType::kBf16, DataType::kF32}) {
      const std::vector<std::string> allowed = [&] {
        std::vector<std::string> names;
        for (InstructionSet lower : AllInstructionSets()) {
          if (lower > set) continue;
          for (const std::string& name : Names(AttentionVariantsOf(lower, kv))) {
            names.push_back(name);
          }
        }
        return names;
      }();
      EXPECT_THAT(allowed, IsSupersetOf(Names(AttentionCandidates(set, false, kv)))) << Name(set);
    }
  }
}

TEST(MeasuredAttentionKernelsTest, AreCandidatesAndStayTheSame) {
  for (DataType kv : {DataType::kBf16, DataType::kF32}) {
    for (bool named : {false, true}) {
      const InstructionSet set = BestInstructionSet();
      const auto candidates = AttentionCandidates(set, named, kv);
      const AttentionKernels kernels = MeasuredAttentionKernels(set, named, kv);
      EXPECT_THAT(candidates, testing::Contains(kernels.prefill));
      EXPECT_THAT(candidates, testing::Contains(kernels.decode));
      const AttentionKernels again = MeasuredAttentionKernels(set, named, kv);
      EXPECT_EQ(again.prefill, kernels.prefill);
      EXPECT_EQ(again.decode, kernels.decode);
      std::cout << (named ? "named: " : "auto: ") << kernels.prefill->name << ", "
                << kernels.decode->name << std::endl;
    }
  }
}

}  // namespace
}  // namespace swaa::kernels::cpu
