// The pages of one request, layer by layer: taken as positions are about to be computed, given back
// as soon as the recipe can no longer see them. This is the one place where a page is released.

#ifndef SWAA_ENGINE_CACHE_SEQUENCE_PAGES_H_
#define SWAA_ENGINE_CACHE_SEQUENCE_PAGES_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "engine/cache/page_pool.h"
#include "engine/device/step.h"
#include "engine/recipe/recipe.h"

namespace swaa {

// Not thread-safe: the engine thread's. A call that throws bad_alloc has changed nothing, but where
// it says so. What the device's page table must learn is written to `updates`. Entries of pages
// that the recipe no longer sees become the zero page; those of a request that ended are left as
// they are, as nothing reads beyond a sequence's length.
class SequencePages {
 public:
  // Of no layers: takes no memory, and is only to be replaced.
  SequencePages() = default;
  explicit SequencePages(int32_t num_layers) : layers_(num_layers) {}

  // Pages that Extend(positions) would take.
  int64_t Missing(int64_t positions) const;

  // Takes pages so that positions 0 .. positions - 1 that are not computed yet have room in every
  // layer.
  void Extend(int64_t positions, int32_t slot, PagePool* pool,
              std::vector<PageTableUpdate>* updates);

  // Shares pages that hold the first blocks of one layer already (the zero page where the layer
  // keeps none). Before any Extend, once for every layer with as many blocks.
  void Share(int32_t layer, const std::vector<int32_t>& shared, int32_t slot, PagePool* pool,
             std::vector<PageTableUpdate>* updates);

  // Gives back the pages that hold nothing `recipe` keeps once `computed` positions are computed.
  // No submitted step may have a query below `computed`. O(1) unless a block has left the window.
  // Where it throws bad_alloc, the pages that are left go with a later call.
  void ReleaseInvisible(const Recipe& recipe, int64_t computed, int32_t slot, PagePool* pool,
                        std::vector<PageTableUpdate>* updates);

  // Gives back about `most` pages, never more than a block of all layers beyond it, last blocks
  // first, so that the prefix cache loses the ends of prefixes before their beginnings. Returns how
  // many. Nothing but ReleaseSome may follow.
  int64_t ReleaseSome(PagePool* pool, int64_t most);

  int64_t held() const { return held_; }
  // That full attention would hold.
  int64_t held_by_full_attention() const { return blocks_ * static_cast<int64_t>(layers_.size()); }
  // Held pages that no other request holds.
  int64_t Exclusive(const PagePool& pool) const {
    return holder_.has_value() ? pool.exclusive(*holder_) : 0;
  }
  int64_t peak_held() const { return peak_held_; }
  // The page of a block of 64 positions, or the zero page.
  int32_t Page(int32_t layer, int64_t block) const;

 private:
  PagePool::Holder HolderIn(PagePool* pool);

  std::vector<std::vector<int32_t>> layers_;  // [layers][blocks]; the zero page where none is held
  std::optional<PagePool::Holder> holder_;    // once a page was taken
  int64_t blocks_ = 0;                        // of every layer
  int64_t released_to_ = 0;  // blocks below it were looked at: a window keeps none but sinks there
  int64_t held_ = 0;
  int64_t peak_held_ = 0;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_CACHE_SEQUENCE_PAGES_H_
