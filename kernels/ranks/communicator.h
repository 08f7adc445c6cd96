// What devices that compute a model together (tensor parallelism, arXiv 1909.08053) tell each
// other.

#ifndef SWAA_KERNELS_RANKS_COMMUNICATOR_H_
#define SWAA_KERNELS_RANKS_COMMUNICATOR_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/ranks/shard.h"
#include "kernels/types.h"

namespace swaa::kernels {

// Columns of a matrix that lie on many ranks, brought together on each.
struct GatherColumnsParams {
  float* mine = nullptr;  // [rows, ColumnsOf(shard, columns)]; room: rows * MostColumns
  float* all = nullptr;   // [rows, columns]
  int64_t rows = 0;
  int64_t columns = 0;
};

// One rank's end. All ranks make the same calls in the same order, each in the thread of its
// device; only Abort may be called from any thread. Calls may return before the work is done, in
// the device's order. Once a rank has given up, they throw a std::exception that says why, and work
// under way ends without a result.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual Shard shard() const = 0;
  // values[i] becomes the sum of all ranks' values[i]: the same bits on every rank.
  virtual void AllReduce(void* values, int64_t count, DataType type) = 0;
  virtual void GatherColumns(const GatherColumnsParams& params) = 0;
  // The least of all ranks' values; where some have an error instead, that of the first of them.
  // Waits on the host, and never throws.
  virtual absl::StatusOr<int64_t> Agree(absl::StatusOr<int64_t> mine) = 0;
  // This rank gives up, and with it all: nobody waits for it any more. The first reason counts.
  virtual void Abort(const absl::Status& why) = 0;
};

}  // namespace swaa::kernels

#endif  // SWAA_KERNELS_RANKS_COMMUNICATOR_H_
