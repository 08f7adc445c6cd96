// The arguments of a function of this library, by position or by name.

#ifndef SWAA_ENGINE_JINJA_PARAMETERS_H_
#define SWAA_ENGINE_JINJA_PARAMETERS_H_

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "engine/jinja/value.h"

namespace swaa::jinja {

// Arguments bound to parameter names, as Python does it. What it is made of outlives it.
class Parameters {
 public:
  // Throws for a parameter that is not among `names`, one that is given twice, or too many. The
  // first `positional_only` cannot be named.
  Parameters(std::string_view function, const Arguments& arguments,
             std::initializer_list<std::string_view> names, size_t positional_only = 0);

  bool Has(size_t i) const { return values_[i] != nullptr; }
  // Throws where it was not given.
  const Value& Required(size_t i) const;
  Value Or(size_t i, Value otherwise) const {
    if (Has(i)) return *values_[i];
    return otherwise;
  }
  bool IsTrueOr(size_t i, bool otherwise) const { return Has(i) ? IsTrue(*values_[i]) : otherwise; }
  int64_t IntegerOr(size_t i, int64_t otherwise) const;
  // Null where it was not given, or is none.
  const Text* TextOrNull(size_t i) const;
  const Text& RequiredText(size_t i) const;

 private:
  std::string function_;
  std::vector<std::string_view> names_;
  std::vector<const Value*> values_;
};

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_PARAMETERS_H_
