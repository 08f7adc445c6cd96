// A model's numbers alone, where nothing else of it need be there.

#ifndef SWAA_ENGINE_CHECKPOINT_READ_MODEL_CONFIG_H_
#define SWAA_ENGINE_CHECKPOINT_READ_MODEL_CONFIG_H_

#include <string>

#include "absl/status/statusor.h"
#include "engine/checkpoint/model_config.h"

namespace swaa {

// Of a GGUF file, a Hugging Face folder, or its config.json. Errors are LoadCheckpoint's. Whether
// the output matrix is the embedding is as the file says, though the weights may differ.
absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& path);

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_READ_MODEL_CONFIG_H_
