// The values of a template: Python's, as far as chat templates use them.

#ifndef SWAA_ENGINE_JINJA_VALUE_H_
#define SWAA_ENGINE_JINJA_VALUE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/jinja/budget.h"
#include "engine/jinja/text.h"

namespace swaa::jinja {

class Dict;
class Interpreter;
class Object;
struct Arguments;
struct Sequence;

// A name or an element that there is none of. Printed as nothing; most other uses fail with `why`.
struct Undefined {
  std::shared_ptr<const std::string> why;
};
struct None {};

// Cheap to copy: what is large is shared. Lists and dictionaries never change once made, as in
// Jinja's immutable sandbox; only an iterator's position and a namespace's attributes do.
class Value {
 public:
  using Variant =
      std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>,
                   std::shared_ptr<Sequence>, std::shared_ptr<const Dict>, std::shared_ptr<Object>>;

  Value() : data_(None{}) {}
  Value(Undefined undefined) : data_(std::move(undefined)) {}
  Value(bool value) : data_(value) {}
  Value(int64_t value) : data_(value) {}
  Value(int value) : data_(static_cast<int64_t>(value)) {}
  Value(double value) : data_(value) {}
  Value(Text text) : data_(std::make_shared<const Text>(std::move(text))) {}
  Value(const char*) = delete;  // would become a bool
  Value(std::shared_ptr<Sequence> sequence) : data_(std::move(sequence)) {}
  Value(std::shared_ptr<const Dict> dict) : data_(std::move(dict)) {}
  Value(std::shared_ptr<Object> object) : data_(std::move(object)) {}

  const Variant& data() const { return data_; }
  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_integer() const { return std::holds_alternative<int64_t>(data_); }
  bool is_float() const { return std::holds_alternative<double>(data_); }
  bool is_text() const { return std::holds_alternative<std::shared_ptr<const Text>>(data_); }

  // Null where the value is of another kind.
  const Text* text() const { return Get<std::shared_ptr<const Text>>(); }
  Sequence* sequence() const { return Get<std::shared_ptr<Sequence>>(); }
  const Dict* dict() const { return Get<std::shared_ptr<const Dict>>(); }
  Object* object() const { return Get<std::shared_ptr<Object>>(); }

  // The number of a bool or an integer; of those and a float.
  std::optional<int64_t> AsInteger() const;
  std::optional<double> AsNumber() const;

 private:
  template <typename Pointer>
  auto Get() const -> decltype(std::declval<const Pointer&>().get()) {
    const Pointer* pointer = std::get_if<Pointer>(&data_);
    return pointer == nullptr ? nullptr : pointer->get();
  }

  Variant data_;
};

// What is iterated in order.
struct Sequence {
  enum class Kind {
    kList,
    kTuple,
    kIterator,  // is used up by iterating; has no length
    kView,      // of a dictionary: has a length but no elements by index
    kRange,
  };

  Kind kind = Kind::kList;
  std::vector<Value> items;
  int depth = 1;
  size_t next = 0;        // kIterator: what was not taken yet
  std::string type_name;  // of an iterator or view
  std::string repr;       // of a whole range

  bool is_indexed() const {
    return kind == Kind::kList || kind == Kind::kTuple || kind == Kind::kRange;
  }
};

// Keeps the order in which keys came. Keys are equal as in Python: 1, 1.0 and true are one.
class Dict {
 public:
  using Entry = std::pair<Value, Value>;

  const std::vector<Entry>& entries() const { return entries_; }
  int depth() const { return depth_; }
  // Null: no such key. Throws for a key that cannot be one, such as a list.
  const Value* Find(const Value& key, Budget& budget) const;
  const Value* Find(std::string_view key) const;
  void Set(const Value& key, Value value, Budget& budget);

 private:
  std::vector<Entry> entries_;
  absl::flat_hash_map<std::string, size_t> index_;  // key, spelt out -> entry
  int depth_ = 1;
};

// Arguments of a call, a filter or a test.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // Null where it was not given.
  const Value* Named(std::string_view name) const;
};

// Functions, macros, loops, namespaces: what has attributes or can be called.
class Object {
 public:
  virtual ~Object() = default;
  virtual std::string type_name() const = 0;
  virtual std::string Repr(Budget& budget) const;
  virtual std::optional<Value> Attribute(std::string_view name) const { return std::nullopt; }
  virtual bool is_callable() const { return false; }
  virtual Value Call(Interpreter& interpreter, const Arguments& arguments);
  // How deep the values in it are nested.
  virtual int depth() const { return 1; }
};

Value MakeText(std::string bytes, bool is_input = false);
Value MakeUndefined(std::string why);
// Counts the memory and the depth of what it makes.
Value MakeSequence(std::vector<Value> items, Budget& budget,
                   Sequence::Kind kind = Sequence::Kind::kList, std::string type_name = "");
int DepthOf(const Value& value);

// Python's name of the value's type, such as "NoneType".
std::string TypeName(const Value& value);
bool IsTrue(const Value& value);
bool IsCallable(const Value& value);
// Fails with why it is undefined, where it is.
void CheckDefined(const Value& value);

// What iterating gives: elements, keys, characters. An iterator is used up. Throws for a value that
// cannot be iterated.
std::vector<Value> Iterate(const Value& value, Budget& budget);
// Python's len(). Throws for a value that has none.
int64_t LengthOf(const Value& value);

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_VALUE_H_
