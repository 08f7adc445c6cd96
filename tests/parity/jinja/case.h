// Tests: one template with its variables, as the goldens and the comparison with Jinja write them.

#ifndef SWAA_TESTS_PARITY_JINJA_CASE_H_
#define SWAA_TESTS_PARITY_JINJA_CASE_H_

#include <ctime>

#include <nlohmann/json.hpp>

#include "engine/jinja/json.h"
#include "engine/jinja/template.h"

namespace swaa::jinja {

// The time that hf_jinja.py renders at: 2026-03-07 09:05:02, local.
inline std::time_t TestNow() {
  std::tm parts{};
  parts.tm_year = 126;
  parts.tm_mon = 2;
  parts.tm_mday = 7;
  parts.tm_hour = 9;
  parts.tm_min = 5;
  parts.tm_sec = 2;
  parts.tm_isdst = -1;
  return std::mktime(&parts);
}

// Of an object {"template": text, "variables": object}.
inline absl::StatusOr<Text> RenderCase(const nlohmann::ordered_json& request) {
  auto parsed = Template::Parse(request["template"].get<std::string>());
  if (!parsed.ok()) return parsed.status();
  Variables variables;
  for (const auto& [name, value] : request["variables"].items()) {
    auto converted = ParseJson(value.dump());
    if (!converted.ok()) return converted.status();
    variables.emplace_back(name, *std::move(converted));
  }
  return (*parsed)->Render(variables, TestNow());
}

}  // namespace swaa::jinja

#endif  // SWAA_TESTS_PARITY_JINJA_CASE_H_
