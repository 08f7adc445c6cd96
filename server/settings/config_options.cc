// The server's options from its configuration, each checked under the name by which it
// was given.

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/generate/errors.h"
#include "server/observation/request_log.h"
#include "server/recipes/recipe_catalog.h"
#include "server/settings/config.h"
#include "server/settings/setting_table.h"
#include "server/settings/values.h"

namespace swaa::server {
namespace {

constexpr size_t kMostRecipes = 200;
constexpr size_t kMostRecipeNameBytes = 64;
constexpr size_t kMostDescriptionBytes = 1024;
constexpr int kMostEdges = 100;
constexpr char kDefaultRecipeKey[] = "default_recipe";
constexpr char kRecipesKey[] = "recipes";

// Checks settings, and names each as it was given.
class Checker {
 public:
  Checker(std::string file, const v1::ServerConfig& from_flags)
      : file_(std::move(file)), given_(KeysOf(from_flags)) {}

  absl::Status Bad(const std::string& key, const std::string& value,
                   const std::string& advice) const {
    return absl::InvalidArgumentError(absl::StrCat(NameOf(key), ": ", value, " ", advice));
  }

  // Rising from above zero, not too many.
  absl::Status CheckEdges(const std::string& key,
                          const google::protobuf::RepeatedField<double>& edges) const {
    if (edges.size() > kMostEdges) {
      return Bad(key, absl::StrCat(edges.size()), absl::StrCat("edges; at most ", kMostEdges));
    }
    for (int i = 0; i < edges.size(); ++i) {
      if (edges[i] > (i == 0 ? 0 : edges[i - 1])) continue;
      return Bad(absl::StrCat(key, "[", i, "]"), absl::StrCat(edges[i]),
                 absl::StrCat("is not above ", i == 0 ? 0 : edges[i - 1], "; edges rise from 0"));
    }
    return absl::OkStatus();
  }

  std::string NameOf(const std::string& key) const {
    if (!given_.contains(key)) return absl::StrCat(file_, file_.empty() ? "" : ": ", key);
    return absl::StrCat("--", FlagOfKey(key));
  }

 private:
  const std::string file_;
  const std::set<std::string> given_;  // keys that flags set
};

absl::Status CheckModel(const v1::ModelConfig& model, const std::string& config_path) {
  if (!model.path().empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--model: names no model; give a GGUF file or a Hugging Face folder",
                   config_path.empty() ? "" : ", or set model.path in the file"));
}

absl::Status CheckRetry(const Checker& check, const v1::RetryConfig& retry) {
  const absl::Duration least = ToDuration(retry.min_pushback());
  const absl::Duration most = ToDuration(retry.max_pushback());
  if (least <= most) return absl::OkStatus();
  return check.Bad(
      "retry.min_pushback", absl::FormatDuration(least),
      absl::StrCat("is above retry.max_pushback, ", absl::FormatDuration(most), "; lower it"));
}

absl::Status CheckMetrics(const Checker& check, const v1::MetricsConfig& metrics) {
  SWAA_RETURN_IF_ERROR(check.CheckEdges("metrics.seconds_edges", metrics.seconds_edges()));
  SWAA_RETURN_IF_ERROR(check.CheckEdges("metrics.ratio_edges", metrics.ratio_edges()));
  return check.CheckEdges("metrics.batch_tokens_edges", metrics.batch_tokens_edges());
}

// The built-in recipes and the file's.
absl::Status TakeRecipes(const Checker& check, ServerOptions* out) {
  const v1::ServerConfig& config = out->config;
  if (static_cast<size_t>(config.recipes_size()) > kMostRecipes) {
    return check.Bad(kRecipesKey, absl::StrCat(config.recipes_size()),
                     absl::StrCat("recipes; at most ", kMostRecipes));
  }
  out->recipes = BuiltInRecipes();
  std::set<std::string> names;
  for (int i = 0; i < config.recipes_size(); ++i) {
    const v1::NamedRecipe& named = config.recipes(i);
    const std::string key = absl::StrCat(kRecipesKey, "[", i, "].name");
    const std::string& name = named.name();
    const bool plain = name.find_first_not_of(
                           "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                           "0123456789_.-") == std::string::npos;
    if (name.empty() || name.size() > kMostRecipeNameBytes || !plain) {
      return check.Bad(key, Quoted(name),
                       absl::StrCat("is no name; take 1 to ", kMostRecipeNameBytes,
                                    " letters, digits, '_', '-' or '.'"));
    }
    if (name == kCustomRecipeLabel || name == kNoRecipeLabel) {
      return check.Bad(key, Quoted(name), "has a meaning of its own in metrics; take another");
    }
    if (!names.insert(name).second) {
      return check.Bad(key, Quoted(name), "is there twice; names differ");
    }
    if (named.description().size() > kMostDescriptionBytes) {
      return check.Bad(absl::StrCat(kRecipesKey, "[", i, "].description"),
                       absl::StrCat(named.description().size()),
                       absl::StrCat("bytes; at most ", kMostDescriptionBytes));
    }
    SWAA_ASSIGN_OR_RETURN(RecipeSpec spec,
                          RecipeSpecFromProto(named.recipe(), absl::StrCat("recipes[", name, "]")));
    auto place = std::find_if(out->recipes.begin(), out->recipes.end(),
                              [&](const NamedRecipeSpec& known) { return known.name == name; });
    if (place == out->recipes.end()) place = out->recipes.emplace(place);
    *place = {name, std::move(spec), named.description()};
  }
  for (const NamedRecipeSpec& named : out->recipes) {
    if (named.name == config.default_recipe()) return absl::OkStatus();
  }
  std::vector<std::string> known;
  std::string list;
  for (const NamedRecipeSpec& named : out->recipes) {
    known.push_back(named.name);
    absl::StrAppend(&list, list.empty() ? "" : ", ", named.name);
  }
  const std::string nearest = NearestWord(config.default_recipe(), known);
  return check.Bad(kDefaultRecipeKey, Quoted(config.default_recipe()),
                   absl::StrCat("is no recipe; ",
                                nearest.empty() ? "" : absl::StrCat("did you mean ", nearest, "? "),
                                nearest.empty() ? "there are " : "There are ", list));
}

}  // namespace

absl::Duration ToDuration(const google::protobuf::Duration& proto) {
  return absl::Seconds(proto.seconds()) + absl::Nanoseconds(proto.nanos());
}

absl::StatusOr<ServerOptions> MakeServerOptions(const std::string& config_path,
                                                const v1::ServerConfig& from_file,
                                                const v1::ServerConfig& from_flags) {
  ServerOptions options{.config = from_file,
                        .config_path = config_path,
                        .from_file = from_file,
                        .from_flags = from_flags};
  OverrideConfig(from_flags, &options.config);
  FillDefaults(&options.config);
  const Checker check(config_path, from_flags);
  SWAA_RETURN_IF_ERROR(CheckModel(options.config.model(), config_path));
  SWAA_RETURN_IF_ERROR(CheckSettings(
      options.config, [&check](const std::string& key) { return check.NameOf(key); }));
  SWAA_RETURN_IF_ERROR(CheckRetry(check, options.config.retry()));
  SWAA_RETURN_IF_ERROR(CheckMetrics(check, options.config.metrics()));
  SWAA_RETURN_IF_ERROR(TakeRecipes(check, &options));
  return options;
}

}  // namespace swaa::server
