// The pool of pages: who holds which. The bytes themselves are the device's.

#ifndef SWAA_ENGINE_CACHE_PAGE_POOL_H_
#define SWAA_ENGINE_CACHE_PAGE_POOL_H_

#include <cstdint>
#include <vector>

namespace swaa {

// Pages 1 .. num_pages - 1; page 0 is the reserved zero page and is never given out. Not
// thread-safe: the engine thread's. A page released twice, or never taken, is a broken invariant
// and aborts.
class PagePool {
 public:
  // num_pages counts the zero page.
  explicit PagePool(int32_t num_pages);

  // CHECKs that one is free.
  int32_t Take();
  void Release(int32_t page);

  int64_t free_pages() const { return static_cast<int64_t>(free_.size()); }
  int64_t total_pages() const { return static_cast<int64_t>(taken_.size()) - 1; }
  int64_t used_pages() const { return total_pages() - free_pages(); }

 private:
  std::vector<int32_t> free_;  // the most recently released last: its bytes are the warmest
  std::vector<bool> taken_;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_CACHE_PAGE_POOL_H_
