// A template after parsing.

#ifndef SWAA_ENGINE_JINJA_AST_H_
#define SWAA_ENGINE_JINJA_AST_H_

#include <memory>
#include <string>
#include <vector>

#include "engine/jinja/value.h"

namespace swaa::jinja {

class Interpreter;
struct Expression;
struct Statement;

using ExpressionPtr = std::unique_ptr<Expression>;
using Body = std::vector<std::unique_ptr<Statement>>;
using FilterFunction = Value (*)(Interpreter& interpreter, const Value& subject,
                                 const Arguments& arguments);
using TestFunction = bool (*)(Interpreter& interpreter, const Value& subject,
                              const Arguments& arguments);

enum class Operator {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

struct ArgumentExpression {
  enum class Kind { kPositional, kNamed, kSpreadList, kSpreadDict };
  Kind kind;
  std::string name;  // kNamed
  ExpressionPtr value;
};

struct Expression {
  enum class Kind {
    kConstant,
    kName,
    kTuple,
    kList,
    kDict,       // operands: key, value, key, value, ...
    kAttribute,  // operands: object; name
    kSubscript,  // operands: object, index
    kSlice,      // operands: begin, end, step; each may be null
    kCall,       // operands: callee
    kFilter,     // operands: subject, null for the body of a block
    kTest,       // operands: subject
    kNot,
    kNegate,
    kPlus,
    kBinary,       // op
    kConcatenate,  // ~
    kCompare,      // operands: one more than comparisons
    kAnd,
    kOr,
    kConditional,  // operands: then, condition, else (may be null)
  };

  Kind kind;
  int line;
  int depth = 1;  // levels of nested expressions
  Value constant;
  std::string name;  // of a name, attribute, filter or test
  Operator op = Operator::kAdd;
  FilterFunction filter = nullptr;
  TestFunction test = nullptr;
  std::vector<ExpressionPtr> operands;
  std::vector<Operator> comparisons;
  std::vector<ArgumentExpression> arguments;
};

// What is assigned to.
struct Target {
  enum class Kind { kName, kAttribute, kTuple };
  Kind kind = Kind::kName;
  std::string name;
  std::string attribute;  // of the namespace `name`
  std::vector<Target> parts;
};

struct Parameter {
  std::string name;
  ExpressionPtr fallback;  // null: undefined
};

// The signature and body of a macro or of a call block.
struct MacroDefinition {
  std::string name;  // empty for a call block's body
  std::vector<Parameter> parameters;
  bool takes_caller = false;
  bool takes_varargs = false;
  bool takes_kwargs = false;
  Body body;
};

struct Branch {
  ExpressionPtr condition;
  Body body;
};

struct Statement {
  enum class Kind {
    kText,         // text
    kOutput,       // expression
    kIf,           // branches; otherwise
    kFor,          // target, expression, condition (may be null), body; otherwise
    kSet,          // target, expression
    kSetBlock,     // target, expression (filters, may be null), body
    kMacro,        // macro
    kCallBlock,    // expression (a call), macro
    kFilterBlock,  // expression, body
    kWith,         // targets and values; body
    kGeneration,   // body: what the assistant said, in a scope of its own
    kBreak,
    kContinue,
  };

  Kind kind;
  int line;
  Value text;
  ExpressionPtr expression;
  ExpressionPtr condition;
  Target target;
  std::vector<Branch> branches;
  std::vector<std::pair<Target, ExpressionPtr>> assignments;
  std::unique_ptr<MacroDefinition> macro;
  Body body;
  Body otherwise;
};

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_AST_H_
