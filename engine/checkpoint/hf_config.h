// config.json and generation_config.json.

#ifndef SWAA_ENGINE_CHECKPOINT_HF_CONFIG_H_
#define SWAA_ENGINE_CHECKPOINT_HF_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/model_config.h"

namespace swaa {

// `json` is the object in `file`. INVALID_ARGUMENT: a missing or impossible value; UNIMPLEMENTED:
// another model_type, or a feature that this build does not have, by name.
absl::StatusOr<ModelConfig> ReadHfConfig(const nlohmann::json& json, const std::string& file);

// Sampling defaults; do_sample false is temperature 0. INVALID_ARGUMENT for a value that a request
// could not name either.
absl::StatusOr<GenerationDefaults> ReadGenerationDefaults(const nlohmann::json& json,
                                                          int32_t vocab_size,
                                                          const std::string& file);

// A sentence for each key that would change what is generated and is not heeded.
std::vector<std::string> UnheededGenerationKeys(const nlohmann::json& json,
                                                const std::string& file);

// eos_token_id of either file: a number, a list, or absent. Each below vocab_size.
absl::StatusOr<std::vector<int32_t>> ReadEosIds(const nlohmann::json& json, int32_t vocab_size,
                                                const std::string& file);

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_HF_CONFIG_H_
