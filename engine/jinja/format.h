// Python's two ways of formatting text: "%s" % value and "{}".format(value).

#ifndef SWAA_ENGINE_JINJA_FORMAT_H_
#define SWAA_ENGINE_JINJA_FORMAT_H_

#include "engine/jinja/value.h"

namespace swaa::jinja {

// `format` % `value`, a tuple of values, or a dictionary for %(name)s. Conversions d i u f F e E g
// G x X o s r c %.
Value FormatPercent(const Text& format, const Value& value, Budget& budget);

// Fields by position or name, !s and !r, and fill, alignment, sign, zero, width, precision and the
// types s d f e g x X b o %; no attributes, subscripts or nested fields.
Value FormatBraces(const Text& format, const Arguments& arguments, Budget& budget);

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_FORMAT_H_
