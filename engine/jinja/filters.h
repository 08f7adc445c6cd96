// The filters: value|name(arguments).

#ifndef SWAA_ENGINE_JINJA_FILTERS_H_
#define SWAA_ENGINE_JINJA_FILTERS_H_

#include <string_view>

#include "engine/jinja/ast.h"

namespace swaa::jinja {

struct FilterEntry {
  const char* name;
  FilterFunction function;
};

// Null: there is none of that name.
FilterFunction FindFilter(std::string_view name);
// The same of one file each.
FilterFunction FindTextFilter(std::string_view name);
FilterFunction FindSequenceFilter(std::string_view name);

// item.a.b for the attribute "a.b", item[n] for a number; the item itself for none. What is
// undefined on the way becomes `fallback`, if given.
Value AttributeOf(const Value& item, const Value& attribute, const Value* fallback, Budget& budget);

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_FILTERS_H_
