// A part of a stored matrix.

#ifndef SWAA_ENGINE_MODEL_SLICED_ROWS_H_
#define SWAA_ENGINE_MODEL_SLICED_ROWS_H_

#include "engine/checkpoint/checkpoint.h"
#include "kernels/operators.h"

namespace swaa {

// Rows and columns of a matrix [whole rows, `columns`].
kernels::RowReader SlicedReader(kernels::RowReader read, int64_t columns,
                                const kernels::Slice& row_slice,
                                const kernels::Slice& column_slice);

// The same of a weight. As it is stored where the columns are all of it.
kernels::HostRows SlicedRows(const WeightView& view, const kernels::Slice& row_slice,
                             const kernels::Slice& column_slice);

}  // namespace swaa

#endif  // SWAA_ENGINE_MODEL_SLICED_ROWS_H_
