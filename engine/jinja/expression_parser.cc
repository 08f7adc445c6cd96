// The parser's lower half: tokens, and expressions of operators. Precedence, from weak to strong:
// if-else, or, and, not, comparisons, + -, ~, * / // %, **, unary signs; then filters, tests, calls
// and subscripts, which are in primary_parser.cc.

#include "engine/jinja/expression_parser.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/jinja/parser_parts.h"

namespace swaa::jinja {
namespace {

using Kind = Expression::Kind;
using TokenKind = Token::Kind;

std::optional<Operator> ComparisonOf(const Token& token) {
  if (token.kind != TokenKind::kOperator) return std::nullopt;
  if (token.text == "==") return Operator::kEqual;
  if (token.text == "!=") return Operator::kNotEqual;
  if (token.text == "<") return Operator::kLess;
  if (token.text == "<=") return Operator::kLessEqual;
  if (token.text == ">") return Operator::kGreater;
  if (token.text == ">=") return Operator::kGreaterEqual;
  return std::nullopt;
}

}  // namespace

// ---- tokens ----

Token ExpressionParser::Take() {
  Token token = current();
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool ExpressionParser::SkipName(std::string_view name) {
  if (!IsName(name)) return false;
  Take();
  return true;
}

bool ExpressionParser::SkipOperator(std::string_view text) {
  if (!IsOperator(text)) return false;
  Take();
  return true;
}

void ExpressionParser::ExpectName(std::string_view name) {
  if (!SkipName(name)) {
    FailHere(absl::StrCat("expected '", std::string(name), "', got ", Describe(current())));
  }
}

void ExpressionParser::ExpectOperator(std::string_view text) {
  if (!SkipOperator(text)) {
    FailHere(absl::StrCat("expected '", std::string(text), "', got ", Describe(current())));
  }
}

std::string ExpressionParser::ExpectAnyName() {
  if (current().kind != TokenKind::kName) {
    FailHere(absl::StrCat("expected a name, got ", Describe(current())));
  }
  return Take().text;
}

void ExpressionParser::FailHere(const std::string& message) const {
  throw Failure(message, current().line);
}

// ---- expressions ----

ExpressionPtr ExpressionParser::Make(Kind kind, int line, std::vector<ExpressionPtr> operands) {
  auto expression = std::make_unique<Expression>();
  expression->kind = kind;
  expression->line = line;
  expression->operands = std::move(operands);
  return Settle(std::move(expression));
}

// Takes the depth from the parts. Chains of operators are deep without nested brackets.
ExpressionPtr ExpressionParser::Settle(ExpressionPtr expression) const {
  int deepest = 0;
  for (const ExpressionPtr& operand : expression->operands) {
    if (operand != nullptr) deepest = std::max(deepest, operand->depth);
  }
  for (const ArgumentExpression& argument : expression->arguments) {
    deepest = std::max(deepest, argument.value->depth);
  }
  expression->depth = deepest + 1;
  if (expression->depth > limits_.max_depth) {
    FailHere(absl::StrCat("an expression of more than ", limits_.max_depth, " levels"));
  }
  return expression;
}

ExpressionPtr ExpressionParser::ParseExpression(bool with_conditional) {
  const Nesting nesting(*this);
  ExpressionPtr result = ParseOr();
  while (with_conditional && IsName("if")) {
    const int line = Take().line;
    ExpressionPtr condition = ParseOr();
    ExpressionPtr otherwise;
    if (SkipName("else")) otherwise = ParseExpression();
    result = Make(Kind::kConditional, line,
                  Operands(std::move(result), std::move(condition), std::move(otherwise)));
  }
  return result;
}

ExpressionPtr ExpressionParser::ParseOr() {
  ExpressionPtr left = ParseAnd();
  while (IsName("or")) {
    const int line = Take().line;
    left = Make(Kind::kOr, line, Operands(std::move(left), ParseAnd()));
  }
  return left;
}

ExpressionPtr ExpressionParser::ParseAnd() {
  ExpressionPtr left = ParseNot();
  while (IsName("and")) {
    const int line = Take().line;
    left = Make(Kind::kAnd, line, Operands(std::move(left), ParseNot()));
  }
  return left;
}

ExpressionPtr ExpressionParser::ParseNot() {
  if (!IsName("not")) return ParseCompare();
  const Nesting nesting(*this);
  const int line = Take().line;
  return Make(Kind::kNot, line, Operands(ParseNot()));
}

ExpressionPtr ExpressionParser::ParseCompare() {
  const int line = current().line;
  std::vector<ExpressionPtr> operands;
  operands.push_back(ParseSum());
  std::vector<Operator> comparisons;
  for (;;) {
    if (const std::optional<Operator> op = ComparisonOf(current()); op.has_value()) {
      Take();
      comparisons.push_back(*op);
    } else if (SkipName("in")) {
      comparisons.push_back(Operator::kIn);
    } else if (IsName("not") && next().Is(TokenKind::kName, "in")) {
      Take();
      Take();
      comparisons.push_back(Operator::kNotIn);
    } else {
      break;
    }
    operands.push_back(ParseSum());
  }
  if (comparisons.empty()) return std::move(operands[0]);
  ExpressionPtr result = Make(Kind::kCompare, line, std::move(operands));
  result->comparisons = std::move(comparisons);
  return result;
}

ExpressionPtr ExpressionParser::ParseSum() {
  ExpressionPtr left = ParseConcatenation();
  while (IsOperator("+") || IsOperator("-")) {
    const Token token = Take();
    left = Make(Kind::kBinary, token.line, Operands(std::move(left), ParseConcatenation()));
    left->op = token.text == "+" ? Operator::kAdd : Operator::kSubtract;
  }
  return left;
}

ExpressionPtr ExpressionParser::ParseConcatenation() {
  const int line = current().line;
  std::vector<ExpressionPtr> parts;
  parts.push_back(ParseProduct());
  while (SkipOperator("~")) parts.push_back(ParseProduct());
  if (parts.size() == 1) return std::move(parts[0]);
  return Make(Kind::kConcatenate, line, std::move(parts));
}

ExpressionPtr ExpressionParser::ParseProduct() {
  ExpressionPtr left = ParsePower();
  while (IsOperator("*") || IsOperator("/") || IsOperator("//") || IsOperator("%")) {
    const Token token = Take();
    left = Make(Kind::kBinary, token.line, Operands(std::move(left), ParsePower()));
    left->op = token.text == "*"    ? Operator::kMultiply
               : token.text == "/"  ? Operator::kDivide
               : token.text == "//" ? Operator::kFloorDivide
                                    : Operator::kModulo;
  }
  return left;
}

ExpressionPtr ExpressionParser::ParsePower() {
  ExpressionPtr left = ParseUnary();
  while (IsOperator("**")) {
    const int line = Take().line;
    left = Make(Kind::kBinary, line, Operands(std::move(left), ParseUnary()));
    left->op = Operator::kPower;
  }
  return left;
}

ExpressionPtr ExpressionParser::ParseUnary(bool with_filters) {
  const Nesting nesting(*this);
  const int line = current().line;
  ExpressionPtr result;
  if (SkipOperator("-")) {
    result = Make(Kind::kNegate, line, Operands(ParseUnary(false)));
  } else if (SkipOperator("+")) {
    result = Make(Kind::kPlus, line, Operands(ParseUnary(false)));
  } else {
    result = ParsePrimary();
  }
  result = ParsePostfix(std::move(result));
  return with_filters ? ParseFiltersAndTests(std::move(result)) : std::move(result);
}

}  // namespace swaa::jinja
