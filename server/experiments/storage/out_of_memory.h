// Memory that runs out while something is stored is an error of that, not the server's end.

#ifndef SWAA_SERVER_EXPERIMENTS_STORAGE_OUT_OF_MEMORY_H_
#define SWAA_SERVER_EXPERIMENTS_STORAGE_OUT_OF_MEMORY_H_

#include <new>

#include "absl/status/status.h"

namespace swaa::server {

// Runs it; RESOURCE_EXHAUSTED where it lacked memory.
template <typename Work>
absl::Status CatchOutOfMemory(const Work& work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("no memory is left to store it; try again later");
  }
}

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_STORAGE_OUT_OF_MEMORY_H_
