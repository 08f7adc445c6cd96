// A chat template of Hugging Face: Jinja with the settings that transformers uses (trim_blocks,
// lstrip_blocks, loop controls, generation blocks, an immutable sandbox). There are no files, no
// imports and nothing outside of the values that a rendering is given; how much it may compute is
// bounded.

#ifndef SWAA_ENGINE_JINJA_TEMPLATE_H_
#define SWAA_ENGINE_JINJA_TEMPLATE_H_

#include <ctime>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/jinja/budget.h"
#include "engine/jinja/text.h"
#include "engine/jinja/value.h"

namespace swaa::jinja {

using Variables = std::vector<std::pair<std::string, Value>>;

// Immutable; any thread.
class Template {
 public:
  // INVALID_ARGUMENT with a line for what is no template; UNIMPLEMENTED for tags, filters and tests
  // that are not supported.
  static absl::StatusOr<std::unique_ptr<Template>> Parse(std::string_view source,
                                                         const Limits& limits = {});
  ~Template();

  // INVALID_ARGUMENT where the template raises an exception, with its words, where it does what
  // Python refuses or this library has not, and where a limit is passed. `now` is what
  // strftime_now formats, in local time.
  absl::StatusOr<Text> Render(const Variables& variables, std::time_t now) const;

  // Names that it reads and nothing in it has set before: what it may be given.
  const std::set<std::string>& free_variables() const { return free_variables_; }
  // All its text and its text constants.
  const std::vector<std::string>& literals() const { return literals_; }

 private:
  struct Tree;
  Template(std::unique_ptr<Tree> tree, const Limits& limits);

  std::unique_ptr<Tree> tree_;
  Limits limits_;
  std::set<std::string> free_variables_;
  std::vector<std::string> literals_;
};

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_TEMPLATE_H_
