// Reads a Jinja chat template as text. Formats are recognised by what a
// template says, and take its constant parts from it; nothing is executed.

#ifndef SWAA_ENGINE_TOKENIZER_JINJA_TEXT_H_
#define SWAA_ENGINE_TOKENIZER_JINJA_TEXT_H_

#include <string>
#include <string_view>
#include <vector>

namespace swaa {

struct JinjaText {
  // The code of all blocks in one spelling: no white space but one space between words, strings in
  // single quotes with a newline as \n, message['role'] as message.role, blocks as {%...%} and
  // {{...}} without the dashes that trim white space.
  std::string code;
  std::vector<std::string> strings;  // what the string constants stand for, in order
  bool has_outside_text = false;     // text between the blocks that is not white space
};

JinjaText ReadJinja(std::string_view text);

}  // namespace swaa

#endif  // SWAA_ENGINE_TOKENIZER_JINJA_TEXT_H_
