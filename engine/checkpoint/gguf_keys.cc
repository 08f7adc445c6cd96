// Numbers of an architecture's keys, checked.

#include "engine/checkpoint/gguf_keys.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace swaa {

GgufKeys::GgufKeys(const GgufFile& gguf, std::string_view architecture)
    : gguf_(gguf), prefix_(absl::StrCat(std::string(architecture), ".")) {}

std::string GgufKeys::Name(std::string_view key) const {
  return absl::StrCat(prefix_, std::string(key));
}

absl::Status GgufKeys::Wrong(std::string_view key, std::string_view problem) const {
  return gguf_.KeyError(Name(key), problem);
}

absl::Status GgufKeys::Unsupported(std::string_view key, std::string_view problem) const {
  return absl::UnimplementedError(Wrong(key, problem).message());
}

absl::StatusOr<int32_t> GgufKeys::Size(std::string_view key, int64_t most,
                                       std::optional<int32_t> fallback) const {
  SWAA_ASSIGN_OR_RETURN(const std::optional<int64_t> value, gguf_.Int(Name(key)));
  if (!value.has_value() && fallback.has_value()) return *fallback;
  if (!value.has_value()) return Wrong(key, "is missing");
  if (*value < 1 || *value > most) {
    return Wrong(key, absl::StrCat(*value, " is not between 1 and ", most));
  }
  return static_cast<int32_t>(*value);
}

absl::StatusOr<int32_t> GgufKeys::SizeOfLayers(std::string_view key, int64_t most,
                                               int32_t num_layers,
                                               std::optional<int32_t> fallback) const {
  if (!gguf_.IsArray(Name(key))) return Size(key, most, fallback);
  SWAA_ASSIGN_OR_RETURN(const std::optional<std::vector<int64_t>> stored,
                        gguf_.IntArray(Name(key)));
  const std::vector<int64_t> values = stored.value_or(std::vector<int64_t>());
  if (static_cast<int64_t>(values.size()) != num_layers) {
    return Wrong(key, absl::StrCat("has ", values.size(), " elements for ", num_layers, " layers"));
  }
  for (size_t layer = 0; layer < values.size(); ++layer) {
    const int64_t value = values[layer];
    if (value < 1 || value > most) {
      return Wrong(key,
                   absl::StrCat("element ", layer, ": ", value, " is not between 1 and ", most));
    }
    if (value != values.front()) {
      return Unsupported(key, absl::StrCat(values.front(), " in layer 0 and ", value, " in layer ",
                                           layer, ": layers that differ are not supported"));
    }
  }
  return static_cast<int32_t>(values.front());
}

absl::StatusOr<double> GgufKeys::Number(std::string_view key,
                                        std::optional<double> fallback) const {
  SWAA_ASSIGN_OR_RETURN(const std::optional<double> value, gguf_.Number(Name(key)));
  if (value.has_value()) return *value;
  if (fallback.has_value()) return *fallback;
  return Wrong(key, "is missing");
}

absl::Status GgufKeys::ExpectNeutral(std::string_view key, double neutral) const {
  double value = neutral;
  if (const auto flag = gguf_.Bool(Name(key)); flag.ok()) {
    value = flag->has_value() ? static_cast<double>(**flag) : neutral;
  } else {
    SWAA_ASSIGN_OR_RETURN(value, Number(key, neutral));
  }
  if (value == neutral) return absl::OkStatus();
  return Unsupported(key,
                     absl::StrCat(value, " is not supported; ", neutral, ", or no such key, is"));
}

}  // namespace swaa
