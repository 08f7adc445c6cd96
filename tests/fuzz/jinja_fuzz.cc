// Fuzz target: a template, a zero byte, and the JSON of a variable `x`. It renders within its
// limits or is refused.

#include <string>

#include "base/check.h"
#include "engine/jinja/json.h"
#include "engine/jinja/template.h"
#include "tests/fuzz/fuzz_input.h"

namespace swaa::fuzz {

void FuzzJinja(std::string_view input) {
  const std::vector<std::string_view> parts = SplitAtZeros(input, 2);
  // Small, so that an input takes no time.
  const jinja::Limits limits = {
      .max_steps = 20'000, .max_bytes = 1 << 22, .max_output_bytes = 1 << 16, .max_depth = 100};
  const auto parsed = jinja::Template::Parse(parts[0], limits);
  if (!parsed.ok()) return CheckRefusal(parsed.status());
  jinja::Variables variables = {{"messages", jinja::MakeText("abc", true)}};
  if (auto value = jinja::ParseJson(parts[1]); value.ok()) {
    variables.emplace_back("x", *std::move(value));
  }
  const absl::StatusOr<jinja::Text> text = (*parsed)->Render(variables, 0);
  if (!text.ok()) {
    SWAA_CHECK(absl::IsInvalidArgument(text.status())) << text.status().ToString();
    return;
  }
  SWAA_CHECK(text->size() <= static_cast<size_t>(limits.max_output_bytes));
  SWAA_CHECK(text->empty() || text->runs().back().end == text->size());
}

}  // namespace swaa::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  swaa::fuzz::FuzzJinja(swaa::fuzz::AsText(data, size));
  return 0;
}
