// Ranks that share the machine's memory: threads of one process.

#ifndef SWAA_KERNELS_RANKS_MEMORY_COMMUNICATOR_H_
#define SWAA_KERNELS_RANKS_MEMORY_COMMUNICATOR_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/ranks/communicator.h"

namespace swaa::kernels {

// The ends of `size` ranks, in order; each computes before it returns. Values are f32.
std::vector<std::unique_ptr<Communicator>> MakeMemoryCommunicators(int32_t size);

}  // namespace swaa::kernels

#endif  // SWAA_KERNELS_RANKS_MEMORY_COMMUNICATOR_H_
