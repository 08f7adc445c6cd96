// Python's operators over values; those of numbers are in arithmetic.cc.

#include "engine/jinja/operators.h"

#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/jinja/arithmetic.h"
#include "engine/jinja/format.h"
#include "engine/jinja/print.h"
#include "engine/jinja/unicode.h"

namespace swaa::jinja {
namespace {

std::string SignOf(Operator op) {
  switch (op) {
    case Operator::kAdd:
      return "+";
    case Operator::kSubtract:
      return "-";
    case Operator::kMultiply:
      return "*";
    case Operator::kDivide:
      return "/";
    case Operator::kFloorDivide:
      return "//";
    case Operator::kModulo:
      return "%";
    case Operator::kPower:
      return "**";
    case Operator::kLess:
      return "<";
    case Operator::kLessEqual:
      return "<=";
    case Operator::kGreater:
      return ">";
    default:
      return ">=";
  }
}

[[noreturn]] void FailTypes(Operator op, const Value& left, const Value& right) {
  Fail(absl::StrCat("unsupported operand types for ", SignOf(op), ": '", TypeName(left), "' and '",
                    TypeName(right), "'"));
}

Value Repeat(const Value& value, int64_t times, Budget& budget) {
  times = std::max<int64_t>(times, 0);
  if (const Text* text = value.text(); text != nullptr) {
    budget.Take(static_cast<size_t>(CheckedMultiply(times, static_cast<int64_t>(text->size()))));
    Text out;
    out.is_markup = text->is_markup;
    for (int64_t i = 0; i < times && !text->empty(); ++i) {
      budget.Step();
      out.Append(*text);
    }
    return out;
  }
  const Sequence& sequence = *value.sequence();
  const auto count = static_cast<int64_t>(sequence.items.size());
  budget.Take(static_cast<size_t>(
      CheckedMultiply(CheckedMultiply(times, count), static_cast<int64_t>(sizeof(Value)))));
  std::vector<Value> items;
  for (int64_t i = 0; i < times && count > 0; ++i) {
    budget.Step(count);
    items.insert(items.end(), sequence.items.begin(), sequence.items.end());
  }
  return MakeSequence(std::move(items), budget, sequence.kind);
}

bool IsListOrTuple(const Value& value) {
  const Sequence* sequence = value.sequence();
  return sequence != nullptr &&
         (sequence->kind == Sequence::Kind::kList || sequence->kind == Sequence::Kind::kTuple);
}

// What is added to Markup is escaped.
Text AddTexts(const Text& left, const Text& right, Budget& budget) {
  budget.Take(left.size() + right.size());
  const bool is_markup = left.is_markup || right.is_markup;
  Text out = is_markup ? EscapeHtml(left, budget) : left;
  out.Append(is_markup ? EscapeHtml(right, budget) : right);
  return out;
}

Value Add(const Value& left, const Value& right, Budget& budget) {
  if (left.is_text() && right.is_text()) return AddTexts(*left.text(), *right.text(), budget);
  if (IsListOrTuple(left) && IsListOrTuple(right) &&
      left.sequence()->kind == right.sequence()->kind) {
    std::vector<Value> items = left.sequence()->items;
    const std::vector<Value>& more = right.sequence()->items;
    budget.Take((items.size() + more.size()) * sizeof(Value));
    budget.Step(static_cast<int64_t>(items.size() + more.size()));
    items.insert(items.end(), more.begin(), more.end());
    return MakeSequence(std::move(items), budget, left.sequence()->kind);
  }
  if (left.is_text()) {
    Fail(absl::StrCat("can only concatenate str (not \"", TypeName(right), "\") to str"));
  }
  FailTypes(Operator::kAdd, left, right);
}

// -1, 0 or 1; nothing where the values have no order.
std::optional<int> Order(const Value& left, const Value& right, Budget& budget) {
  const Budget::Level level(budget);
  budget.Step();
  if (left.AsInteger().has_value() && right.AsInteger().has_value()) {
    const int64_t a = *left.AsInteger();
    const int64_t b = *right.AsInteger();
    return a < b ? -1 : a > b ? 1 : 0;
  }
  if (left.AsNumber().has_value() && right.AsNumber().has_value()) {
    const double a = *left.AsNumber();
    const double b = *right.AsNumber();
    return a < b ? -1 : a > b ? 1 : 0;
  }
  if (left.is_text() && right.is_text()) {
    budget.Step(static_cast<int64_t>(std::min(left.text()->size(), right.text()->size()) / 64));
    const int order = left.text()->bytes().compare(right.text()->bytes());
    return order < 0 ? -1 : order > 0 ? 1 : 0;
  }
  if (IsListOrTuple(left) && IsListOrTuple(right) &&
      left.sequence()->kind == right.sequence()->kind) {
    const std::vector<Value>& a = left.sequence()->items;
    const std::vector<Value>& b = right.sequence()->items;
    for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
      if (!IsEqual(a[i], b[i], budget)) return Order(a[i], b[i], budget);
    }
    return a.size() < b.size() ? -1 : a.size() > b.size() ? 1 : 0;
  }
  return std::nullopt;
}

bool IsOrdered(Operator op, const Value& left, const Value& right, Budget& budget) {
  CheckDefined(left);
  CheckDefined(right);
  const std::optional<int> order = Order(left, right, budget);
  if (!order.has_value()) {
    Fail(absl::StrCat("'", SignOf(op), "' not supported between instances of '", TypeName(left),
                      "' and '", TypeName(right), "'"));
  }
  const bool has_nan = (left.is_float() && std::isnan(*left.AsNumber())) ||
                       (right.is_float() && std::isnan(*right.AsNumber()));
  if (has_nan) return false;
  switch (op) {
    case Operator::kLess:
      return *order < 0;
    case Operator::kLessEqual:
      return *order <= 0;
    case Operator::kGreater:
      return *order > 0;
    default:
      return *order >= 0;
  }
}

bool AreDictsEqual(const Dict& left, const Dict& right, Budget& budget) {
  if (left.entries().size() != right.entries().size()) return false;
  for (const auto& [key, value] : left.entries()) {
    const Value* other = right.Find(key, budget);
    if (other == nullptr || !IsEqual(value, *other, budget)) return false;
  }
  return true;
}

bool AreSequencesEqual(const Sequence& left, const Sequence& right, Budget& budget) {
  if (&left == &right) return true;
  if (left.kind != right.kind || left.kind == Sequence::Kind::kIterator ||
      left.items.size() != right.items.size()) {
    return false;
  }
  for (size_t i = 0; i < left.items.size(); ++i) {
    if (!IsEqual(left.items[i], right.items[i], budget)) return false;
  }
  return true;
}

}  // namespace

