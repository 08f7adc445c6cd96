// The noise of a draw: standard Gumbel numbers that are a pure function of (seed, index of the
// output token, token), bit for bit the same on every backend. The token with the largest
// logit / temperature + noise is a draw from the softmax (the Gumbel-max trick: Maddison, Tarlow
// and Minka, "A* Sampling", 2014), and what rounding does to one token's logit moves no other's.

#ifndef SWAA_KERNELS_GUMBEL_NOISE_H_
#define SWAA_KERNELS_GUMBEL_NOISE_H_

#include <cstdint>

#include "base/split_mix64.h"
#include "kernels/exact_float.h"

namespace swaa::kernels {

// Bounds of GumbelNoise: w lies in [2^-33, 1 - 2^-33] (below).
inline constexpr float kMaxGumbelNoise = 22.9f;
inline constexpr float kMinGumbelNoise = -3.14f;

// What one draw's tokens have in common: two words mixed from seed and output index.
struct GumbelKey {
  uint32_t first;
  uint32_t second;
};

// SplitMix64 of the output index, on the stream that begins at the scrambled seed.
SWAA_HOST_DEVICE GumbelKey MakeGumbelKey(uint64_t seed, uint64_t output_index) {
  const uint64_t begin = SplitMix64Output(seed + kSplitMix64Step);
  const uint64_t z = SplitMix64Output(begin + (output_index + 1) * kSplitMix64Step);
  return {static_cast<uint32_t>(z), static_cast<uint32_t>(z >> 32)};
}

// 32 random bits of one token. One key gives distinct tokens distinct bits: all steps are
// bijections. Multiplications of 32 bits only, for the vectors of old processors.
SWAA_HOST_DEVICE uint32_t GumbelBits(GumbelKey key, uint32_t token) {
  uint32_t x = token * 0x9e3779b1u + key.first;
  x = (x ^ (x >> 16)) * 0x85ebca6bu;
  x = (x ^ (x >> 13)) * 0xc2b2ae35u;
  x = (x ^ (x >> 16)) + key.second;
  x = (x ^ (x >> 16)) * 0x85ebca6bu;
  x = (x ^ (x >> 13)) * 0xc2b2ae35u;
  return x ^ (x >> 16);
}

// -log(-log(1 - w)) with w = (bits + 1/2) / 2^32: falls as the bits rise, and is precise at its
// upper end, where draws are decided.
SWAA_HOST_DEVICE float GumbelNoise(uint32_t bits) {
  constexpr float kScale = 0x1.0p-32f;
  const float w = exact::Mul(exact::Add(static_cast<float>(bits), 0.5f), kScale);
  const float rest = exact::Mul(exact::Add(static_cast<float>(~bits), 0.5f), kScale);  // 1 - w
  exact::LogParts parts = exact::SplitForLog(rest);
  if (parts.exponent == 0) parts.d = -w;  // 1 - w has lost the digits of a small w
  return -exact::Log(-exact::JoinLog(parts));
}

}  // namespace swaa::kernels

#endif  // SWAA_KERNELS_GUMBEL_NOISE_H_
