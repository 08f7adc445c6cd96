// Folders as Hugging Face transformers saves them: config.json, tokenizer.json,
// safetensors.

#ifndef SWAA_ENGINE_CHECKPOINT_HF_FOLDER_H_
#define SWAA_ENGINE_CHECKPOINT_HF_FOLDER_H_

#include <string>

#include "absl/status/statusor.h"
#include "engine/checkpoint/checkpoint.h"

namespace swaa {

// See LoadCheckpoint. `folder` is a directory that exists.
absl::StatusOr<Checkpoint> LoadHfFolder(const std::string& folder, LoadFormat format);

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_HF_FOLDER_H_
