// What a GGUF file's metadata say about the model and its tokenizer.

#ifndef SWAA_ENGINE_CHECKPOINT_GGUF_MODEL_H_
#define SWAA_ENGINE_CHECKPOINT_GGUF_MODEL_H_

#include <string>
#include <string_view>
#include <vector>

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
// vocabulary: Tokenizer::Create does. As llama.cpp: a file that names no pre-tokeniser has its
// default one, the id -1 is no token, and a generation ends at each token whose text says so.
// Appends a sentence to `warnings` where the result may not be what the model was trained with.
absl::StatusOr<TokenizerData> ReadGgufTokenizer(const GgufFile& gguf,
                                                std::vector<std::string>* warnings);

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_GGUF_MODEL_H_
