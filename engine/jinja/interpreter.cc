// Renders the syntax tree of a template: statements, scopes and calls. Expressions are in
// evaluate.cc.

#include "engine/jinja/interpreter.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "engine/jinja/objects.h"
#include "engine/jinja/print.h"

namespace swaa::jinja {

const Value* Scope::Find(const std::string& name) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent_) {
    if (const auto found = scope->names_.find(name); found != scope->names_.end()) {
      return &found->second;
    }
  }
  return nullptr;
}

void Scope::Keep() {
  for (Scope* scope = this; scope != nullptr && !scope->is_kept_; scope = scope->parent_) {
    scope->is_kept_ = true;
  }
}

// A scope for as long as its block is executed, or longer where a macro refers to it.
class Interpreter::InnerScope {
 public:
  InnerScope(Interpreter& interpreter, Scope* parent)
      : interpreter_(interpreter), scope_(std::make_unique<Scope>(parent)) {}
  ~InnerScope() {
    if (scope_->is_kept()) interpreter_.kept_scopes_.push_back(std::move(scope_));
  }
  Scope& operator*() { return *scope_; }
  Scope* operator->() { return scope_.get(); }

 private:
  Interpreter& interpreter_;
  std::unique_ptr<Scope> scope_;
};

Interpreter::~Interpreter() {
  for (const std::shared_ptr<Object>& object : registered_) {
    static_cast<Namespace*>(object.get())->Clear();
  }
}

Text Interpreter::Render(const Body& body,
                         const std::vector<std::pair<std::string, Value>>& variables) {
  Text out;
  InnerScope context(*this, nullptr);
  for (const auto& [name, value] : variables) context->Set(name, value);
  InnerScope root(*this, &*context);
  try {
    Execute(body, *root, out);
  } catch (Failure& failure) {
    if (failure.line == 0) failure.line = line_;
    throw;
  }
  return out;
}

void Interpreter::Write(const Text& text, Text& out) {
  budget_.Take(text.size());
  budget_.CheckOutput(out.size() + text.size());
  out.Append(text);
}

