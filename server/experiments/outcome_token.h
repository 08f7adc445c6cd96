// What lets any replica record the outcome of a request that another one served.

#ifndef SWAA_SERVER_EXPERIMENTS_OUTCOME_TOKEN_H_
#define SWAA_SERVER_EXPERIMENTS_OUTCOME_TOKEN_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/experiments/experiment_data.h"
#include "server/experiments/experiment_key.h"

namespace swaa::server {

// A token is its version, the key's id, the scope, all big endian, and the first 16 bytes of an
// HMAC-SHA256 over these and the request's id. It can be read by everybody and made by nobody else.
inline constexpr size_t kOutcomeTokenBytes = 47;

// `scope.group` is in [0, kUnitGroups), `prompt_class` in [0, 128), `arm` in [0, 65536).
std::string MakeOutcomeToken(const ExperimentKey& key, std::string_view request_id,
                             const OutcomeScope& scope);

// What the token says, once it is known to be ours and of this request (in constant time).
// INVALID_ARGUMENT for one that is not, or that was made with another key; OUT_OF_RANGE where the
// request ended more than `window_ms` before `now_ms`.
absl::StatusOr<OutcomeScope> ReadOutcomeToken(const ExperimentKey& key, std::string_view request_id,
                                              std::string_view token, int64_t now_ms,
                                              int64_t window_ms);

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_OUTCOME_TOKEN_H_
