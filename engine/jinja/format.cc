// Python's two ways of formatting text.

#include "engine/jinja/format.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/jinja/print.h"
#include "engine/jinja/unicode.h"

namespace swaa::jinja {
namespace {

constexpr int kMaxWidth = 10'000;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// What stands between the sign of a conversion and its letter.
struct Spec {
  std::string fill = " ";
  char align = 0;  // < > ^ =; 0: what the type takes
  char sign = '-';
  bool alternate = false;
  bool zero = false;
  int width = 0;
  int precision = -1;
  char type = 0;
};

int TakeNumber(std::string_view& text) {
  int number = 0;
  while (!text.empty() && IsDigit(text[0])) {
    number = number * 10 + (text[0] - '0');
    if (number > kMaxWidth) Fail(absl::StrCat("a width over ", kMaxWidth, " is not supported"));
    text.remove_prefix(1);
  }
  return number;
}

std::string SignOf(bool negative, const Spec& spec) {
  if (negative) return "-";
  return spec.sign == '-' ? "" : std::string(1, spec.sign);
}

// `sign` and `digits` filled up to the width.
Text Padded(const Text& body, const std::string& sign, const Spec& spec, char align) {
  const int64_t count = CountCharacters(body.bytes()) + static_cast<int64_t>(sign.size());
  const int64_t missing = std::max<int64_t>(0, spec.width - count);
  const int64_t left = align == '>' || align == '=' ? missing : align == '^' ? missing / 2 : 0;
  Text out;
  if (align == '=') out.Append(sign, false);
  for (int64_t i = 0; i < left; ++i) out.Append(spec.fill, false);
  if (align != '=') out.Append(sign, false);
  out.Append(body);
  for (int64_t i = left; i < missing; ++i) out.Append(spec.fill, false);
  return out;
}

std::string IntegerDigits(uint64_t magnitude, char type) {
  switch (type) {
    case 'x':
      return absl::StrFormat("%x", magnitude);
    case 'X':
      return absl::StrFormat("%X", magnitude);
    case 'o':
      return absl::StrFormat("%o", magnitude);
    case 'b': {
      std::string digits;
      do {
        digits.insert(digits.begin(), static_cast<char>('0' + magnitude % 2));
        magnitude /= 2;
      } while (magnitude > 0);
      return digits;
    }
    default:
      return absl::StrCat(magnitude);
  }
}

Text FormatInteger(int64_t number, const Spec& spec, char align) {
  const bool negative = number < 0;
  const uint64_t magnitude = negative ? 0 - static_cast<uint64_t>(number) : number;
  return Padded(Text(IntegerDigits(magnitude, spec.type)), SignOf(negative, spec), spec, align);
}

Text FormatReal(double number, const Spec& spec, char align) {
  const bool negative = std::signbit(number) && !std::isnan(number);
  const double magnitude = std::abs(number);
  const int precision = spec.precision < 0 ? 6 : spec.precision;
  std::string digits;
  switch (spec.type) {
    case 'f':
    case 'F':
      digits = absl::StrFormat("%.*f", precision, magnitude);
      break;
    case 'e':
      digits = absl::StrFormat("%.*e", precision, magnitude);
      break;
    case 'E':
      digits = absl::StrFormat("%.*E", precision, magnitude);
      break;
    case 'g':
      digits = absl::StrFormat("%.*g", precision, magnitude);
      break;
    case 'G':
      digits = absl::StrFormat("%.*G", precision, magnitude);
      break;
    case '%':
      digits = absl::StrFormat("%.*f%%", precision, magnitude * 100);
      break;
    default:
      if (spec.precision >= 0) Fail("a float's precision without a type is not supported");
      digits = FormatFloat(magnitude);
  }
  return Padded(Text(digits), SignOf(negative, spec), spec, align);
}

double NumberOf(const Value& value, char type) {
  CheckDefined(value);
  const std::optional<double> number = value.AsNumber();
  if (!number.has_value()) {
    Fail(absl::StrCat("%", std::string(1, type), " format: a real number is required, not ",
                      TypeName(value)));
  }
  return *number;
}

// What Python takes for a mapping of names, which may be left unused.
bool HasElements(const Value& value) {
  const Sequence* sequence = value.sequence();
  return value.is_undefined() || value.dict() != nullptr ||
         (sequence != nullptr && sequence->is_indexed() &&
          sequence->kind != Sequence::Kind::kTuple);
}

class PercentFormatter {
 public:
  PercentFormatter(const Text& format, const Value& value, Budget& budget)
      : format_(format), value_(value), budget_(budget) {
    const Sequence* sequence = value.sequence();
    if (sequence != nullptr && sequence->kind == Sequence::Kind::kTuple) {
      values_ = sequence->items;
    } else {
      values_ = {value};
    }
  }

