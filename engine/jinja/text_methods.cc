// The methods of texts.

#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"
#include "engine/jinja/attributes.h"
#include "engine/jinja/format.h"
#include "engine/jinja/interpreter.h"
#include "engine/jinja/objects.h"
#include "engine/jinja/operators.h"
#include "engine/jinja/parameters.h"
#include "engine/jinja/text_functions.h"
#include "engine/jinja/unicode.h"

namespace swaa::jinja {
namespace {

// A method's call: its text, its arguments, what it may spend.
struct Call {
  std::string_view name;
  const Text& text;
  const Arguments& arguments;
  Budget& budget;
};

using Method = Value (*)(const Call&);

Value StripMethod(const Call& call) {
  const Parameters parameters(call.name, call.arguments, {"chars"}, 1);
  call.budget.Take(call.text.size());
  call.budget.Step(static_cast<int64_t>(call.text.size() / 16));
  return Strip(call.text, parameters.TextOrNull(0), call.name != "rstrip", call.name != "lstrip");
}

Value SplitMethod(const Call& call) {
  const Parameters parameters(call.name, call.arguments, {"sep", "maxsplit"});
  return MakeSequence(Split(call.text, parameters.TextOrNull(0), parameters.IntegerOr(1, -1),
                            call.name == "rsplit", call.budget),
                      call.budget);
}

Value SplitLinesMethod(const Call& call) {
  const Parameters parameters(call.name, call.arguments, {"keepends"});
  return MakeSequence(SplitLines(call.text, parameters.IsTrueOr(0, false), call.budget),
                      call.budget);
}

// The part of the text between the optional arguments start and end, as byte offsets; nothing where
// the start is beyond the text.
std::optional<std::pair<size_t, size_t>> Range(const Call& call, const Parameters& parameters) {
  const int64_t length = CountCharacters(call.text.bytes());
  call.budget.Step(static_cast<int64_t>(call.text.size() / 64));
  const auto bound = [&](size_t i, int64_t otherwise) {
    if (!parameters.Has(i) || parameters.Required(i).is_none()) return otherwise;
    const int64_t at = parameters.IntegerOr(i, 0);
    return at < 0 ? std::max<int64_t>(0, at + length) : at;
  };
  const int64_t begin = bound(1, 0);
  const int64_t end = std::min(bound(2, length), length);
  if (begin > length || end < begin) return std::nullopt;
  return std::pair(OffsetOf(call.text.bytes(), begin), OffsetOf(call.text.bytes(), end));
}

Value StartsOrEndsWith(const Call& call) {
  const Parameters parameters(call.name, call.arguments, {"prefix", "start", "end"}, 3);
  const std::optional<std::pair<size_t, size_t>> range = Range(call, parameters);
  const Value& wanted = parameters.Required(0);
  const auto matches = [&](const Value& part) {
    CheckDefined(part);
    if (!part.is_text()) {
      Fail(absl::StrCat(std::string(call.name), " first arg must be str or a tuple of str, not ",
                        TypeName(part)));
    }
    if (!range.has_value()) return false;
    const std::string_view text =
        std::string_view(call.text.bytes()).substr(range->first, range->second - range->first);
    return call.name == "startswith" ? text.starts_with(part.text()->bytes())
                                     : text.ends_with(part.text()->bytes());
  };
  const Sequence* sequence = wanted.sequence();
  if (sequence == nullptr || sequence->kind != Sequence::Kind::kTuple) return matches(wanted);
  return std::any_of(sequence->items.begin(), sequence->items.end(), matches);
}

Value FindMethod(const Call& call) {
  const Parameters parameters(call.name, call.arguments, {"sub", "start", "end"}, 3);
  const std::string& wanted = parameters.RequiredText(0).bytes();
  const std::optional<std::pair<size_t, size_t>> range = Range(call, parameters);
  size_t found = std::string::npos;
  if (range.has_value()) {
    const std::string_view text = std::string_view(call.text.bytes()).substr(0, range->second);
    if (call.name.starts_with('r')) {
      found = text.rfind(wanted);
      if (found != std::string::npos && found < range->first) found = std::string::npos;
    } else {
      found = text.find(wanted, range->first);
    }
  }
  if (found != std::string::npos) {
    return CountCharacters(std::string_view(call.text.bytes()).substr(0, found));
  }
  if (call.name.ends_with("index")) Fail("substring not found");
  return -1;
}

Value CountMethod(const Call& call) {
  const Parameters parameters(call.name, call.arguments, {"sub", "start", "end"}, 3);
  const std::string& wanted = parameters.RequiredText(0).bytes();
  const std::optional<std::pair<size_t, size_t>> range = Range(call, parameters);
  if (!range.has_value()) return 0;
  const std::string_view text =
      std::string_view(call.text.bytes()).substr(range->first, range->second - range->first);
  if (wanted.empty()) return CountCharacters(text) + 1;
  int64_t count = 0;
  for (size_t at = text.find(wanted); at != std::string_view::npos;
       at = text.find(wanted, at + wanted.size())) {
    ++count;
  }
  return count;
}

Value ReplaceMethod(const Call& call) {
  const Parameters parameters(call.name, call.arguments, {"old", "new", "count"}, 3);
  return Replace(call.text, parameters.RequiredText(0), parameters.RequiredText(1),
                 parameters.IntegerOr(2, -1), call.budget);
}

Value JoinMethod(const Call& call) {
  const Parameters parameters(call.name, call.arguments, {"iterable"}, 1);
  const std::vector<Value> items = Iterate(parameters.Required(0), call.budget);
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].is_text()) {
      Fail(absl::StrCat("sequence item ", i, ": expected str instance, ", TypeName(items[i]),
                        " found"));
    }
  }
  return Join(call.text, items, call.budget);
}

