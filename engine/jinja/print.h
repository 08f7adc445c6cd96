// How values are printed: Python's str() and repr(), and JSON both ways.

#ifndef SWAA_ENGINE_JINJA_PRINT_H_
#define SWAA_ENGINE_JINJA_PRINT_H_

#include <optional>
#include <string>
#include <string_view>

#include "engine/jinja/budget.h"
#include "engine/jinja/text.h"
#include "engine/jinja/value.h"

namespace swaa::jinja {

// Python's repr() of a float: the fewest digits that read back as the same number.
std::string FormatFloat(double number);

// What {{ value }} writes. Texts keep the origin of their bytes.
Text ToText(const Value& value, Budget& budget);
Text Repr(const Value& value, Budget& budget);

// json.dumps() of Python.
struct JsonFormat {
  bool ensure_ascii = false;
  std::optional<std::string> indent;
  std::optional<std::string> item_separator;
  std::optional<std::string> key_separator;
  bool sort_keys = false;
};
Text ToJson(const Value& value, const JsonFormat& format, Budget& budget);

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_PRINT_H_
