// Cuts text at the literals of added tokens, as Hugging Face's tokenizers do.

#ifndef SWAA_ENGINE_TOKENIZER_LITERAL_SPLITTER_H_
#define SWAA_ENGINE_TOKENIZER_LITERAL_SPLITTER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "engine/tokenizer/literal_matcher.h"
#include "engine/tokenizer/tokenizer_data.h"

namespace swaa {

// Immutable once filled; then any thread.
class LiteralSplitter {
 public:
  // `literal` is not empty. The first of equal ones stays.
  void Add(std::string_view literal, int32_t token, const LiteralOptions& options);

  bool empty() const { return empty_; }
  // The token whose literal is exactly `text`.
  std::optional<int32_t> Lookup(std::string_view text) const { return matcher_.Lookup(text); }

  // Calls on_text with the stretches between literals, on_token with the tokens of literals, in
  // order. The leftmost literal that `accepts` first, and there the longest; what one refuses
  // (single_word) is text, whatever shorter one it begins with. Time is O(text).
  void Split(std::string_view text, absl::FunctionRef<bool(const LiteralMatcher::Match&)> accepts,
             absl::FunctionRef<void(std::string_view)> on_text,
             absl::FunctionRef<void(int32_t)> on_token) const;

 private:
  LiteralMatcher matcher_;
  absl::flat_hash_map<int32_t, LiteralOptions> options_;  // of tokens that have any
  bool empty_ = true;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_TOKENIZER_LITERAL_SPLITTER_H_
