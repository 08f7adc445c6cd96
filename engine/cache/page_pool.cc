// The pool of pages.

#include "engine/cache/page_pool.h"

#include "base/check.h"

namespace swaa {

PagePool::PagePool(int32_t num_pages) : taken_(num_pages) {
  SWAA_CHECK_GE(num_pages, 1) << "the zero page is one of the pool's";
  free_.reserve(num_pages - 1);
  for (int32_t page = num_pages - 1; page >= 1; --page) free_.push_back(page);
}

int32_t PagePool::Take() {
  SWAA_CHECK(!free_.empty()) << "no page is free; the plan must not ask for more than there are";
  const int32_t page = free_.back();
  free_.pop_back();
  taken_[page] = true;
  return page;
}

void PagePool::Release(int32_t page) {
  SWAA_CHECK(page > 0 && page < static_cast<int32_t>(taken_.size())) << "page " << page;
  SWAA_CHECK(taken_[page]) << "page " << page << " released twice";
  taken_[page] = false;
  free_.push_back(page);
}

}  // namespace swaa
