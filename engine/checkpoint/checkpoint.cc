// Opens a model, whatever its format.

#include "engine/checkpoint/checkpoint.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/checkpoint/family.h"
#include "engine/checkpoint/gguf.h"
#include "engine/checkpoint/gguf_model.h"
#include "engine/checkpoint/gguf_split.h"
#include "engine/checkpoint/hf_folder.h"
#include "engine/checkpoint/tensor_weights.h"

namespace swaa {
namespace {

// Embeddings are often padded to a round number of rows; what no token names gets a name that is
// never looked up, so that every id below vocab_size is a token.
absl::Status PadVocabulary(const ModelConfig& config, const std::string& place,
                           TokenizerData* tokenizer) {
  const size_t vocab = static_cast<size_t>(config.vocab_size);
  if (tokenizer->tokens.size() > vocab) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": the tokenizer has ", tokenizer->tokens.size(),
                     " tokens, but the embedding only ", vocab, " rows"));
  }
  tokenizer->tokens.reserve(vocab);
  while (tokenizer->tokens.size() < vocab) {
    tokenizer->tokens.push_back(absl::StrCat("[PAD", tokenizer->tokens.size(), "]"));
    tokenizer->kinds.push_back(TokenKind::kUnused);
  }
  return absl::OkStatus();
}

absl::StatusOr<Checkpoint> LoadGguf(const std::string& path, LoadFormat format) {
  SWAA_ASSIGN_OR_RETURN(const GgufModel model, OpenGguf(path));
  const GgufFile& gguf = model.gguf;
  Checkpoint checkpoint;
  SWAA_ASSIGN_OR_RETURN(checkpoint.config, ReadGgufConfig(gguf));
  SWAA_ASSIGN_OR_RETURN(checkpoint.tokenizer, ReadGgufTokenizer(gguf, &checkpoint.warnings));
  if (format == LoadFormat::kDummy) {
    checkpoint.weights = MakeDummyWeights(checkpoint.config);
    return checkpoint;
  }
  StoredTensors tensors = gguf.tensors();
  tensors.erase(std::string(kGgufRopeFactors));
  SWAA_ASSIGN_OR_RETURN(
      checkpoint.weights,
      MakeTensorWeights(checkpoint.config, WeightNaming::kGguf,
                        FindGgufFamily(checkpoint.config.architecture)->gguf_rope_rows,
                        std::move(tensors), model.mapped_bytes, path));
  return checkpoint;
}

}  // namespace

absl::StatusOr<Checkpoint> LoadCheckpoint(const std::string& path, LoadFormat format) {
  std::error_code error;
  const bool is_folder = std::filesystem::is_directory(path, error);
  SWAA_ASSIGN_OR_RETURN(Checkpoint checkpoint,
                        is_folder ? LoadHfFolder(path, format) : LoadGguf(path, format));
  SWAA_RETURN_IF_ERROR(PadVocabulary(checkpoint.config, path, &checkpoint.tokenizer));
  return checkpoint;
}

}  // namespace swaa
