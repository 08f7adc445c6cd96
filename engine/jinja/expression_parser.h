// The parser's lower half: tokens and expressions.

#ifndef SWAA_ENGINE_JINJA_EXPRESSION_PARSER_H_
#define SWAA_ENGINE_JINJA_EXPRESSION_PARSER_H_

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "engine/jinja/ast.h"
#include "engine/jinja/lexer.h"

namespace swaa::jinja {

class ExpressionParser {
 public:
  // `limits` outlives it.
  ExpressionParser(std::vector<Token> tokens, const Limits& limits)
      : tokens_(std::move(tokens)), limits_(limits) {}

  // ---- tokens ----
  const Token& current() const { return tokens_[at_]; }
  const Token& next() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token Take();
  bool IsName(std::string_view name) const { return current().Is(Token::Kind::kName, name); }
  bool IsOperator(std::string_view text) const {
    return current().Is(Token::Kind::kOperator, text);
  }
  bool SkipName(std::string_view name);
  bool SkipOperator(std::string_view text);
  void ExpectName(std::string_view name);
  void ExpectOperator(std::string_view text);
  std::string ExpectAnyName();
  [[noreturn]] void FailHere(const std::string& message) const;

  // ---- expressions ----
  ExpressionPtr ParseExpression(bool with_conditional = true);
  // Expressions with commas between them make a tuple.
  ExpressionPtr ParseTuple(bool with_conditional = true, bool in_parentheses = false,
                           std::string_view end_name = "");
  // A name, or names with commas between them; before `end_name`, if given.
  Target ParseTarget(std::string_view end_name = "");
  // A chain of filters, each on the result of the one before, the first on a block's body. Null
  // where none comes.
  ExpressionPtr ParseBlockFilters();
  ExpressionPtr ParseFilterOf(ExpressionPtr subject);

  // Names that were read since it was last cleared.
  std::vector<std::string>* names_read() { return &names_read_; }

 private:
  struct Nesting;

  ExpressionPtr Make(Expression::Kind kind, int line, std::vector<ExpressionPtr> operands = {});
  ExpressionPtr Settle(ExpressionPtr expression) const;
  ExpressionPtr ParseOr();
  ExpressionPtr ParseAnd();
  ExpressionPtr ParseNot();
  ExpressionPtr ParseCompare();
  ExpressionPtr ParseSum();
  ExpressionPtr ParseConcatenation();
  ExpressionPtr ParseProduct();
  ExpressionPtr ParsePower();
  ExpressionPtr ParseUnary(bool with_filters = true);
  ExpressionPtr ParsePrimary();
  ExpressionPtr ParseNumber();
  ExpressionPtr ParseNameOrConstant();
  ExpressionPtr ParseList();
  ExpressionPtr ParseDict();
  ExpressionPtr ParsePostfix(ExpressionPtr expression);
  ExpressionPtr ParseFiltersAndTests(ExpressionPtr expression);
  ExpressionPtr ParseSubscript(ExpressionPtr object);
  ExpressionPtr ParseIndex();
  ExpressionPtr ParseCall(ExpressionPtr callee);
  ExpressionPtr ParseTest(ExpressionPtr subject);
  void ParseArguments(Expression& call);
  ArgumentExpression ParseArgument();
  std::string ParseDottedName();
  bool IsTupleEnd(std::string_view end_name) const;

  std::vector<Token> tokens_;
  size_t at_ = 0;
  const Limits& limits_;
  int level_ = 0;
  std::vector<std::string> names_read_;
};

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_EXPRESSION_PARSER_H_
