// The marks that a chat template puts around messages: whether they are tokens of the vocabulary,
// and which of them closes an answer.

#ifndef SWAA_ENGINE_TOKENIZER_CHAT_MARKS_H_
#define SWAA_ENGINE_TOKENIZER_CHAT_MARKS_H_

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "engine/tokenizer/tokenizer.h"

namespace swaa {

// Adds what looks like a mark in `text`: <name>, <|name|>, [NAME].
void CollectMarks(std::string_view text, std::set<std::string>& marks);

// A mark that is a token of the vocabulary which text can never become: the vocabulary types it as
// plain text. Nothing: there is none.
std::optional<std::string> MistypedMark(const std::set<std::string>& marks,
                                        const Tokenizer& tokenizer);

// A mark <|name|> that is no token of the vocabulary at all. Nothing: there is none.
std::optional<std::string> MissingMark(const std::set<std::string>& marks,
                                       const Tokenizer& tokenizer);

// The special or added token that `text` begins with, but for white space.
std::optional<int32_t> LeadingToken(std::string_view text, const Tokenizer& tokenizer);

}  // namespace swaa

#endif  // SWAA_ENGINE_TOKENIZER_CHAT_MARKS_H_
