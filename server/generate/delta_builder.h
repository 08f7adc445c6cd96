// Turns the engine's tokens into the messages of a stream.

#ifndef SWAA_SERVER_GENERATE_DELTA_BUILDER_H_
#define SWAA_SERVER_GENERATE_DELTA_BUILDER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "engine/generation.h"
#include "engine/tokenizer/detokenizer.h"
#include "engine/tokenizer/tokenizer.h"
#include "swaa/v1/generation.pb.h"

namespace swaa::server {

// No delta and no event of prompt log-probabilities is larger.
inline constexpr size_t kMaxEventBytes = size_t{1} << 20;

// One per stream; not thread-safe. Text is whole UTF-8: bytes that may not be shown yet (part of a
// character, or of a stop string) come with a later token.
class DeltaBuilder {
 public:
  // tokens_per_delta 0: as few deltas as possible, at the end. The tokenizer outlives the builder.
  DeltaBuilder(const Tokenizer* tokenizer, uint32_t tokens_per_delta)
      : tokenizer_(tokenizer), tokens_per_delta_(tokens_per_delta), detokenizer_(tokenizer) {}

  // Takes tokens in order; appends the deltas that they fill.
  void Add(const std::vector<OutputToken>& tokens, std::vector<v1::GenerateResponse>* out);

  // Appends what is left. `show_rest`: no stop was found, so held-back bytes are text after all.
  void Finish(bool show_rest, std::vector<v1::GenerateResponse>* out);

 private:
  void ShowUpTo(uint64_t visible_bytes);
  void Flush(std::vector<v1::GenerateResponse>* out);

  const Tokenizer* tokenizer_;
  const uint32_t tokens_per_delta_;
  Detokenizer detokenizer_;
  std::string held_;         // bytes of shown tokens that may not be sent yet
  uint64_t sent_bytes_ = 0;  // of the output's text, before held_
  v1::TokenDelta delta_;     // under construction
  size_t delta_bytes_ = 0;   // of its tokens, serialised, from above
};

// Prompt log-probabilities as events of at most kMaxEventBytes.
void AppendPromptLogprobs(int32_t first_position, const std::vector<ScoredToken>& tokens,
                          std::vector<v1::GenerateResponse>* out);

// The last event of a request that ended well.
v1::GenerateResponse FinishedEvent(const GenerationResult& result);

}  // namespace swaa::server

#endif  // SWAA_SERVER_GENERATE_DELTA_BUILDER_H_
