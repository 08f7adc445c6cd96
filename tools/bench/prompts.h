// Bench: what the prompts say.

#ifndef SWAA_TOOLS_BENCH_PROMPTS_H_
#define SWAA_TOOLS_BENCH_PROMPTS_H_

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "swaa/v1/generation.pb.h"
#include "tools/bench/lengths.h"

namespace swaa::tools::bench {

struct PromptOptions {
  LengthDistribution tokens;          // what each prompt has to itself
  uint32_t shared_prefix_tokens = 0;  // before it, the same in many prompts; 0: none
  uint32_t shared_prefixes = 1;       // how many such prefixes there are
  uint64_t seed = 0;
  uint32_t vocab_size = 0;
  std::vector<uint32_t> avoided_ids;  // never drawn: tokens that end an answer
  bool text = false;                  // prose instead of token ids
  double tokens_per_word = 1.3;       // of the prose under the model's tokenizer
};

// `count` words of simple prose.
std::string Prose(uint32_t count, std::mt19937_64& generator);

// Makes prompts. Immutable; safe from any thread.
class PromptMaker {
 public:
  explicit PromptMaker(PromptOptions options) : options_(std::move(options)) {}

  // Sets the input: what number `index` says, as long as number `length_index`; a pure function of
  // the options and both. As token ids it has exactly the tokens drawn; as prose about as many,
  // which the server counts.
  void SetInput(uint64_t index, uint64_t length_index, v1::GenerateRequest* request) const;

 private:
  void AppendIds(uint32_t count, std::mt19937_64& generator, v1::TokenIds* ids) const;
  std::string Words(uint32_t tokens, std::mt19937_64& generator) const;

  PromptOptions options_;
};

}  // namespace swaa::tools::bench

#endif  // SWAA_TOOLS_BENCH_PROMPTS_H_
