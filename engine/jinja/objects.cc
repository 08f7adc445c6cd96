// The objects of a template: functions, macros, namespaces, the loop variable.

#include "engine/jinja/objects.h"

#include "absl/strings/str_cat.h"
#include "engine/jinja/interpreter.h"
#include "engine/jinja/operators.h"
#include "engine/jinja/print.h"

namespace swaa::jinja {

Value MakeFunction(std::string name, Function::Body body, int depth) {
  return std::shared_ptr<Object>(
      std::make_shared<Function>(std::move(name), std::move(body), depth));
}

Value Function::Call(Interpreter& interpreter, const Arguments& arguments) {
  return body_(interpreter, arguments);
}

std::string Macro::Repr(Budget& budget) const {
  if (definition_->name.empty()) return "<Macro anonymous>";
  return absl::StrCat("<Macro ", jinja::Repr(MakeText(definition_->name), budget).bytes(), ">");
}

std::optional<Value> Macro::Attribute(std::string_view name) const {
  if (name == "name") return MakeText(definition_->name);
  return std::nullopt;
}

Value Macro::Call(Interpreter& interpreter, const Arguments& arguments) {
  return interpreter.CallMacro(*definition_, *closure_, arguments);
}

std::string Namespace::Repr(Budget& budget) const {
  return absl::StrCat("<Namespace ",
                      jinja::Repr(Value(std::make_shared<const Dict>(attributes_)), budget).bytes(),
                      ">");
}

std::optional<Value> Namespace::Attribute(std::string_view name) const {
  const Value* value = attributes_.Find(name);
  if (value == nullptr) return std::nullopt;
  return *value;
}

// ---- loop ----

void Loop::LookAhead(size_t count) const {
  while (ahead_.size() - ahead_begin_ < count && next_ < items_.size()) {
    const Value& item = items_[next_++];
    budget_.Step();
    if (!condition_ || condition_(item)) ahead_.push_back(item);
  }
}

std::optional<Value> Loop::Next() {
  LookAhead(1);
  if (ahead_begin_ == ahead_.size()) return std::nullopt;
  previous_ = std::move(current_);
  current_ = std::move(ahead_[ahead_begin_++]);
  if (ahead_begin_ == ahead_.size()) {
    ahead_.clear();
    ahead_begin_ = 0;
  }
  ++index0_;
  return current_;
}

void Loop::Finish() {
  items_.clear();
  ahead_.clear();
  ahead_begin_ = next_ = 0;
  condition_ = nullptr;
  previous_.reset();
  current_.reset();
}

std::optional<Value> Loop::Attribute(std::string_view name) const {
  if (name == "index0") return index0_;
  if (name == "index") return index0_ + 1;
  if (name == "first") return index0_ == 0;
  // Only recursive loops, which there are none of, are deeper.
  if (name == "depth") return 1;
  if (name == "depth0") return 0;
  if (name == "previtem") {
    return previous_.has_value() ? *previous_ : MakeUndefined("there is no previous item");
  }
  if (name == "last" || name == "nextitem") {
    LookAhead(1);
    const bool is_last = ahead_begin_ == ahead_.size();
    if (name == "last") return is_last;
    return is_last ? MakeUndefined("there is no next item") : ahead_[ahead_begin_];
  }
  if (name == "length" || name == "revindex" || name == "revindex0") {
    LookAhead(items_.size());
    const auto after = static_cast<int64_t>(ahead_.size() - ahead_begin_);
    return name == "length" ? index0_ + 1 + after : name == "revindex" ? after + 1 : after;
  }
  if (name == "cycle") {
    return MakeFunction("cycle", [index = index0_](Interpreter&, const Arguments& arguments) {
      if (arguments.positional.empty()) Fail("no items for cycling given");
      return arguments.positional[static_cast<size_t>(index) % arguments.positional.size()];
    });
  }
  return std::nullopt;
}

// ---- cycler and joiner ----

std::optional<Value> Cycler::Attribute(std::string_view name) const {
  if (name == "current") return items_[*position_];
  if (name == "reset") {
    return MakeFunction("reset", [position = position_](Interpreter&, const Arguments&) {
      *position = 0;
      return Value();
    });
  }
  if (name == "next") {
    return MakeFunction(
        "next",
        [position = position_, items = items_](Interpreter& interpreter, const Arguments&) {
          interpreter.budget().Take(items.size() * sizeof(Value));
          const Value& item = items[*position];
          *position = (*position + 1) % items.size();
          return item;
        },
        depth_ + 1);
  }
  return std::nullopt;
}

Value Joiner::Call(Interpreter& interpreter, const Arguments& arguments) {
  if (std::exchange(used_, true)) return separator_;
  return MakeText("");
}

}  // namespace swaa::jinja
