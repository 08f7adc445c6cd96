// From the configuration file and the flags to the server's options.

#ifndef SWAA_SERVER_SETTINGS_CONFIG_H_
#define SWAA_SERVER_SETTINGS_CONFIG_H_

#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/recipe/recipe.h"
#include "server/settings/options.h"
#include "swaa/v1/config.pb.h"

namespace swaa::server {

// Reads the YAML file, which is a regular one. NOT_FOUND if there is none, INVALID_ARGUMENT as
// ReadYamlMessage has it. `may_be_blank` false: a file with nothing but blanks and comments in it
// is INVALID_ARGUMENT too; it is more likely cut off than meant.
absl::StatusOr<v1::ServerConfig> ReadConfigFile(const std::string& path, bool may_be_blank = true);

// The options that a file's settings with those of the flags over them stand for.
// INVALID_ARGUMENT names the flag or the key at fault, its value and what would be right. What only
// the model can judge (a recipe's layers) is not looked at. Leaves port_file alone.
absl::StatusOr<ServerOptions> MakeServerOptions(const std::string& config_path,
                                                const v1::ServerConfig& from_file,
                                                const v1::ServerConfig& from_flags);

absl::Duration ToDuration(const google::protobuf::Duration& proto);

// The keys that are set: "scheduling.max_batch_tokens", "recipes".
std::set<std::string> KeysOf(const v1::ServerConfig& config);

// Takes over every setting that `from` has, whole: a duration's seconds and nanoseconds go
// together.
void OverrideConfig(const v1::ServerConfig& from, v1::ServerConfig* to);

// The keys in which two files differ and which take effect at a start only.
std::vector<std::string> ChangedFixedSettings(const v1::ServerConfig& before,
                                              const v1::ServerConfig& now);

}  // namespace swaa::server

#endif  // SWAA_SERVER_SETTINGS_CONFIG_H_
