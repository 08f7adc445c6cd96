// What must hold of a ModelConfig before anything is sized by it.

#ifndef SWAA_ENGINE_CHECKPOINT_VALIDATE_CONFIG_H_
#define SWAA_ENGINE_CHECKPOINT_VALIDATE_CONFIG_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/checkpoint/model_config.h"

namespace swaa {

// Limits far above any known model and low enough that products of two of them fit in int64 and a
// matrix's bytes do as well.
inline constexpr int64_t kMaxLayers = 4096;
inline constexpr int64_t kMaxHidden = 1 << 20;
inline constexpr int64_t kMaxFfnWidth = 1 << 22;
inline constexpr int64_t kMaxHeads = 1 << 13;
inline constexpr int64_t kMaxHeadDim = 1 << 10;
inline constexpr int64_t kMaxVocab = 1 << 22;
inline constexpr int64_t kMaxExperts = 1 << 12;
inline constexpr int64_t kMaxContext = 1 << 28;

// INVALID_ARGUMENT names `file`, the number and its range.
absl::Status ValidateConfig(const ModelConfig& config, const std::string& file);

// `value` as an int32 in [least, most]; INVALID_ARGUMENT with `name` otherwise.
absl::StatusOr<int32_t> CheckedSize(int64_t value, int64_t least, int64_t most,
                                    std::string_view name);

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_VALIDATE_CONFIG_H_