Value RemoveMethod(const Call& call) {
  const Parameters parameters(call.name, call.arguments, {"affix"}, 1);
  const std::string& affix = parameters.RequiredText(0).bytes();
  const std::string& bytes = call.text.bytes();
  call.budget.Take(bytes.size());
  if (call.name == "removeprefix") {
    return bytes.starts_with(affix) ? call.text.Substr(affix.size()) : call.text;
  }
  return bytes.ends_with(affix) ? call.text.Substr(0, bytes.size() - affix.size()) : call.text;
}

Value CaseMethod(const Call& call) {
  const Parameters parameters(call.name, call.arguments, {});
  if (call.name == "upper") return Upper(call.text, call.budget);
  if (call.name == "lower") return Lower(call.text, call.budget);
  if (call.name == "title") return TitleCase(call.text, call.budget);
  return Capitalize(call.text, call.budget);
}

Value PartitionMethod(const Call& call) {
  const Parameters parameters(call.name, call.arguments, {"sep"}, 1);
  const std::string& mark = parameters.RequiredText(0).bytes();
  if (mark.empty()) Fail("empty separator");
  const bool from_right = call.name == "rpartition";
  const std::string& bytes = call.text.bytes();
  const size_t found = from_right ? bytes.rfind(mark) : bytes.find(mark);
  std::vector<Value> parts;
  if (found != std::string::npos) {
    parts = {call.text.Substr(0, found), call.text.Substr(found, mark.size()),
             call.text.Substr(found + mark.size())};
  } else if (from_right) {
    parts = {Text(), Text(), call.text};
  } else {
    parts = {call.text, Text(), Text()};
  }
  call.budget.Take(bytes.size());
  return MakeSequence(std::move(parts), call.budget, Sequence::Kind::kTuple);
}

Value PadMethod(const Call& call) {
  const Parameters parameters(call.name, call.arguments, {"width", "fillchar"}, 2);
  parameters.Required(0);
  const Alignment alignment = call.name == "ljust"   ? Alignment::kLeft
                              : call.name == "rjust" ? Alignment::kRight
                                                     : Alignment::kCenter;
  const Text space(" ");
  return Pad(call.text, parameters.IntegerOr(0, 0),
             parameters.Has(1) ? parameters.RequiredText(1) : space, alignment, call.budget);
}

Value ZeroFillMethod(const Call& call) {
  const Parameters parameters(call.name, call.arguments, {"width"}, 1);
  parameters.Required(0);
  const int64_t missing = parameters.IntegerOr(0, 0) - CountCharacters(call.text.bytes());
  const std::string& bytes = call.text.bytes();
  const size_t sign = bytes.starts_with('-') || bytes.starts_with('+') ? 1 : 0;
  if (missing <= 0) return call.text;
  call.budget.Take(static_cast<size_t>(missing) + bytes.size());
  Text out = call.text.Substr(0, sign);
  out.Append(std::string(static_cast<size_t>(missing), '0'), false);
  out.Append(call.text, sign);
  return out;
}

Value FormatMethod(const Call& call) {
  return FormatBraces(call.text, call.arguments, call.budget);
}

bool AllCharacters(const Call& call, bool (*holds)(char32_t)) {
  const std::string& bytes = call.text.bytes();
  for (size_t at = 0; at < bytes.size(); at += CharacterLength(bytes, at)) {
    if (!holds(CharacterAt(bytes, at))) return false;
  }
  return !bytes.empty();
}