Value Arithmetic(Operator op, const Value& left, const Value& right, Budget& budget) {
  CheckDefined(left);
  if (op == Operator::kModulo && left.is_text()) {
    return FormatPercent(*left.text(), right, budget);
  }
  CheckDefined(right);
  const std::optional<int64_t> left_integer = left.AsInteger();
  const std::optional<int64_t> right_integer = right.AsInteger();
  if (left_integer.has_value() && right_integer.has_value()) {
    return IntegerArithmetic(op, *left_integer, *right_integer);
  }
  if (left.AsNumber().has_value() && right.AsNumber().has_value()) {
    return FloatArithmetic(op, *left.AsNumber(), *right.AsNumber());
  }
  if (op == Operator::kAdd) return Add(left, right, budget);
  if (op == Operator::kMultiply) {
    const auto repeats = [](const Value& value) { return value.is_text() || IsListOrTuple(value); };
    if (repeats(left) && right_integer.has_value()) return Repeat(left, *right_integer, budget);
    if (repeats(right) && left_integer.has_value()) return Repeat(right, *left_integer, budget);
  }
  FailTypes(op, left, right);
}

Value Negate(const Value& value) {
  CheckDefined(value);
  if (const std::optional<int64_t> integer = value.AsInteger(); integer.has_value()) {
    return CheckedMultiply(*integer, -1);
  }
  if (value.is_float()) return -*value.AsNumber();
  Fail(absl::StrCat("bad operand type for unary -: '", TypeName(value), "'"));
}

Value Plus(const Value& value) {
  CheckDefined(value);
  if (const std::optional<int64_t> integer = value.AsInteger(); integer.has_value()) {
    return *integer;
  }
  if (value.is_float()) return value;
  Fail(absl::StrCat("bad operand type for unary +: '", TypeName(value), "'"));
}

bool IsEqual(const Value& left, const Value& right, Budget& budget) {
  const Budget::Level level(budget);
  budget.Step();
  if (left.AsInteger().has_value() && right.AsInteger().has_value()) {
    return *left.AsInteger() == *right.AsInteger();
  }
  if (left.AsNumber().has_value() && right.AsNumber().has_value()) {
    return *left.AsNumber() == *right.AsNumber();
  }
  if (left.data().index() != right.data().index()) return false;
  if (left.is_undefined() || left.is_none()) return true;
  if (left.is_text()) {
    budget.Step(static_cast<int64_t>(left.text()->size() / 64));
    return left.text()->bytes() == right.text()->bytes();
  }
  if (left.sequence() != nullptr) {
    return AreSequencesEqual(*left.sequence(), *right.sequence(), budget);
  }
  if (left.dict() != nullptr) return AreDictsEqual(*left.dict(), *right.dict(), budget);
  return left.object() == right.object();
}

bool IsLess(const Value& left, const Value& right, Budget& budget) {
  return IsOrdered(Operator::kLess, left, right, budget);
}

