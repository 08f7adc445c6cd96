// A part of a stored matrix.

#include "engine/model/sliced_rows.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace swaa {

kernels::RowReader SlicedReader(kernels::RowReader read, int64_t columns,
                                const kernels::Slice& row_slice,
                                const kernels::Slice& column_slice) {
  if (column_slice.count == columns) {
    return
        [read = std::move(read), first = row_slice.first](
            int64_t first_row, int64_t count, float* out) { read(first + first_row, count, out); };
  }
  return [read = std::move(read), columns, first = row_slice.first, column_slice](
             int64_t first_row, int64_t count, float* out) {
    std::vector<float> row(columns);
    for (int64_t r = 0; r < count; ++r, out += column_slice.count) {
      read(first + first_row + r, 1, row.data());
      std::copy_n(row.begin() + column_slice.first, column_slice.count, out);
    }
  };
}

kernels::HostRows SlicedRows(const WeightView& view, const kernels::Slice& row_slice,
                             const kernels::Slice& column_slice) {
  kernels::HostRows rows{
      .count = row_slice.count,
      .read = SlicedReader(view.read_rows, view.columns, row_slice, column_slice)};
  if (column_slice.count == view.columns && view.stored_bf16() != nullptr) {
    rows.bf16 = view.stored_bf16() + 2 * row_slice.first * view.columns;
  }
  return rows;
}

}  // namespace swaa
