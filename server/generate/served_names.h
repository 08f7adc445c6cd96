// The further names of the one model, under which requests have a recipe of their own.

#ifndef SWAA_SERVER_GENERATE_SERVED_NAMES_H_
#define SWAA_SERVER_GENERATE_SERVED_NAMES_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/recipes/recipe_catalog.h"
#include "swaa/v1/config.pb.h"

namespace swaa::server {

struct ServedName {
  std::string name;
  std::string recipe;                    // a named one
  std::vector<std::string> authorities;  // in lower case
};

// Immutable; any thread.
class ServedNames {
 public:
  ServedNames() = default;
  // INVALID_ARGUMENT names the entry: a name that is none, is `model_name` or is there twice; an
  // authority that is none or is there twice.
  static absl::StatusOr<ServedNames> Create(const v1::ModelConfig& config,
                                            const std::string& model_name);

  // Null: no such name, or the model's own.
  const ServedName* Find(std::string_view name) const;
  // By a call's :authority, HOST or HOST:PORT; null: the model's own name. What names a host in
  // full goes before "*.SUFFIX", and of these the longest.
  const ServedName* OfAuthority(std::string_view authority) const;
  // NOT_FOUND for one whose recipe is not in the catalogue.
  absl::Status CheckRecipes(const RecipeCatalog& recipes) const;
  // "a, b"; empty: there are none.
  std::string Text() const;

 private:
  std::vector<ServedName> names_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_GENERATE_SERVED_NAMES_H_
