// The objects of a template: functions, macros, namespaces, the loop variable.

#ifndef SWAA_ENGINE_JINJA_OBJECTS_H_
#define SWAA_ENGINE_JINJA_OBJECTS_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/jinja/ast.h"
#include "engine/jinja/value.h"

namespace swaa::jinja {

class Scope;

// A function of this library, or a method with the value it belongs to.
class Function : public Object {
 public:
  using Body = std::function<Value(Interpreter&, const Arguments&)>;
  Function(std::string name, Body body, int depth = 1)
      : name_(std::move(name)), body_(std::move(body)), depth_(depth) {}

  std::string type_name() const override { return "function"; }
  bool is_callable() const override { return true; }
  int depth() const override { return depth_; }
  Value Call(Interpreter& interpreter, const Arguments& arguments) override;

 private:
  std::string name_;
  Body body_;
  int depth_;
};

class Macro : public Object {
 public:
  Macro(const MacroDefinition* definition, Scope* closure)
      : definition_(definition), closure_(closure) {}

  std::string type_name() const override { return "Macro"; }
  bool is_callable() const override { return true; }
  std::string Repr(Budget& budget) const override;
  std::optional<Value> Attribute(std::string_view name) const override;
  Value Call(Interpreter& interpreter, const Arguments& arguments) override;

 private:
  const MacroDefinition* definition_;
  Scope* closure_;
};

// namespace(): the one value whose attributes can be set.
class Namespace : public Object {
 public:
  std::string type_name() const override { return "Namespace"; }
  std::string Repr(Budget& budget) const override;
  std::optional<Value> Attribute(std::string_view name) const override;
  void Set(const Value& name, Value value, Budget& budget) {
    attributes_.Set(name, std::move(value), budget);
  }
  void Clear() { attributes_ = Dict(); }

 private:
  Dict attributes_;
};

// The variable `loop`. Elements are filtered when they are needed, as Jinja's are.
class Loop : public Object {
 public:
  using Condition = std::function<bool(const Value&)>;
  // `condition` may be empty.
  Loop(std::vector<Value> items, Condition condition, Budget& budget)
      : items_(std::move(items)), condition_(std::move(condition)), budget_(budget) {}

  // The next element, which becomes the current one.
  std::optional<Value> Next();
  // After the last one: forgets all elements.
  void Finish();

  std::string type_name() const override { return "LoopContext"; }
  std::optional<Value> Attribute(std::string_view name) const override;

 private:
  // Looks for elements until `count` are known after the current one, or none is left.
  void LookAhead(size_t count) const;

  std::vector<Value> items_;
  Condition condition_;
  Budget& budget_;
  int64_t index0_ = -1;
  std::optional<Value> previous_;
  std::optional<Value> current_;
  // What loop.last and the like found, though they change nothing that a template sees.
  mutable size_t next_ = 0;
  mutable std::vector<Value> ahead_;
  mutable size_t ahead_begin_ = 0;
};

// cycler(): gives its values in turn.
class Cycler : public Object {
 public:
  Cycler(std::vector<Value> items, int depth) : items_(std::move(items)), depth_(depth) {}
  std::string type_name() const override { return "Cycler"; }
  int depth() const override { return depth_; }
  std::optional<Value> Attribute(std::string_view name) const override;

 private:
  std::vector<Value> items_;
  int depth_;
  std::shared_ptr<size_t> position_ = std::make_shared<size_t>(0);
};

// joiner(): nothing when it is called first, then its separator.
class Joiner : public Object {
 public:
  explicit Joiner(Value separator) : separator_(std::move(separator)) {}
  std::string type_name() const override { return "Joiner"; }
  bool is_callable() const override { return true; }
  int depth() const override { return DepthOf(separator_) + 1; }
  Value Call(Interpreter& interpreter, const Arguments& arguments) override;

 private:
  Value separator_;
  bool used_ = false;
};

Value MakeFunction(std::string name, Function::Body body, int depth = 1);

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_OBJECTS_H_
