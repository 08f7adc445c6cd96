// Thinking sections of an output: where a model that was trained to think before it answers does
// so. Known by the marks that it writes around them.

#ifndef SWAA_ENGINE_TOKENIZER_THINKING_H_
#define SWAA_ENGINE_TOKENIZER_THINKING_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "engine/tokenizer/tokenizer.h"

namespace swaa {

// What a section begins and ends with; both belong to it.
struct ThinkingMarks {
  std::string open;
  std::string close;
  // The marks as tokens of the vocabulary. Absent: it has none, and they are found in the text.
  struct Ids {
    int32_t open;
    int32_t close;
  };
  std::optional<Ids> ids;
};

// The marks that the vocabulary has as special or added tokens, else those that the chat template
// writes. Nothing: the model is not known to think.
std::optional<ThinkingMarks> FindThinkingMarks(const Tokenizer& tokenizer);

// Whether output that follows `prompt` begins inside of a section: the last mark of the prompt's
// last turn, which the last special token begins, opens one.
bool EndsInThinking(const ThinkingMarks& marks, const Tokenizer& tokenizer,
                    std::span<const int32_t> prompt);

// Tells what of an output is thinking, as it comes. One per stream; not thread-safe.
class ThinkingSections {
 public:
  // Text in one section, which goes on to `end` at least.
  struct Piece {
    bool thinking;
    uint64_t end;
  };

  // Null: there are no marks, and nothing is thinking. The marks outlive this.
  ThinkingSections(const ThinkingMarks* marks, bool begins_inside)
      : marks_(marks), inside_(begins_inside), piece_inside_(begins_inside) {}

  // The next token and those of its bytes that are part of the output's text. Returns whether the
  // token is thinking, by its first byte. Nothing: it may begin a mark; IsThinking tells once that
  // byte is decided, which is so a mark's length later.
  std::optional<bool> Append(int32_t token, std::string_view bytes);
  // There is no further token: what may become a mark is none.
  void Finish() { mark_.clear(); }

  // How many bytes of the text are known to be thinking or not.
  uint64_t decided_bytes() const { return inside_ ? bytes_ : bytes_ - mark_.size(); }
  // Whether the text's byte `at` is, which is decided and not before the last piece asked for.
  bool IsThinking(uint64_t at) const;
  // What begins at byte `at`, which is decided. `at` never falls.
  Piece PieceAt(uint64_t at);

 private:
  void FlipAt(uint64_t at);
  void FindMarks(std::string_view bytes);

  const ThinkingMarks* marks_;
  bool inside_;         // where the text ends
  bool piece_inside_;   // before flips_
  uint64_t bytes_ = 0;  // of the text so far
  std::string mark_;    // its end, which may begin the next mark
  // Where sections begin and end from the last piece asked for on, rising.
  std::deque<uint64_t> flips_;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_TOKENIZER_THINKING_H_
