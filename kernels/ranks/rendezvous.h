// Where the threads of several ranks of one process meet.

#ifndef SWAA_KERNELS_RANKS_RENDEZVOUS_H_
#define SWAA_KERNELS_RANKS_RENDEZVOUS_H_

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace swaa::kernels {

// Thread-safe; one thread a rank.
class Rendezvous {
 public:
  explicit Rendezvous(int32_t size);

  int32_t size() const { return size_; }
  // Waits until every rank has come; [size]: what each brought, which may be read and written until
  // this rank's Part, which must follow. The error of Abort if that came before the last rank.
  absl::StatusOr<std::span<const void* const>> Meet(int32_t rank, const void* brought);
  // Waits until every rank of the last Meet has done with what was brought there, whatever happens.
  void Part();
  // As Communicator::Agree.
  absl::StatusOr<int64_t> Agree(int32_t rank, absl::StatusOr<int64_t> mine);
  // All who wait, and whoever comes later, get this error. The first call counts.
  void Abort(const absl::Status& why);
  // OK until Abort.
  absl::Status status() const;

 private:
  // Counts the caller in; true for the last one, which lets the others go on.
  bool Arrive();

  const int32_t size_;
  mutable std::mutex mutex_;
  std::condition_variable complete_;
  // Guarded by mutex_:
  std::vector<const void*> brought_;
  int32_t arrived_ = 0;
  uint64_t times_ = 0;  // that all were there
  absl::Status status_;
};

}  // namespace swaa::kernels

#endif  // SWAA_KERNELS_RANKS_RENDEZVOUS_H_
