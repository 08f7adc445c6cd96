// Bench: where every random choice of a run comes from.

#ifndef SWAA_TOOLS_BENCH_RANDOM_H_
#define SWAA_TOOLS_BENCH_RANDOM_H_

#include <cstdint>
#include <random>

#include "base/split_mix64.h"

namespace swaa::tools::bench {

// What a generator draws; each has its own stream, so that one more draw here moves nothing there.
enum class RandomStream : uint64_t {
  kPromptLength,
  kOutputLength,
  kPrompt,
  kPrefix,
  kArrivals,
  kRecipes,
  kOutcome,
  kUnit
};

// The generator of item `index` of a stream: a pure function of its arguments, whatever order a run
// asks in. Neighbouring seeds and indices give unrelated generators.
inline std::mt19937_64 MakeGenerator(uint64_t seed, RandomStream stream, uint64_t index) {
  const auto mix = [](uint64_t x) { return SplitMix64Output(x + kSplitMix64Step); };
  return std::mt19937_64(mix(mix(mix(seed) ^ static_cast<uint64_t>(stream)) ^ index));
}

}  // namespace swaa::tools::bench

#endif  // SWAA_TOOLS_BENCH_RANDOM_H_
