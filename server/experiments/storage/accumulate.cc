// Adds observations to observations.

#include "server/experiments/storage/accumulate.h"

#include <algorithm>

namespace swaa::server {
namespace {

int64_t EarliestTrigger(int64_t a, int64_t b) {
  if (a == 0 || b == 0) return std::max(a, b);
  return std::min(a, b);
}

}  // namespace

UnitRecord Unite(const UnitRecord& a, const UnitRecord& b) {
  UnitRecord united;
  if (a.first_ms == b.first_ms) {
    united.arm = std::min(a.arm, b.arm);
  } else {
    united.arm = a.first_ms < b.first_ms ? a.arm : b.arm;
  }
  united.first_ms = std::min(a.first_ms, b.first_ms);
  united.trigger_ms = EarliestTrigger(a.trigger_ms, b.trigger_ms);
  united.arms_seen = a.arms_seen | b.arms_seen;
  return united;
}

void Accumulate(const Observations& more, Observations* into) {
  for (const auto& [key, sum] : more.sums) into->sums[key] += sum;
  for (const auto& [key, bins] : more.sketches) {
    SketchBins& there = into->sketches[key];
    for (const auto& [bin, count] : bins) there[bin] += count;
  }
  for (const auto& [key, unit] : more.units) {
    const auto [there, is_new] = into->units.emplace(key, unit);
    if (!is_new) there->second = Unite(there->second, unit);
  }
  for (const auto& [key, sum] : more.pairs) into->pairs[key] += sum;
  into->dropped += more.dropped;
}

size_t NumEntries(const Observations& observations) {
  size_t entries = observations.sums.size() + observations.units.size() + observations.pairs.size();
  for (const auto& [key, bins] : observations.sketches) entries += bins.size();
  return entries;
}

int64_t NumObservations(const Observations& observations) {
  auto count = static_cast<int64_t>(observations.units.size());
  for (const auto& [key, sum] : observations.sums) count += sum.count;
  for (const auto& [key, sum] : observations.pairs) count += sum.count;
  return count;
}

}  // namespace swaa::server