bool Compare(Operator op, const Value& left, const Value& right, Budget& budget) {
  switch (op) {
    case Operator::kEqual:
      return IsEqual(left, right, budget);
    case Operator::kNotEqual:
      return !IsEqual(left, right, budget);
    case Operator::kIn:
      return Contains(right, left, budget);
    case Operator::kNotIn:
      return !Contains(right, left, budget);
    default:
      return IsOrdered(op, left, right, budget);
  }
}

bool Contains(const Value& container, const Value& item, Budget& budget) {
  budget.Step();
  if (const Text* text = container.text(); text != nullptr) {
    if (!item.is_text()) {
      CheckDefined(item);
      Fail(absl::StrCat("'in <string>' requires string as left operand, not ", TypeName(item)));
    }
    budget.Step(static_cast<int64_t>(text->size() / 64));
    return text->bytes().find(item.text()->bytes()) != std::string::npos;
  }
  if (container.dict() != nullptr) return container.dict()->Find(item, budget) != nullptr;
  if (Sequence* sequence = container.sequence(); sequence != nullptr) {
    // An iterator is read up to the element.
    size_t& next = sequence->next;
    for (size_t i = next; i < sequence->items.size(); ++i) {
      const bool found = IsEqual(sequence->items[i], item, budget);
      if (sequence->kind == Sequence::Kind::kIterator) next = i + 1;
      if (found) return true;
    }
    return false;
  }
  if (container.is_undefined()) return false;
  Fail(absl::StrCat("argument of type '", TypeName(container), "' is not iterable"));
}

Text Concatenate(const std::vector<Value>& parts, Budget& budget) {
  Text out;
  for (const Value& part : parts) {
    if (const Text* text = part.text(); text != nullptr) {
      budget.Take(text->size());
      out.Append(*text);
    } else {
      out.Append(ToText(part, budget));
    }
  }
  return out;
}

Text EscapeHtml(const Text& text, Budget& budget) {
  if (text.is_markup) return text;
  Text out;
  size_t at = 0;
  for (const Text::Run& run : text.runs()) {
    std::string escaped;
    for (; at < run.end; ++at) {
      switch (const char c = text.bytes()[at]; c) {
        case '&':
          escaped += "&amp;";
          break;
        case '<':
          escaped += "&lt;";
          break;
        case '>':
          escaped += "&gt;";
          break;
        case '\'':
          escaped += "&#39;";
          break;
        case '"':
          escaped += "&#34;";
          break;
        default:
          escaped += c;
      }
    }
    budget.Take(escaped.size());
    out.Append(escaped, run.is_input);
  }
  out.is_markup = true;
  return out;
}

Value Slice(const Value& object, const Value& begin, const Value& end, const Value& step_value,
            Budget& budget) {
  const Sequence* sequence = object.sequence();
  if (!object.is_text() && (sequence == nullptr || !sequence->is_indexed())) {
    CheckDefined(object);
    Fail(absl::StrCat("slicing a '", TypeName(object), "' is not supported"));
  }
  const auto index_or = [](const Value& value, std::optional<int64_t> otherwise) {
    if (value.is_none()) return otherwise;
    CheckDefined(value);
    if (!value.AsInteger().has_value()) Fail("slice indices must be integers or None");
    return value.AsInteger();
  };
  const int64_t step = *index_or(step_value, 1);
  if (step == 0) Fail("slice step cannot be zero");
  const int64_t length = LengthOf(object);
  const int64_t lowest = step < 0 ? -1 : 0;
  const int64_t highest = step < 0 ? length - 1 : length;
  const auto clamp = [&](std::optional<int64_t> index, int64_t otherwise) {
    if (!index.has_value()) return otherwise;
    const int64_t at = *index < 0 ? *index + length : *index;
    return std::min(std::max(at, lowest), highest);
  };
  int64_t at = clamp(index_or(begin, std::nullopt), step < 0 ? highest : lowest);
  const int64_t stop = clamp(index_or(end, std::nullopt), step < 0 ? lowest : highest);
  if (object.is_text() && step == 1) {
    const Text& text = *object.text();
    const size_t from = OffsetOf(text.bytes(), at);
    const size_t count =
        at < stop ? OffsetOf(std::string_view(text.bytes()).substr(from), stop - at) : 0;
    budget.Take(count);
    budget.Step(static_cast<int64_t>(text.size() / 64));
    return text.Substr(from, count);
  }
  const std::vector<Value> all = Iterate(object, budget);
  std::vector<Value> items;
  while (step < 0 ? at > stop : at < stop) {
    items.push_back(all[static_cast<size_t>(at)]);
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  if (object.is_text()) {
    Text text = Concatenate(items, budget);
    text.is_markup = object.text()->is_markup;
    return text;
  }
  return MakeSequence(std::move(items), budget, sequence->kind);
}

}  // namespace swaa::jinja
