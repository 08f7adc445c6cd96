// Python's functions over text that methods and filters share. They keep the origin of bytes.

#ifndef SWAA_ENGINE_JINJA_TEXT_FUNCTIONS_H_
#define SWAA_ENGINE_JINJA_TEXT_FUNCTIONS_H_

#include <optional>
#include <string>
#include <vector>

#include "engine/jinja/budget.h"
#include "engine/jinja/text.h"
#include "engine/jinja/value.h"

namespace swaa::jinja {

Text Upper(const Text& text, Budget& budget);
Text Lower(const Text& text, Budget& budget);
// The first character in upper, the others in lower case.
Text Capitalize(const Text& text, Budget& budget);
// str.title().
Text TitleCase(const Text& text, Budget& budget);

// Without the characters of `characters` (null: white space) at its ends.
Text Strip(const Text& text, const Text* characters, bool left, bool right);

// At most `limit` replacements; negative: all.
Text Replace(const Text& text, const Text& old_text, const Text& new_text, int64_t limit,
             Budget& budget);

// str.split and str.rsplit. A null separator stands for runs of white space.
std::vector<Value> Split(const Text& text, const Text* separator, int64_t limit, bool from_right,
                         Budget& budget);
std::vector<Value> SplitLines(const Text& text, bool keep_ends, Budget& budget);

// The printed items with `separator` between them.
Text Join(const Text& separator, const std::vector<Value>& items, Budget& budget);

// Filled up with `fill` to `width` characters.
enum class Alignment { kLeft, kRight, kCenter };
Text Pad(const Text& text, int64_t width, const Text& fill, Alignment alignment, Budget& budget);

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_TEXT_FUNCTIONS_H_
