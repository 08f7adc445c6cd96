// Reads a Hugging Face tokenizer.json (with tokenizer_config.json beside it) into TokenizerData.

#ifndef SWAA_ENGINE_TOKENIZER_TOKENIZER_JSON_H_
#define SWAA_ENGINE_TOKENIZER_TOKENIZER_JSON_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/tokenizer/tokenizer_data.h"

namespace swaa {

// json: text of tokenizer.json; config_json: text of tokenizer_config.json, or empty. `file` names
// the first in errors. eos_ids is filled from the configuration's eos_token; the caller adds those
// of generation_config.json. INVALID_ARGUMENT: malformed; UNIMPLEMENTED: a tokenizer of another
// kind, named.
absl::StatusOr<TokenizerData> ParseTokenizerJson(std::string_view json,
                                                 std::string_view config_json,
                                                 const std::string& file);

}  // namespace swaa

#endif  // SWAA_ENGINE_TOKENIZER_TOKENIZER_JSON_H_
