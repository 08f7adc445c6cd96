// The configuration file, read again while requests run.

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "server/lifecycle/server.h"
#include "server/settings/config.h"

namespace swaa::server {

void Server::WatchConfig() {
  if (options_.config_path.empty()) return;
  config_watcher_ = std::make_unique<FileWatcher>(options_.config_path, [this](bool triggered) {
    LogInfo(absl::StrCat(triggered ? "SIGHUP" : "file changed", ": reading ", options_.config_path,
                         " again"));
    const absl::Status status = TryReload();
    metrics_->OnConfigReload(status.ok());
    if (!status.ok()) {
      LogError(absl::StrCat("the configuration stays as it was: ", std::string(status.message())));
    }
  });
}

void Server::Reload() {
  for (const auto& watcher : secret_watchers_) watcher->Trigger();
  if (config_watcher_ != nullptr) {
    config_watcher_->Trigger();
  } else if (secret_watchers_.empty()) {
    LogInfo("SIGHUP: there is no configuration to read again; --config names one");
  }
}

absl::Status Server::TryReload() {
  SWAA_ASSIGN_OR_RETURN(v1::ServerConfig file, ReadConfigFile(options_.config_path,
                                                              /*may_be_blank=*/false));
  SWAA_ASSIGN_OR_RETURN(ServerOptions options,
                        MakeServerOptions(options_.config_path, file, options_.from_flags));
  SWAA_ASSIGN_OR_RETURN(RecipeCatalog recipes, MakeRecipes(options));
  SWAA_ASSIGN_OR_RETURN(ExperimentSet experiments, MakeExperiments(options, recipes));
  // Series first: no request may end under a name that has none.
  metrics_->SetRecipes(recipes);
  const std::string names = recipes.Names();
  const std::string default_name = recipes.default_recipe().name;
  // An experiment has recipes of its own: should the storage not take the new ones, the old go on.
  serving_.recipes.Set(std::move(recipes));
  SWAA_RETURN_IF_ERROR(experiments_->Adopt(std::move(experiments)));
  shadows_->SetOptions(ShadowOptions(options.config));
  LogInfo(absl::StrCat("recipes are now ", names, "; the default is ", default_name));
  const std::vector<std::string> fixed = ChangedFixedSettings(options_.from_file, file);
  if (!fixed.empty()) {
    LogWarning(absl::StrCat(
        "changed in ", options_.config_path,
        " and ignored until the server is started again: ", absl::StrJoin(fixed, ", ")));
  }
  return absl::OkStatus();
}

}  // namespace swaa::server
