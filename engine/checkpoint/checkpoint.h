// A model's files, opened: numbers, tokenizer, and weights by role. Files are mapped; weights are
// turned into f32 row by row when they are asked for.

#ifndef SWAA_ENGINE_CHECKPOINT_CHECKPOINT_H_
#define SWAA_ENGINE_CHECKPOINT_CHECKPOINT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/checkpoint/model_config.h"
#include "engine/tokenizer/tokenizer_data.h"
#include "kernels/operators.h"

namespace swaa {

enum class WeightRole {
  kTokenEmbedding,  // [vocab, hidden]
  kOutput,          // [vocab, hidden]; absent where embeddings are tied
  kOutputNorm,      // [hidden]
  kAttentionNorm,   // [hidden], and below: one a layer
  kQuery,           // [heads * head_dim, hidden], rotate-half order whatever the file's
  kKey,             // [kv_heads * head_dim, hidden], likewise
  kValue,
  kAttentionOutput,  // [hidden, heads * head_dim]
  kQueryBias,
  kKeyBias,
  kValueBias,
  kQueryNorm,
  kKeyNorm,
  kFfnNorm,
  kFfnGate,  // [ffn_width, hidden]
  kFfnUp,
  kFfnDown,  // [hidden, ffn_width]
};

// A weight in place. A vector has rows = 1. read_rows stays valid as long as the WeightSource.
struct WeightView {
  int64_t rows = 0;
  int64_t columns = 0;
  kernels::RowReader read_rows;
};

// Immutable; any thread.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // NOT_FOUND names the missing tensor and the file. Shapes were checked when the file was opened.
  virtual absl::StatusOr<WeightView> Find(WeightRole role, int32_t layer) const = 0;
  // Bytes mapped from files.
  virtual int64_t mapped_bytes() const = 0;
};

struct Checkpoint {
  ModelConfig config;
  TokenizerData tokenizer;
  GenerationDefaults generation;
  std::shared_ptr<const WeightSource> weights;
};

enum class LoadFormat {
  kAuto,   // by what the path is: a .gguf file, or a Hugging Face folder
  kDummy,  // random weights of the right shapes (only the configuration and tokenizer are read)
};

// Opens `path`. NOT_FOUND: no such file; INVALID_ARGUMENT: malformed, with file, offset and what is
// wrong; UNIMPLEMENTED: an architecture, tensor type or tokenizer that this build does not have,
// named with those it has.
absl::StatusOr<Checkpoint> LoadCheckpoint(const std::string& path, LoadFormat format);

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_CHECKPOINT_H_
