// Which arm a unit gets: a pure function of a salt and the unit, the same on every replica.
//
//   hash   = fmix64(fnv1a64(salt ++ ":" ++ unit))       bytes as given
//   bucket = hash mod 10,000                            chooses
//   group  = hash >> 56                                 one of 256 that statistics are summed by
//
// FNV-1a alone gives correlated buckets for similar salts; murmur3's finaliser takes that away.

#ifndef SWAA_SERVER_EXPERIMENTS_ASSIGNMENT_H_
#define SWAA_SERVER_EXPERIMENTS_ASSIGNMENT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace swaa::server {

inline constexpr uint32_t kBuckets = 10000;
// The salt of the one layer that all experiments share; no experiment may have it.
inline constexpr char kLayerSalt[] = "recipes";
inline constexpr size_t kMaxUnitBytes = 256;

// FNV-1a, 64 bits, continued from `hash`.
inline constexpr uint64_t kFnvOffset = 0xcbf29ce484222325;
uint64_t Fnv1a64(std::string_view bytes, uint64_t hash = kFnvOffset);
// The finaliser of MurmurHash3: every bit of the result depends on every bit of `value`.
uint64_t Fmix64(uint64_t value);

uint64_t AssignmentHash(std::string_view salt, std::string_view unit);
inline uint32_t BucketOf(uint64_t hash) { return static_cast<uint32_t>(hash % kBuckets); }
inline int32_t GroupOf(uint64_t hash) { return static_cast<int32_t>(hash >> 56); }

// Buckets [begin, end).
struct BucketRange {
  uint32_t begin = 0;
  uint32_t end = 0;

  uint32_t size() const { return end - begin; }
  bool Contains(uint32_t bucket) const { return begin <= bucket && bucket < end; }
  bool operator==(const BucketRange&) const = default;
};

// The buckets of each arm. Every arm owns a share of all buckets by its weight, and takes the first
// coverage / 10,000 of them: raising the coverage moves nobody, and full coverage leaves no gap.
// Weights >= 1, coverage 0 to 10,000. A range may come out empty.
std::vector<BucketRange> ArmRanges(const std::vector<uint32_t>& weights, uint32_t coverage);

// A switchback gives all enrolled traffic one of two arms a window; two windows, in random order,
// are a pair.
struct SwitchbackSlot {
  int64_t window = 0;  // unix seconds / window_seconds
  int64_t pair = 0;
  int32_t arm = 0;
  bool washout = false;  // the window's start, left out of the comparison
};
// Seconds >= 0 since 1970; window_seconds > washout_seconds.
SwitchbackSlot SwitchbackAt(const std::string& salt, int64_t unix_seconds, uint32_t window_seconds,
                            uint32_t washout_seconds);

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_ASSIGNMENT_H_
