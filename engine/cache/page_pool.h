// The pool of pages: who holds which, and which ones only the prefix cache remembers. The bytes
// themselves are the device's.

#ifndef SWAA_ENGINE_CACHE_PAGE_POOL_H_
#define SWAA_ENGINE_CACHE_PAGE_POOL_H_

#include <cstdint>
#include <functional>
#include <vector>

namespace swaa {

// Pages 1 .. num_pages - 1; page 0 is the reserved zero page and is never given out. A page is
//   free        nobody knows it;
//   held        by one or more holders (references), each at most once;
//   evictable   by none, but registered: its contents may be of use until the page is needed.
// A page is given back only when no submitted step reads it: RetiredPages sees to that. Not
// thread-safe: the engine thread's. A page released too often, or never taken, is a broken
// invariant and aborts. All is O(1).
class PagePool {
 public:
  // Who holds pages: a request, from when it takes its first page until its last one is back.
  using Holder = int32_t;

  // num_pages counts the zero page. `on_evict` is told of every registered page that Take gives a
  // new use, `on_held` of every registered one that gets its first holder or loses its last. They
  // must not call the pool.
  explicit PagePool(int32_t num_pages, std::function<void(int32_t page)> on_evict = {},
                    std::function<void(int32_t page, bool held)> on_held = {});

  Holder AddHolder();
  // `holder` holds nothing any more; its number may be given to another.
  void RemoveHolder(Holder holder);

  // A page that `holder` alone holds: a free one, else the evictable one that was released longest
  // ago. CHECKs that there is one.
  int32_t Take(Holder holder);
  // One more holder of a held or evictable page.
  void Share(int32_t page, Holder holder);
  // One holder less. Without any, a registered page becomes evictable and another one free.
  void Release(int32_t page, Holder holder);

  // Remembers a held page when it is released for the last time.
  void Register(int32_t page);
  bool registered(int32_t page) const { return pages_[page].registered; }
  int32_t references(int32_t page) const { return pages_[page].references; }

  // Pages that nobody else holds: what giving back all of `holder`'s would free.
  int64_t exclusive(Holder holder) const { return exclusive_[holder]; }
  int64_t total_pages() const { return static_cast<int64_t>(pages_.size()) - 1; }
  int64_t evictable_pages() const { return evictable_; }
  // Free and evictable: what Take can give.
  int64_t available_pages() const { return static_cast<int64_t>(free_.size()) + evictable_; }
  // Held by someone.
  int64_t used_pages() const { return total_pages() - available_pages(); }

 private:
  struct Page {
    int32_t references = 0;
    // Exclusive or of its holders: with one reference it is the holder.
    Holder holders = 0;
    bool registered = false;
    // Neighbours among the evictable pages; page 0 is the list's end on both sides.
    int32_t before = 0;
    int32_t after = 0;
  };

  void Link(int32_t page);
  void Unlink(int32_t page);
  void CheckPage(int32_t page) const;

  std::vector<Page> pages_;
  std::vector<int32_t> free_;  // the most recently released last: its bytes are the warmest
  int64_t evictable_ = 0;
  std::vector<int64_t> exclusive_;  // [holder]
  std::vector<Holder> free_holders_;
  std::function<void(int32_t)> on_evict_;
  std::function<void(int32_t, bool)> on_held_;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_CACHE_PAGE_POOL_H_
