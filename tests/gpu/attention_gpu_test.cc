// Attention on the GPU, both families of kernels, against double precision.

#include <chrono>
#include <cstdint>
#include <iterator>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/gpu/attention_problem.h"
#include "tests/gpu/attention_test_support.h"

namespace swaa::kernels::cuda {
namespace {

struct Heads {
  int32_t heads, kv_heads, head_dim;
};
constexpr Heads kAllHeads[] = {{32, 8, 128}, {9, 3, 64}, {12, 4, 96}};
// Groups of 1, 7, 8 and 16 query heads.
constexpr Heads kOtherGroups[] = {{4, 4, 128}, {14, 2, 64},  {16, 2, 128}, {16, 2, 96},
                                  {16, 1, 64}, {16, 1, 128}, {16, 1, 96}};

AttentionRequest Request(int32_t first_position, int32_t query_count, KeySpan span = {}) {
  return {.first_position = first_position, .query_count = query_count, .spans = {span}};
}
KeySpan Window(int32_t window, int32_t sinks) { return {.window = window, .sinks = sinks}; }

class AttentionGpuTest : public ::testing::TestWithParam<AttentionKernels> {
 protected:
  void SetUp() override {
    if (GetParam() == AttentionKernels::kHopper && !DeviceIsHopper()) {
      GTEST_SKIP() << "the kernels for Hopper need compute capability 9.0";
    }
  }

