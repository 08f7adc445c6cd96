// SplitMix64 (Steele, Lea and Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014):
// random-looking bits as a pure function of a number.

#ifndef SWAA_BASE_SPLIT_MIX64_H_
#define SWAA_BASE_SPLIT_MIX64_H_

#include <cstdint>

namespace swaa {

// What its state grows by from one output to the next.
inline constexpr uint64_t kSplitMix64Step = 0x9e3779b97f4a7c15u;

// The output of a state. A bijection: other states have other outputs, and a bit that differs there
// changes half of the bits here. 0 stays 0.
// constexpr, so that CUDA's compiler builds it for both sides.
constexpr uint64_t SplitMix64Output(uint64_t state) {
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

}  // namespace swaa

#endif  // SWAA_BASE_SPLIT_MIX64_H_
