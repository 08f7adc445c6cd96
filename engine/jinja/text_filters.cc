// The filters over texts.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/jinja/filters.h"
#include "engine/jinja/format.h"
#include "engine/jinja/interpreter.h"
#include "engine/jinja/operators.h"
#include "engine/jinja/parameters.h"
#include "engine/jinja/print.h"
#include "engine/jinja/text_functions.h"
#include "engine/jinja/unicode.h"

namespace swaa::jinja {
namespace {

Text Plain(Text text) {
  text.is_markup = false;
  return text;
}

Value Trim(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("trim", arguments, {"chars"});
  return Strip(ToText(value, interpreter.budget()), parameters.TextOrNull(0), true, true);
}

Value UpperFilter(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("upper", arguments, {});
  return Upper(ToText(value, interpreter.budget()), interpreter.budget());
}

Value LowerFilter(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("lower", arguments, {});
  return Lower(ToText(value, interpreter.budget()), interpreter.budget());
}

Value CapitalizeFilter(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("capitalize", arguments, {});
  return Capitalize(ToText(value, interpreter.budget()), interpreter.budget());
}

// Words begin after white space and - ( { [ <, unlike those of str.title().
Value TitleFilter(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("title", arguments, {});
  const Text text = ToText(value, interpreter.budget());
  const std::string& bytes = text.bytes();
  Text out;
  for (size_t begin = 0; begin < bytes.size();) {
    const auto is_break = [&](size_t at) {
      const char32_t character = CharacterAt(bytes, at);
      return IsSpace(character) ||
             (character < 0x80 && std::string_view("-({[<").find(static_cast<char>(character)) !=
                                      std::string_view::npos);
    };
    const bool breaks = is_break(begin);
    const size_t first = CharacterLength(bytes, begin);
    size_t end = begin + first;
    while (end < bytes.size() && is_break(end) == breaks) end += CharacterLength(bytes, end);
    if (breaks) {
      out.Append(text, begin, end - begin);
    } else {
      out.Append(Upper(text.Substr(begin, first), interpreter.budget()));
      out.Append(Lower(text.Substr(begin + first, end - begin - first), interpreter.budget()));
    }
    begin = end;
  }
  return out;
}

Value StringFilter(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("string", arguments, {});
  return ToText(value, interpreter.budget());
}

Value SafeFilter(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("safe", arguments, {});
  Text text = ToText(value, interpreter.budget());
  text.is_markup = true;
  return text;
}

Value EscapeFilter(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("escape", arguments, {});
  return EscapeHtml(ToText(value, interpreter.budget()), interpreter.budget());
}

Value ForceEscapeFilter(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("forceescape", arguments, {});
  return EscapeHtml(Plain(ToText(value, interpreter.budget())), interpreter.budget());
}

Value ReplaceFilter(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("replace", arguments, {"old", "new", "count"});
  Budget& budget = interpreter.budget();
  const int64_t count = parameters.Or(2, Value()).is_none() ? -1 : parameters.IntegerOr(2, -1);
  return Replace(Plain(ToText(value, budget)), Plain(ToText(parameters.Required(0), budget)),
                 Plain(ToText(parameters.Required(1), budget)), count, budget);
}

Value IndentFilter(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("indent", arguments, {"width", "first", "blank"});
  Budget& budget = interpreter.budget();
  CheckDefined(value);
  if (!value.is_text()) Fail(absl::StrCat("indent takes a text, not a '", TypeName(value), "'"));
  Text indention;
  if (parameters.Has(0) && parameters.Required(0).is_text()) {
    indention = parameters.RequiredText(0);
  } else {
    const int64_t width = std::max<int64_t>(parameters.IntegerOr(0, 4), 0);
    budget.Take(static_cast<size_t>(width));
    indention = Text(std::string(static_cast<size_t>(width), ' '));
  }
  const bool blank = parameters.IsTrueOr(2, false);
  Text ended = *value.text();
  ended.Append("\n", false);
  Text out;
  out.is_markup = ended.is_markup;
  if (parameters.IsTrueOr(1, false)) out.Append(indention);
  const std::vector<Value> lines = SplitLines(ended, false, budget);
  for (size_t i = 0; i < lines.size(); ++i) {
    const Text& line = *lines[i].text();
    if (i > 0) out.Append("\n", false);
    if (i > 0 && (blank || !line.empty())) {
      budget.Take(indention.size());
      out.Append(indention);
    }
    out.Append(line);
  }
  budget.Take(out.size());
  return out;
}

Value CenterFilter(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("center", arguments, {"width"});
  return Pad(ToText(value, interpreter.budget()), parameters.IntegerOr(0, 80), Text(" "),
             Alignment::kCenter, interpreter.budget());
}

Value TruncateFilter(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("truncate", arguments, {"length", "killwords", "end", "leeway"});
  Budget& budget = interpreter.budget();
  const Text dots("...");
  const Text& end = parameters.Has(2) ? parameters.RequiredText(2) : dots;
  const int64_t length = parameters.IntegerOr(0, 255);
  const bool has_leeway = parameters.Has(3) && !parameters.Required(3).is_none();
  const int64_t leeway = has_leeway ? parameters.IntegerOr(3, 5) : 5;
  const int64_t kept = length - CountCharacters(end.bytes());
  if (kept < 0) Fail("truncate: the length is below that of the end");
  if (leeway < 0) Fail("truncate: the leeway is below zero");
  if (LengthOf(value) <= CheckedAdd(length, leeway)) return value;
  if (!value.is_text()) Fail(absl::StrCat("truncating a '", TypeName(value), "' is not supported"));
  const Text& text = *value.text();
  budget.Take(text.size() + end.size());
  Text out = text.Substr(0, OffsetOf(text.bytes(), kept));
  if (!parameters.IsTrueOr(1, false)) {
    if (const size_t space = out.bytes().rfind(' '); space != std::string::npos) {
      out = out.Substr(0, space);
    }
  }
  out.Append(end);
  return out;
}

Value FormatFilter(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  Budget& budget = interpreter.budget();
  if (!arguments.positional.empty() && !arguments.named.empty()) {
    Fail("format takes values by position or by name, not both");
  }
  Value values;
  if (arguments.named.empty()) {
    values = MakeSequence(arguments.positional, budget, Sequence::Kind::kTuple);
  } else {
    auto dict = std::make_shared<Dict>();
    for (const auto& [name, item] : arguments.named) dict->Set(MakeText(name), item, budget);
    values = std::shared_ptr<const Dict>(std::move(dict));
  }
  return FormatPercent(ToText(value, budget), values, budget);
}

constexpr FilterEntry kFilters[] = {
    {"trim", Trim},
    {"upper", UpperFilter},
    {"lower", LowerFilter},
    {"capitalize", CapitalizeFilter},
    {"title", TitleFilter},
    {"string", StringFilter},
    {"safe", SafeFilter},
    {"escape", EscapeFilter},
    {"e", EscapeFilter},
    {"forceescape", ForceEscapeFilter},
    {"replace", ReplaceFilter},
    {"indent", IndentFilter},
    {"center", CenterFilter},
    {"truncate", TruncateFilter},
    {"format", FormatFilter},
};

}  // namespace

FilterFunction FindTextFilter(std::string_view name) {
  for (const FilterEntry& entry : kFilters) {
    if (entry.name == name) return entry.function;
  }
  return nullptr;
}

}  // namespace swaa::jinja
