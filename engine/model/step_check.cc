// Whether a step fits a device.

#include "engine/model/step_check.h"

#include <algorithm>
#include <cstddef>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace swaa {
namespace {

// 0 <= value < bound.
absl::Status CheckRange(const char* field, int64_t index, int64_t value, int64_t bound) {
  if (value >= 0 && value < bound) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("step.", field, "[", index, "]: ", value, " is not in 0 .. ", bound - 1));
}

absl::Status CheckSequences(const Step& step, const DeviceInfo& info) {
  int64_t row = 0;
  const int64_t positions = int64_t{info.max_pages_per_layer} * kernels::kPageTokens;
  for (size_t s = 0; s < step.sequences.size(); ++s) {
    const kernels::SequenceRows& sequence = step.sequences[s];
    SWAA_RETURN_IF_ERROR(CheckRange("sequences.slot", s, sequence.slot, info.num_slots));
    if (sequence.first_row != row || sequence.query_count < 1) {
      return absl::InternalError(absl::StrCat("step.sequences[", s, "]: ", sequence.query_count,
                                              " rows from ", sequence.first_row, ", but row ", row,
                                              " comes next"));
    }
    SWAA_RETURN_IF_ERROR(
        CheckRange("sequences.first_position", s, sequence.first_position, positions));
    SWAA_RETURN_IF_ERROR(CheckRange("sequences.last_position", s,
                                    int64_t{sequence.first_position} + sequence.query_count - 1,
                                    positions));
    row += sequence.query_count;
  }
  if (row != static_cast<int64_t>(step.tokens.size())) {
    return absl::InternalError(
        absl::StrCat("step.sequences cover ", row, " rows of ", step.tokens.size()));
  }
  if (step.layer_class.size() != static_cast<size_t>(info.num_layers)) {
    return absl::InternalError(absl::StrCat("step.layer_class: ", step.layer_class.size(),
                                            " classes for ", info.num_layers, " layers"));
  }
  const size_t classes =
      size_t{*std::max_element(step.layer_class.begin(), step.layer_class.end())} + 1;
  if (step.spans.size() != step.sequences.size() * classes) {
    return absl::InternalError(absl::StrCat("step.spans: ", step.spans.size(), " for ",
                                            step.sequences.size(), " sequences and ", classes,
                                            " classes of layers"));
  }
  for (size_t i = 0; i < step.spans.size(); ++i) {
    if (step.spans[i].window < 1 || step.spans[i].sinks < 0) {
      return absl::InternalError(absl::StrCat("step.spans[", i, "]: window ", step.spans[i].window,
                                              ", sinks ", step.spans[i].sinks));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckAdapters(const Step& step) {
  for (size_t i = 0; i < step.adapters.size(); ++i) {
    if (step.adapters[i] == nullptr) {
      return absl::InternalError(absl::StrCat("step.adapters[", i, "]: none"));
    }
  }
  if (!step.sequence_adapters.empty() && step.sequence_adapters.size() != step.sequences.size()) {
    return absl::InternalError(
        absl::StrCat("step.sequence_adapters: ", step.sequence_adapters.size(), " for ",
                     step.sequences.size(), " sequences"));
  }
  for (size_t i = 0; i < step.sequence_adapters.size(); ++i) {
    if (step.sequence_adapters[i] == -1) continue;
    SWAA_RETURN_IF_ERROR(CheckRange("sequence_adapters", i, step.sequence_adapters[i],
                                    static_cast<int64_t>(step.adapters.size())));
  }
  return absl::OkStatus();
}

absl::Status CheckSetups(const Step& step, const DeviceInfo& info, int32_t vocab_size) {
  for (size_t i = 0; i < step.setups.size(); ++i) {
    const SlotSetup& setup = step.setups[i];
    SWAA_RETURN_IF_ERROR(CheckRange("setups.slot", i, setup.slot, info.num_slots));
    if (setup.sampling == nullptr) {
      return absl::InternalError(absl::StrCat("step.setups[", i, "]: no sampling parameters"));
    }
    for (const int32_t token : setup.output) {
      SWAA_RETURN_IF_ERROR(CheckRange("setups.output", i, token, vocab_size));
    }
    for (const int32_t token : setup.forbidden) {
      SWAA_RETURN_IF_ERROR(CheckRange("setups.forbidden", i, token, vocab_size));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLogits(const Step& step, const DeviceInfo& info, int32_t vocab_size) {
  SWAA_RETURN_IF_ERROR(CheckRange("logits.size", 0, static_cast<int64_t>(step.logits.size()),
                                  int64_t{info.max_step_tokens} + 1));
  int64_t previous = 0;
  for (size_t i = 0; i < step.logits.size(); ++i) {
    const LogitsRow& logits = step.logits[i];
    SWAA_RETURN_IF_ERROR(
        CheckRange("logits.row", i, logits.row, static_cast<int64_t>(step.tokens.size())));
    if (logits.row < previous) {
      return absl::InternalError(
          absl::StrCat("step.logits[", i, "]: row ", logits.row, " after row ", previous));
    }
    previous = logits.row;
    SWAA_RETURN_IF_ERROR(CheckRange("logits.slot", i, logits.slot, info.num_slots));
    if (logits.known_token != -1) {
      SWAA_RETURN_IF_ERROR(CheckRange("logits.known_token", i, logits.known_token, vocab_size));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckStep(const Step& step, const DeviceInfo& info, int32_t vocab_size) {
  if (step.tokens.size() > static_cast<size_t>(info.max_step_tokens)) {
    return absl::InternalError(absl::StrCat("step.tokens: ", step.tokens.size(),
                                            " rows; the device takes ", info.max_step_tokens));
  }
  for (size_t i = 0; i < step.tokens.size(); ++i) {
    if (step.tokens[i] == kDrawnToken) continue;
    SWAA_RETURN_IF_ERROR(CheckRange("tokens", i, step.tokens[i], vocab_size));
  }
  for (size_t i = 0; i < step.page_table_updates.size(); ++i) {
    const PageTableUpdate& update = step.page_table_updates[i];
    SWAA_RETURN_IF_ERROR(CheckRange("page_table_updates.slot", i, update.slot, info.num_slots));
    SWAA_RETURN_IF_ERROR(CheckRange("page_table_updates.layer", i, update.layer, info.num_layers));
    SWAA_RETURN_IF_ERROR(
        CheckRange("page_table_updates.block", i, update.block, info.max_pages_per_layer));
    SWAA_RETURN_IF_ERROR(CheckRange("page_table_updates.page", i, update.page, info.num_pages));
  }
  SWAA_RETURN_IF_ERROR(CheckSetups(step, info, vocab_size));
  SWAA_RETURN_IF_ERROR(CheckSequences(step, info));
  SWAA_RETURN_IF_ERROR(CheckAdapters(step));
  return CheckLogits(step, info, vocab_size);
}

}  // namespace swaa
