// What a template says, without rendering it.

#ifndef SWAA_ENGINE_JINJA_INSPECT_H_
#define SWAA_ENGINE_JINJA_INSPECT_H_

#include <set>
#include <string>
#include <vector>

#include "engine/jinja/ast.h"

namespace swaa::jinja {

// Names that are read before anything in their block or around it has set them.
std::set<std::string> FreeVariables(const Body& body);

// Names that the template itself sets, always, and reads before only in inner blocks. Jinja takes
// them for undefined there until they are set, even where the template was given such a name.
std::set<std::string> NamesWithoutGivenValue(const Body& body);

// The text between tags and the text constants in them, in order.
std::vector<std::string> Literals(const Body& body);

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_INSPECT_H_
