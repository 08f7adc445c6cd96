// The rows of a step by the adapter that they have.

#ifndef SWAA_KERNELS_ADAPTER_ROWS_H_
#define SWAA_KERNELS_ADAPTER_ROWS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/step.h"

namespace swaa::kernels {

struct AdapterRows {
  // rows[first .. first + count - 1]; at least one.
  struct Group {
    int32_t adapter = 0;
    int32_t first = 0;
    int32_t count = 0;
  };
  std::vector<int32_t> rows;  // those that have an adapter, by adapter, then in order
  std::vector<Group> groups;  // by adapter
};

// Of all rows of the step, and of the rows `wanted` of it, which are counted as they stand there.
// Reuses the memory of both.
void GroupRowsByAdapter(const StepInput& input, std::span<const int32_t> wanted, AdapterRows* all,
                        AdapterRows* of_wanted);

}  // namespace swaa::kernels

#endif  // SWAA_KERNELS_ADAPTER_ROWS_H_
