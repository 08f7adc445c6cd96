// Pre-tokenisation. Cuts text into the pieces inside which BPE merges, by
// the regular expressions that the vocabularies were trained with.

#ifndef SWAA_ENGINE_TOKENIZER_PIECE_SPLITTER_H_
#define SWAA_ENGINE_TOKENIZER_PIECE_SPLITTER_H_

#include <functional>
#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/tokenizer/tokenizer_data.h"

namespace swaa {

// Expressions that cut one after the other: what one has cut, the matches and what lies between
// them, the next cuts further.
std::vector<std::string_view> ExpressionsOf(PreTokenizer kind);

// The regular expression of Hugging Face's `Split` pre-tokeniser for kLlamaBpe and kQwen2, as their
// tokenizer.json spells it. Empty for the others.
std::string_view SplitRegexOf(PreTokenizer kind);

// Immutable; any thread.
class PieceSplitter {
 public:
  static absl::StatusOr<std::unique_ptr<PieceSplitter>> Create(PreTokenizer kind);
  ~PieceSplitter();

  // Calls `visit` with the pieces of whole UTF-8 `text`, in order; together they are the text.
  void Split(std::string_view text, const std::function<void(std::string_view)>& visit) const;

 private:
  struct Impl;
  explicit PieceSplitter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_TOKENIZER_PIECE_SPLITTER_H_
