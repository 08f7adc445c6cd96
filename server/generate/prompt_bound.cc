// A prompt that cannot fit, known by its bytes.

#include "server/generate/prompt_bound.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/generate/errors.h"

namespace swaa::server {
namespace {

constexpr auto kAsText = Tokenizer::SpecialTokens::kAsText;
constexpr size_t kMostNfcShrinks = 4;

// Whether the tokenizer composes text first: the Kelvin sign is K then.
bool Normalises(const Tokenizer& tokenizer) {
  return tokenizer.Encode("\xe2\x84\xaa", kAsText) == tokenizer.Encode("K", kAsText) &&
         !tokenizer.Encode("K", kAsText).empty();
}

}  // namespace

PromptBound::PromptBound(const Tokenizer& tokenizer, int32_t context_tokens)
    : context_tokens_(context_tokens) {
  size_t longest = 1;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    longest = std::max(longest, tokenizer.TokenBytes(id).size());
  }
  bool all_have_tokens = true;
  for (size_t byte = 0; byte < has_token_.size(); ++byte) {
    has_token_[byte] = !tokenizer.Encode(std::string(1, static_cast<char>(byte)), kAsText).empty();
    all_have_tokens = all_have_tokens && has_token_[byte];
  }
  const bool normalises = Normalises(tokenizer);
  // What a character becomes may then consist of bytes that are dropped: nothing is known.
  if (normalises && !all_have_tokens) return;
  most_bytes_ = static_cast<size_t>(context_tokens) * longest * (normalises ? kMostNfcShrinks : 1);
}

absl::Status PromptBound::Check(std::string_view text, std::string_view field) const {
  if (text.size() <= most_bytes_) return absl::OkStatus();
  size_t bytes = 0;
  for (char c : text) bytes += has_token_[static_cast<unsigned char>(c)] ? 1 : 0;
  if (bytes <= most_bytes_) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kOutOfRange, "prompt_too_long",
      absl::StrCat(std::string(field), ": ", bytes, " bytes are more than the context of ",
                   context_tokens_, " tokens can hold (at most ", most_bytes_,
                   " bytes, whatever the text); shorten it"));
}

absl::Status PromptBound::CheckTokens(int64_t count, std::string_view field) const {
  if (count <= context_tokens_) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kOutOfRange, "prompt_too_long",
      absl::StrCat(std::string(field), ": ", count, " tokens are more than the context of ",
                   context_tokens_, "; shorten it"));
}

}  // namespace swaa::server
