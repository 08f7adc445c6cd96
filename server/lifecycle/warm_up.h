// The first request, which the server sends to itself before it says that it is ready.

#ifndef SWAA_SERVER_LIFECYCLE_WARM_UP_H_
#define SWAA_SERVER_LIFECYCLE_WARM_UP_H_

#include "absl/status/status.h"
#include "engine/engine.h"
#include "engine/recipe/recipe.h"

namespace swaa::server {

// Generates a token and waits for it. An error is why no request would be answered.
absl::Status WarmUp(Engine* engine, const Recipe& recipe);

}  // namespace swaa::server

#endif  // SWAA_SERVER_LIFECYCLE_WARM_UP_H_
