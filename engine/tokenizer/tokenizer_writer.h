// Writes TokenizerData as Hugging Face's tokenizer.json and tokenizer_config.json, whatever file it
// came from, for those who tokenise for this server elsewhere.

#ifndef SWAA_ENGINE_TOKENIZER_TOKENIZER_WRITER_H_
#define SWAA_ENGINE_TOKENIZER_TOKENIZER_WRITER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/tokenizer_data.h"

namespace swaa {

// What the reader gets beside the model's own.
struct TokenizerAdditions {
  std::vector<std::string> special_tokens;  // with the ids behind the vocabulary, in order
  std::string chat_template_end;            // Jinja, behind the chat template, if there is one
  int32_t max_tokens = 0;                   // the model's context
};

struct TokenizerFiles {
  std::string tokenizer_json;
  std::string tokenizer_config_json;
};

// Text becomes the same ids by these files as by Tokenizer. Two chat templates become one that
// looks at `tools`. UNIMPLEMENTED: two tokens with one text, or text that is not UTF-8, which the
// form cannot express.
absl::StatusOr<TokenizerFiles> WriteTokenizerFiles(const TokenizerData& data,
                                                   const TokenizerAdditions& additions);

}  // namespace swaa

#endif  // SWAA_ENGINE_TOKENIZER_TOKENIZER_WRITER_H_
