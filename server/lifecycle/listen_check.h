// Whether an address can be listened on, asked before the model is loaded.

#ifndef SWAA_SERVER_LIFECYCLE_LISTEN_CHECK_H_
#define SWAA_SERVER_LIFECYCLE_LISTEN_CHECK_H_

#include <string>

#include "absl/status/status.h"

namespace swaa::server {

// Listens on HOST:PORT for a moment. UNAVAILABLE names `flag`, the address and the reason.
absl::Status CheckCanListen(const std::string& flag, const std::string& address);

}  // namespace swaa::server

#endif  // SWAA_SERVER_LIFECYCLE_LISTEN_CHECK_H_
