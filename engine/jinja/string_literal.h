// The escapes of a string constant in a template.

#ifndef SWAA_ENGINE_JINJA_STRING_LITERAL_H_
#define SWAA_ENGINE_JINJA_STRING_LITERAL_H_

#include <optional>
#include <string>
#include <string_view>

namespace swaa::jinja {

// What the text between the quotes stands for, by Python's rules. Nothing: an escape by name
// (\N{...}), of half a surrogate pair, or that is cut off.
std::optional<std::string> UnescapeString(std::string_view body);

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_STRING_LITERAL_H_
