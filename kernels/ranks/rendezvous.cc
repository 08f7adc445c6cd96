// Where the threads of several ranks of one process meet.

#include "kernels/ranks/rendezvous.h"

#include <algorithm>

#include "base/check.h"
#include "base/status_macros.h"

namespace swaa::kernels {

Rendezvous::Rendezvous(int32_t size) : size_(size), brought_(size) {}

bool Rendezvous::Arrive() {
  if (++arrived_ < size_) return false;
  arrived_ = 0;
  ++times_;
  complete_.notify_all();
  return true;
}

absl::StatusOr<std::span<const void* const>> Rendezvous::Meet(int32_t rank, const void* brought) {
  std::unique_lock lock(mutex_);
  if (!status_.ok()) return status_;
  const uint64_t times = times_;
  brought_[rank] = brought;
  if (!Arrive()) {
    complete_.wait(lock, [&] { return times_ != times || !status_.ok(); });
    // Either all of them have met, or none.
    if (times_ == times) return status_;
  }
  return std::span<const void* const>(brought_);
}

void Rendezvous::Part() {
  std::unique_lock lock(mutex_);
  const uint64_t times = times_;
  if (!Arrive()) {
    complete_.wait(lock, [&] { return times_ != times; });
  }
}

absl::StatusOr<int64_t> Rendezvous::Agree(int32_t rank, absl::StatusOr<int64_t> mine) {
  absl::StatusOr<int64_t> agreed = mine;
  SWAA_ASSIGN_OR_RETURN(const auto all, Meet(rank, &mine));
  for (const void* brought : all) {
    const auto& other = *static_cast<const absl::StatusOr<int64_t>*>(brought);
    if (!other.ok()) {
      agreed = other;
      break;
    }
    if (agreed.ok()) agreed = std::min(*agreed, *other);
  }
  Part();
  return agreed;
}

void Rendezvous::Abort(const absl::Status& why) {
  SWAA_CHECK(!why.ok());
  std::lock_guard lock(mutex_);
  if (!status_.ok()) return;
  status_ = why;
  complete_.notify_all();
}

absl::Status Rendezvous::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

}  // namespace swaa::kernels
