// A chat template of Hugging Face: the library's edge, where exceptions become statuses.

#include "engine/jinja/template.h"

#include "absl/strings/str_cat.h"
#include "engine/jinja/inspect.h"
#include "engine/jinja/interpreter.h"
#include "engine/jinja/parser.h"
#include "engine/jinja/unicode.h"

namespace swaa::jinja {
namespace {

absl::Status ToStatus(const Failure& failure) {
  const std::string where = failure.line > 0 ? absl::StrCat("line ", failure.line, ": ") : "";
  return absl::Status(failure.code, absl::StrCat(where, failure.what()));
}

}  // namespace

struct Template::Tree {
  Body body;
  std::set<std::string> not_given;
};

Template::Template(std::unique_ptr<Tree> tree, const Limits& limits)
    : tree_(std::move(tree)), limits_(limits) {
  free_variables_ = FreeVariables(tree_->body);
  literals_ = Literals(tree_->body);
}

Template::~Template() = default;

absl::StatusOr<std::unique_ptr<Template>> Template::Parse(std::string_view source,
                                                          const Limits& limits) {
  if (source.size() > limits.max_template_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("the template has ", source.size(),
                                                   " bytes; at most ", limits.max_template_bytes,
                                                   " are read"));
  }
  if (!IsValidUtf8(source)) return absl::InvalidArgumentError("the template is not UTF-8");
  try {
    auto tree = std::make_unique<Tree>(Tree{jinja::Parse(source, limits), {}});
    tree->not_given = NamesWithoutGivenValue(tree->body);
    return std::unique_ptr<Template>(new Template(std::move(tree), limits));
  } catch (const Failure& failure) {
    return ToStatus(failure);
  }
}

absl::StatusOr<Text> Template::Render(const Variables& variables, std::time_t now) const {
  Interpreter interpreter(limits_, now);
  try {
    Variables given;
    for (const auto& variable : variables) {
      if (!tree_->not_given.contains(variable.first)) given.push_back(variable);
    }
    return interpreter.Render(tree_->body, given);
  } catch (const Failure& failure) {
    return ToStatus(failure);
  }
}

}  // namespace swaa::jinja
