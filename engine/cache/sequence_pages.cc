// The pages of one request.

#include "engine/cache/sequence_pages.h"

#include <algorithm>

#include "base/check.h"
#include "engine/recipe/visibility.h"
#include "kernels/page_count.h"
#include "kernels/types.h"

namespace swaa {
namespace {

using kernels::PageCount;

// So that `count` more take no memory.
template <typename T>
void ReserveMore(int64_t count, std::vector<T>* values) {
  const size_t wanted = values->size() + static_cast<size_t>(count);
  if (values->capacity() < wanted) values->reserve(std::max(wanted, 2 * values->capacity()));
}

}  // namespace

PagePool::Holder SequencePages::HolderIn(PagePool* pool) {
  if (!holder_.has_value()) holder_ = pool->AddHolder();
  return *holder_;
}

int64_t SequencePages::Missing(int64_t positions) const {
  return std::max<int64_t>(0, PageCount(positions) - blocks_) *
         static_cast<int64_t>(layers_.size());
}

void SequencePages::Extend(int64_t positions, int32_t slot, PagePool* pool,
                           std::vector<PageTableUpdate>* updates) {
  const int64_t blocks = PageCount(positions);
  if (blocks <= blocks_) return;
  const PagePool::Holder holder = HolderIn(pool);
  for (std::vector<int32_t>& pages : layers_) ReserveMore(blocks - blocks_, &pages);
  ReserveMore(Missing(positions), updates);
  for (; blocks_ < blocks; ++blocks_) {
    for (size_t layer = 0; layer < layers_.size(); ++layer) {
      const int32_t page = pool->Take(holder);
      layers_[layer].push_back(page);
      updates->push_back({slot, static_cast<int32_t>(layer), static_cast<int32_t>(blocks_), page});
    }
    held_ += static_cast<int64_t>(layers_.size());
  }
  peak_held_ = std::max(peak_held_, held_);
}

void SequencePages::Share(int32_t layer, const std::vector<int32_t>& shared, int32_t slot,
                          PagePool* pool, std::vector<PageTableUpdate>* updates) {
  SWAA_CHECK(layers_[layer].empty()) << "layer " << layer << " has pages already";
  const PagePool::Holder holder = HolderIn(pool);
  ReserveMore(static_cast<int64_t>(shared.size()), updates);
  layers_[layer] = shared;
  blocks_ = static_cast<int64_t>(shared.size());
  for (int64_t block = 0; block < blocks_; ++block) {
    if (shared[block] == kernels::kZeroPage) continue;
    pool->Share(shared[block], holder);
    updates->push_back({slot, layer, static_cast<int32_t>(block), shared[block]});
    ++held_;
  }
  peak_held_ = std::max(peak_held_, held_);
}

void SequencePages::ReleaseInvisible(const Recipe& recipe, int64_t computed, int32_t slot,
                                     PagePool* pool, std::vector<PageTableUpdate>* updates) {
  if (!recipe.window.has_value()) return;
  // All layers that slide have the same window.
  const int64_t keep_from = std::max<int64_t>(0, computed - int64_t{*recipe.window} + 1);
  const int64_t end = std::min(keep_from / kernels::kPageTokens, blocks_);
  if (end <= released_to_) return;
  for (size_t index = 0; index < layers_.size(); ++index) {
    const auto layer = static_cast<int32_t>(index);
    const KeptPositions kept = Kept(recipe, layer, computed);
    if (kept.keep_from == 0) continue;
    for (int64_t block = released_to_; block < end; ++block) {
      int32_t& page = layers_[index][block];
      if (page == kernels::kZeroPage || KeepsPage(kept, block)) continue;
      updates->push_back({slot, layer, static_cast<int32_t>(block), kernels::kZeroPage});
      pool->Release(page, *holder_);
      page = kernels::kZeroPage;
      --held_;
    }
  }
  released_to_ = end;
}

int64_t SequencePages::ReleaseSome(PagePool* pool, int64_t most) {
  const int64_t held = held_;
  while (held_ > 0 && held - held_ < most) {
    for (std::vector<int32_t>& pages : layers_) {
      if (static_cast<int64_t>(pages.size()) < blocks_) continue;  // Share did not come so far
      const int32_t page = pages.back();
      pages.pop_back();
      if (page == kernels::kZeroPage) continue;
      pool->Release(page, *holder_);
      --held_;
    }
    --blocks_;
  }
  if (held_ == 0 && holder_.has_value()) {
    pool->RemoveHolder(*holder_);
    holder_.reset();
    for (std::vector<int32_t>& pages : layers_) pages.clear();
    blocks_ = 0;
  }
  return held - held_;
}

int32_t SequencePages::Page(int32_t layer, int64_t block) const {
  return block < blocks_ ? layers_[layer][block] : kernels::kZeroPage;
}

}  // namespace swaa
