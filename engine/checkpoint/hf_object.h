// Reads values of one object of a Hugging Face folder's JSON files.

#ifndef SWAA_ENGINE_CHECKPOINT_HF_OBJECT_H_
#define SWAA_ENGINE_CHECKPOINT_HF_OBJECT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace swaa {

// Null counts as absent, as in transformers. Keeps a reference to the JSON. Getters are
// INVALID_ARGUMENT where the value is of another type or out of its range, and where it is absent
// without a fallback.
class HfObject {
 public:
  // `place`: the file, and the key within it, for messages.
  HfObject(const nlohmann::json& json, std::string place) : json_(json), place_(std::move(place)) {}

  const nlohmann::json* Find(const char* key) const;
  bool IsNull(const char* key) const;  // there, and null
  absl::StatusOr<int32_t> Size(const char* key, int64_t most,
                               std::optional<int32_t> fallback = std::nullopt) const;
  absl::StatusOr<double> Number(const char* key, std::optional<double> fallback) const;
  absl::StatusOr<bool> Bool(const char* key, bool fallback) const;

  const std::string& place() const { return place_; }
  // INVALID_ARGUMENT and UNIMPLEMENTED: "<place>: <key>: <problem>".
  absl::Status Wrong(const char* key, std::string_view problem) const;
  absl::Status Unsupported(const char* key, std::string_view problem) const;

  // A value as a message shows it.
  static std::string Shown(const nlohmann::json& value);

 private:
  const nlohmann::json& json_;
  const std::string place_;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_HF_OBJECT_H_
