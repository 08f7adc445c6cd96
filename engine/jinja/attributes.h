// object.name and object[key].

#ifndef SWAA_ENGINE_JINJA_ATTRIBUTES_H_
#define SWAA_ENGINE_JINJA_ATTRIBUTES_H_

#include <string>

#include "engine/jinja/value.h"

namespace swaa::jinja {

// A method or attribute first, then an element of that key. Undefined where there is neither;
// throws for attributes that Python has and the sandbox or this library has not.
Value GetAttribute(const Value& object, const std::string& name, Budget& budget);

// An element first, then a method or attribute of that name.
Value GetItem(const Value& object, const Value& key, Budget& budget);

// A method of texts; nothing where there is none of that name.
std::optional<Value> FindTextMethod(const Value& text, const std::string& name);

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_ATTRIBUTES_H_
