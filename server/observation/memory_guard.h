// Keeps a lack of memory to what it hits.

#ifndef SWAA_SERVER_OBSERVATION_MEMORY_GUARD_H_
#define SWAA_SERVER_OBSERVATION_MEMORY_GUARD_H_

#include <new>

#include "absl/strings/str_cat.h"
#include "server/observation/request_log.h"

namespace swaa::server {

// Does `work`; whether it was done. Where it throws bad_alloc the rest of it is left undone, which
// the log is told of as `what`, if there is memory for that. Thread-safe.
template <typename Work>
bool GuardMemory(const char* what, const Work& work) {
  try {
    work();
    return true;
  } catch (const std::bad_alloc&) {
  }
  try {
    LogWarning(absl::StrCat("out of memory: ", what, " is left undone"));
  } catch (const std::bad_alloc&) {
  }
  return false;
}

}  // namespace swaa::server

#endif  // SWAA_SERVER_OBSERVATION_MEMORY_GUARD_H_
