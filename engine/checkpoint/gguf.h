// The container format GGUF, versions 2 and 3, little-endian
// (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): metadata and tensors. What they mean
// for a model is gguf_model.h's affair.

#ifndef SWAA_ENGINE_CHECKPOINT_GGUF_H_
#define SWAA_ENGINE_CHECKPOINT_GGUF_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/checkpoint/mapped_file.h"
#include "engine/checkpoint/stored_tensor.h"

namespace swaa {

// GGUF's numbers for the types of metadata values.
enum class GgufType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

// Of a value of fixed size; 0 for strings, arrays and numbers that are no type.
size_t GgufTypeBytes(GgufType type);

// Immutable but for AddTensors; any thread. The getters give nullopt where the key is absent and
// INVALID_ARGUMENT, with the file, the key and where it is, where its value is of another type.
class GgufFile {
 public:
  // Checks everything that the file's header says against the file: INVALID_ARGUMENT names file,
  // offset and what is wrong. UNIMPLEMENTED: a version or tensor type that this build does not
  // read.
  static absl::StatusOr<GgufFile> Parse(std::shared_ptr<const MappedFile> file);

  bool Has(std::string_view key) const { return metadata_.contains(key); }
  bool IsArray(std::string_view key) const;
  // In order; valid as long as the file.
  std::vector<std::string_view> KeysWithPrefix(std::string_view prefix) const;
  absl::StatusOr<std::optional<int64_t>> Int(std::string_view key) const;
  absl::StatusOr<std::optional<double>> Number(std::string_view key) const;  // float or integer
  absl::StatusOr<std::optional<bool>> Bool(std::string_view key) const;
  // Checked to be UTF-8.
  absl::StatusOr<std::optional<std::string_view>> String(std::string_view key) const;
  absl::StatusOr<std::optional<std::vector<std::string_view>>> StringArray(
      std::string_view key) const;
  absl::StatusOr<std::optional<std::vector<int64_t>>> IntArray(std::string_view key) const;

  const StoredTensors& tensors() const { return tensors_; }
  // Those of another part of the same model; INVALID_ARGUMENT where one is here already.
  absl::Status AddTensors(const GgufFile& part);
  const std::shared_ptr<const MappedFile>& file() const { return file_; }

  // INVALID_ARGUMENT about a metadata key: "<file>: offset <n>: <key>: <problem>", without the
  // offset where the key is absent.
  absl::Status KeyError(std::string_view key, std::string_view problem) const;

 private:
  struct Value {
    GgufType type = GgufType::kUint8;
    GgufType element_type = GgufType::kUint8;  // of an array
    uint64_t count = 1;                        // of an array
    size_t offset = 0;                         // of the value, or of an array's first element
  };
  class Parser;

  const Value* FindValue(std::string_view key) const;
  int64_t IntAt(GgufType type, size_t offset) const;

  std::shared_ptr<const MappedFile> file_;
  std::map<std::string, Value, std::less<>> metadata_;
  StoredTensors tensors_;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_GGUF_H_
