// A prompt that cannot fit, known by its bytes.

#ifndef SWAA_SERVER_GENERATE_PROMPT_BOUND_H_
#define SWAA_SERVER_GENERATE_PROMPT_BOUND_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>

#include "absl/status/status.h"
#include "engine/tokenizer/tokenizer.h"

namespace swaa::server {

// A token stands for at most so many bytes, so text has at least its bytes divided by those as
// tokens. Bytes that have no token (the tokenizer drops them) count nothing, and where text is
// normalised (NFC) four bytes count as one: the most that composing saves is 7 bytes to 2 (U+1FBE
// U+0308 U+0301 becomes U+0390). Immutable.
class PromptBound {
 public:
  // Bounds nothing.
  PromptBound() = default;
  // Looks at every token; for the start.
  PromptBound(const Tokenizer& tokenizer, int32_t context_tokens);

  // OUT_OF_RANGE (prompt_too_long) where `text`, the value of `field`, has more tokens than the
  // context holds, whatever they are. OK says nothing. Time is linear, and constant for text of
  // usual length.
  absl::Status Check(std::string_view text, std::string_view field) const;

  // The same for token ids.
  absl::Status CheckTokens(int64_t count, std::string_view field) const;

 private:
  size_t most_bytes_ = std::string_view::npos;
  int32_t context_tokens_ = std::numeric_limits<int32_t>::max();
  std::array<bool, 256> has_token_ = {};
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_GENERATE_PROMPT_BOUND_H_
