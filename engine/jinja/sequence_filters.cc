// The filters over sequences and mappings.

#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"
#include "engine/jinja/filters.h"
#include "engine/jinja/interpreter.h"
#include "engine/jinja/operators.h"
#include "engine/jinja/parameters.h"
#include "engine/jinja/print.h"
#include "engine/jinja/tests.h"
#include "engine/jinja/text_functions.h"

namespace swaa::jinja {
namespace {

Value Generator(std::vector<Value> items, Budget& budget) {
  return MakeSequence(std::move(items), budget, Sequence::Kind::kIterator, "generator");
}

Value IgnoreCase(const Value& value, Budget& budget) {
  return value.is_text() ? Value(Lower(*value.text(), budget)) : value;
}

// What elements are compared by: an attribute, without case unless asked for.
Value KeyOf(const Value& item, const Value& attribute, bool case_sensitive, Budget& budget) {
  const Value key = AttributeOf(item, attribute, nullptr, budget);
  return case_sensitive ? key : IgnoreCase(key, budget);
}

Value ListFilter(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("list", arguments, {});
  return MakeSequence(Iterate(value, interpreter.budget()), interpreter.budget());
}

Value First(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("first", arguments, {});
  if (Sequence* sequence = value.sequence();
      sequence != nullptr && sequence->kind == Sequence::Kind::kIterator) {
    if (sequence->next < sequence->items.size()) return sequence->items[sequence->next++];
  } else if (const std::vector<Value> items = Iterate(value, interpreter.budget());
             !items.empty()) {
    return items.front();
  }
  return MakeUndefined("No first item, sequence was empty.");
}

void CheckReversible(const Value& value) {
  const Sequence* sequence = value.sequence();
  if (sequence != nullptr && sequence->kind == Sequence::Kind::kIterator) {
    Fail(absl::StrCat("'", sequence->type_name, "' object is not reversible"));
  }
}

Value Last(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("last", arguments, {});
  CheckReversible(value);
  const std::vector<Value> items = Iterate(value, interpreter.budget());
  if (items.empty()) return MakeUndefined("No last item, sequence was empty.");
  return items.back();
}

Value Reverse(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("reverse", arguments, {});
  Budget& budget = interpreter.budget();
  std::vector<Value> items = Iterate(value, budget);
  std::reverse(items.begin(), items.end());
  if (value.is_text()) {
    Text text = Concatenate(items, budget);
    text.is_markup = value.text()->is_markup;
    return text;
  }
  const Sequence* sequence = value.sequence();
  if (sequence != nullptr && sequence->kind == Sequence::Kind::kIterator) {
    return MakeSequence(std::move(items), budget);
  }
  const std::string type_name =
      value.is_undefined() ? "reversed" : absl::StrCat(TypeName(value), "_reverseiterator");
  return MakeSequence(std::move(items), budget, Sequence::Kind::kIterator, type_name);
}

Value JoinFilter(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("join", arguments, {"d", "attribute"});
  Budget& budget = interpreter.budget();
  std::vector<Value> items = Iterate(value, budget);
  for (Value& item : items) item = AttributeOf(item, parameters.Or(1, Value()), nullptr, budget);
  return Join(ToText(parameters.Or(0, MakeText("")), budget), items, budget);
}

Value Items(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("items", arguments, {});
  Budget& budget = interpreter.budget();
  if (value.is_undefined()) return Generator({}, budget);
  if (value.dict() == nullptr) Fail("Can only get item pairs from a mapping.");
  std::vector<Value> items;
  for (const auto& [key, item] : value.dict()->entries()) {
    items.push_back(MakeSequence({key, item}, budget, Sequence::Kind::kTuple));
  }
  return Generator(std::move(items), budget);
}

using Order = std::function<bool(const Value&, const Value&)>;

// Stable, also in reverse. Elements are pairs of key and value.
std::vector<Value> Sorted(std::vector<std::pair<Value, Value>> keyed, bool reverse,
                          Budget& budget) {
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    return reverse ? IsLess(b.first, a.first, budget) : IsLess(a.first, b.first, budget);
  });
  std::vector<Value> items;
  items.reserve(keyed.size());
  for (auto& [key, value] : keyed) items.push_back(std::move(value));
  return items;
}

