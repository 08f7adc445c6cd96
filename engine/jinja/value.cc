// The values of a template.

#include "engine/jinja/value.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "engine/jinja/unicode.h"

namespace swaa::jinja {
namespace {

// A text that equal keys share. Throws for values that Python cannot hash.
void AppendKey(const Value& key, Budget& budget, std::string& out) {
  budget.Step();
  if (const std::optional<int64_t> integer = key.AsInteger(); integer.has_value()) {
    absl::StrAppend(&out, "n", *integer, ";");
  } else if (key.is_float()) {
    const double number = *key.AsNumber();
    if (number == std::floor(number) && std::abs(number) < 9e18) {
      absl::StrAppend(&out, "n", static_cast<int64_t>(number), ";");
    } else {
      uint64_t bits;
      std::memcpy(&bits, &number, sizeof(bits));
      absl::StrAppend(&out, "f", bits, ";");
    }
  } else if (const Text* text = key.text(); text != nullptr) {
    budget.Take(text->size());
    absl::StrAppend(&out, "s", text->size(), ":", text->bytes());
  } else if (key.is_none()) {
    out += "N";
  } else if (key.is_undefined()) {
    out += "U";
  } else if (const Sequence* sequence = key.sequence();
             sequence != nullptr && sequence->kind == Sequence::Kind::kTuple) {
    absl::StrAppend(&out, "t", sequence->items.size(), ":");
    for (const Value& item : sequence->items) AppendKey(item, budget, out);
  } else if (key.object() != nullptr) {
    absl::StrAppend(&out, "o", reinterpret_cast<uintptr_t>(key.object()), ";");
  } else {
    Fail(absl::StrCat("unhashable type: '", TypeName(key), "'"));
  }
}

std::string SpellKey(const Value& key, Budget& budget) {
  std::string out;
  AppendKey(key, budget, out);
  return out;
}

[[noreturn]] void FailNotIterable(const Value& value) {
  Fail(absl::StrCat("'", TypeName(value), "' object is not iterable"));
}

}  // namespace

std::optional<int64_t> Value::AsInteger() const {
  if (const bool* value = std::get_if<bool>(&data_); value != nullptr) return *value ? 1 : 0;
  if (const int64_t* value = std::get_if<int64_t>(&data_); value != nullptr) return *value;
  return std::nullopt;
}

std::optional<double> Value::AsNumber() const {
  if (const double* value = std::get_if<double>(&data_); value != nullptr) return *value;
  const std::optional<int64_t> integer = AsInteger();
  if (!integer.has_value()) return std::nullopt;
  return static_cast<double>(*integer);
}

const Value* Dict::Find(const Value& key, Budget& budget) const {
  const auto found = index_.find(SpellKey(key, budget));
  return found == index_.end() ? nullptr : &entries_[found->second].second;
}

const Value* Dict::Find(std::string_view key) const {
  const auto found = index_.find(absl::StrCat("s", key.size(), ":", std::string(key)));
  return found == index_.end() ? nullptr : &entries_[found->second].second;
}

void Dict::Set(const Value& key, Value value, Budget& budget) {
  std::string spelt = SpellKey(key, budget);
  budget.Take(sizeof(Entry) + 2 * spelt.size() + 32);
  depth_ = std::max({depth_, DepthOf(key) + 1, DepthOf(value) + 1});
  budget.CheckDepth(depth_);
  const auto [entry, is_new] = index_.try_emplace(std::move(spelt), entries_.size());
  if (is_new) {
    entries_.emplace_back(key, std::move(value));
  } else {
    entries_[entry->second].second = std::move(value);
  }
}

const Value* Arguments::Named(std::string_view name) const {
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

// Python prints an address, which no template can mean.
std::string Object::Repr(Budget& budget) const {
  Fail(absl::StrCat("printing a ", type_name(), " is not supported"));
}

Value Object::Call(Interpreter& interpreter, const Arguments& arguments) {
  Fail(absl::StrCat("'", type_name(), "' object is not callable"));
}

Value MakeText(std::string bytes, bool is_input) { return Text(std::move(bytes), is_input); }

Value MakeUndefined(std::string why) {
  return Undefined{std::make_shared<const std::string>(std::move(why))};
}

Value MakeSequence(std::vector<Value> items, Budget& budget, Sequence::Kind kind,
                   std::string type_name) {
  budget.Step();
  budget.Take(sizeof(Sequence) + items.size() * sizeof(Value));
  auto sequence = std::make_shared<Sequence>();
  sequence->kind = kind;
  for (const Value& item : items) sequence->depth = std::max(sequence->depth, DepthOf(item) + 1);
  budget.CheckDepth(sequence->depth);
  sequence->items = std::move(items);
  sequence->type_name = std::move(type_name);
  return sequence;
}

int DepthOf(const Value& value) {
  if (const Sequence* sequence = value.sequence(); sequence != nullptr) return sequence->depth;
  if (const Dict* dict = value.dict(); dict != nullptr) return dict->depth();
  if (const Object* object = value.object(); object != nullptr) return object->depth();
  return 0;
}

std::string TypeName(const Value& value) {
  if (const Sequence* sequence = value.sequence(); sequence != nullptr) {
    switch (sequence->kind) {
      case Sequence::Kind::kList:
        return "list";
      case Sequence::Kind::kTuple:
        return "tuple";
      case Sequence::Kind::kRange:
        return "range";
      case Sequence::Kind::kIterator:
      case Sequence::Kind::kView:
        return sequence->type_name;
    }
  }
  if (value.object() != nullptr) return value.object()->type_name();
  static constexpr const char* kNames[] = {"Undefined", "NoneType", "bool", "int",
                                           "float",     "str",      "",     "dict"};
  if (value.is_text() && value.text()->is_markup) return "Markup";
  return kNames[value.data().index()];
}

bool IsTrue(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (const std::optional<double> number = value.AsNumber(); number.has_value())
    return *number != 0;
  if (value.is_text()) return !value.text()->empty();
  if (const Sequence* sequence = value.sequence(); sequence != nullptr) {
    return sequence->kind == Sequence::Kind::kIterator || !sequence->items.empty();
  }
  if (value.dict() != nullptr) return !value.dict()->entries().empty();
  return true;
}

// Python finds a __call__ in Undefined, though it fails.
bool IsCallable(const Value& value) {
  return value.is_undefined() || (value.object() != nullptr && value.object()->is_callable());
}

void CheckDefined(const Value& value) {
  if (value.is_undefined()) Fail(*std::get<Undefined>(value.data()).why);
}

std::vector<Value> Iterate(const Value& value, Budget& budget) {
  std::vector<Value> items;
  if (Sequence* sequence = value.sequence(); sequence != nullptr) {
    const size_t begin = sequence->next;
    if (sequence->kind == Sequence::Kind::kIterator) sequence->next = sequence->items.size();
    items.assign(sequence->items.begin() + static_cast<ptrdiff_t>(begin), sequence->items.end());
  } else if (value.dict() != nullptr) {
    for (const Dict::Entry& entry : value.dict()->entries()) items.push_back(entry.first);
  } else if (const Text* text = value.text(); text != nullptr) {
    budget.Take(text->size() * sizeof(Text));
    for (size_t at = 0; at < text->size();) {
      const size_t length = CharacterLength(text->bytes(), at);
      Text character;
      character.Append(*text, at, length);
      items.push_back(std::move(character));
      at += length;
    }
  } else if (!value.is_undefined()) {
    FailNotIterable(value);
  }
  // Cheaper by far than the steps that an element takes in a loop.
  budget.Step(static_cast<int64_t>(items.size() / 8 + 1));
  budget.Take(items.size() * sizeof(Value));
  return items;
}

int64_t LengthOf(const Value& value) {
  if (value.is_undefined()) return 0;
  if (const Text* text = value.text(); text != nullptr) return CountCharacters(text->bytes());
  if (value.dict() != nullptr) return static_cast<int64_t>(value.dict()->entries().size());
  if (const Sequence* sequence = value.sequence();
      sequence != nullptr && sequence->kind != Sequence::Kind::kIterator) {
    return static_cast<int64_t>(sequence->items.size());
  }
  Fail(absl::StrCat("object of type '", TypeName(value), "' has no len()"));
}

}  // namespace swaa::jinja
