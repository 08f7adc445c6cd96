// Slots and their draws.

#include "kernels/cpu/sampler.h"

#include "base/check.h"
#include "kernels/cpu/draw_token.h"
#include "kernels/cpu/region_errors.h"

namespace swaa::kernels::cpu {

CpuSampler::CpuSampler(int32_t num_slots, int64_t vocab_size)
    : vocab_size_(vocab_size), slots_(num_slots) {}

void CpuSampler::SetUp(std::span<const SlotSetup> setups) {
  for (const SlotSetup& setup : setups) {
    SWAA_CHECK(setup.slot >= 0 && setup.slot < static_cast<int32_t>(slots_.size())) << setup.slot;
    SWAA_CHECK(setup.sampling != nullptr) << "slot " << setup.slot;
    Slot& slot = slots_[setup.slot];
    slot = {.sampling = setup.sampling, .forbidden = setup.forbidden};
    if (!setup.sampling->needs_history()) continue;
    SWAA_CHECK(setup.prompt != nullptr) << "slot " << setup.slot << " needs its history";
    slot.history.emplace(vocab_size_, *setup.prompt, setup.output);
  }
}

void CpuSampler::Sample(const float* logits, std::span<const LogitsRow> rows,
                        std::span<ScoredToken> results) {
  SWAA_CHECK_EQ(rows.size(), results.size());
  const auto count = static_cast<int64_t>(rows.size());
  RegionErrors errors;
#pragma omp parallel for schedule(dynamic) if (count > 1)
  for (int64_t i = 0; i < count; ++i) {
    errors.Run([&] {
      results[i] = SampleRow(rows[i], {logits + i * vocab_size_, static_cast<size_t>(vocab_size_)});
    });
  }
  errors.Rethrow();
}

ScoredToken CpuSampler::SampleRow(const LogitsRow& row, std::span<const float> logits) {
  SWAA_CHECK(row.slot >= 0 && row.slot < static_cast<int32_t>(slots_.size())) << row.slot;
  int32_t token = row.known_token;
  if (token < 0) {
    Slot& slot = slots_[row.slot];
    SWAA_CHECK(slot.sampling != nullptr) << "slot " << row.slot << " was never set up";
    DrawContext context{.output_index = row.output_index};
    if (slot.history.has_value()) context.history = &*slot.history;
    if (row.forbid) context.forbidden = slot.forbidden;
    token = DrawToken(logits, *slot.sampling, context);
    slot.drawn = token;
    if (slot.history.has_value()) slot.history->AddOutput(token);
  }
  if (row.alternatives < 0) return {.token = token};
  return ScoreToken(logits, token, row.alternatives);
}

}  // namespace swaa::kernels::cpu
