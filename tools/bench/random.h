// Bench: where every random choice of a run comes from.

#ifndef SWAA_TOOLS_BENCH_RANDOM_H_
#define SWAA_TOOLS_BENCH_RANDOM_H_

#include <cstdint>
#include <random>

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
// asks in. Neighbouring seeds and indices give unrelated generators (splitmix64's finisher).
inline std::mt19937_64 MakeGenerator(uint64_t seed, RandomStream stream, uint64_t index) {
  const auto mix = [](uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  };
  return std::mt19937_64(mix(mix(mix(seed) ^ static_cast<uint64_t>(stream)) ^ index));
}

}  // namespace swaa::tools::bench

#endif  // SWAA_TOOLS_BENCH_RANDOM_H_
