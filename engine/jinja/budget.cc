// What one rendering of a template may spend.

#include "engine/jinja/budget.h"

#include "absl/strings/str_cat.h"

namespace swaa::jinja {

void Budget::FailSteps() const {
  Fail(absl::StrCat("takes more than ", limits_.max_steps, " steps"));
}
void Budget::FailBytes() const {
  Fail(absl::StrCat("makes values of more than ", limits_.max_bytes, " bytes"));
}
void Budget::FailOutput() const {
  Fail(absl::StrCat("writes more than ", limits_.max_output_bytes, " bytes"));
}
void Budget::FailDepth() const {
  Fail(absl::StrCat("nests calls or values deeper than ", limits_.max_depth, " levels"));
}

}  // namespace swaa::jinja