Value DictSort(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  Budget& budget = interpreter.budget();
  const bool case_sensitive = parameters.IsTrueOr(0, false);
  const std::string by = parameters.Has(1) ? parameters.RequiredText(1).bytes() : "key";
  if (by != "key" && by != "value") Fail("You can only sort by either \"key\" or \"value\"");
  CheckDefined(value);
  if (value.dict() == nullptr) Fail("dictsort takes a mapping");
  std::vector<std::pair<Value, Value>> keyed;
  for (const auto& [key, item] : value.dict()->entries()) {
    const Value& wanted = by == "key" ? key : item;
    keyed.emplace_back(case_sensitive ? wanted : IgnoreCase(wanted, budget),
                       MakeSequence({key, item}, budget, Sequence::Kind::kTuple));
  }
  return MakeSequence(Sorted(std::move(keyed), parameters.IsTrueOr(2, false), budget), budget);
}

Value Sort(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  Budget& budget = interpreter.budget();
  const Value attribute = parameters.Or(2, Value());
  const bool case_sensitive = parameters.IsTrueOr(1, false);
  std::vector<Value> attributes = {attribute};
  const Text comma(",");
  if (attribute.is_text()) attributes = Split(*attribute.text(), &comma, -1, false, budget);
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : Iterate(value, budget)) {
    std::vector<Value> keys;
    keys.reserve(attributes.size());
    for (const Value& name : attributes) {
      keys.push_back(KeyOf(item, name, case_sensitive, budget));
    }
    keyed.emplace_back(MakeSequence(std::move(keys), budget), item);
  }
  return MakeSequence(Sorted(std::move(keyed), parameters.IsTrueOr(0, false), budget), budget);
}

Value Unique(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("unique", arguments, {"case_sensitive", "attribute"});
  Budget& budget = interpreter.budget();
  Dict seen;
  std::vector<Value> items;
  for (const Value& item : Iterate(value, budget)) {
    const Value key = KeyOf(item, parameters.Or(1, Value()), parameters.IsTrueOr(0, false), budget);
    if (seen.Find(key, budget) != nullptr) continue;
    seen.Set(key, true, budget);
    items.push_back(item);
  }
  return Generator(std::move(items), budget);
}

Value Extreme(Interpreter& interpreter, const Value& value, const Arguments& arguments,
              bool is_max) {
  const Parameters parameters(is_max ? "max" : "min", arguments, {"case_sensitive", "attribute"});
  Budget& budget = interpreter.budget();
  std::optional<Value> best;
  Value best_key;
  for (const Value& item : Iterate(value, budget)) {
    const Value key = KeyOf(item, parameters.Or(1, Value()), parameters.IsTrueOr(0, false), budget);
    const bool better = !best.has_value() ||
                        (is_max ? IsLess(best_key, key, budget) : IsLess(key, best_key, budget));
    if (!better) continue;
    best = item;
    best_key = key;
  }
  if (!best.has_value()) return MakeUndefined("No aggregated item, sequence was empty.");
  return *best;
}

Value Min(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  return Extreme(interpreter, value, arguments, false);
}
Value Max(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  return Extreme(interpreter, value, arguments, true);
}

Value Sum(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("sum", arguments, {"attribute", "start"});
  Budget& budget = interpreter.budget();
  Value total = parameters.Or(1, 0);
  if (total.is_text()) Fail("sum() can't sum strings [use ''.join(seq) instead]");
  for (const Value& item : Iterate(value, budget)) {
    total = Arithmetic(Operator::kAdd, total,
                       AttributeOf(item, parameters.Or(0, Value()), nullptr, budget), budget);
  }
  return total;
}

// The arguments after the first `count`, with the names.
Arguments After(const Arguments& arguments, size_t count) {
  return {
      {arguments.positional.begin() + static_cast<ptrdiff_t>(count), arguments.positional.end()},
      arguments.named};
}

