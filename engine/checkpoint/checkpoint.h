// A model's files, opened: numbers, tokenizer, and weights by role. Files are mapped; weights are
// turned into f32 row by row when they are asked for.

#ifndef SWAA_ENGINE_CHECKPOINT_CHECKPOINT_H_
#define SWAA_ENGINE_CHECKPOINT_CHECKPOINT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/checkpoint/dequantize.h"
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
  kAttentionOutputBias,  // [hidden]
  kQueryNorm,
  kKeyNorm,
  kFfnNorm,
  kFfnGate,  // [ffn_width, hidden], and below: in layers that are no mixtures
  kFfnUp,
  kFfnDown,     // [hidden, ffn_width]
  kRouter,      // [experts, hidden], and below: in layers that are mixtures of experts
  kExpertGate,  // [experts' ffn_width, hidden], and below: one an expert
  kExpertUp,
  kExpertDown,  // [hidden, experts' ffn_width]
};

// Which weight: its role, the layer where layers have one, and the expert where experts have one.
struct WeightKey {
  WeightRole role;
  int32_t layer = 0;
  int32_t expert = 0;
};

// A weight in place. A vector has rows = 1. Valid as long as the WeightSource.
struct WeightView {
  int64_t rows = 0;
  int64_t columns = 0;
  kernels::RowReader read_rows;
  // The weight as its file keeps it, for who can take elements of that type as they are: row after
  // row in the order of read_rows, without gaps, at no particular alignment. Null where the file
  // keeps the rows in another order, and where there is no file.
  const std::byte* stored = nullptr;
  TensorType stored_type = TensorType::kF32;  // of `stored`

  // `stored` where it is bf16 [rows, columns], little-endian; null otherwise.
  const std::byte* stored_bf16() const {
    return stored_type == TensorType::kBf16 ? stored : nullptr;
  }
};

// Immutable; any thread.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // NOT_FOUND names the missing tensor and the file. Shapes were checked when the file was opened.
  virtual absl::StatusOr<WeightView> Find(WeightKey key) const = 0;
  // Bytes mapped from files.
  virtual int64_t mapped_bytes() const = 0;
};

struct Checkpoint {
  ModelConfig config;
  TokenizerData tokenizer;
  GenerationDefaults generation;
  // What the files say and is not done, or is done otherwise; each a sentence with its file.
  std::vector<std::string> warnings;
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
