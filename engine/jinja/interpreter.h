// Renders the syntax tree of a template.

#ifndef SWAA_ENGINE_JINJA_INTERPRETER_H_
#define SWAA_ENGINE_JINJA_INTERPRETER_H_

#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/jinja/ast.h"
#include "engine/jinja/budget.h"
#include "engine/jinja/value.h"

namespace swaa::jinja {

// The names that are set in a block, and those around it.
class Scope {
 public:
  explicit Scope(Scope* parent) : parent_(parent) {}

  void Set(const std::string& name, Value value) { names_[name] = std::move(value); }
  // Null: neither here nor around.
  const Value* Find(const std::string& name) const;
  // A macro refers to this scope: it and those around it live as long as the rendering.
  void Keep();
  bool is_kept() const { return is_kept_; }

 private:
  Scope* parent_;
  bool is_kept_ = false;
  absl::flat_hash_map<std::string, Value> names_;
};

// One rendering. Not thread-safe.
class Interpreter {
 public:
  // `now` is what strftime_now formats, in local time.
  Interpreter(const Limits& limits, std::time_t now) : budget_(limits), now_(now) {}
  ~Interpreter();

  // Throws Failure.
  Text Render(const Body& body, const std::vector<std::pair<std::string, Value>>& variables);

  Value Evaluate(const Expression& expression, Scope& scope);
  Value Call(const Value& callee, const Arguments& arguments);
  // The text that a macro or a call block writes for these arguments.
  Value CallMacro(const MacroDefinition& macro, Scope& closure, const Arguments& arguments);

  // Clears it at the end: what namespaces hold may hold them.
  void Register(std::shared_ptr<Object> object) { registered_.push_back(std::move(object)); }

  Budget& budget() { return budget_; }
  std::time_t now() const { return now_; }
  // Of the statement that is being executed.
  int line() const { return line_; }

 private:
  enum class Flow { kNext, kBreak, kContinue };
  class InnerScope;

  Flow Execute(const Body& body, Scope& scope, Text& out);
  Flow ExecuteOne(const Statement& statement, Scope& scope, Text& out);
  Flow ExecuteIf(const Statement& statement, Scope& scope, Text& out);
  Flow ExecuteWith(const Statement& statement, Scope& scope, Text& out);
  void ExecuteFor(const Statement& statement, Scope& scope, Text& out);
  void ExecuteCallBlock(const Statement& statement, Scope& scope, Text& out);
  // The body's text, written apart in a scope of its own.
  Value RenderApart(const Body& body, Scope& scope);
  void Write(const Text& text, Text& out);
  void Assign(const Target& target, Value value, Scope& scope);

  Value EvaluateName(const Expression& expression, const Scope& scope) const;
  Value EvaluateItems(const Expression& expression, Scope& scope);
  Value EvaluateDict(const Expression& expression, Scope& scope);
  Value EvaluateSubscript(const Expression& expression, Scope& scope);
  Value EvaluateFilter(const Expression& expression, Scope& scope, const Value* block);
  Value EvaluateCompare(const Expression& expression, Scope& scope);
  Value EvaluateConditional(const Expression& expression, Scope& scope);
  Arguments EvaluateArguments(const Expression& expression, Scope& scope);
  void Bind(const MacroDefinition& macro, const Arguments& arguments, Scope& scope);

  Budget budget_;
  const std::time_t now_;
  int line_ = 0;
  std::vector<std::unique_ptr<Scope>> kept_scopes_;
  std::vector<std::shared_ptr<Object>> registered_;
};

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_INTERPRETER_H_
