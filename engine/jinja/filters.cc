// The filters over single values: numbers, defaults, JSON.

#include "engine/jinja/filters.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/jinja/attributes.h"
#include "engine/jinja/interpreter.h"
#include "engine/jinja/operators.h"
#include "engine/jinja/parameters.h"
#include "engine/jinja/print.h"
#include "engine/jinja/text_functions.h"
#include "engine/jinja/unicode.h"

namespace swaa::jinja {
namespace {

Value Default(Interpreter&, const Value& value, const Arguments& arguments) {
  const Parameters parameters("default", arguments, {"default_value", "boolean"});
  const bool use_default =
      value.is_undefined() || (parameters.IsTrueOr(1, false) && !IsTrue(value));
  return use_default ? parameters.Or(0, MakeText("")) : value;
}

Value Length(Interpreter&, const Value& value, const Arguments& arguments) {
  const Parameters parameters("length", arguments, {});
  return LengthOf(value);
}

Value Absolute(Interpreter&, const Value& value, const Arguments& arguments) {
  const Parameters parameters("abs", arguments, {});
  CheckDefined(value);
  if (const std::optional<int64_t> integer = value.AsInteger(); integer.has_value()) {
    return *integer < 0 ? Negate(*integer) : Value(*integer);
  }
  if (value.is_float()) return std::abs(*value.AsNumber());
  Fail(absl::StrCat("bad operand type for abs(): '", TypeName(value), "'"));
}

// The digits of a number as Python's int() and float() take them: no space around, single
// underscores between digits. Nothing: it is none.
std::optional<std::string> NumberText(const Text& text) {
  const std::string stripped = Strip(text, nullptr, true, true).bytes();
  std::string digits;
  for (size_t at = 0; at < stripped.size(); at += CharacterLength(stripped, at)) {
    const char32_t character = CharacterAt(stripped, at);
    if (character < 0x80) continue;
    if (IsDecimal(character)) Fail("numbers in digits beyond ASCII are not supported");
    return std::nullopt;
  }
  for (size_t i = 0; i < stripped.size(); ++i) {
    if (stripped[i] != '_') {
      digits += stripped[i];
      continue;
    }
    const auto is_digit = [&](size_t at) {
      return at < stripped.size() && stripped[at] >= '0' && stripped[at] <= '9';
    };
    if (i == 0 || !is_digit(i - 1) || !is_digit(i + 1)) return std::nullopt;
  }
  return digits;
}

std::optional<int64_t> ParseInteger(const Text& text) {
  const std::optional<std::string> digits = NumberText(text);
  if (!digits.has_value()) return std::nullopt;
  const bool has_sign = digits->starts_with('+') || digits->starts_with('-');
  const std::string_view magnitude = std::string_view(*digits).substr(has_sign ? 1 : 0);
  const bool all_digits =
      !magnitude.empty() &&
      std::all_of(magnitude.begin(), magnitude.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!all_digits) return std::nullopt;
  const std::string_view number =
      std::string_view(*digits).substr(digits->starts_with('+') ? 1 : 0);
  int64_t value = 0;
  if (std::from_chars(number.data(), number.data() + number.size(), value).ec != std::errc()) {
    Fail("an integer needs more than 64 bits");
  }
  return value;
}

std::optional<double> ParseFloat(const Text& text) {
  const std::optional<std::string> digits = NumberText(text);
  if (!digits.has_value() || digits->empty()) return std::nullopt;
  std::string lower = *digits;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const std::string_view word =
      std::string_view(lower).substr(lower[0] == '+' || lower[0] == '-' ? 1 : 0);
  const bool is_word = word == "inf" || word == "infinity" || word == "nan";
  if (!is_word && lower.find_first_not_of("0123456789+-.e") != std::string::npos) {
    return std::nullopt;
  }
  char* end = nullptr;
  const double number = std::strtod(lower.c_str(), &end);
  if (end != lower.c_str() + lower.size()) return std::nullopt;
  return number;
}

std::optional<double> ToFloat(const Value& value) {
  CheckDefined(value);
  if (value.AsNumber().has_value()) return value.AsNumber();
  return value.is_text() ? ParseFloat(*value.text()) : std::nullopt;
}

Value ToInteger(Interpreter&, const Value& value, const Arguments& arguments) {
  const Parameters parameters("int", arguments, {"default", "base"});
  if (parameters.IntegerOr(1, 10) != 10) Fail("int in another base than 10 is not supported");
  CheckDefined(value);
  if (value.AsInteger().has_value()) return *value.AsInteger();
  if (value.is_text()) {
    if (const std::optional<int64_t> integer = ParseInteger(*value.text()); integer.has_value()) {
      return *integer;
    }
  }
  const std::optional<double> number = ToFloat(value);
  if (!number.has_value() || !std::isfinite(*number)) return parameters.Or(0, 0);
  if (!(std::abs(*number) < 9.2e18)) Fail("an integer needs more than 64 bits");
  return static_cast<int64_t>(*number);
}

Value ToFloatFilter(Interpreter&, const Value& value, const Arguments& arguments) {
  const Parameters parameters("float", arguments, {"default"});
  const std::optional<double> number = ToFloat(value);
  return number.has_value() ? Value(*number) : parameters.Or(0, 0.0);
}

Value Round(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("round", arguments, {"precision", "method"});
  const int64_t precision = parameters.IntegerOr(0, 0);
  const Text* method = parameters.TextOrNull(1);
  const std::string name = method == nullptr ? "common" : method->bytes();
  CheckDefined(value);
  if (!value.AsNumber().has_value()) Fail("round takes a number");
  if (precision < 0 || precision > 300) Fail("round with such a precision is not supported");
  if (name == "common") {
    if (!value.is_float() && precision >= 0) return *value.AsInteger();
    // The decimal text is rounded from the exact number, half to even, as Python's round().
    return std::strtod(absl::StrFormat("%.*f", precision, *value.AsNumber()).c_str(), nullptr);
  }
  if (name != "ceil" && name != "floor") Fail("method must be common, ceil or floor");
  const double power = std::pow(10.0, static_cast<double>(precision));
  const double scaled = *value.AsNumber() * power;
  return (name == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / power;
}

Value ToJsonFilter(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("tojson", arguments,
                              {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonFormat format;
  format.ensure_ascii = parameters.IsTrueOr(0, false);
  format.sort_keys = parameters.IsTrueOr(3, false);
  if (const Value indent = parameters.Or(1, Value()); indent.is_text()) {
    format.indent = indent.text()->bytes();
  } else if (!indent.is_none()) {
    const int64_t width = std::max<int64_t>(parameters.IntegerOr(1, 0), 0);
    interpreter.budget().Take(static_cast<size_t>(width));
    format.indent = std::string(static_cast<size_t>(width), ' ');
  }
  if (const Value separators = parameters.Or(2, Value()); !separators.is_none()) {
    const std::vector<Value> parts = Iterate(separators, interpreter.budget());
    if (parts.size() != 2 || !parts[0].is_text() || !parts[1].is_text()) {
      Fail("tojson: separators are two texts");
    }
    format.item_separator = parts[0].text()->bytes();
    format.key_separator = parts[1].text()->bytes();
  }
  return ToJson(value, format, interpreter.budget());
}

Value Attribute(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("attr", arguments, {"name"});
  const std::string& name = parameters.RequiredText(0).bytes();
  if (value.dict() != nullptr && value.dict()->Find(name) != nullptr &&
      !GetAttribute(value, name, interpreter.budget()).object()) {
    return MakeUndefined(absl::StrCat("'dict object' has no attribute '", name, "'"));
  }
  return GetAttribute(value, name, interpreter.budget());
}

constexpr FilterEntry kFilters[] = {
    {"default", Default},     {"d", Default},      {"length", Length}, {"count", Length},
    {"abs", Absolute},        {"int", ToInteger},  {"round", Round},   {"float", ToFloatFilter},
    {"tojson", ToJsonFilter}, {"attr", Attribute},
};

}  // namespace

FilterFunction FindFilter(std::string_view name) {
  for (const FilterEntry& entry : kFilters) {
    if (entry.name == name) return entry.function;
  }
  const FilterFunction text_filter = FindTextFilter(name);
  return text_filter != nullptr ? text_filter : FindSequenceFilter(name);
}

Value AttributeOf(const Value& item, const Value& attribute, const Value* fallback,
                  Budget& budget) {
  if (attribute.is_none()) return item;
  Value result = item;
  if (const Text* path = attribute.text(); path != nullptr) {
    const Text dot(".");
    for (const Value& part : Split(*path, &dot, -1, false, budget)) {
      const std::string& name = part.text()->bytes();
      const bool is_index =
          !name.empty() && name.size() < 19 &&
          std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
      result =
          GetItem(result, is_index ? Value(static_cast<int64_t>(std::stoll(name))) : part, budget);
      if (fallback != nullptr && result.is_undefined()) result = *fallback;
    }
    return result;
  }
  result = GetItem(result, attribute, budget);
  return fallback != nullptr && result.is_undefined() ? *fallback : result;
}

}  // namespace swaa::jinja
