// The arguments of a function of this library.

#include "engine/jinja/parameters.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace swaa::jinja {

Parameters::Parameters(std::string_view function, const Arguments& arguments,
                       std::initializer_list<std::string_view> names, size_t positional_only)
    : function_(function), names_(names), values_(names.size(), nullptr) {
  if (arguments.positional.size() > names_.size()) {
    Fail(absl::StrCat(function_, " takes at most ", names_.size(), " arguments, ",
                      arguments.positional.size(), " were given"));
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto found = std::find(names_.begin() + static_cast<ptrdiff_t>(positional_only),
                                 names_.end(), std::string_view(name));
    if (found == names_.end()) {
      Fail(absl::StrCat(function_, " has no argument '", name, "'"));
    }
    const Value*& slot = values_[static_cast<size_t>(found - names_.begin())];
    if (slot != nullptr) Fail(absl::StrCat(function_, " got two values for '", name, "'"));
    slot = &value;
  }
}

const Value& Parameters::Required(size_t i) const {
  if (!Has(i)) {
    Fail(absl::StrCat(function_, " needs the argument '", std::string(names_[i]), "'"));
  }
  return *values_[i];
}

int64_t Parameters::IntegerOr(size_t i, int64_t otherwise) const {
  if (!Has(i)) return otherwise;
  CheckDefined(*values_[i]);
  if (!values_[i]->AsInteger().has_value()) {
    Fail(absl::StrCat(function_, ": ", std::string(names_[i]), " is a '", TypeName(*values_[i]),
                      "', not an integer"));
  }
  return *values_[i]->AsInteger();
}

const Text* Parameters::TextOrNull(size_t i) const {
  if (!Has(i) || values_[i]->is_none()) return nullptr;
  return &RequiredText(i);
}

const Text& Parameters::RequiredText(size_t i) const {
  const Value& value = Required(i);
  CheckDefined(value);
  if (!value.is_text()) {
    Fail(absl::StrCat(function_, ": ", std::string(names_[i]), " is a '", TypeName(value),
                      "', not a str"));
  }
  return *value.text();
}

}  // namespace swaa::jinja
