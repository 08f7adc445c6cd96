// Reads the metadata keys of one architecture, "llama.block_count" and so on.

#ifndef SWAA_ENGINE_CHECKPOINT_GGUF_KEYS_H_
#define SWAA_ENGINE_CHECKPOINT_GGUF_KEYS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/checkpoint/gguf.h"

namespace swaa {

// Keeps a reference to the file. Keys are named without the architecture. Getters are
// INVALID_ARGUMENT with the file, the offset and the key where the value is of another type or out
// of its range, and where it is absent without a fallback.
class GgufKeys {
 public:
  GgufKeys(const GgufFile& gguf, std::string_view architecture);

  bool Has(std::string_view key) const { return gguf_.Has(Name(key)); }
  absl::StatusOr<int32_t> Size(std::string_view key, int64_t most,
                               std::optional<int32_t> fallback = std::nullopt) const;
  // Likewise; the file may have it as a list of one number a layer, which must all be the same
  // (UNIMPLEMENTED otherwise).
  absl::StatusOr<int32_t> SizeOfLayers(std::string_view key, int64_t most, int32_t num_layers,
                                       std::optional<int32_t> fallback = std::nullopt) const;
  absl::StatusOr<double> Number(std::string_view key, std::optional<double> fallback) const;
  absl::StatusOr<std::optional<std::string_view>> String(std::string_view key) const {
    return gguf_.String(Name(key));
  }

  // UNIMPLEMENTED unless the key is absent or holds this number; a bool counts as 0 or 1.
  absl::Status ExpectNeutral(std::string_view key, double neutral) const;

  const GgufFile& gguf() const { return gguf_; }
  // What all names begin with, the dot included.
  const std::string& prefix() const { return prefix_; }
  std::string Name(std::string_view key) const;
  // INVALID_ARGUMENT and UNIMPLEMENTED about a key.
  absl::Status Wrong(std::string_view key, std::string_view problem) const;
  absl::Status Unsupported(std::string_view key, std::string_view problem) const;

 private:
  const GgufFile& gguf_;
  const std::string prefix_;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_GGUF_KEYS_H_
