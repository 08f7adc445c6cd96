// The pool of pages.

#include "engine/cache/page_pool.h"

#include <utility>

#include "base/check.h"

namespace swaa {

PagePool::PagePool(int32_t num_pages, std::function<void(int32_t)> on_evict)
    : pages_(num_pages), on_evict_(std::move(on_evict)) {
  SWAA_CHECK_GE(num_pages, 1) << "the zero page is one of the pool's";
  free_.reserve(num_pages - 1);
  for (int32_t page = num_pages - 1; page >= 1; --page) free_.push_back(page);
}

int32_t PagePool::Take() {
  SWAA_CHECK_GT(available_pages(), 0) << "the plan must not ask for more pages than there are";
  int32_t page;
  if (!free_.empty()) {
    page = free_.back();
    free_.pop_back();
  } else {
    page = pages_[0].after;
    Unlink(page);
    pages_[page].registered = false;
    if (on_evict_) on_evict_(page);
  }
  pages_[page].references = 1;
  return page;
}

void PagePool::Share(int32_t page) {
  CheckPage(page);
  if (pages_[page].references == 0) {
    SWAA_CHECK(pages_[page].registered) << "page " << page << " is free and has nothing to share";
    Unlink(page);
  }
  ++pages_[page].references;
}

void PagePool::Release(int32_t page) {
  CheckPage(page);
  SWAA_CHECK_GT(pages_[page].references, 0) << "page " << page << " released too often";
  if (--pages_[page].references > 0) return;
  if (pages_[page].registered) {
    Link(page);
  } else {
    free_.push_back(page);
  }
}

void PagePool::Register(int32_t page) {
  CheckPage(page);
  SWAA_CHECK_GT(pages_[page].references, 0) << "page " << page << " is nobody's";
  SWAA_CHECK(!pages_[page].registered) << "page " << page << " registered twice";
  pages_[page].registered = true;
}

// Puts a page at the end that is evicted last.
void PagePool::Link(int32_t page) {
  const int32_t last = pages_[0].before;
  pages_[page].before = last;
  pages_[page].after = 0;
  pages_[last].after = page;
  pages_[0].before = page;
  ++evictable_;
}

void PagePool::Unlink(int32_t page) {
  pages_[pages_[page].before].after = pages_[page].after;
  pages_[pages_[page].after].before = pages_[page].before;
  --evictable_;
}

void PagePool::CheckPage(int32_t page) const {
  SWAA_CHECK(page > 0 && page < static_cast<int32_t>(pages_.size())) << "page " << page;
}

}  // namespace swaa
