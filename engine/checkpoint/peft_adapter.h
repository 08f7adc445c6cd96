// Adapters as PEFT saves them: a folder with adapter_config.json and adapter_model.safetensors.

#ifndef SWAA_ENGINE_CHECKPOINT_PEFT_ADAPTER_H_
#define SWAA_ENGINE_CHECKPOINT_PEFT_ADAPTER_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/model_config.h"
#include "engine/checkpoint/peft_config.h"
#include "engine/checkpoint/stored_tensor.h"

namespace swaa {

// weight += scale * up * down. Rows of Q and K are in rotate-half order, as WeightSource gives
// them.
struct LoraMatrices {
  int32_t rank = 0;
  double scale = 0;
  StoredTensor down;  // [rank, in_features]
  StoredTensor up;    // [out_features, rank]
};

// Immutable. Its files stay mapped.
struct LoraCheckpoint {
  int32_t rank = 0;                                                 // the largest
  std::map<std::pair<WeightRole, int32_t>, LoraMatrices> matrices;  // by role and layer
};

// What `tensors` and the configuration make for a model; `place` names them in messages.
// INVALID_ARGUMENT: a matrix without its other half, or of another shape than model and
// configuration say, or with values that are no numbers or beyond +-65504; UNIMPLEMENTED names a
// tensor that belongs to no matrix that can be adapted.
absl::StatusOr<LoraCheckpoint> MakeLoraCheckpoint(const PeftConfig& peft, StoredTensors tensors,
                                                  const ModelConfig& model,
                                                  const std::string& place);

// Opens a folder. NOT_FOUND names a file that is missing; else as ParsePeftConfig, ParseSafetensors
// and MakeLoraCheckpoint. `may_open` is asked before each file, for paths that must not leave a
// folder.
absl::StatusOr<LoraCheckpoint> ReadPeftFolder(
    const std::string& folder, const ModelConfig& model,
    absl::FunctionRef<absl::Status(const std::string& path)> may_open);

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_PEFT_ADAPTER_H_
