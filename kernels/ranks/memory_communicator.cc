// Ranks that share the machine's memory.

#include "kernels/ranks/memory_communicator.h"

#include <algorithm>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/check.h"
#include "kernels/ranks/rendezvous.h"

namespace swaa::kernels {
namespace {

class MemoryCommunicator : public Communicator {
 public:
  MemoryCommunicator(std::shared_ptr<Rendezvous> rendezvous, int32_t rank)
      : rendezvous_(std::move(rendezvous)), shard_{rank, rendezvous_->size()} {}

  Shard shard() const override { return shard_; }

  // Each rank adds up its share of the values, in the order of ranks, and writes the sums to all.
  void AllReduce(void* values, int64_t count, DataType type) override {
    SWAA_CHECK(type == DataType::kF32) << "type " << static_cast<int>(type);
    const std::span<const void* const> all = Meet(values);
    const int64_t end = count * (shard_.rank + 1) / shard_.size;
    for (int64_t i = count * shard_.rank / shard_.size; i < end; ++i) {
      float sum = 0;
      for (const void* other : all) sum += static_cast<const float*>(other)[i];
      for (const void* other : all) static_cast<float*>(const_cast<void*>(other))[i] = sum;
    }
    rendezvous_->Part();
  }

  void GatherColumns(const GatherColumnsParams& p) override {
    const std::span<const void* const> all = Meet(p.mine);
    for (int32_t rank = 0; rank < shard_.size; ++rank) {
      const Slice slice = ColumnsOf({rank, shard_.size}, p.columns);
      const auto* from = static_cast<const float*>(all[rank]);
      for (int64_t row = 0; row < p.rows; ++row) {
        std::copy_n(from + row * slice.count, slice.count, p.all + row * p.columns + slice.first);
      }
    }
    rendezvous_->Part();
  }

  absl::StatusOr<int64_t> Agree(absl::StatusOr<int64_t> mine) override {
    return rendezvous_->Agree(shard_.rank, std::move(mine));
  }
  void Abort(const absl::Status& why) override { rendezvous_->Abort(why); }

 private:
  std::span<const void* const> Meet(const void* brought) {
    const auto all = rendezvous_->Meet(shard_.rank, brought);
    if (!all.ok()) throw std::runtime_error(std::string(all.status().message()));
    return *all;
  }

  const std::shared_ptr<Rendezvous> rendezvous_;
  const Shard shard_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> MakeMemoryCommunicators(int32_t size) {
  const auto rendezvous = std::make_shared<Rendezvous>(size);
  std::vector<std::unique_ptr<Communicator>> ranks;
  ranks.reserve(size);
  for (int32_t rank = 0; rank < size; ++rank) {
    ranks.push_back(std::make_unique<MemoryCommunicator>(rendezvous, rank));
  }
  return ranks;
}

}  // namespace swaa::kernels
