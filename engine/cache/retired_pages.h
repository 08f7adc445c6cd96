// Pages of requests that run no more, on their way back to the pool.

#ifndef SWAA_ENGINE_CACHE_RETIRED_PAGES_H_
#define SWAA_ENGINE_CACHE_RETIRED_PAGES_H_

#include <cstdint>
#include <vector>

#include "engine/cache/page_pool.h"
#include "engine/cache/sequence_pages.h"

namespace swaa {

// A request that ends or is preempted may be read by steps that are submitted already, and may hold
// so many pages that giving them back would hold a step up. Until they go back they stay held: no
// other use of the pool needs to know of steps. Not thread-safe: the engine thread's.
class RetiredPages {
 public:
  explicit RetiredPages(PagePool* pool) : pool_(pool) {}

  // Makes room for `sequences` more, so that Add takes no memory for them.
  void Reserve(size_t sequences);
  // Takes over `pages`, which steps up to `last_step` read.
  void Add(SequencePages pages, uint64_t last_step);
  // Every step up to `step` was collected.
  void Settle(uint64_t step) { settled_ = step; }
  // Gives back about `most` pages that no submitted step reads any more. Returns how many.
  int64_t Release(int64_t most);

  // Retired pages that are not back yet and that no other request holds.
  int64_t pages() const;
  bool empty() const { return retired_.empty(); }

 private:
  struct Retired {
    SequencePages pages;
    uint64_t last_step;
  };

  PagePool* const pool_;
  std::vector<Retired> retired_;
  uint64_t settled_ = 0;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_CACHE_RETIRED_PAGES_H_
