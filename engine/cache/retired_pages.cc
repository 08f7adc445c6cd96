// Pages on their way back to the pool.

#include "engine/cache/retired_pages.h"

#include <utility>

namespace swaa {

void RetiredPages::Reserve(size_t sequences) {
  const size_t wanted = retired_.size() + sequences;
  if (retired_.capacity() < wanted) retired_.reserve(2 * wanted);
}

void RetiredPages::Add(SequencePages pages, uint64_t last_step) {
  if (pages.held() == 0) {
    pages.ReleaseSome(pool_, 0);  // its holder's number
    return;
  }
  retired_.push_back({std::move(pages), last_step});
}

int64_t RetiredPages::Release(int64_t most) {
  int64_t released = 0;
  for (auto it = retired_.begin(); it != retired_.end() && released < most;) {
    if (it->last_step > settled_) {
      ++it;
      continue;
    }
    released += it->pages.ReleaseSome(pool_, most - released);
    it = it->pages.held() == 0 ? retired_.erase(it) : it;
  }
  return released;
}

int64_t RetiredPages::pages() const {
  int64_t pages = 0;
  for (const Retired& one : retired_) pages += one.pages.Exclusive(*pool_);
  return pages;
}

}  // namespace swaa