// Whether there are cased characters, and all of them are of this case.
bool HasCase(const Call& call, bool (*holds)(char32_t), bool (*forbidden)(char32_t)) {
  const std::string& bytes = call.text.bytes();
  bool any = false;
  for (size_t at = 0; at < bytes.size(); at += CharacterLength(bytes, at)) {
    const char32_t character = CharacterAt(bytes, at);
    if (forbidden(character)) return false;
    any |= holds(character);
  }
  return any;
}

Value IsMethod(const Call& call) {
  const Parameters parameters(call.name, call.arguments, {});
  call.budget.Step(static_cast<int64_t>(call.text.size() / 16));
  const std::string_view kind = call.name.substr(2);
  if (kind == "alpha") return AllCharacters(call, IsAlpha);
  if (kind == "alnum") return AllCharacters(call, IsAlnum);
  if (kind == "space") return AllCharacters(call, IsSpace);
  if (kind == "decimal") return AllCharacters(call, IsDecimal);
  if (kind == "upper") return HasCase(call, IsUpper, IsLower);
  if (kind == "lower") return HasCase(call, IsLower, IsUpper);
  if (kind == "ascii") {
    return call.text.empty() || AllCharacters(call, [](char32_t c) { return c < 0x80; });
  }
  if (kind == "numeric" && !AllCharacters(call, [](char32_t c) { return c < 0x80; })) {
    Fail("isnumeric of text beyond ASCII is not supported");
  }
  // Digits that are not decimal throw in IsAlnum.
  return AllCharacters(call, [](char32_t c) { return IsAlnum(c) && IsDecimal(c); });
}

struct Entry {
  const char* name;
  Method method;
};

constexpr Entry kMethods[] = {
    {"strip", StripMethod},
    {"lstrip", StripMethod},
    {"rstrip", StripMethod},
    {"split", SplitMethod},
    {"rsplit", SplitMethod},
    {"splitlines", SplitLinesMethod},
    {"startswith", StartsOrEndsWith},
    {"endswith", StartsOrEndsWith},
    {"find", FindMethod},
    {"rfind", FindMethod},
    {"index", FindMethod},
    {"rindex", FindMethod},
    {"count", CountMethod},
    {"replace", ReplaceMethod},
    {"join", JoinMethod},
    {"removeprefix", RemoveMethod},
    {"removesuffix", RemoveMethod},
    {"upper", CaseMethod},
    {"lower", CaseMethod},
    {"title", CaseMethod},
    {"capitalize", CaseMethod},
    {"partition", PartitionMethod},
    {"rpartition", PartitionMethod},
    {"ljust", PadMethod},
    {"rjust", PadMethod},
    {"center", PadMethod},
    {"zfill", ZeroFillMethod},
    {"format", FormatMethod},
    {"isalpha", IsMethod},
    {"isalnum", IsMethod},
    {"isspace", IsMethod},
    {"isdecimal", IsMethod},
    {"isdigit", IsMethod},
    {"isnumeric", IsMethod},
    {"isupper", IsMethod},
    {"islower", IsMethod},
    {"isascii", IsMethod},
};

// Methods that do with Markup what they do with text; the others escape their arguments.
bool KeepsMarkup(Method method) {
  return method != ReplaceMethod && method != JoinMethod && method != FormatMethod &&
         method != PadMethod && method != PartitionMethod;
}

constexpr const char* kOthers[] = {"casefold",  "encode",       "expandtabs",  "format_map",
                                   "istitle",   "isidentifier", "isprintable", "maketrans",
                                   "translate", "swapcase"};

}  // namespace

std::optional<Value> FindTextMethod(const Value& text, const std::string& name) {
  for (const Entry& entry : kMethods) {
    if (entry.name != name) continue;
    return MakeFunction(
        name,
        [text, entry](Interpreter& interpreter, const Arguments& arguments) {
          if (text.text()->is_markup && !KeepsMarkup(entry.method)) {
            Fail(absl::StrCat("the method ", entry.name, " of safe text is not supported"));
          }
          return entry.method({entry.name, *text.text(), arguments, interpreter.budget()});
        },
        1);
  }
  if (std::find(std::begin(kOthers), std::end(kOthers), name) != std::end(kOthers)) {
    Fail(absl::StrCat("the method ", name, " of texts is not supported"));
  }
  return std::nullopt;
}

}  // namespace swaa::jinja
