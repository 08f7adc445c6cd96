// What a template says, without rendering it.

#include "engine/jinja/inspect.h"

#include <algorithm>
#include <functional>

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

// What the outermost block reads and sets itself, in order: not what its inner blocks do.
class OuterNames {
 public:
  std::set<std::string> read;   // given values are taken for these
  std::set<std::string> unset;  // set before they were read

  void Walk(const Body& body) {
    for (const std::unique_ptr<Statement>& statement : body) Walk(*statement);
  }

 private:
  void Set(const std::string& name) {
    if (!read.contains(name)) unset.insert(name);
  }

  void Set(const Target& target) {
    if (target.kind == Target::Kind::kName) Set(target.name);
    if (target.kind == Target::Kind::kAttribute) Read(target.name);
    for (const Target& part : target.parts) Set(part);
  }

  void Read(const std::string& name) {
    if (!unset.contains(name)) read.insert(name);
  }

  void Read(const ExpressionPtr& expression) {
    if (expression == nullptr) return;
    if (expression->kind == Expression::Kind::kName) Read(expression->name);
    for (const ExpressionPtr& operand : expression->operands) Read(operand);
    for (const ArgumentExpression& argument : expression->arguments) Read(argument.value);
  }

  // What not all branches set keeps its given value.
  void WalkIf(const Statement& statement) {
    const std::set<std::string> before = unset;
    std::vector<std::set<std::string>> branches;
    Read(statement.branches[0].condition);
    const std::set<std::string> read_before = read;
    std::set<std::string> read_after = read;
    const auto walk_branch = [&](const std::function<void()>& walk) {
      unset = before;
      read = read_before;
      walk();
      branches.push_back(unset);
      read_after.insert(read.begin(), read.end());
    };
    walk_branch([&] { Walk(statement.branches[0].body); });
    walk_branch([&] {
      for (size_t i = 1; i < statement.branches.size(); ++i) {
        Read(statement.branches[i].condition);
        Walk(statement.branches[i].body);
      }
    });
    walk_branch([&] { Walk(statement.otherwise); });
    unset = before;
    for (const std::string& name : branches[0]) {
      if (branches[1].contains(name) && branches[2].contains(name)) unset.insert(name);
    }
    for (const std::set<std::string>& branch : branches) {
      for (const std::string& name : branch) {
        if (!unset.contains(name)) read_after.insert(name);
      }
    }
    read = std::move(read_after);
  }

  void Walk(const Statement& statement) {
    switch (statement.kind) {
      case Statement::Kind::kIf:
        return WalkIf(statement);
      case Statement::Kind::kMacro:
        return Set(statement.macro->name);
      case Statement::Kind::kWith:
        for (const auto& [target, expression] : statement.assignments) Read(expression);
        return;
      case Statement::Kind::kSetBlock:
        return Set(statement.target);
      default:
        Read(statement.expression);
        if (statement.kind == Statement::Kind::kSet) Set(statement.target);
    }
  }
};

}  // namespace

std::set<std::string> NamesWithoutGivenValue(const Body& body) {
  OuterNames names;
  names.Walk(body);
  return std::move(names.unset);
}

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