  Value Run() {
    const std::string& bytes = format_.bytes();
    size_t at = 0;
    for (size_t sign = bytes.find('%'); sign != std::string::npos; sign = bytes.find('%', at)) {
      out_.Append(format_, at, sign - at);
      std::string_view rest = std::string_view(bytes).substr(sign + 1);
      Convert(rest);
      at = bytes.size() - rest.size();
    }
    out_.Append(format_, at);
    if (!by_name_ && used_ < values_.size() && !HasElements(value_)) {
      Fail("not all arguments converted during string formatting");
    }
    return std::move(out_);
  }

 private:
  Value Next(std::string_view& rest) {
    if (rest.starts_with('(')) {
      const size_t close = rest.find(')');
      if (close == std::string_view::npos) Fail("incomplete format key");
      if (value_.dict() == nullptr) Fail("format requires a mapping");
      by_name_ = true;
      const Value* found = value_.dict()->Find(rest.substr(1, close - 1));
      if (found == nullptr) {
        Fail(absl::StrCat("the format's key '", std::string(rest.substr(1, close - 1)),
                          "' is missing"));
      }
      rest.remove_prefix(close + 1);
      return *found;
    }
    return Value();
  }

  Value NextPositional() {
    if (used_ >= values_.size()) Fail("not enough arguments for format string");
    return values_[used_++];
  }

  void Convert(std::string_view& rest) {
    budget_.Step();
    const bool named = rest.starts_with('(');
    Value value = Next(rest);
    Spec spec;
    for (; !rest.empty() && std::string_view("-+ 0#").find(rest[0]) != std::string_view::npos;
         rest.remove_prefix(1)) {
      if (rest[0] == '-') spec.align = '<';
      if (rest[0] == '+' || (rest[0] == ' ' && spec.sign != '+')) spec.sign = rest[0];
      spec.zero |= rest[0] == '0';
      if (rest[0] == '#') Fail("the # of a format is not supported");
    }
    spec.width = TakeNumber(rest);
    if (rest.starts_with('.')) {
      rest.remove_prefix(1);
      spec.precision = TakeNumber(rest);
    }
    if (rest.empty()) Fail("incomplete format");
    spec.type = rest[0];
    rest.remove_prefix(1);
    if (spec.type == '%') return out_.Append("%", false);
    if (!named) value = NextPositional();
    const Text text = Formatted(value, spec);
    budget_.Take(text.size());
    out_.Append(text);
  }

  Text Formatted(const Value& value, Spec spec) {
    const char number_align = spec.align != 0 ? spec.align : spec.zero ? '=' : '>';
    switch (spec.type) {
      case 's':
      case 'r': {
        Text text = spec.type == 's' ? ToText(value, budget_) : Repr(value, budget_);
        if (spec.precision >= 0) text = text.Substr(0, OffsetOf(text.bytes(), spec.precision));
        return Padded(text, "", spec, spec.align != 0 ? spec.align : '>');
      }
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o': {
        const double number = NumberOf(value, spec.type);
        if (spec.precision >= 0) Fail("an integer's precision in a format is not supported");
        if (value.is_float() && (spec.type == 'x' || spec.type == 'X' || spec.type == 'o')) {
          Fail(absl::StrCat("%", std::string(1, spec.type),
                            " format: an integer is required, not float"));
        }
        if (value.is_float() && !(std::abs(number) < 9e18)) {
          Fail("a float is too large for an integer format");
        }
        if (spec.zero && spec.align == 0) spec.fill = "0";
        return FormatInteger(value.is_float() ? static_cast<int64_t>(number) : *value.AsInteger(),
                             spec, number_align);
      }
      case 'f':
      case 'F':
      case 'e':
      case 'E':
      case 'g':
      case 'G':
        if (spec.zero && spec.align == 0) spec.fill = "0";
        return FormatReal(NumberOf(value, spec.type), spec, number_align);
      default:
        Fail(absl::StrCat("the format character '", std::string(1, spec.type),
                          "' is not supported"));
    }
  }

