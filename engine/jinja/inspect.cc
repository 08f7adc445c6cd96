// What a template says, without rendering it.

#include "engine/jinja/inspect.h"

#include <algorithm>

namespace swaa::jinja {
namespace {

// Walks through a template in the order of its text.
class Walker {
 public:
  std::set<std::string> free;
  std::vector<std::string> literals;

  void Walk(const Body& body) {
    for (const std::unique_ptr<Statement>& statement : body) Walk(*statement);
  }

 private:
  bool IsSet(const std::string& name) const {
    return std::any_of(set_.begin(), set_.end(),
                       [&](const auto& names) { return names.contains(name); });
  }

  void Set(const Target& target) {
    if (target.kind == Target::Kind::kName) set_.back().insert(target.name);
    // An attribute is of a namespace that has to be there.
    if (target.kind == Target::Kind::kAttribute && !IsSet(target.name)) free.insert(target.name);
    for (const Target& part : target.parts) Set(part);
  }

  void Read(const ExpressionPtr& expression) {
    if (expression == nullptr) return;
    if (expression->kind == Expression::Kind::kName && !IsSet(expression->name)) {
      free.insert(expression->name);
    }
    if (expression->constant.is_text()) literals.push_back(expression->constant.text()->bytes());
    for (const ExpressionPtr& operand : expression->operands) Read(operand);
    for (const ArgumentExpression& argument : expression->arguments) Read(argument.value);
  }

  void WalkInside(const Body& body, const std::set<std::string>& names) {
    set_.push_back(names);
    Walk(body);
    set_.pop_back();
  }

  void WalkMacro(const MacroDefinition& macro) {
    std::set<std::string> names = {"caller", "varargs", "kwargs"};
    for (const Parameter& parameter : macro.parameters) {
      Read(parameter.fallback);
      names.insert(parameter.name);
    }
    WalkInside(macro.body, names);
  }

  void WalkFor(const Statement& statement) {
    Read(statement.expression);
    set_.push_back({});
    Set(statement.target);
    Read(statement.condition);
    set_.back().insert("loop");
    Walk(statement.body);
    set_.pop_back();
    WalkInside(statement.otherwise, {});
  }

  void Walk(const Statement& statement) {
    if (statement.text.is_text()) literals.push_back(statement.text.text()->bytes());
    switch (statement.kind) {
      case Statement::Kind::kFor:
        return WalkFor(statement);
      case Statement::Kind::kMacro:
        set_.back().insert(statement.macro->name);
        return WalkMacro(*statement.macro);
      case Statement::Kind::kSetBlock:
        WalkInside(statement.body, {});
        Read(statement.expression);
        return Set(statement.target);
      case Statement::Kind::kWith:
        set_.push_back({});
        for (const auto& [target, expression] : statement.assignments) {
          Read(expression);
          Set(target);
        }
        Walk(statement.body);
        set_.pop_back();
        return;
      case Statement::Kind::kFilterBlock:
      case Statement::Kind::kGeneration:
        Read(statement.expression);
        return WalkInside(statement.body, {});
      default:
        break;
    }
    Read(statement.expression);
    if (statement.kind == Statement::Kind::kSet) Set(statement.target);
    if (statement.macro != nullptr) WalkMacro(*statement.macro);
    for (const Branch& branch : statement.branches) {
      Read(branch.condition);
      Walk(branch.body);
    }
    Walk(statement.otherwise);
  }

  std::vector<std::set<std::string>> set_ = {{}};
};

}  // namespace

std::set<std::string> FreeVariables(const Body& body) {
  Walker walker;
  walker.Walk(body);
  return std::move(walker.free);
}

std::vector<std::string> Literals(const Body& body) {
  Walker walker;
  walker.Walk(body);
  return std::move(walker.literals);
}

}  // namespace swaa::jinja
