// Hashes, ranges in integers, windows of a switchback.

#include "server/experiments/assignment.h"

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace swaa::server {

uint64_t Fnv1a64(std::string_view bytes, uint64_t hash) {
  for (const char byte : bytes) {
    hash ^= static_cast<unsigned char>(byte);
    hash *= 0x100000001b3;
  }
  return hash;
}

uint64_t Fmix64(uint64_t value) {
  value ^= value >> 33;
  value *= 0xff51afd7ed558ccd;
  value ^= value >> 33;
  value *= 0xc4ceb9fe1a85ec53;
  value ^= value >> 33;
  return value;
}

uint64_t AssignmentHash(std::string_view salt, std::string_view unit) {
  return Fmix64(Fnv1a64(unit, Fnv1a64(":", Fnv1a64(salt))));
}

std::vector<BucketRange> ArmRanges(const std::vector<uint32_t>& weights, uint32_t coverage) {
  SWAA_CHECK_LE(coverage, kBuckets);
  uint64_t total = 0;
  for (const uint32_t weight : weights) total += weight;
  SWAA_CHECK_GT(total, 0u);
  std::vector<BucketRange> ranges;
  uint64_t before = 0;
  for (const uint32_t weight : weights) {
    const uint64_t begin = kBuckets * before / total;
    before += weight;
    const uint64_t owned = kBuckets * before / total - begin;
    ranges.push_back(
        {static_cast<uint32_t>(begin), static_cast<uint32_t>(begin + owned * coverage / kBuckets)});
  }
  return ranges;
}

SwitchbackSlot SwitchbackAt(const std::string& salt, int64_t unix_seconds, uint32_t window_seconds,
                            uint32_t washout_seconds) {
  SWAA_CHECK_GE(unix_seconds, 0);
  SWAA_CHECK_GT(window_seconds, washout_seconds);
  SwitchbackSlot slot;
  slot.window = unix_seconds / window_seconds;
  slot.pair = slot.window / 2;
  const bool flip = BucketOf(AssignmentHash(salt, absl::StrCat("pair-", slot.pair))) < kBuckets / 2;
  slot.arm = static_cast<int32_t>(slot.window % 2) ^ static_cast<int32_t>(flip);
  slot.washout = unix_seconds % window_seconds < washout_seconds;
  return slot;
}

}  // namespace swaa::server
