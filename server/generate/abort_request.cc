// Aborts a request in somebody's name.

#include "server/generate/abort_request.h"

namespace swaa::server {

bool AbortRequest(ServingContext* serving, const Caller& caller, const std::string& id) {
  const bool any = caller.HasAny(kAdminister);
  if ((any || serving->owners.Owns(caller.name, id)) && serving->engine->Abort(id)) return true;
  return serving->pending.Abort(id, any ? nullptr : &caller.name) > 0;
}

}  // namespace swaa::server
