// What a model file says about its tokenizer, in one neutral form that GGUF metadata and
// tokenizer.json both fill.

#ifndef SWAA_ENGINE_TOKENIZER_TOKENIZER_DATA_H_
#define SWAA_ENGINE_TOKENIZER_TOKENIZER_DATA_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace swaa {

enum class PreTokenizer {
  kGpt2,    // the ByteLevel pre-tokeniser alone
  kSmolLm,  // each digit by itself, the rest as kGpt2
  kLlamaBpe,
  kQwen2,
  kLlamaCppDefault,  // llama.cpp's, for files that name none
};

enum class TokenKind : uint8_t {
  kNormal,
  kSpecial,  // literal text, parsed on request only and not shown
  kAdded,    // literal text, parsed like a special token but shown (Qwen3's <think>)
  kUnused,   // stands for nothing
};

// How the literal of a special or added token is found in text.
struct LiteralOptions {
  bool lstrip = false;       // it takes the white space before it along
  bool rstrip = false;       // and that behind it
  bool single_word = false;  // not inside a word
  bool normalized = false;   // it is looked for after normalisation, in what the others left
  bool operator==(const LiteralOptions&) const = default;
};

struct TokenizerData {
  PreTokenizer pre_tokenizer = PreTokenizer::kSmolLm;
  bool normalize_nfc = false;       // Qwen2
  bool ignore_merges = false;       // Llama 3: whole-word lookups first
  std::vector<std::string> tokens;  // id -> text, normal ones in GPT-2's byte alphabet
  std::vector<TokenKind> kinds;     // id -> kind
  std::map<int32_t, LiteralOptions> literal_options;        // of tokens that have any
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  std::optional<int32_t> bos_id;
  bool add_bos = false;  // raw prompts begin with bos_id
  std::vector<int32_t> eos_ids;
  // Names under which the chat template finds special tokens ("bos_token"), and their texts.
  std::vector<std::pair<std::string, std::string>> named_tokens;
  std::string chat_template;       // Jinja text; empty: none
  std::string tool_chat_template;  // what is taken instead where there are tools; empty: none
};

}  // namespace swaa

#endif  // SWAA_ENGINE_TOKENIZER_TOKENIZER_DATA_H_