Interpreter::Flow Interpreter::Execute(const Body& body, Scope& scope, Text& out) {
  const Budget::Level level(budget_);
  for (const std::unique_ptr<Statement>& statement : body) {
    budget_.Step();
    line_ = statement->line;
    const Flow flow = ExecuteOne(*statement, scope, out);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::ExecuteOne(const Statement& statement, Scope& scope, Text& out) {
  switch (statement.kind) {
    case Statement::Kind::kText:
      Write(*statement.text.text(), out);
      break;
    case Statement::Kind::kOutput:
      Write(ToText(Evaluate(*statement.expression, scope), budget_), out);
      break;
    case Statement::Kind::kIf:
      return ExecuteIf(statement, scope, out);
    case Statement::Kind::kFor:
      ExecuteFor(statement, scope, out);
      break;
    case Statement::Kind::kSet:
      Assign(statement.target, Evaluate(*statement.expression, scope), scope);
      break;
    case Statement::Kind::kSetBlock: {
      Value text = RenderApart(statement.body, scope);
      if (statement.expression != nullptr) {
        text = EvaluateFilter(*statement.expression, scope, &text);
      }
      Assign(statement.target, std::move(text), scope);
      break;
    }
    case Statement::Kind::kMacro:
      scope.Keep();
      scope.Set(statement.macro->name,
                std::shared_ptr<Object>(std::make_shared<Macro>(statement.macro.get(), &scope)));
      break;
    case Statement::Kind::kCallBlock:
      ExecuteCallBlock(statement, scope, out);
      break;
    case Statement::Kind::kFilterBlock: {
      const Value text = RenderApart(statement.body, scope);
      Write(ToText(EvaluateFilter(*statement.expression, scope, &text), budget_), out);
      break;
    }
    case Statement::Kind::kWith:
      return ExecuteWith(statement, scope, out);
    case Statement::Kind::kGeneration:
      Write(*RenderApart(statement.body, scope).text(), out);
      break;
    case Statement::Kind::kBreak:
      return Flow::kBreak;
    case Statement::Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::ExecuteIf(const Statement& statement, Scope& scope, Text& out) {
  for (const Branch& branch : statement.branches) {
    line_ = branch.condition->line;
    if (IsTrue(Evaluate(*branch.condition, scope))) return Execute(branch.body, scope, out);
  }
  return Execute(statement.otherwise, scope, out);
}

Interpreter::Flow Interpreter::ExecuteWith(const Statement& statement, Scope& scope, Text& out) {
  InnerScope inner(*this, &scope);
  for (const auto& [target, expression] : statement.assignments) {
    Assign(target, Evaluate(*expression, scope), *inner);
  }
  return Execute(statement.body, *inner, out);
}

void Interpreter::ExecuteFor(const Statement& statement, Scope& scope, Text& out) {
  const Value iterable = Evaluate(*statement.expression, scope);
  Loop::Condition condition;
  if (statement.condition != nullptr) {
    condition = [this, &statement, &scope](const Value& item) {
      InnerScope inner(*this, &scope);
      Assign(statement.target, item, *inner);
      return IsTrue(Evaluate(*statement.condition, *inner));
    };
  }
  const auto loop =
      std::make_shared<Loop>(Iterate(iterable, budget_), std::move(condition), budget_);
  // What is left of a loop that fails goes away with the exception.
  struct Finisher {
    ~Finisher() { loop.Finish(); }
    Loop& loop;
  } const finisher{*loop};
  bool any = false;
  while (std::optional<Value> item = loop->Next()) {
    any = true;
    InnerScope inner(*this, &scope);
    Assign(statement.target, *std::move(item), *inner);
    inner->Set("loop", std::shared_ptr<Object>(loop));
    if (Execute(statement.body, *inner, out) == Flow::kBreak) break;
  }
  if (any) return;
  InnerScope inner(*this, &scope);
  Execute(statement.otherwise, *inner, out);
}

void Interpreter::ExecuteCallBlock(const Statement& statement, Scope& scope, Text& out) {
  scope.Keep();
  const Expression& call = *statement.expression;
  const Value callee = Evaluate(*call.operands[0], scope);
  Arguments arguments = EvaluateArguments(call, scope);
  arguments.named.emplace_back(
      "caller", std::shared_ptr<Object>(std::make_shared<Macro>(statement.macro.get(), &scope)));
  Write(ToText(Call(callee, arguments), budget_), out);
}

Value Interpreter::RenderApart(const Body& body, Scope& scope) {
  Text text;
  InnerScope inner(*this, &scope);
  const Flow flow = Execute(body, *inner, text);
  SWAA_CHECK(flow == Flow::kNext);  // the parser lets no loop be left out of such a body
  return text;
}

void Interpreter::Assign(const Target& target, Value value, Scope& scope) {
  switch (target.kind) {
    case Target::Kind::kName:
      scope.Set(target.name, std::move(value));
      return;
    case Target::Kind::kAttribute: {
      const Value* object = scope.Find(target.name);
      auto* attributes = object == nullptr ? nullptr : dynamic_cast<Namespace*>(object->object());
      if (attributes == nullptr) Fail("cannot assign attribute on non-namespace object");
      if (target.attribute.starts_with('_')) {
        Fail(absl::StrCat("a namespace has no attributes with an underscore first, such as ",
                          target.attribute));
      }
      attributes->Set(MakeText(target.attribute), std::move(value), budget_);
      return;
    }
    case Target::Kind::kTuple:
      break;
  }
  std::vector<Value> items = Iterate(value, budget_);
  if (items.size() != target.parts.size()) {
    Fail(absl::StrCat("cannot unpack ", items.size(), " values into ", target.parts.size(),
                      " names"));
  }
  for (size_t i = 0; i < items.size(); ++i) Assign(target.parts[i], std::move(items[i]), scope);
}

Value Interpreter::Call(const Value& callee, const Arguments& arguments) {
  const Budget::Level level(budget_);
  budget_.Step();
  CheckDefined(callee);
  if (callee.object() == nullptr) {
    Fail(absl::StrCat("'", TypeName(callee), "' object is not callable"));
  }
  return callee.object()->Call(*this, arguments);
}

void Interpreter::Bind(const MacroDefinition& macro, const Arguments& arguments, Scope& scope) {
  const std::string name = macro.name.empty() ? "caller" : macro.name;
  const size_t given = std::min(arguments.positional.size(), macro.parameters.size());
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const Parameter& parameter = macro.parameters[i];
    const Value* named = arguments.Named(parameter.name);
    if (i < given && named != nullptr) {
      Fail(absl::StrCat("macro '", name, "' got two values for ", parameter.name));
    }
    if (i < given) {
      scope.Set(parameter.name, arguments.positional[i]);
    } else if (named != nullptr) {
      scope.Set(parameter.name, *named);
    } else if (parameter.fallback != nullptr) {
      scope.Set(parameter.name, Evaluate(*parameter.fallback, scope));
    } else {
      scope.Set(parameter.name,
                MakeUndefined(absl::StrCat("parameter '", parameter.name, "' was not provided")));
    }
  }
  if (!macro.takes_varargs && arguments.positional.size() > given) {
    Fail(absl::StrCat("macro '", name, "' takes not more than ", macro.parameters.size(),
                      " argument(s)"));
  }
  if (macro.takes_varargs) {
    scope.Set("varargs", MakeSequence({arguments.positional.begin() + static_cast<ptrdiff_t>(given),
                                       arguments.positional.end()},
                                      budget_, Sequence::Kind::kTuple));
  }
  if (macro.takes_caller) {
    scope.Set("caller", MakeUndefined("No caller defined"));
  }
  auto others = std::make_shared<Dict>();
  for (const auto& argument : arguments.named) {
    const std::string& key = argument.first;
    const Value& value = argument.second;
    const bool is_parameter =
        std::any_of(macro.parameters.begin(), macro.parameters.end(),
                    [&](const Parameter& parameter) { return parameter.name == key; });
    if (is_parameter) continue;
    if (key == "caller" && macro.takes_caller) {
      scope.Set("caller", value);
    } else if (macro.takes_kwargs) {
      others->Set(MakeText(key), value, budget_);
    } else {
      Fail(absl::StrCat("macro '", name, "' takes no keyword argument '", key, "'"));
    }
  }
  if (macro.takes_kwargs) scope.Set("kwargs", std::shared_ptr<const Dict>(std::move(others)));
}

Value Interpreter::CallMacro(const MacroDefinition& macro, Scope& closure,
                             const Arguments& arguments) {
  const int line = line_;
  InnerScope inner(*this, &closure);
  Bind(macro, arguments, *inner);
  Text text;
  Execute(macro.body, *inner, text);
  line_ = line;
  return text;
}

}  // namespace swaa::jinja
