// Turns the engine's tokens into the messages of a stream.

#ifndef SWAA_SERVER_GENERATE_DELTA_BUILDER_H_
#define SWAA_SERVER_GENERATE_DELTA_BUILDER_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "engine/generation.h"
#include "engine/tokenizer/detokenizer.h"
#include "engine/tokenizer/thinking.h"
#include "engine/tokenizer/tokenizer.h"
#include "swaa/v1/generation.pb.h"

namespace swaa::server {

// No delta and no event of prompt log-probabilities is larger.
inline constexpr size_t kMaxEventBytes = size_t{1} << 20;

// One per stream; not thread-safe. Text is whole UTF-8: bytes that may not be shown yet (part of a
// character, or of a stop string) come with a later token. All text and all tokens are in some
// delta, in order, and a delta is of one section: thinking, its marks included, or answer. A token
// is of the section that its first byte is in; one that may begin a mark waits for the next ones.
class DeltaBuilder {
 public:
  // tokens_per_delta 0: as few deltas as possible, at the end. `marks`: null where the model has no
  // thinking sections; `begins_thinking`: the prompt has opened one. What is pointed to outlives
  // the builder.
  DeltaBuilder(const Tokenizer* tokenizer, uint32_t tokens_per_delta,
               const ThinkingMarks* marks = nullptr, bool begins_thinking = false)
      : tokenizer_(tokenizer),
        tokens_per_delta_(tokens_per_delta),
        sections_(marks, begins_thinking),
        detokenizer_(tokenizer) {}

  // Takes tokens in order; appends the deltas that they fill.
  void Add(const std::vector<OutputToken>& tokens, std::vector<v1::GenerateResponse>* out);

  // Appends what is left. `show_rest`: no stop was found, so held-back bytes are text after all.
  void Finish(bool show_rest, std::vector<v1::GenerateResponse>* out);

  // Tokens of deltas so far that are thinking.
  uint32_t reasoning_tokens() const { return reasoning_tokens_; }

 private:
  struct WaitingToken {
    v1::TokenInfo info;
    uint64_t begin;  // of its bytes in the output's text
    uint64_t end;
    std::optional<bool> thinking;
  };

  // Puts waiting tokens, as far as their sections are decided, and their text into deltas.
  void TakeDecided(std::vector<v1::GenerateResponse>* out);
  void Take(WaitingToken token, std::vector<v1::GenerateResponse>* out);
  // Text up to byte `end`, as far as it may be shown.
  void ShowUpTo(uint64_t end, std::vector<v1::GenerateResponse>* out);
  void AppendText(const std::string& text, bool thinking, std::vector<v1::GenerateResponse>* out);
  void BeginSection(bool thinking, std::vector<v1::GenerateResponse>* out);
  void Flush(std::vector<v1::GenerateResponse>* out);

  const Tokenizer* tokenizer_;
  const uint32_t tokens_per_delta_;
  ThinkingSections sections_;
  Detokenizer detokenizer_;
  std::deque<WaitingToken> waiting_;
  std::string held_;            // bytes of shown tokens that were not sent yet
  uint64_t sent_bytes_ = 0;     // of the output's text, before held_
  uint64_t visible_bytes_ = 0;  // how many of them may be sent, whatever their section
  bool sent_thinking_ = false;  // the last of them
  uint32_t reasoning_tokens_ = 0;
  v1::TokenDelta delta_;    // under construction
  size_t delta_bytes_ = 0;  // of its tokens, serialised, from above
};

// Prompt log-probabilities as events of at most kMaxEventBytes.
void AppendPromptLogprobs(int32_t first_position, const std::vector<ScoredToken>& tokens,
                          std::vector<v1::GenerateResponse>* out);

// The last event of a request that ended well.
v1::GenerateResponse FinishedEvent(const GenerationResult& result, uint32_t reasoning_tokens = 0);

}  // namespace swaa::server

#endif  // SWAA_SERVER_GENERATE_DELTA_BUILDER_H_
