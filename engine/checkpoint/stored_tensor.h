// A tensor as it lies in a mapped file.

#ifndef SWAA_ENGINE_CHECKPOINT_STORED_TENSOR_H_
#define SWAA_ENGINE_CHECKPOINT_STORED_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/checkpoint/dequantize.h"
#include "engine/checkpoint/mapped_file.h"

namespace swaa {

// Only made after its extent was checked to lie inside the file.
struct StoredTensor {
  TensorType type = TensorType::kF32;
  std::vector<int64_t> shape;  // rows first: [rows, columns], or [size] of a vector
  const std::byte* data = nullptr;
  int64_t bytes = 0;
  std::shared_ptr<const MappedFile> file;
};

using StoredTensors = std::map<std::string, StoredTensor, std::less<>>;

inline std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// Where the tensor begins in its file.
inline int64_t FileOffset(const StoredTensor& tensor) {
  return tensor.data - tensor.file->bytes().data();
}

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_STORED_TENSOR_H_
