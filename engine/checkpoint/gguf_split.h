// GGUF models of one file or of several parts, NAME-00001-of-0000N.gguf.

#ifndef SWAA_ENGINE_CHECKPOINT_GGUF_SPLIT_H_
#define SWAA_ENGINE_CHECKPOINT_GGUF_SPLIT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "engine/checkpoint/gguf.h"

namespace swaa {

struct GgufModel {
  GgufFile gguf;  // with the tensors of all parts; metadata are the first part's
  int64_t mapped_bytes = 0;
};

// Opens the file at `path` and, where it is the first part of several, the others beside it. Fails
// as MappedFile::Open and GgufFile::Parse do. INVALID_ARGUMENT: not the first part, or parts that
// do not belong together; NOT_FOUND names the part that is missing.
absl::StatusOr<GgufModel> OpenGguf(const std::string& path);

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_GGUF_SPLIT_H_
