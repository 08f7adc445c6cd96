// Byte-level BPE (GPT-2's scheme with the pre-tokenisers of SmolLM, Llama 3 and Qwen2).

#ifndef SWAA_ENGINE_TOKENIZER_TOKENIZER_H_
#define SWAA_ENGINE_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "engine/tokenizer/tokenizer_data.h"

namespace swaa {

// Immutable after Create; every method may be called from any thread at once.
class Tokenizer {
 public:
  enum class SpecialTokens { kParse, kAsText };

  // INVALID_ARGUMENT for a vocabulary that is not consistent (a merge whose result is no token,
  // ...), with what is wrong; the caller adds the file.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(TokenizerData data);
  ~Tokenizer();

  // Token ids of UTF-8 text; a byte that is no part of UTF-8 is a piece of its own. No
  // beginning-of-sequence is added. kParse: special and added tokens are recognised by their
  // literal text, the leftmost first and there the longest; kAsText: there are none in the result.
  // Never fails. A byte that the vocabulary lacks leaves no token, as with Hugging Face's
  // tokenizers (SmolLM's has no token for some control characters), so text that is not empty may
  // give an empty result. Time is O(n log n).
  std::vector<int32_t> Encode(std::string_view text, SpecialTokens special_tokens) const;

  // The same with those literals parsed that `is_token` accepts, given the token's id and where its
  // text begins and ends.
  using LiteralFilter = absl::FunctionRef<bool(int32_t id, size_t begin, size_t end)>;
  std::vector<int32_t> Encode(std::string_view text, LiteralFilter is_token) const;

  // The raw bytes that a token stands for (a special token's literal text; an unused
  // one's are none). CHECKs the id's range.
  std::string_view TokenBytes(int32_t id) const;
  bool IsSpecial(int32_t id) const;
  // The id of a special or added token by its literal text, such as "<|im_start|>".
  std::optional<int32_t> SpecialTokenId(std::string_view text) const;

  int32_t vocab_size() const;
  // What a raw prompt begins with, if anything.
  std::optional<int32_t> prompt_bos() const;
  const std::vector<int32_t>& eos_ids() const;
  const std::string& chat_template() const;
  // What a chat with tools is rendered with instead; empty: nothing.
  const std::string& tool_chat_template() const;
  // What the chat template may read: "bos_token", "eos_token", ... and their texts.
  const std::vector<std::pair<std::string, std::string>>& named_tokens() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  static void AddLiteral(const TokenizerData& data, int32_t id, const std::string& text,
                         Impl& impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_TOKENIZER_TOKENIZER_H_
