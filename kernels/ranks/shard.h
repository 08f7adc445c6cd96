// Which part of a model one of several devices computes.

#ifndef SWAA_KERNELS_RANKS_SHARD_H_
#define SWAA_KERNELS_RANKS_SHARD_H_

#include <algorithm>
#include <cstdint>

namespace swaa::kernels {

// Rank `rank` of `size` devices that compute a model together.
struct Shard {
  int32_t rank = 0;
  int32_t size = 1;
};

// Items first .. first + count - 1.
struct Slice {
  int64_t first = 0;
  int64_t count = 0;
};

// Products want their sizes so.
inline constexpr int64_t kSliceMultiple = 8;

// The most columns that a rank computes where `columns` are shared out among `size` ranks.
inline int64_t MostColumns(int64_t columns, int32_t size) {
  if (size == 1) return columns;
  const int64_t fair = (columns + size - 1) / size;
  return (fair + kSliceMultiple - 1) / kSliceMultiple * kSliceMultiple;
}

// A rank's columns of so many: MostColumns each, the last ones fewer.
inline Slice ColumnsOf(const Shard& shard, int64_t columns) {
  const int64_t most = MostColumns(columns, shard.size);
  const int64_t first = std::min(columns, shard.rank * most);
  return {first, std::min(most, columns - first)};
}

}  // namespace swaa::kernels

#endif  // SWAA_KERNELS_RANKS_SHARD_H_
