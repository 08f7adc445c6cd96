// The flags of `swaa serve`.

#ifndef SWAA_SERVER_SETTINGS_FLAGS_H_
#define SWAA_SERVER_SETTINGS_FLAGS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/settings/options.h"

namespace swaa::server {

// Their names, as flags.cc declares them, in the order in which help lists them.
const std::vector<std::string>& ServeFlagNames();

// The options that the parsed flags and the file that --config names stand for. INVALID_ARGUMENT
// names the flag or the file's line and key, the value and what would be right; NOT_FOUND: no such
// file.
absl::StatusOr<ServerOptions> ServerOptionsFromFlags();

}  // namespace swaa::server

#endif  // SWAA_SERVER_SETTINGS_FLAGS_H_
