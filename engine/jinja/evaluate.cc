// Renders the syntax tree of a template: expressions.

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/jinja/attributes.h"
#include "engine/jinja/globals.h"
#include "engine/jinja/interpreter.h"
#include "engine/jinja/operators.h"

namespace swaa::jinja {

Value Interpreter::Evaluate(const Expression& expression, Scope& scope) {
  const Budget::Level level(budget_);
  budget_.Step();
  const auto operand = [&](size_t i) { return Evaluate(*expression.operands[i], scope); };
  switch (expression.kind) {
    case Expression::Kind::kConstant:
      return expression.constant;
    case Expression::Kind::kName:
      return EvaluateName(expression, scope);
    case Expression::Kind::kTuple:
    case Expression::Kind::kList:
      return EvaluateItems(expression, scope);
    case Expression::Kind::kDict:
      return EvaluateDict(expression, scope);
    case Expression::Kind::kAttribute:
      return GetAttribute(operand(0), expression.name, budget_);
    case Expression::Kind::kSubscript:
      return EvaluateSubscript(expression, scope);
    case Expression::Kind::kSlice:
      Fail("a slice that is no subscript is not supported");
    case Expression::Kind::kCall: {
      const Value callee = operand(0);
      return Call(callee, EvaluateArguments(expression, scope));
    }
    case Expression::Kind::kFilter:
      return EvaluateFilter(expression, scope, nullptr);
    case Expression::Kind::kTest: {
      const Value subject = operand(0);
      return expression.test(*this, subject, EvaluateArguments(expression, scope));
    }
    case Expression::Kind::kNot:
      return !IsTrue(operand(0));
    case Expression::Kind::kNegate:
      return Negate(operand(0));
    case Expression::Kind::kPlus:
      return Plus(operand(0));
    case Expression::Kind::kBinary: {
      const Value left = operand(0);
      return Arithmetic(expression.op, left, operand(1), budget_);
    }
    case Expression::Kind::kConcatenate: {
      std::vector<Value> parts;
      for (size_t i = 0; i < expression.operands.size(); ++i) parts.push_back(operand(i));
      return Concatenate(parts, budget_);
    }
    case Expression::Kind::kCompare:
      return EvaluateCompare(expression, scope);
    case Expression::Kind::kAnd: {
      Value left = operand(0);
      return IsTrue(left) ? operand(1) : left;
    }
    case Expression::Kind::kOr: {
      Value left = operand(0);
      return IsTrue(left) ? left : operand(1);
    }
    case Expression::Kind::kConditional:
      return EvaluateConditional(expression, scope);
  }
  return Value();
}

Value Interpreter::EvaluateName(const Expression& expression, const Scope& scope) const {
  if (const Value* found = scope.Find(expression.name); found != nullptr) return *found;
  if (const std::optional<Value> global = FindGlobal(expression.name); global.has_value()) {
    return *global;
  }
  if (expression.name == "self") Fail("self is not supported");
  return MakeUndefined(absl::StrCat("'", expression.name, "' is undefined"));
}

Value Interpreter::EvaluateItems(const Expression& expression, Scope& scope) {
  std::vector<Value> items;
  for (const ExpressionPtr& operand : expression.operands) {
    items.push_back(Evaluate(*operand, scope));
  }
  const bool is_list = expression.kind == Expression::Kind::kList;
  return MakeSequence(std::move(items), budget_,
                      is_list ? Sequence::Kind::kList : Sequence::Kind::kTuple);
}

Value Interpreter::EvaluateDict(const Expression& expression, Scope& scope) {
  auto dict = std::make_shared<Dict>();
  for (size_t i = 0; i < expression.operands.size(); i += 2) {
    const Value key = Evaluate(*expression.operands[i], scope);
    dict->Set(key, Evaluate(*expression.operands[i + 1], scope), budget_);
  }
  return std::shared_ptr<const Dict>(std::move(dict));
}

Value Interpreter::EvaluateSubscript(const Expression& expression, Scope& scope) {
  const Value object = Evaluate(*expression.operands[0], scope);
  const Expression& index = *expression.operands[1];
  if (index.kind != Expression::Kind::kSlice) {
    return GetItem(object, Evaluate(index, scope), budget_);
  }
  const auto part = [&](size_t i) {
    return index.operands[i] == nullptr ? Value() : Evaluate(*index.operands[i], scope);
  };
  const Value begin = part(0);
  const Value end = part(1);
  return Slice(object, begin, end, part(2), budget_);
}

Value Interpreter::EvaluateFilter(const Expression& expression, Scope& scope, const Value* block) {
  const Budget::Level level(budget_);
  const Expression* inner = expression.operands[0].get();
  Value subject;
  if (inner == nullptr) {
    subject = *block;
  } else if (block != nullptr) {
    subject = EvaluateFilter(*inner, scope, block);
  } else {
    subject = Evaluate(*inner, scope);
  }
  return expression.filter(*this, subject, EvaluateArguments(expression, scope));
}

Value Interpreter::EvaluateCompare(const Expression& expression, Scope& scope) {
  Value left = Evaluate(*expression.operands[0], scope);
  for (size_t i = 0; i < expression.comparisons.size(); ++i) {
    Value right = Evaluate(*expression.operands[i + 1], scope);
    if (!Compare(expression.comparisons[i], left, right, budget_)) return false;
    left = std::move(right);
  }
  return true;
}

Value Interpreter::EvaluateConditional(const Expression& expression, Scope& scope) {
  if (IsTrue(Evaluate(*expression.operands[1], scope))) {
    return Evaluate(*expression.operands[0], scope);
  }
  if (expression.operands[2] != nullptr) return Evaluate(*expression.operands[2], scope);
  return MakeUndefined("an if without else was false, and what it left out is used");
}

Arguments Interpreter::EvaluateArguments(const Expression& expression, Scope& scope) {
  Arguments arguments;
  for (const ArgumentExpression& argument : expression.arguments) {
    Value value = Evaluate(*argument.value, scope);
    switch (argument.kind) {
      case ArgumentExpression::Kind::kPositional:
        arguments.positional.push_back(std::move(value));
        break;
      case ArgumentExpression::Kind::kNamed:
        if (arguments.Named(argument.name) != nullptr) {
          Fail(absl::StrCat("two values for the argument ", argument.name));
        }
        arguments.named.emplace_back(argument.name, std::move(value));
        break;
      case ArgumentExpression::Kind::kSpreadList:
        for (Value& item : Iterate(value, budget_)) {
          arguments.positional.push_back(std::move(item));
        }
        break;
      case ArgumentExpression::Kind::kSpreadDict: {
        if (value.dict() == nullptr) Fail("what follows ** in a call is no mapping");
        for (const auto& [key, item] : value.dict()->entries()) {
          if (!key.is_text()) Fail("a key of what follows ** in a call is no text");
          if (arguments.Named(key.text()->bytes()) != nullptr) {
            Fail(absl::StrCat("two values for the argument ", key.text()->bytes()));
          }
          arguments.named.emplace_back(key.text()->bytes(), item);
        }
        break;
      }
    }
  }
  return arguments;
}

}  // namespace swaa::jinja
