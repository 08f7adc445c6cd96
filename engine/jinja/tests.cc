// The tests: value is name(arguments).

#include "engine/jinja/tests.h"

#include "absl/strings/str_cat.h"
#include "engine/jinja/filters.h"
#include "engine/jinja/interpreter.h"
#include "engine/jinja/operators.h"
#include "engine/jinja/parameters.h"
#include "engine/jinja/print.h"
#include "engine/jinja/unicode.h"

namespace swaa::jinja {
namespace {

void CheckNoArguments(const Arguments& arguments) {
  if (!arguments.positional.empty() || !arguments.named.empty()) {
    Fail("a test that takes no argument has one");
  }
}

const Value& OneArgument(const Arguments& arguments) {
  if (arguments.positional.size() != 1 || !arguments.named.empty()) {
    Fail("a test that takes one argument has another number of them");
  }
  return arguments.positional[0];
}

using Predicate = bool (*)(const Value& value);

template <Predicate predicate>
bool Plain(Interpreter&, const Value& value, const Arguments& arguments) {
  CheckNoArguments(arguments);
  return predicate(value);
}

template <Operator op>
bool Comparison(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  return Compare(op, value, OneArgument(arguments), interpreter.budget());
}

bool IsDefined(const Value& value) { return !value.is_undefined(); }
bool IsUndefined(const Value& value) { return value.is_undefined(); }
bool IsNone(const Value& value) { return value.is_none(); }
bool IsBoolean(const Value& value) { return value.is_bool(); }
bool IsTrueConstant(const Value& value) { return value.is_bool() && IsTrue(value); }
bool IsFalseConstant(const Value& value) { return value.is_bool() && !IsTrue(value); }
bool IsIntegerValue(const Value& value) { return value.is_integer(); }
bool IsFloatValue(const Value& value) { return value.is_float(); }
bool IsNumber(const Value& value) { return value.AsNumber().has_value(); }
bool IsString(const Value& value) { return value.is_text(); }
bool IsMapping(const Value& value) { return value.dict() != nullptr; }
bool IsIterable(const Value& value) {
  return value.is_undefined() || value.is_text() || value.dict() != nullptr ||
         value.sequence() != nullptr;
}
// What has a length and elements; Python finds both in a dictionary and in what is undefined.
bool IsSequence(const Value& value) {
  return value.is_undefined() || value.is_text() || value.dict() != nullptr ||
         (value.sequence() != nullptr && value.sequence()->is_indexed());
}
bool IsEscaped(const Value& value) { return value.is_text() && value.text()->is_markup; }

Value Rest(Interpreter& interpreter, const Value& value, const Value& divisor) {
  return Arithmetic(Operator::kModulo, value, divisor, interpreter.budget());
}
bool IsOdd(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  CheckNoArguments(arguments);
  return IsEqual(Rest(interpreter, value, 2), 1, interpreter.budget());
}
bool IsEven(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  CheckNoArguments(arguments);
  return IsEqual(Rest(interpreter, value, 2), 0, interpreter.budget());
}
bool IsDivisible(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  return IsEqual(Rest(interpreter, value, OneArgument(arguments)), 0, interpreter.budget());
}

bool IsSame(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Value& other = OneArgument(arguments);
  if (value.data().index() != other.data().index()) return false;
  if (value.is_none()) return true;
  if (value.is_bool()) return IsEqual(value, other, interpreter.budget());
  if (value.object() != nullptr) return value.object() == other.object();
  if (value.sequence() != nullptr) return value.sequence() == other.sequence();
  if (value.dict() != nullptr) return value.dict() == other.dict();
  Fail(absl::StrCat("the test sameas of a '", TypeName(value), "' is not supported; use =="));
}

// Whether the printed value has letters of this case and none of the other.
bool HasCase(Interpreter& interpreter, const Value& value, bool (*wanted)(char32_t),
             bool (*forbidden)(char32_t)) {
  const std::string text = ToText(value, interpreter.budget()).bytes();
  bool any = false;
  for (size_t at = 0; at < text.size(); at += CharacterLength(text, at)) {
    const char32_t character = CharacterAt(text, at);
    if (forbidden(character)) return false;
    any |= wanted(character);
  }
  return any;
}
bool IsLowerText(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  CheckNoArguments(arguments);
  return HasCase(interpreter, value, IsLower, IsUpper);
}
bool IsUpperText(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  CheckNoArguments(arguments);
  return HasCase(interpreter, value, IsUpper, IsLower);
}

bool IsFilter(const Value& value) {
  return value.is_text() && FindFilter(value.text()->bytes()) != nullptr;
}
bool IsTest(const Value& value) {
  return value.is_text() && FindTest(value.text()->bytes()) != nullptr;
}

struct Entry {
  const char* name;
  TestFunction function;
};

constexpr Entry kTests[] = {
    {"defined", Plain<IsDefined>},
    {"undefined", Plain<IsUndefined>},
    {"none", Plain<IsNone>},
    {"boolean", Plain<IsBoolean>},
    {"true", Plain<IsTrueConstant>},
    {"false", Plain<IsFalseConstant>},
    {"integer", Plain<IsIntegerValue>},
    {"float", Plain<IsFloatValue>},
    {"number", Plain<IsNumber>},
    {"string", Plain<IsString>},
    {"mapping", Plain<IsMapping>},
    {"callable", Plain<IsCallable>},
    {"iterable", Plain<IsIterable>},
    {"sequence", Plain<IsSequence>},
    {"escaped", Plain<IsEscaped>},
    {"odd", IsOdd},
    {"even", IsEven},
    {"divisibleby", IsDivisible},
    {"sameas", IsSame},
    {"lower", IsLowerText},
    {"upper", IsUpperText},
    {"filter", Plain<IsFilter>},
    {"test", Plain<IsTest>},
    {"in", Comparison<Operator::kIn>},
    {"==", Comparison<Operator::kEqual>},
    {"eq", Comparison<Operator::kEqual>},
    {"equalto", Comparison<Operator::kEqual>},
    {"!=", Comparison<Operator::kNotEqual>},
    {"ne", Comparison<Operator::kNotEqual>},
    {"<", Comparison<Operator::kLess>},
    {"lt", Comparison<Operator::kLess>},
    {"lessthan", Comparison<Operator::kLess>},
    {"<=", Comparison<Operator::kLessEqual>},
    {"le", Comparison<Operator::kLessEqual>},
    {">", Comparison<Operator::kGreater>},
    {"gt", Comparison<Operator::kGreater>},
    {"greaterthan", Comparison<Operator::kGreater>},
    {">=", Comparison<Operator::kGreaterEqual>},
    {"ge", Comparison<Operator::kGreaterEqual>},
};

}  // namespace

TestFunction FindTest(std::string_view name) {
  for (const Entry& entry : kTests) {
    if (entry.name == name) return entry.function;
  }
  return nullptr;
}

}  // namespace swaa::jinja
