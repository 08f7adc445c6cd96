// Turns a stream of tokens into a stream of whole UTF-8.

#ifndef SWAA_ENGINE_TOKENIZER_DETOKENIZER_H_
#define SWAA_ENGINE_TOKENIZER_DETOKENIZER_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/tokenizer/tokenizer.h"

namespace swaa {

// One per stream; not thread-safe. Special tokens contribute nothing unless asked for.
class Detokenizer {
 public:
  explicit Detokenizer(const Tokenizer* tokenizer) : tokenizer_(tokenizer) {}

  // The text that `token` completes; an unfinished UTF-8 sequence waits for the next token. Bytes
  // that can never become UTF-8 turn into U+FFFD, as Python's errors="replace" does.
  std::string Append(int32_t token, bool show_special = false);
  // The same for bytes, where only part of a token may be shown.
  std::string AppendBytes(std::string_view bytes);
  // What is still waiting, as U+FFFD. Ends the stream.
  std::string Flush();

 private:
  const Tokenizer* tokenizer_;
  std::string pending_;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_TOKENIZER_DETOKENIZER_H_
