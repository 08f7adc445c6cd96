// The pages of one request.

#include "engine/cache/sequence_pages.h"

#include <algorithm>

#include "base/check.h"
#include "engine/recipe/visibility.h"
#include "kernels/types.h"

namespace swaa {
namespace {

int64_t BlocksOf(int64_t positions) {
  return (positions + kernels::kPageTokens - 1) / kernels::kPageTokens;
}

}  // namespace

int64_t SequencePages::Missing(int64_t positions) const {
  return std::max<int64_t>(0, BlocksOf(positions) - blocks_) * static_cast<int64_t>(layers_.size());
}

void SequencePages::Extend(int64_t positions, int32_t slot, PagePool* pool,
                           std::vector<PageTableUpdate>* updates) {
  for (const int64_t blocks = BlocksOf(positions); blocks_ < blocks; ++blocks_) {
    for (size_t layer = 0; layer < layers_.size(); ++layer) {
      const int32_t page = pool->Take();
      layers_[layer].pages.push_back(page);
      updates->push_back({slot, static_cast<int32_t>(layer), static_cast<int32_t>(blocks_), page});
    }
    held_ += static_cast<int64_t>(layers_.size());
  }
  peak_held_ = std::max(peak_held_, held_);
}

void SequencePages::Share(int32_t layer, const std::vector<int32_t>& shared, int32_t slot,
                          PagePool* pool, std::vector<PageTableUpdate>* updates) {
  SWAA_CHECK(layers_[layer].pages.empty()) << "layer " << layer << " has pages already";
  layers_[layer].pages = shared;
  blocks_ = static_cast<int64_t>(shared.size());
  for (int64_t block = 0; block < blocks_; ++block) {
    if (shared[block] == kernels::kZeroPage) continue;
    pool->Share(shared[block]);
    updates->push_back({slot, layer, static_cast<int32_t>(block), shared[block]});
    ++held_;
  }
  peak_held_ = std::max(peak_held_, held_);
}

int64_t SequencePages::Exclusive(const PagePool& pool) const {
  int64_t exclusive = 0;
  for (const Layer& layer : layers_) {
    for (int32_t page : layer.pages) {
      exclusive += page != kernels::kZeroPage && pool.references(page) == 1;
    }
  }
  return exclusive;
}

void SequencePages::ReleaseInvisible(const Recipe& recipe, int64_t computed, int32_t slot,
                                     PagePool* pool, std::vector<PageTableUpdate>* updates) {
  for (size_t index = 0; index < layers_.size(); ++index) {
    const auto layer = static_cast<int32_t>(index);
    const KeptPositions kept = Kept(recipe, layer, computed);
    const int64_t end = std::min(kept.keep_from / kernels::kPageTokens, blocks_);
    for (int64_t block = layers_[index].released_to; block < end; ++block) {
      if (!KeepsPage(kept, block)) Release(layer, block, slot, pool, updates);
    }
    layers_[index].released_to = std::max(layers_[index].released_to, end);
  }
}

// Last blocks first, so that the prefix cache loses the ends of prefixes before their beginnings.
void SequencePages::ReleaseAll(int32_t slot, PagePool* pool,
                               std::vector<PageTableUpdate>* updates) {
  for (int64_t block = blocks_ - 1; block >= 0; --block) {
    for (size_t layer = 0; layer < layers_.size(); ++layer) {
      Release(static_cast<int32_t>(layer), block, slot, pool, updates);
    }
  }
  for (Layer& layer : layers_) layer = {};
  blocks_ = 0;
}

int32_t SequencePages::Page(int32_t layer, int64_t block) const {
  return block < blocks_ ? layers_[layer].pages[block] : kernels::kZeroPage;
}

void SequencePages::Release(int32_t layer, int64_t block, int32_t slot, PagePool* pool,
                            std::vector<PageTableUpdate>* updates) {
  int32_t& page = layers_[layer].pages[block];
  if (page == kernels::kZeroPage) return;
  pool->Release(page);
  page = kernels::kZeroPage;
  --held_;
  updates->push_back({slot, layer, static_cast<int32_t>(block), kernels::kZeroPage});
}

}  // namespace swaa
