// Cuts a template into tokens, the way Jinja does with trim_blocks and lstrip_blocks on.

#ifndef SWAA_ENGINE_JINJA_LEXER_H_
#define SWAA_ENGINE_JINJA_LEXER_H_

#include <string>
#include <string_view>
#include <vector>

namespace swaa::jinja {

struct Token {
  enum class Kind {
    kData,  // text between the tags, white space removed as their signs say
    kVariableBegin,
    kVariableEnd,
    kBlockBegin,
    kBlockEnd,
    kName,
    kString,  // without quotes, escapes resolved
    kInteger,
    kFloat,
    kOperator,
    kEnd,
  };

  Kind kind;
  std::string text;
  int line;

  bool Is(Kind of_kind, std::string_view with_text) const {
    return kind == of_kind && text == with_text;
  }
};

// Ends with a token of kind kEnd. Throws Failure with a line for what is no template.
std::vector<Token> Tokenize(std::string_view source);

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_LEXER_H_
