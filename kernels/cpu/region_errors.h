// Exceptions out of parallel regions: one that leaves a region's thread would end the process.

#ifndef SWAA_KERNELS_CPU_REGION_ERRORS_H_
#define SWAA_KERNELS_CPU_REGION_ERRORS_H_

#include <atomic>
#include <exception>

namespace swaa::kernels::cpu {

// Whatever may allocate inside a region runs in Run; Rethrow follows the region. A barrier stands
// between two Runs and never in one, as a thread that failed would not come to it.
class RegionErrors {
 public:
  // Calls work() and keeps what it throws, of all threads the first. From any thread of the region.
  template <typename Work>
  void Run(const Work& work) noexcept {
    try {
      work();
    } catch (...) {
      if (!taken_.exchange(true)) first_ = std::current_exception();
    }
  }

  // Throws what was kept. After the region, in the thread that entered it.
  void Rethrow() const {
    if (first_ != nullptr) std::rethrow_exception(first_);
  }

 private:
  std::atomic<bool> taken_ = false;
  std::exception_ptr first_;
};

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_REGION_ERRORS_H_
