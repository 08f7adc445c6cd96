// Matrices of the host that are made of parts.

#include "kernels/host_rows.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace swaa::kernels {

RowReader Concatenate(std::span<const HostRows> parts, int64_t columns) {
  return [parts = std::vector<HostRows>(parts.begin(), parts.end()), columns](
             int64_t first_row, int64_t count, float* out) {
    for (const HostRows& part : parts) {
      if (count == 0) return;
      if (first_row < part.count) {
        const int64_t here = std::min(count, part.count - first_row);
        part.read(first_row, here, out);
        out += here * columns;
        count -= here;
        first_row = 0;
      } else {
        first_row -= part.count;
      }
    }
  };
}

}  // namespace swaa::kernels
