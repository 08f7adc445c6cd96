// The parser's upper half: statements.

#include "engine/jinja/parser.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/jinja/expression_parser.h"
#include "engine/jinja/lexer.h"

namespace swaa::jinja {
namespace {

using Kind = Statement::Kind;
using TokenKind = Token::Kind;
using Names = std::initializer_list<std::string_view>;

bool IsOneOf(std::string_view name, Names names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

class Parser : public ExpressionParser {
 public:
  Parser(std::vector<Token> tokens, const Limits& limits)
      : ExpressionParser(std::move(tokens), limits), limits_(limits) {}

  // Statements up to {% and one of `ends`, whose name is then the current token; with no ends, up
  // to the template's end.
  Body ParseBody(Names ends);

 private:
  using StatementPtr = std::unique_ptr<Statement>;

  StatementPtr Make(Kind kind, int line) {
    auto statement = std::make_unique<Statement>();
    statement->kind = kind;
    statement->line = line;
    return statement;
  }
  void EndTag() {
    if (current().kind != TokenKind::kBlockEnd) {
      // The message of an expectation says what came instead.
      ExpectOperator("%}");
    }
    Take();
  }
  // The body of a tag and its end tag.
  Body ParseBodyUntil(std::string_view end);
  // The same for a body that is rendered apart, out of which no loop can be left.
  Body ParseSeparateBody(std::string_view end);

  StatementPtr ParseOutput();
  StatementPtr ParseStatement();
  StatementPtr ParseIf(int line);
  StatementPtr ParseFor(int line);
  StatementPtr ParseSet(int line);
  StatementPtr ParseMacro(int line);
  StatementPtr ParseCallBlock(int line);
  StatementPtr ParseFilterBlock(int line);
  StatementPtr ParseWith(int line);
  StatementPtr ParseGeneration(int line);
  StatementPtr ParseLoopControl(Kind kind, int line);
  void ParseParameters(MacroDefinition& macro);
  void ParseMacroBody(MacroDefinition& macro, std::string_view end);

  const Limits& limits_;
  int level_ = 0;
  int loops_ = 0;  // around the current statement, up to the nearest macro
};

Body Parser::ParseBody(Names ends) {
  if (++level_ > limits_.max_depth) {
    FailHere(absl::StrCat("statements nested deeper than ", limits_.max_depth, " levels"));
  }
  Body body;
  for (;;) {
    const Token& token = current();
    if (token.kind == TokenKind::kEnd) {
      if (ends.size() > 0) {
        FailHere(
            absl::StrCat("the template ends before {% ", std::string(*(ends.end() - 1)), " %}"));
      }
      break;
    }
    if (token.kind == TokenKind::kData) {
      StatementPtr text = Make(Kind::kText, token.line);
      text->text = MakeText(Take().text);
      body.push_back(std::move(text));
    } else if (token.kind == TokenKind::kVariableBegin) {
      body.push_back(ParseOutput());
    } else {
      Take();
      if (current().kind == TokenKind::kName && IsOneOf(current().text, ends)) break;
      body.push_back(ParseStatement());
    }
  }
  --level_;
  return body;
}

Body Parser::ParseBodyUntil(std::string_view end) {
  Body body = ParseBody({end});
  Take();
  EndTag();
  return body;
}

Body Parser::ParseSeparateBody(std::string_view end) {
  const int loops = std::exchange(loops_, 0);
  Body body = ParseBodyUntil(end);
  loops_ = loops;
  return body;
}

Parser::StatementPtr Parser::ParseOutput() {
  StatementPtr output = Make(Kind::kOutput, Take().line);
  output->expression = ParseTuple();
  if (current().kind != TokenKind::kVariableEnd) ExpectOperator("}}");
  Take();
  return output;
}

Parser::StatementPtr Parser::ParseStatement() {
  if (current().kind != TokenKind::kName) ExpectAnyName();
  const Token tag = Take();
  if (tag.text == "if") return ParseIf(tag.line);
  if (tag.text == "for") return ParseFor(tag.line);
  if (tag.text == "set") return ParseSet(tag.line);
  if (tag.text == "macro") return ParseMacro(tag.line);
  if (tag.text == "call") return ParseCallBlock(tag.line);
  if (tag.text == "filter") return ParseFilterBlock(tag.line);
  if (tag.text == "with") return ParseWith(tag.line);
  if (tag.text == "generation") return ParseGeneration(tag.line);
  if (tag.text == "break") return ParseLoopControl(Kind::kBreak, tag.line);
  if (tag.text == "continue") return ParseLoopControl(Kind::kContinue, tag.line);
  if (IsOneOf(tag.text, {"include", "import", "from", "extends", "block", "autoescape", "print"})) {
    throw Failure(absl::StrCat("{% ", tag.text, " %} is not supported"), tag.line,
                  absl::StatusCode::kUnimplemented);
  }
  throw Failure(absl::StrCat("unknown or misplaced tag '", tag.text, "'"), tag.line);
}

Parser::StatementPtr Parser::ParseIf(int line) {
  StatementPtr statement = Make(Kind::kIf, line);
  for (;;) {
    Branch branch;
    branch.condition = ParseTuple(/*with_conditional=*/false);
    EndTag();
    branch.body = ParseBody({"elif", "else", "endif"});
    statement->branches.push_back(std::move(branch));
    const std::string tag = Take().text;
    if (tag == "elif") continue;
    EndTag();
    if (tag == "else") statement->otherwise = ParseBodyUntil("endif");
    return statement;
  }
}

Parser::StatementPtr Parser::ParseFor(int line) {
  StatementPtr statement = Make(Kind::kFor, line);
  statement->target = ParseTarget("in");
  ExpectName("in");
  statement->expression = ParseTuple(/*with_conditional=*/false, false, "recursive");
  if (SkipName("if")) statement->condition = ParseExpression();
  if (IsName("recursive")) {
    throw Failure("recursive loops are not supported", line, absl::StatusCode::kUnimplemented);
  }
  EndTag();
  ++loops_;
  statement->body = ParseBody({"else", "endfor"});
  --loops_;
  const bool has_else = Take().text == "else";
  EndTag();
  if (has_else) statement->otherwise = ParseBodyUntil("endfor");
  return statement;
}

Parser::StatementPtr Parser::ParseSet(int line) {
  Target target = ParseTarget();
  StatementPtr statement;
  if (SkipOperator("=")) {
    statement = Make(Kind::kSet, line);
    statement->expression = ParseTuple();
    EndTag();
  } else {
    statement = Make(Kind::kSetBlock, line);
    statement->expression = ParseBlockFilters();
    EndTag();
    statement->body = ParseSeparateBody("endset");
  }
  statement->target = std::move(target);
  return statement;
}

void Parser::ParseParameters(MacroDefinition& macro) {
  ExpectOperator("(");
  bool has_fallback = false;
  while (!IsOperator(")")) {
    if (!macro.parameters.empty()) ExpectOperator(",");
    Parameter parameter;
    parameter.name = ExpectAnyName();
    if (SkipOperator("=")) {
      parameter.fallback = ParseExpression();
      has_fallback = true;
    } else if (has_fallback) {
      FailHere("a parameter without default after one with a default");
    }
    macro.parameters.push_back(std::move(parameter));
  }
  ExpectOperator(")");
}

void Parser::ParseMacroBody(MacroDefinition& macro, std::string_view end) {
  std::vector<std::string> outer = std::exchange(*names_read(), {});
  macro.body = ParseSeparateBody(end);
  for (const std::string& name : *names_read()) {
    macro.takes_caller |= name == "caller";
    macro.takes_varargs |= name == "varargs";
    macro.takes_kwargs |= name == "kwargs";
  }
  for (const Parameter& parameter : macro.parameters) {
    if (parameter.name == "caller") macro.takes_caller = false;
    if (parameter.name == "varargs") macro.takes_varargs = false;
    if (parameter.name == "kwargs") macro.takes_kwargs = false;
  }
  std::swap(*names_read(), outer);
  names_read()->insert(names_read()->end(), outer.begin(), outer.end());
}

Parser::StatementPtr Parser::ParseMacro(int line) {
  StatementPtr statement = Make(Kind::kMacro, line);
  statement->macro = std::make_unique<MacroDefinition>();
  statement->macro->name = ExpectAnyName();
  ParseParameters(*statement->macro);
  EndTag();
  ParseMacroBody(*statement->macro, "endmacro");
  return statement;
}

Parser::StatementPtr Parser::ParseCallBlock(int line) {
  StatementPtr statement = Make(Kind::kCallBlock, line);
  statement->macro = std::make_unique<MacroDefinition>();
  if (IsOperator("(")) ParseParameters(*statement->macro);
  statement->expression = ParseExpression();
  if (statement->expression->kind != Expression::Kind::kCall) FailHere("expected a call");
  EndTag();
  ParseMacroBody(*statement->macro, "endcall");
  return statement;
}

Parser::StatementPtr Parser::ParseFilterBlock(int line) {
  StatementPtr statement = Make(Kind::kFilterBlock, line);
  statement->expression = ParseFilterOf(nullptr);
  while (SkipOperator("|")) {
    statement->expression = ParseFilterOf(std::move(statement->expression));
  }
  EndTag();
  statement->body = ParseSeparateBody("endfilter");
  return statement;
}

Parser::StatementPtr Parser::ParseWith(int line) {
  StatementPtr statement = Make(Kind::kWith, line);
  while (current().kind != TokenKind::kBlockEnd) {
    if (!statement->assignments.empty()) ExpectOperator(",");
    Target target;
    target.name = ExpectAnyName();
    ExpectOperator("=");
    statement->assignments.emplace_back(std::move(target), ParseExpression());
  }
  EndTag();
  statement->body = ParseBodyUntil("endwith");
  return statement;
}

Parser::StatementPtr Parser::ParseGeneration(int line) {
  StatementPtr statement = Make(Kind::kGeneration, line);
  EndTag();
  statement->body = ParseSeparateBody("endgeneration");
  return statement;
}

Parser::StatementPtr Parser::ParseLoopControl(Kind kind, int line) {
  if (loops_ == 0) throw Failure("break or continue outside of a loop", line);
  StatementPtr statement = Make(kind, line);
  EndTag();
  return statement;
}

}  // namespace

Body Parse(std::string_view source, const Limits& limits) {
  return Parser(Tokenize(source), limits).ParseBody({});
}

}  // namespace swaa::jinja
