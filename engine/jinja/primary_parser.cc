// The parser's lower half: constants, names, brackets, and what follows them: subscripts, calls,
// filters, tests.

#include <algorithm>
#include <charconv>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/jinja/expression_parser.h"
#include "engine/jinja/filters.h"
#include "engine/jinja/parser_parts.h"
#include "engine/jinja/tests.h"

namespace swaa::jinja {

using Kind = Expression::Kind;
using TokenKind = Token::Kind;

ExpressionPtr ExpressionParser::ParsePrimary() {
  const int line = current().line;
  switch (current().kind) {
    case TokenKind::kName:
      return ParseNameOrConstant();
    case TokenKind::kString: {
      std::string text;
      while (current().kind == TokenKind::kString) text += Take().text;
      ExpressionPtr result = Make(Kind::kConstant, line);
      result->constant = MakeText(std::move(text));
      return result;
    }
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return ParseNumber();
    default:
      break;
  }
  if (SkipOperator("(")) {
    ExpressionPtr result = ParseTuple(/*with_conditional=*/true, /*in_parentheses=*/true);
    ExpectOperator(")");
    return result;
  }
  if (IsOperator("[")) return ParseList();
  if (IsOperator("{")) return ParseDict();
  FailHere(absl::StrCat("unexpected ", Describe(current())));
}

ExpressionPtr ExpressionParser::ParseNumber() {
  ExpressionPtr result = Make(Kind::kConstant, current().line);
  const Token token = Take();
  const char* begin = token.text.data();
  const char* end = begin + token.text.size();
  if (token.kind == TokenKind::kFloat) {
    double number = 0;
    if (std::from_chars(begin, end, number).ec != std::errc()) {
      FailHere(absl::StrCat("the number ", token.text, " is out of range"));
    }
    result->constant = number;
  } else {
    int64_t number = 0;
    if (std::from_chars(begin, end, number).ec != std::errc()) {
      FailHere(absl::StrCat("the integer ", token.text, " needs more than 64 bits"));
    }
    result->constant = number;
  }
  return result;
}

ExpressionPtr ExpressionParser::ParseNameOrConstant() {
  const Token token = Take();
  ExpressionPtr result = Make(Kind::kConstant, token.line);
  if (token.text == "true" || token.text == "True") {
    result->constant = true;
  } else if (token.text == "false" || token.text == "False") {
    result->constant = false;
  } else if (token.text != "none" && token.text != "None") {
    result->kind = Kind::kName;
    result->name = token.text;
    names_read_.push_back(token.text);
  }
  return result;
}

bool ExpressionParser::IsTupleEnd(std::string_view end_name) const {
  return current().kind == TokenKind::kVariableEnd || current().kind == TokenKind::kBlockEnd ||
         IsOperator(")") || (!end_name.empty() && IsName(end_name));
}

ExpressionPtr ExpressionParser::ParseTuple(bool with_conditional, bool in_parentheses,
                                           std::string_view end_name) {
  const int line = current().line;
  std::vector<ExpressionPtr> items;
  bool is_tuple = false;
  while (!IsTupleEnd(end_name)) {
    items.push_back(ParseExpression(with_conditional));
    if (!SkipOperator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !items.empty()) return std::move(items[0]);
  if (!is_tuple && !in_parentheses) {
    FailHere(absl::StrCat("expected an expression, got ", Describe(current())));
  }
  return Make(Kind::kTuple, line, std::move(items));
}

ExpressionPtr ExpressionParser::ParseList() {
  const int line = Take().line;
  std::vector<ExpressionPtr> items;
  while (!IsOperator("]")) {
    if (!items.empty()) ExpectOperator(",");
    if (IsOperator("]")) break;
    items.push_back(ParseExpression());
  }
  ExpectOperator("]");
  return Make(Kind::kList, line, std::move(items));
}

ExpressionPtr ExpressionParser::ParseDict() {
  const int line = Take().line;
  std::vector<ExpressionPtr> items;
  while (!IsOperator("}")) {
    if (!items.empty()) ExpectOperator(",");
    if (IsOperator("}")) break;
    items.push_back(ParseExpression());
    ExpectOperator(":");
    items.push_back(ParseExpression());
  }
  ExpectOperator("}");
  return Make(Kind::kDict, line, std::move(items));
}

ExpressionPtr ExpressionParser::ParsePostfix(ExpressionPtr expression) {
  for (;;) {
    if (IsOperator(".") || IsOperator("[")) {
      expression = ParseSubscript(std::move(expression));
    } else if (IsOperator("(")) {
      expression = ParseCall(std::move(expression));
    } else {
      return expression;
    }
  }
}

ExpressionPtr ExpressionParser::ParseFiltersAndTests(ExpressionPtr expression) {
  for (;;) {
    if (SkipOperator("|")) {
      expression = ParseFilterOf(std::move(expression));
    } else if (IsName("is")) {
      expression = ParseTest(std::move(expression));
    } else if (IsOperator("(")) {
      expression = ParseCall(std::move(expression));
    } else {
      return expression;
    }
  }
}

ExpressionPtr ExpressionParser::ParseSubscript(ExpressionPtr object) {
  const Token token = Take();
  if (token.text == ".") {
    if (current().kind == TokenKind::kInteger) {
      ExpressionPtr index = ParseNumber();
      return Make(Kind::kSubscript, token.line, Operands(std::move(object), std::move(index)));
    }
    ExpressionPtr result = Make(Kind::kAttribute, token.line, Operands(std::move(object)));
    result->name = ExpectAnyName();
    return result;
  }
  std::vector<ExpressionPtr> indices;
  while (!IsOperator("]")) {
    if (!indices.empty()) ExpectOperator(",");
    indices.push_back(ParseIndex());
  }
  ExpectOperator("]");
  ExpressionPtr index = indices.size() == 1 ? std::move(indices[0])
                                            : Make(Kind::kTuple, token.line, std::move(indices));
  return Make(Kind::kSubscript, token.line, Operands(std::move(object), std::move(index)));
}

ExpressionPtr ExpressionParser::ParseIndex() {
  const int line = current().line;
  ExpressionPtr begin;
  if (!IsOperator(":")) begin = ParseExpression();
  if (!SkipOperator(":")) return begin;
  const auto parse_part = [&]() -> ExpressionPtr {
    if (IsOperator(":") || IsOperator("]") || IsOperator(",")) return nullptr;
    return ParseExpression();
  };
  ExpressionPtr end = parse_part();
  ExpressionPtr step;
  if (SkipOperator(":")) step = parse_part();
  return Make(Kind::kSlice, line, Operands(std::move(begin), std::move(end), std::move(step)));
}

ExpressionPtr ExpressionParser::ParseCall(ExpressionPtr callee) {
  ExpressionPtr call = Make(Kind::kCall, current().line, Operands(std::move(callee)));
  ParseArguments(*call);
  return Settle(std::move(call));
}

void ExpressionParser::ParseArguments(Expression& call) {
  using ArgumentKind = ArgumentExpression::Kind;
  ExpectOperator("(");
  while (!IsOperator(")")) {
    if (!call.arguments.empty()) ExpectOperator(",");
    if (IsOperator(")")) break;
    ArgumentExpression argument = ParseArgument();
    if (!call.arguments.empty()) {
      const ArgumentKind last = call.arguments.back().kind;
      const bool in_order = argument.kind >= last || (argument.kind == ArgumentKind::kNamed &&
                                                      last == ArgumentKind::kSpreadList);
      const bool twice = argument.kind == last && argument.kind >= ArgumentKind::kSpreadList;
      if (!in_order || twice) FailHere("arguments in a wrong order");
    }
    call.arguments.push_back(std::move(argument));
  }
  ExpectOperator(")");
}

ArgumentExpression ExpressionParser::ParseArgument() {
  using ArgumentKind = ArgumentExpression::Kind;
  if (SkipOperator("*")) return {ArgumentKind::kSpreadList, "", ParseExpression()};
  if (SkipOperator("**")) return {ArgumentKind::kSpreadDict, "", ParseExpression()};
  if (current().kind == TokenKind::kName && next().Is(TokenKind::kOperator, "=")) {
    std::string name = Take().text;
    Take();
    return {ArgumentKind::kNamed, std::move(name), ParseExpression()};
  }
  return {ArgumentKind::kPositional, "", ParseExpression()};
}

std::string ExpressionParser::ParseDottedName() {
  std::string name = ExpectAnyName();
  while (SkipOperator(".")) absl::StrAppend(&name, ".", ExpectAnyName());
  return name;
}

ExpressionPtr ExpressionParser::ParseFilterOf(ExpressionPtr subject) {
  const int line = current().line;
  ExpressionPtr filter = Make(Kind::kFilter, line, Operands(std::move(subject)));
  filter->name = ParseDottedName();
  filter->filter = FindFilter(filter->name);
  if (filter->filter == nullptr) {
    throw Failure(absl::StrCat("there is no filter '", filter->name, "' here"), line,
                  absl::StatusCode::kUnimplemented);
  }
  if (IsOperator("(")) ParseArguments(*filter);
  return Settle(std::move(filter));
}

ExpressionPtr ExpressionParser::ParseBlockFilters() {
  ExpressionPtr filter;
  while (SkipOperator("|")) filter = ParseFilterOf(std::move(filter));
  return filter;
}

ExpressionPtr ExpressionParser::ParseTest(ExpressionPtr subject) {
  const int line = Take().line;
  const bool negated = SkipName("not");
  ExpressionPtr test = Make(Kind::kTest, line, Operands(std::move(subject)));
  test->name = ParseDottedName();
  test->test = FindTest(test->name);
  if (test->test == nullptr) {
    throw Failure(absl::StrCat("there is no test '", test->name, "' here"), line,
                  absl::StatusCode::kUnimplemented);
  }
  const TokenKind kind = current().kind;
  const bool has_operand =
      (kind == TokenKind::kName && !IsName("else") && !IsName("or") && !IsName("and")) ||
      kind == TokenKind::kString || kind == TokenKind::kInteger || kind == TokenKind::kFloat ||
      IsOperator("[") || IsOperator("{");
  if (IsOperator("(")) {
    ParseArguments(*test);
  } else if (has_operand) {
    if (IsName("is")) FailHere("tests with is cannot be chained");
    ExpressionPtr operand = ParsePostfix(ParsePrimary());
    test->arguments.push_back({ArgumentExpression::Kind::kPositional, "", std::move(operand)});
  }
  test = Settle(std::move(test));
  return negated ? Make(Kind::kNot, line, Operands(std::move(test))) : std::move(test);
}

Target ExpressionParser::ParseTarget(std::string_view end_name) {
  const auto parse_one = [&] {
    const Nesting nesting(*this);
    if (SkipOperator("(")) {
      Target inner = ParseTarget();
      ExpectOperator(")");
      return inner;
    }
    Target target;
    target.name = ExpectAnyName();
    for (const std::string_view constant : {"true", "false", "none", "True", "False", "None"}) {
      if (target.name == constant) FailHere("cannot assign to a constant");
    }
    if (SkipOperator(".")) {
      if (!end_name.empty()) FailHere("a loop assigns to names only");
      target.kind = Target::Kind::kAttribute;
      target.attribute = ExpectAnyName();
    }
    return target;
  };
  Target first = parse_one();
  if (!IsOperator(",")) return first;
  Target tuple;
  tuple.kind = Target::Kind::kTuple;
  tuple.parts.push_back(std::move(first));
  while (SkipOperator(",")) {
    if (IsTupleEnd(end_name) || IsOperator("=")) break;
    tuple.parts.push_back(parse_one());
  }
  return tuple;
}

}  // namespace swaa::jinja