Value Map(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  Budget& budget = interpreter.budget();
  if (!IsTrue(value)) return Generator({}, budget);
  std::vector<Value> items = Iterate(value, budget);
  if (arguments.positional.empty()) {
    const Value* attribute = arguments.Named("attribute");
    const Value* fallback = arguments.Named("default");
    if (attribute == nullptr) Fail("map requires a filter argument");
    if (arguments.named.size() > (fallback == nullptr ? 1 : 2)) {
      Fail("map has an argument that it does not take");
    }
    if (fallback != nullptr && fallback->is_none()) fallback = nullptr;
    for (Value& item : items) item = AttributeOf(item, *attribute, fallback, budget);
    return Generator(std::move(items), budget);
  }
  const Text* name = arguments.positional[0].text();
  const FilterFunction filter = name == nullptr ? nullptr : FindFilter(name->bytes());
  if (filter == nullptr) Fail("map: there is no such filter here");
  const Arguments rest = After(arguments, 1);
  const Budget::Level level(budget);
  for (Value& item : items) item = filter(interpreter, item, rest);
  return Generator(std::move(items), budget);
}

Value Choose(Interpreter& interpreter, const Value& value, const Arguments& arguments,
             bool by_attribute, bool wanted) {
  Budget& budget = interpreter.budget();
  if (!IsTrue(value)) return Generator({}, budget);
  const size_t first = by_attribute ? 1 : 0;
  if (arguments.positional.size() < first) Fail("Missing parameter for attribute name");
  TestFunction test = nullptr;
  Arguments rest;
  if (arguments.positional.size() > first) {
    const Text* name = arguments.positional[first].text();
    test = name == nullptr ? nullptr : FindTest(name->bytes());
    if (test == nullptr) Fail("select: there is no such test here");
    rest = After(arguments, first + 1);
  }
  const Budget::Level level(budget);
  std::vector<Value> chosen;
  for (const Value& item : Iterate(value, budget)) {
    const Value subject =
        by_attribute ? AttributeOf(item, arguments.positional[0], nullptr, budget) : item;
    const bool holds = test == nullptr ? IsTrue(subject) : test(interpreter, subject, rest);
    if (holds == wanted) chosen.push_back(item);
  }
  return Generator(std::move(chosen), budget);
}

Value Select(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  return Choose(interpreter, value, arguments, false, true);
}
Value Reject(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  return Choose(interpreter, value, arguments, false, false);
}
Value SelectAttribute(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  return Choose(interpreter, value, arguments, true, true);
}
Value RejectAttribute(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  return Choose(interpreter, value, arguments, true, false);
}

Value Batch(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  const Parameters parameters("batch", arguments, {"linecount", "fill_with"});
  Budget& budget = interpreter.budget();
  parameters.Required(0);
  const int64_t size = parameters.IntegerOr(0, 1);
  if (size < 1) Fail("batch takes a size of at least 1");
  std::vector<Value> rows;
  std::vector<Value> row;
  const std::vector<Value> items = Iterate(value, budget);
  for (const Value& item : items) {
    if (static_cast<int64_t>(row.size()) == size) {
      rows.push_back(MakeSequence(std::move(row), budget));
      row.clear();
    }
    row.push_back(item);
  }
  const Value fill = parameters.Or(1, Value());
  if (!row.empty() && !fill.is_none()) {
    budget.Take(static_cast<size_t>(CheckedMultiply(size, sizeof(Value))));
    row.resize(static_cast<size_t>(size), fill);
  }
  if (!row.empty()) rows.push_back(MakeSequence(std::move(row), budget));
  return Generator(std::move(rows), budget);
}

constexpr FilterEntry kFilters[] = {
    {"list", ListFilter},
    {"first", First},
    {"last", Last},
    {"reverse", Reverse},
    {"join", JoinFilter},
    {"items", Items},
    {"dictsort", DictSort},
    {"sort", Sort},
    {"unique", Unique},
    {"min", Min},
    {"max", Max},
    {"sum", Sum},
    {"map", Map},
    {"select", Select},
    {"reject", Reject},
    {"selectattr", SelectAttribute},
    {"rejectattr", RejectAttribute},
    {"batch", Batch},
};

}  // namespace

FilterFunction FindSequenceFilter(std::string_view name) {
  for (const FilterEntry& entry : kFilters) {
    if (entry.name == name) return entry.function;
  }
  return nullptr;
}

}  // namespace swaa::jinja
