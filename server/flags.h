// Server room: the flags of `swaa serve`.

#ifndef SWAA_SERVER_FLAGS_H_
#define SWAA_SERVER_FLAGS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/options.h"

namespace swaa::server {

// Their names, as flags.cc declares them, in the order in which help lists them.
const std::vector<std::string>& ServeFlagNames();

// --threads, wanted before anything else happens.
int ThreadsFlag();

// Sets up logging as the flags say. INVALID_ARGUMENT names the flag at fault.
absl::Status ConfigureLoggingFromFlags();

// The options that the parsed flags stand for. INVALID_ARGUMENT names the flag, its value and what
// would be right.
absl::StatusOr<ServerOptions> ServerOptionsFromFlags();

}  // namespace swaa::server

#endif  // SWAA_SERVER_FLAGS_H_
