// What the files of the expression parser share.

#ifndef SWAA_ENGINE_JINJA_PARSER_PARTS_H_
#define SWAA_ENGINE_JINJA_PARSER_PARTS_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/jinja/expression_parser.h"

namespace swaa::jinja {

// A token as an error message names it.
inline std::string Describe(const Token& token) {
  switch (token.kind) {
    case Token::Kind::kData:
      return "text";
    case Token::Kind::kVariableBegin:
      return "{{";
    case Token::Kind::kVariableEnd:
      return "}}";
    case Token::Kind::kBlockBegin:
      return "{%";
    case Token::Kind::kBlockEnd:
      return "%}";
    case Token::Kind::kEnd:
      return "the template's end";
    default:
      return absl::StrCat("'", token.text.substr(0, 40), "'");
  }
}

template <typename... Pointers>
std::vector<ExpressionPtr> Operands(Pointers... pointers) {
  std::vector<ExpressionPtr> operands;
  (operands.push_back(std::move(pointers)), ...);
  return operands;
}

// One level of nested brackets, signs or the like.
struct ExpressionParser::Nesting {
  explicit Nesting(ExpressionParser& parser) : parser(parser) {
    if (++parser.level_ > parser.limits_.max_depth) {
      --parser.level_;
      parser.FailHere(absl::StrCat("nested deeper than ", parser.limits_.max_depth, " levels"));
    }
  }
  ~Nesting() { --parser.level_; }
  ExpressionParser& parser;
};

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_PARSER_PARTS_H_
