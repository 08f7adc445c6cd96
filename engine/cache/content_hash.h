// A 128-bit digest of tokens and what they were computed under: the same in every process and on
// every machine, so that replicas and routers may name a cached block by it.

#ifndef SWAA_ENGINE_CACHE_CONTENT_HASH_H_
#define SWAA_ENGINE_CACHE_CONTENT_HASH_H_

#include <cstdint>
#include <span>
#include <string_view>

#include "base/split_mix64.h"

namespace swaa {

struct ContentHash {
  uint64_t high = 0;
  uint64_t low = 0;
  bool operator==(const ContentHash&) const = default;
};

// Takes words in order. Two lanes of 64 bits, which differ in their start and their multiplier,
// each take a word by an odd multiple of it and SplitMix64's output function. Spreads well and is
// fast; no defence against someone who searches for collisions of what he sends himself.
class ContentHasher {
 public:
  // Continues from `parent`: chains of digests differ wherever anything before them did.
  explicit ContentHasher(const ContentHash& parent) {
    Add(parent.high);
    Add(parent.low);
  }

  void Add(uint64_t word) {
    high_ = SplitMix64Output(high_ + word * kSplitMix64Step + 1);
    low_ = SplitMix64Output((low_ ^ word) * 0xd1342543de82ef95u + 1);
  }
  void AddTokens(std::span<const int32_t> tokens);
  void AddBytes(std::string_view bytes);

  ContentHash Finish() const { return {high_, low_}; }

 private:
  uint64_t high_ = 0x243f6a8885a308d3u;  // digits of pi
  uint64_t low_ = 0x13198a2e03707344u;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_CACHE_CONTENT_HASH_H_
