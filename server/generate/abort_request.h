// Aborts a request in somebody's name.

#ifndef SWAA_SERVER_GENERATE_ABORT_REQUEST_H_
#define SWAA_SERVER_GENERATE_ABORT_REQUEST_H_

#include <string>

#include "server/access/caller.h"
#include "server/generate/serving_context.h"

namespace swaa::server {

// Whether there was one: in the engine, or waiting to be read. Another caller's request is as good
// as none, so that nobody learns which ids there are, unless `caller` administers. Any thread.
bool AbortRequest(ServingContext* serving, const Caller& caller, const std::string& id);

}  // namespace swaa::server

#endif  // SWAA_SERVER_GENERATE_ABORT_REQUEST_H_