  const Text& format_;
  const Value& value_;
  Budget& budget_;
  std::vector<Value> values_;
  size_t used_ = 0;
  bool by_name_ = false;
  Text out_;
};

bool IsAlign(char c) { return c == '<' || c == '>' || c == '^' || c == '='; }

Spec ParseSpec(std::string_view text) {
  Spec spec;
  if (!text.empty()) {
    const size_t fill = CharacterLength(text, 0);
    if (text.size() > fill && IsAlign(text[fill])) {
      spec.fill = std::string(text.substr(0, fill));
      spec.align = text[fill];
      text.remove_prefix(fill + 1);
    } else if (IsAlign(text[0])) {
      spec.align = text[0];
      text.remove_prefix(1);
    }
  }
  if (!text.empty() && (text[0] == '+' || text[0] == '-' || text[0] == ' ')) {
    spec.sign = text[0];
    text.remove_prefix(1);
  }
  if (text.starts_with('0')) {
    spec.zero = true;
    text.remove_prefix(1);
  }
  spec.width = TakeNumber(text);
  if (text.starts_with('.')) {
    text.remove_prefix(1);
    spec.precision = TakeNumber(text);
  }
  if (!text.empty()) {
    spec.type = text[0];
    text.remove_prefix(1);
  }
  if (!text.empty() || (spec.type != 0 && std::string_view("sdfFeEgGxXbo%").find(spec.type) ==
                                              std::string_view::npos)) {
    Fail("a format specification that is not supported");
  }
  return spec;
}

Text FormatField(const Value& value, std::string_view spec_text, Budget& budget) {
  CheckDefined(value);
  if (spec_text.empty()) return ToText(value, budget);
  Spec spec = ParseSpec(spec_text);
  if (spec.zero && spec.align == 0) {
    spec.fill = "0";
    spec.align = value.is_text() ? '<' : '=';
  }
  const bool real_type =
      spec.type != 0 && std::string_view("fFeEgG%").find(spec.type) != std::string_view::npos;
  if (value.is_text() && (spec.type == 0 || spec.type == 's') && spec.align != '=' &&
      spec.sign == '-') {
    Text text = *value.text();
    if (spec.precision >= 0) text = text.Substr(0, OffsetOf(text.bytes(), spec.precision));
    return Padded(text, "", spec, spec.align != 0 ? spec.align : '<');
  }
  if (value.is_integer() && !real_type && spec.type != 's' && spec.precision < 0) {
    return FormatInteger(*value.AsInteger(), spec, spec.align != 0 ? spec.align : '>');
  }
  if ((value.is_float() && spec.type == 0) || (value.AsNumber().has_value() && real_type)) {
    return FormatReal(*value.AsNumber(), spec, spec.align != 0 ? spec.align : '>');
  }
  Fail(absl::StrCat("the format '", std::string(spec_text), "' of a '", TypeName(value),
                    "' is not supported"));
}

// What the inside of {field!conversion:spec} names, formatted.
Text FormatReplacement(std::string_view field, const Arguments& arguments, int64_t& automatic,
                       Budget& budget) {
  const size_t colon = field.find(':');
  const std::string_view spec =
      colon == std::string_view::npos ? std::string_view() : field.substr(colon + 1);
  field = field.substr(0, colon);
  const size_t bang = field.find('!');
  const std::string_view conversion =
      bang == std::string_view::npos ? std::string_view() : field.substr(bang + 1);
  const std::string name(field.substr(0, bang));
  if (name.find_first_of(".[") != std::string::npos) {
    Fail("attributes and subscripts in a format are not supported");
  }
  const Value* value = nullptr;
  if (name.empty() || std::all_of(name.begin(), name.end(), IsDigit)) {
    std::string_view digits = name;
    const int64_t index = name.empty() ? automatic++ : TakeNumber(digits);
    if (index < static_cast<int64_t>(arguments.positional.size())) {
      value = &arguments.positional[static_cast<size_t>(index)];
    }
  } else {
    value = arguments.Named(name);
  }
  if (value == nullptr) Fail(absl::StrCat("nothing is given for the format's field '", name, "'"));
  if (conversion == "r") return FormatField(Repr(*value, budget), spec, budget);
  if (conversion == "s") return FormatField(ToText(*value, budget), spec, budget);
  if (!conversion.empty()) Fail("a conversion in a format that is not supported");
  return FormatField(*value, spec, budget);
}

}  // namespace

Value FormatPercent(const Text& format, const Value& value, Budget& budget) {
  if (format.is_markup) Fail("formatting safe text is not supported");
  budget.Take(format.size());
  return PercentFormatter(format, value, budget).Run();
}

Value FormatBraces(const Text& format, const Arguments& arguments, Budget& budget) {
  budget.Take(format.size());
  const std::string& bytes = format.bytes();
  Text out;
  int64_t automatic = 0;
  for (size_t at = 0; at < bytes.size();) {
    budget.Step();
    const size_t brace = std::min(bytes.find_first_of("{}", at), bytes.size());
    out.Append(format, at, brace - at);
    if (brace == bytes.size()) break;
    if (brace + 1 < bytes.size() && bytes[brace + 1] == bytes[brace]) {
      out.Append(format, brace, 1);
      at = brace + 2;
      continue;
    }
    const size_t close = bytes.find('}', brace);
    if (bytes[brace] == '}' || close == std::string::npos) {
      Fail("single brace in a format string");
    }
    const std::string_view field = std::string_view(bytes).substr(brace + 1, close - brace - 1);
    if (field.find('{') != std::string_view::npos) Fail("nested fields are not supported");
    const Text text = FormatReplacement(field, arguments, automatic, budget);
    budget.Take(text.size());
    out.Append(text);
    at = close + 1;
  }
  return out;
}

}  // namespace swaa::jinja
