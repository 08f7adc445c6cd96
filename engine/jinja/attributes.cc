// object.name and object[key].

#include "engine/jinja/attributes.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/jinja/interpreter.h"
#include "engine/jinja/objects.h"
#include "engine/jinja/operators.h"
#include "engine/jinja/parameters.h"
#include "engine/jinja/unicode.h"

namespace swaa::jinja {
namespace {

bool IsOneOf(const std::string& name, std::initializer_list<const char*> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// What the sandbox hides is undefined, and fails when it is used.
Value Unsafe(const Value& object, const std::string& name) {
  return MakeUndefined(absl::StrCat("access to attribute '", name, "' of '", TypeName(object),
                                    "' object is unsafe."));
}

Value DictView(const Value& dict, const std::string& name, Budget& budget) {
  std::vector<Value> items;
  for (const auto& [key, value] : dict.dict()->entries()) {
    if (name == "keys") {
      items.push_back(key);
    } else if (name == "values") {
      items.push_back(value);
    } else {
      items.push_back(MakeSequence({key, value}, budget, Sequence::Kind::kTuple));
    }
  }
  budget.Step(static_cast<int64_t>(items.size()));
  return MakeSequence(std::move(items), budget, Sequence::Kind::kView, absl::StrCat("dict_", name));
}

std::optional<Value> FindDictMethod(const Value& dict, const std::string& name) {
  const int depth = DepthOf(dict) + 1;
  if (IsOneOf(name, {"items", "keys", "values"})) {
    return MakeFunction(
        name,
        [dict, name](Interpreter& interpreter, const Arguments& arguments) {
          const Parameters parameters(name, arguments, {});
          return DictView(dict, name, interpreter.budget());
        },
        depth);
  }
  if (name == "get") {
    return MakeFunction(
        name,
        [dict](Interpreter& interpreter, const Arguments& arguments) {
          const Parameters parameters("get", arguments, {"key", "default"}, 2);
          const Value* found = dict.dict()->Find(parameters.Required(0), interpreter.budget());
          return found != nullptr ? *found : parameters.Or(1, Value());
        },
        depth);
  }
  if (name == "copy") {
    return MakeFunction(
        name, [dict](Interpreter&, const Arguments&) { return dict; }, depth);
  }
  if (IsOneOf(name, {"pop", "popitem", "update", "setdefault", "clear"})) {
    return Unsafe(dict, name);
  }
  if (name == "fromkeys") Fail("dict.fromkeys is not supported");
  return std::nullopt;
}

int64_t IndexOf(const Value& sequence, const Value& item, Budget& budget) {
  const std::vector<Value>& items = sequence.sequence()->items;
  for (size_t i = 0; i < items.size(); ++i) {
    if (IsEqual(items[i], item, budget)) return static_cast<int64_t>(i);
  }
  Fail("the item to find is not in the list");
}

std::optional<Value> FindSequenceMethod(const Value& value, const std::string& name) {
  const Sequence& sequence = *value.sequence();
  if (!sequence.is_indexed()) return std::nullopt;
  const bool is_list = sequence.kind == Sequence::Kind::kList;
  const int depth = DepthOf(value) + 1;
  if (name == "index" || name == "count") {
    return MakeFunction(
        name,
        [value, name](Interpreter& interpreter, const Arguments& arguments) -> Value {
          const Parameters parameters(name, arguments, {"value"}, 1);
          const Value& item = parameters.Required(0);
          Budget& budget = interpreter.budget();
          if (name == "index") return IndexOf(value, item, budget);
          const std::vector<Value>& items = value.sequence()->items;
          return static_cast<int64_t>(
              std::count_if(items.begin(), items.end(),
                            [&](const Value& other) { return IsEqual(other, item, budget); }));
        },
        depth);
  }
  if (is_list && name == "copy") {
    return MakeFunction(
        name, [value](Interpreter&, const Arguments&) { return value; }, depth);
  }
  if (is_list &&
      IsOneOf(name, {"append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse"})) {
    return Unsafe(value, name);
  }
  if (sequence.kind == Sequence::Kind::kRange && IsOneOf(name, {"start", "stop", "step"})) {
    Fail("the attributes of a range are not supported");
  }
  return std::nullopt;
}

// What Python finds by getattr, before elements are looked at.
std::optional<Value> FindAttribute(const Value& object, const std::string& name) {
  if (name.starts_with("__") && name.ends_with("__") && object.dict() == nullptr) {
    return Unsafe(object, name);
  }
  if (object.is_text()) return FindTextMethod(object, name);
  if (object.dict() != nullptr) return FindDictMethod(object, name);
  if (object.sequence() != nullptr) return FindSequenceMethod(object, name);
  if (object.object() != nullptr) return object.object()->Attribute(name);
  if (object.AsNumber().has_value() &&
      IsOneOf(name,
              {"real", "imag", "numerator", "denominator", "conjugate", "bit_length", "bit_count",
               "is_integer", "as_integer_ratio", "to_bytes", "from_bytes", "hex", "fromhex"})) {
    Fail(absl::StrCat(TypeName(object), ".", name, " is not supported"));
  }
  return std::nullopt;
}

// What Python finds by [key]; nothing where it raises.
std::optional<Value> FindElement(const Value& object, const Value& key, Budget& budget) {
  if (object.dict() != nullptr) {
    if (key.sequence() != nullptr && key.sequence()->kind != Sequence::Kind::kTuple) {
      return std::nullopt;
    }
    if (key.dict() != nullptr) return std::nullopt;
    const Value* found = object.dict()->Find(key, budget);
    return found == nullptr ? std::nullopt : std::optional<Value>(*found);
  }
  const std::optional<int64_t> index = key.AsInteger();
  if (!index.has_value()) return std::nullopt;
  if (const Text* text = object.text(); text != nullptr) {
    budget.Step(static_cast<int64_t>(text->size() / 64));
    const int64_t length = CountCharacters(text->bytes());
    const int64_t at = *index < 0 ? *index + length : *index;
    if (at < 0 || at >= length) return std::nullopt;
    const size_t offset = OffsetOf(text->bytes(), at);
    return text->Substr(offset, CharacterLength(text->bytes(), offset));
  }
  if (const Sequence* sequence = object.sequence(); sequence != nullptr && sequence->is_indexed()) {
    const auto length = static_cast<int64_t>(sequence->items.size());
    const int64_t at = *index < 0 ? *index + length : *index;
    if (at < 0 || at >= length) return std::nullopt;
    return sequence->items[static_cast<size_t>(at)];
  }
  return std::nullopt;
}

Value Missing(const Value& object, const std::string& name) {
  if (object.is_none()) return MakeUndefined(absl::StrCat("'None' has no attribute '", name, "'"));
  return MakeUndefined(
      absl::StrCat("'", TypeName(object), " object' has no attribute '", name, "'"));
}

}  // namespace

Value GetAttribute(const Value& object, const std::string& name, Budget& budget) {
  CheckDefined(object);
  if (std::optional<Value> found = FindAttribute(object, name); found.has_value()) return *found;
  if (object.dict() != nullptr) {
    if (const Value* found = object.dict()->Find(name); found != nullptr) return *found;
    if (name.starts_with("__")) return Unsafe(object, name);
  }
  return Missing(object, name);
}

Value GetItem(const Value& object, const Value& key, Budget& budget) {
  CheckDefined(object);
  if (std::optional<Value> found = FindElement(object, key, budget); found.has_value()) {
    return *found;
  }
  if (const Text* name = key.text(); name != nullptr) {
    if (std::optional<Value> found = FindAttribute(object, name->bytes()); found.has_value()) {
      return *found;
    }
    return Missing(object, name->bytes());
  }
  return MakeUndefined(absl::StrCat("'", TypeName(object), " object' has no such element"));
}

}  // namespace swaa::jinja
