// The weights of a configuration, found among a file's tensors.

#ifndef SWAA_ENGINE_CHECKPOINT_TENSOR_WEIGHTS_H_
#define SWAA_ENGINE_CHECKPOINT_TENSOR_WEIGHTS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/family.h"
#include "engine/checkpoint/model_config.h"
#include "engine/checkpoint/stored_tensor.h"
#include "engine/checkpoint/weight_table.h"

namespace swaa {

// INVALID_ARGUMENT, with the file and the offset, where the tensor has another shape.
absl::Status CheckTensorShape(const StoredTensor& tensor, const std::vector<int64_t>& wanted,
                              const std::string& name);

// Checks that every weight of `config` is among `tensors` with the shape that the configuration
// asks for, and that no tensor with elements is left over: what is not understood would be missing
// from the result. `place` names the file or folder in messages. INVALID_ARGUMENT: missing or of
// another shape; UNIMPLEMENTED: left over.
absl::StatusOr<std::shared_ptr<const WeightSource>> MakeTensorWeights(
    const ModelConfig& config, WeightNaming naming, RopeRows rope_rows, StoredTensors tensors,
    int64_t mapped_bytes, const std::string& place);

// Random weights, the same in every run: norms one, biases zero, everything else about N(0, 0.02).
std::shared_ptr<const WeightSource> MakeDummyWeights(const ModelConfig& config);

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_TENSOR_WEIGHTS_H_
