// Bench: what the prompts say.

#include "tools/bench/prompts.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "tools/bench/random.h"

namespace swaa::tools::bench {
namespace {

constexpr std::array kWho = {"the miller",    "a surveyor",    "my neighbour",  "the night nurse",
                             "the captain",   "an apprentice", "the botanist",  "two brothers",
                             "the archivist", "a quiet guest", "the conductor", "our cook"};
constexpr std::array kDid = {"repaired", "carried home", "described",  "forgot",
                             "painted",  "measured",     "sold",       "found again",
                             "counted",  "borrowed",     "took apart", "wrote about"};
constexpr std::array kWhat = {
    "a broken lantern", "seven blue jars",         "the winter timetable", "an old map",
    "the garden gate",  "a letter from the coast", "the last harvest",     "a box of photographs",
    "the river bridge", "three small bells",       "a copper kettle",      "the north window"};
constexpr std::array kWhen = {"before the rain came",   "on a slow Sunday", "while the town slept",
                              "after the long meeting", "in early March",   "as the market closed",
                              "between two trains",     "without a word",   "at first light"};

template <size_t N>
const char* Pick(const std::array<const char*, N>& words, std::mt19937_64& generator) {
  return words[std::uniform_int_distribution<size_t>(0, N - 1)(generator)];
}

// Cuts after the count-th word; true when there was one.
bool CutAfterWords(uint32_t count, std::string* text) {
  uint32_t words = 0;
  for (size_t i = 0; i < text->size(); ++i) {
    if ((*text)[i] == ' ' && ++words == count) {
      text->resize(i);
      return true;
    }
  }
  return false;
}

}  // namespace

std::string Prose(uint32_t count, std::mt19937_64& generator) {
  std::string text;
  uint32_t words = 0;
  while (words < count) {
    std::string sentence = Pick(kWho, generator);
    for (const char* part :
         {Pick(kDid, generator), Pick(kWhat, generator), Pick(kWhen, generator)}) {
      sentence += std::string(" ") + part;
    }
    sentence[0] = static_cast<char>(sentence[0] - 'a' + 'A');
    sentence += ". ";
    words += static_cast<uint32_t>(std::count(sentence.begin(), sentence.end(), ' '));
    text += sentence;
  }
  CutAfterWords(count, &text);
  return text;
}

void PromptMaker::AppendIds(uint32_t count, std::mt19937_64& generator, v1::TokenIds* ids) const {
  std::uniform_int_distribution<uint32_t> any(0, options_.vocab_size - 1);
  const auto& avoided = options_.avoided_ids;
  while (count > 0) {
    const uint32_t id = any(generator);
    if (std::find(avoided.begin(), avoided.end(), id) != avoided.end()) continue;
    ids->add_ids(id);
    --count;
  }
}

std::string PromptMaker::Words(uint32_t tokens, std::mt19937_64& generator) const {
  const double words = std::round(tokens / options_.tokens_per_word);
  return Prose(std::max(1u, static_cast<uint32_t>(words)), generator);
}

void PromptMaker::SetInput(uint64_t index, uint64_t length_index,
                           v1::GenerateRequest* request) const {
  const uint64_t seed = options_.seed;
  std::mt19937_64 lengths = MakeGenerator(seed, RandomStream::kPromptLength, length_index);
  std::mt19937_64 own = MakeGenerator(seed, RandomStream::kPrompt, index);
  const uint32_t tokens = options_.tokens.Draw(lengths);
  const uint32_t prefix_tokens = options_.shared_prefix_tokens;
  const uint64_t which =
      std::uniform_int_distribution<uint64_t>(0, options_.shared_prefixes - 1)(own);
  std::mt19937_64 prefix = MakeGenerator(seed, RandomStream::kPrefix, which);
  if (options_.text) {
    std::string text = prefix_tokens > 0 ? Words(prefix_tokens, prefix) + " " : "";
    request->set_prompt(text + Words(tokens, own));
    return;
  }
  v1::TokenIds* ids = request->mutable_token_ids();
  AppendIds(prefix_tokens, prefix, ids);
  AppendIds(tokens, own, ids);
}

}  // namespace swaa::tools::bench
