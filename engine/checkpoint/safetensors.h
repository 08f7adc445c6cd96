// The container format safetensors
// (https://huggingface.co/docs/safetensors/index#format).

#ifndef SWAA_ENGINE_CHECKPOINT_SAFETENSORS_H_
#define SWAA_ENGINE_CHECKPOINT_SAFETENSORS_H_

#include <memory>

#include "absl/status/statusor.h"
#include "engine/checkpoint/mapped_file.h"
#include "engine/checkpoint/stored_tensor.h"

namespace swaa {

// The file's tensors. INVALID_ARGUMENT with file, offset and what is wrong, UNIMPLEMENTED for an
// element type other than F32, F16 and BF16.
absl::StatusOr<StoredTensors> ParseSafetensors(const std::shared_ptr<const MappedFile>& file);

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_SAFETENSORS_H_
