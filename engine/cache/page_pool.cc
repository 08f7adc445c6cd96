// The pool of pages.

#include "engine/cache/page_pool.h"

#include <utility>

#include "base/check.h"

namespace swaa {

PagePool::PagePool(int32_t num_pages, std::function<void(int32_t)> on_evict,
                   std::function<void(int32_t, bool)> on_held)
    : pages_(num_pages), on_evict_(std::move(on_evict)), on_held_(std::move(on_held)) {
  SWAA_CHECK_GE(num_pages, 1) << "the zero page is one of the pool's";
  free_.reserve(num_pages - 1);
  for (int32_t page = num_pages - 1; page >= 1; --page) free_.push_back(page);
}

PagePool::Holder PagePool::AddHolder() {
  if (free_holders_.empty()) {
    free_holders_.reserve(exclusive_.size() + 1);  // RemoveHolder takes no memory
    exclusive_.push_back(0);
    return static_cast<Holder>(exclusive_.size()) - 1;
  }
  const Holder holder = free_holders_.back();
  free_holders_.pop_back();
  return holder;
}

void PagePool::RemoveHolder(Holder holder) {
  SWAA_CHECK_EQ(exclusive_[holder], 0) << "holder " << holder << " still holds pages";
  free_holders_.push_back(holder);
}

int32_t PagePool::Take(Holder holder) {
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
  pages_[page].holders = holder;
  ++exclusive_[holder];
  return page;
}

void PagePool::Share(int32_t page, Holder holder) {
  CheckPage(page);
  Page& shared = pages_[page];
  if (shared.references == 0) {
    SWAA_CHECK(shared.registered) << "page " << page << " is free and has nothing to share";
    Unlink(page);
    ++exclusive_[holder];
    if (on_held_) on_held_(page, true);
  } else if (shared.references == 1) {
    --exclusive_[shared.holders];
  }
  ++shared.references;
  shared.holders ^= holder;
}

void PagePool::Release(int32_t page, Holder holder) {
  CheckPage(page);
  Page& released = pages_[page];
  SWAA_CHECK_GT(released.references, 0) << "page " << page << " released too often";
  released.holders ^= holder;
  if (--released.references > 0) {
    if (released.references == 1) ++exclusive_[released.holders];
    return;
  }
  SWAA_CHECK_EQ(released.holders, 0) << "page " << page << " is not holder " << holder << "'s";
  --exclusive_[holder];
  if (!released.registered) {
    free_.push_back(page);
    return;
  }
  Link(page);
  if (on_held_) on_held_(page, false);
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
