// Renders templates that come one a line, as JSON {"template": text, "variables": object}, and
// answers each with a line {"text": text} or {"error": text}. For comparing with Jinja.

#include <iostream>
#include <string>

#include <nlohmann/json.hpp>

#include "engine/jinja/json.h"
#include "engine/jinja/template.h"
#include "tests/parity/jinja/case.h"

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    const nlohmann::ordered_json request = nlohmann::ordered_json::parse(line);
    const absl::StatusOr<swaa::jinja::Text> text = swaa::jinja::RenderCase(request);
    nlohmann::json answer;
    if (text.ok()) {
      answer["text"] = text->bytes();
    } else {
      answer["error"] = text.status().ToString();
    }
    std::cout << answer.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << std::endl;
  }
  return 0;
}
