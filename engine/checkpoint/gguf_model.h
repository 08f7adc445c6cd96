// What a GGUF file's metadata say about the model and its tokenizer.

#ifndef SWAA_ENGINE_CHECKPOINT_GGUF_MODEL_H_
#define SWAA_ENGINE_CHECKPOINT_GGUF_MODEL_H_

#include "absl/status/statusor.h"
#include "engine/checkpoint/gguf.h"
#include "engine/checkpoint/model_config.h"
#include "engine/tokenizer/tokenizer_data.h"

namespace swaa {

// The tensor of GGUF files that holds ModelConfig::rope_frequency_factors; it is no weight.
inline constexpr std::string_view kGgufRopeFactors = "rope_freqs.weight";

// INVALID_ARGUMENT: a missing or impossible number, with the file, offset and key. UNIMPLEMENTED:
// an architecture, or a feature of it, that this build does not have.
absl::StatusOr<ModelConfig> ReadGgufConfig(const GgufFile& gguf);

// INVALID_ARGUMENT and UNIMPLEMENTED likewise. The merges are not yet checked against the
// vocabulary: Tokenizer::Create does.
absl::StatusOr<TokenizerData> ReadGgufTokenizer(const GgufFile& gguf);

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_GGUF_MODEL_H_
