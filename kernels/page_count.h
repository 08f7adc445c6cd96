// How many pages positions fill.

#ifndef SWAA_KERNELS_PAGE_COUNT_H_
#define SWAA_KERNELS_PAGE_COUNT_H_

#include <cstdint>

#include "kernels/types.h"

namespace swaa::kernels {

// Pages of one layer that hold positions 0 .. positions - 1.
constexpr int64_t PageCount(int64_t positions) {
  return (positions + kPageTokens - 1) / kPageTokens;
}

}  // namespace swaa::kernels

#endif  // SWAA_KERNELS_PAGE_COUNT_H_
