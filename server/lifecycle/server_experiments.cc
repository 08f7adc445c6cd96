// A server's experiments and shadows, from its options.

#include <optional>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "server/generate/errors.h"
#include "server/lifecycle/server.h"
#include "server/settings/config.h"

namespace swaa::server {
namespace {

Experiments::Options ExperimentsOptions(const v1::ServerConfig& config) {
  const v1::ExperimentStorageConfig& storage = config.experiment_storage();
  const v1::ExperimentGuardrailConfig& guardrail = config.experiment_guardrail();
  Experiments::Options options{.path = storage.path(),
                               .key_file = storage.key_file(),
                               .exposure_log = storage.exposure_log(),
                               .outcome_window = ToDuration(storage.outcome_window()),
                               .check_interval = ToDuration(guardrail.check_interval())};
  const absl::Duration limit = ToDuration(guardrail.max_time_to_first_token_p95());
  if (limit > absl::ZeroDuration()) options.max_time_to_first_token_p95 = limit;
  return options;
}

using MakeSet = absl::FunctionRef<absl::StatusOr<ExperimentSet>(
    const google::protobuf::RepeatedPtrField<v1::Experiment>&, const RecipeView&)>;

// What `make` makes of the options' experiments and these recipes; its errors name the file.
absl::StatusOr<ExperimentSet> ConfiguredExperiments(const ServerOptions& options,
                                                    const RecipeCatalog& recipes, MakeSet make) {
  const auto in_file = [&](const absl::Status& status) {
    if (options.config_path.empty()) return status;
    return absl::Status(status.code(),
                        absl::StrCat(options.config_path, ": ", std::string(status.message())));
  };
  const std::string& baseline = options.config.shadow().baseline_recipe();
  if (recipes.Find(baseline) == nullptr) {
    return in_file(absl::InvalidArgumentError(
        absl::StrCat("shadow.baseline_recipe: there is no recipe ", Quoted(baseline),
                     "; there are ", recipes.Names())));
  }
  const RecipeView view{[&recipes](const std::string& name) -> std::optional<ArmRecipe> {
                          const NamedRecipe* named = recipes.Find(name);
                          if (named == nullptr) return std::nullopt;
                          return ArmRecipe{named->recipe, named->thinking_mode, named->lora_name};
                        },
                        recipes.Names()};
  absl::StatusOr<ExperimentSet> set = make(options.config.experiments(), view);
  if (!set.ok()) return in_file(set.status());
  return set;
}

}  // namespace

Shadows::Options ShadowOptions(const v1::ServerConfig& config) {
  return {.share = config.shadow().share(),
          .baseline_recipe = config.shadow().baseline_recipe(),
          .max_waiting = config.shadow().max_waiting()};
}

absl::StatusOr<ExperimentSet> Server::MakeExperiments(const ServerOptions& options,
                                                      const RecipeCatalog& recipes) const {
  return ConfiguredExperiments(options, recipes, [this](const auto& experiments, const auto& view) {
    return experiments_->Check(experiments, view);
  });
}

absl::Status CheckExperiments(const ServerOptions& options, const RecipeCatalog& recipes) {
  return ConfiguredExperiments(options, recipes,
                               [](const auto& experiments, const auto& view) {
                                 return ExperimentSet::Create(experiments, view,
                                                              absl::ToUnixMillis(absl::Now()));
                               })
      .status();
}

absl::Status Server::StartExperiments() {
  SWAA_ASSIGN_OR_RETURN(experiments_, Experiments::Create(ExperimentsOptions(options_.config)));
  serving_.experiments = experiments_.get();
  SWAA_ASSIGN_OR_RETURN(ExperimentSet set, MakeExperiments(options_, *serving_.recipes.Get()));
  if (!set.experiments().empty() && options_.config.experiment_storage().path().empty()) {
    LogWarning(
        "experiments are kept in memory and are gone when the server ends; set "
        "experiment_storage.path");
  }
  return experiments_->Adopt(std::move(set));
}

}  // namespace swaa::server