  // Runs layer 1 of 2 twice (the second time over what the first left in the workspace) and
  // compares every row.
  void ExpectRight(const Heads& heads, const std::vector<AttentionRequest>& requests, uint64_t seed,
                   float query_deviation = 1) {
    const AttentionProblem problem({.heads = heads.heads,
                                    .kv_heads = heads.kv_heads,
                                    .head_dim = heads.head_dim,
                                    .query_deviation = query_deviation,
                                    .seed = seed},
                                   requests);
    ExpectLayersRight(problem, GetParam(), {1});
  }
};

INSTANTIATE_TEST_SUITE_P(Kernels, AttentionGpuTest,
                         ::testing::Values(AttentionKernels::kHopper, AttentionKernels::kPortable),
                         [](const auto& info) {
                           return info.param == AttentionKernels::kHopper ? "Hopper" : "Portable";
                         });

TEST_P(AttentionGpuTest, PrefillFull) {
  for (const Heads& heads : kAllHeads) {
    SCOPED_TRACE(absl::StrCat("head_dim ", heads.head_dim));
    ExpectRight(heads, {Request(0, 128)}, 1);
    ExpectRight(heads, {Request(0, 1000)}, 2);
    ExpectRight(heads, {Request(0, 2)}, 3);
  }
}

TEST_P(AttentionGpuTest, PrefillWindowsAndSinksAtTheEdgesOfTiles) {
  uint64_t seed = 10;
  for (const Heads& heads : kAllHeads) {
    for (const int32_t w : {1, 63, 64, 65, 127, 128, 129, 300, 5000}) {
      for (const int32_t k : {0, 1, 63, 64, 65, 127, 128, 129, 400}) {
        if (w > 129 && k != 0 && k != 65 && k != 400) continue;
        SCOPED_TRACE(absl::StrCat("head_dim ", heads.head_dim, " W=", w, " K=", k));
        ++seed;
        ExpectRight(heads, {Request(0, 700, Window(w, k))}, seed, seed % 3 == 0 ? 5 : 1);
      }
    }
  }
}

TEST_P(AttentionGpuTest, PrefillChunks) {
  for (const Heads& heads : kAllHeads) {
    SCOPED_TRACE(absl::StrCat("head_dim ", heads.head_dim));
    ExpectRight(
        heads,
        {Request(1000, 200), Request(1023, 65, Window(512, 16)), Request(37, 2, Window(64, 4)),
         Request(2047, 300, Window(128, 129)), Request(512, 128), Request(0, 3),
         Request(63, 2, Window(2048, 10)), Request(1500, 77, Window(1, 1))},
        20, 5);
  }
}

TEST_P(AttentionGpuTest, PrefillSplitsKeys) {
  for (const Heads& heads : kAllHeads) {
    SCOPED_TRACE(absl::StrCat("head_dim ", heads.head_dim));
    ExpectRight(heads,
                {Request(3000, 100), Request(3001, 100), Request(2900, 30, Window(1500, 70))}, 30);
    ExpectRight(heads, {Request(5000, 70, Window(2048, 300))}, 31);
    ExpectRight(heads, {Request(9000, 130)}, 32, 5);
  }
}

std::vector<AttentionRequest> MixOf12(uint64_t seed, bool decode) {
  const KeySpan spans[] = {
      {}, Window(2048, 10), Window(2048, 128), Window(512, 16), Window(65, 3), Window(200, 300)};
  std::mt19937_64 random(seed);
  std::vector<AttentionRequest> mix;
  for (int i = 0; i < 12; ++i) {
    const auto first = static_cast<int32_t>(random() % 3000);
    const auto count = static_cast<int32_t>(decode ? 1 : 2 + random() % 400);
    mix.push_back(Request(first, count, spans[random() % 6]));
  }
  return mix;
}

TEST_P(AttentionGpuTest, Mixes) {
  for (const bool decode : {false, true}) {
    for (const Heads& heads : kAllHeads) {
      SCOPED_TRACE(absl::StrCat("head_dim ", heads.head_dim, decode ? " decode" : " prefill"));
      ExpectRight(heads, MixOf12(5, decode), 40);
    }
    for (const Heads& heads : kOtherGroups) {
      SCOPED_TRACE(absl::StrCat(heads.heads, "/", heads.kv_heads, " x ", heads.head_dim,
                                decode ? " decode" : " prefill"));
      ExpectRight(heads, MixOf12(6, decode), 41, 5);
    }
  }
}

TEST_P(AttentionGpuTest, DecodeWindowsAndSinksAtTheEdgesOfTiles) {
  uint64_t seed = 50;
  for (const Heads& heads : kAllHeads) {
    for (const int32_t w : {1, 63, 64, 65, 127, 128, 129, 300, 5000}) {
      std::vector<AttentionRequest> requests;
      for (const int32_t k : {0, 1, 63, 64, 65, 127, 128, 129, 400})
        for (const int32_t position : {0, 63, 64, 65, 127, 128, 500, 699})
          requests.push_back(Request(position, 1, Window(w, k)));
      SCOPED_TRACE(absl::StrCat("head_dim ", heads.head_dim, " W=", w));
      ++seed;
      ExpectRight(heads, requests, seed, seed % 3 == 0 ? 5 : 1);
    }
  }
}

TEST_P(AttentionGpuTest, DecodeLengths) {
  for (const Heads& heads : kAllHeads) {
    SCOPED_TRACE(absl::StrCat("head_dim ", heads.head_dim));
    for (const int32_t length : {1, 2, 64, 65, 2000, 20000}) {
      ExpectRight(heads, {Request(length - 1, 1)}, 60 + length);
    }
    std::vector<AttentionRequest> many;
    for (int32_t i = 0; i < 300; ++i) many.push_back(Request(i * 7 % 900, 1));
    ExpectRight(heads, many, 61);
  }
}

// More blocks than tiles, and sequences that take no part: first, last and in between.
TEST_P(AttentionGpuTest, DeadSlots) {
  const std::vector<AttentionRequest> requests = {Request(500, 0),  Request(300, 1), Request(0, 0),
                                                  Request(200, 0),  Request(900, 1), Request(64, 1),
                                                  Request(100, 40), Request(77, 0)};
  for (const Heads& heads : kAllHeads) ExpectRight(heads, requests, 70);
  ExpectRight(kAllHeads[0], {Request(500, 0), Request(0, 1)}, 71);
}

// Prefill and decode in one step, and the rows on both sides of a prompt's end under other spans.
TEST_P(AttentionGpuTest, BothPhasesOfASlotInOneStep) {
  std::vector<AttentionRequest> requests = {Request(700, 60, Window(128, 4)), Request(760, 1),
                                            Request(1500, 1, Window(300, 65)), Request(0, 333),
                                            Request(333, 5, Window(64, 1))};
  requests[1].same_slot_as = 0;
  requests[4].same_slot_as = 3;
  for (const Heads& heads : kAllHeads) ExpectRight(heads, requests, 80);
}

// Layers of several classes in one step.
TEST_P(AttentionGpuTest, ClassesOfLayers) {
  const std::vector<uint8_t> layer_class = {1, 0, 2, 1, 2};
  std::vector<AttentionRequest> requests;
  for (int32_t i = 0; i < 9; ++i) {
    requests.push_back({.first_position = 400 * i + i,
                        .query_count = i % 3 == 0 ? 1 + 50 * i : 1,
                        .spans = {{}, Window(256 + i, i), Window(64, 128)}});
  }
  for (const Heads& heads : kAllHeads) {
    const AttentionProblem problem({.heads = heads.heads,
                                    .kv_heads = heads.kv_heads,
                                    .head_dim = heads.head_dim,
                                    .layer_class = layer_class,
                                    .seed = 90},
                                   requests);
    ExpectLayersRight(problem, GetParam(), {0, 1, 2, 3, 4});
  }
}

// Beyond what the decode kernel plans in one step, rows go to the prefill kernel.
TEST_P(AttentionGpuTest, MoreThan1024DecodingSequences) {
  std::vector<AttentionRequest> requests;
  for (int32_t i = 0; i < kMaxDecodeSequences + 40; ++i)
    requests.push_back(Request(i % 100, 1, i % 2 == 0 ? KeySpan{} : Window(30, 2)));
  ExpectRight({4, 2, 64}, requests, 95);
}

// The same step twice gives the same bits: sums do not depend on who came last.
TEST_P(AttentionGpuTest, RepeatsBitForBit) {
  const AttentionProblem problem(
      {.seed = 96}, {Request(9000, 130), Request(3000, 1), Request(8000, 1), Request(4000, 100)});
  AttentionRunner runner(problem, GetParam());
  runner.Plan(problem.step());
  std::vector<std::vector<Bf16>> results;
  for (int i = 0; i < 10; ++i) {
    runner.Run(0);
    results.push_back(OutputOf(problem));
  }
  for (int i = 1; i < 10; ++i) EXPECT_TRUE(SameBits(results[0], results[i])) << "run " << i;
}

// What compute-sanitizer can run in minutes: --gtest_filter=*Small*.
TEST_P(AttentionGpuTest, Small) {
  for (const Heads& heads : {Heads{4, 2, 128}, Heads{3, 1, 64}, Heads{2, 2, 96}}) {
    ExpectRight(heads,
                {Request(100, 200, Window(65, 3)), Request(0, 300), Request(257, 1),
                 Request(299, 1, Window(65, 3)), Request(0, 1), Request(900, 1),
                 Request(257, 1, Window(128, 129))},
                97);
  }
  ExpectRight({2, 1, 128}, {Request(2500, 20)}, 98);
}

// Random steps of both phases for some seconds.
TEST_P(AttentionGpuTest, AnyStep) {
  const uint64_t first_seed = TestSeed();
  const auto begin = std::chrono::steady_clock::now();
  for (uint64_t seed = first_seed;
       std::chrono::steady_clock::now() - begin < std::chrono::seconds(10); ++seed) {
    std::mt19937_64 random(seed);
    const auto below = [&](int32_t n) { return static_cast<int32_t>(random() % n); };
    const Heads heads = below(2) == 0 ? kAllHeads[below(std::size(kAllHeads))]
                                      : kOtherGroups[below(std::size(kOtherGroups))];
    const int32_t kind = below(3);  // decode, prefill, both
    std::vector<AttentionRequest> requests;
    for (int32_t i = 1 + below(kind == 0 ? 80 : 10); i > 0; --i) {
      const bool decode = kind == 0 || (kind == 2 && below(2) == 0);
      const int32_t first = below(3) == 0 ? 0 : below(1 << (4 + below(9)));
      const int32_t count = decode ? below(20) > 0 : 1 + below(1 << (1 + below(9)));
      const KeySpan span = below(3) == 0
                               ? KeySpan{}
                               : Window(1 + below(1 << (1 + below(12))), below(2) * below(500));
      requests.push_back(Request(first, count, span));
    }
    requests.push_back(Request(below(300), 1));  // never only dead slots
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    ExpectRight(heads, requests, seed, below(3) == 0 ? 5 : 1);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace swaa::kernels::cuda
