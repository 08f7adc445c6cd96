// Matrices of the host that are made of parts.

#ifndef SWAA_KERNELS_HOST_ROWS_H_
#define SWAA_KERNELS_HOST_ROWS_H_

#include <cstdint>
#include <span>

#include "kernels/operators.h"

namespace swaa::kernels {

// Rows of all parts, one part under the other, of `columns` columns each. Copies the parts.
RowReader Concatenate(std::span<const HostRows> parts, int64_t columns);

}  // namespace swaa::kernels

#endif  // SWAA_KERNELS_HOST_ROWS_H_
