// The pages of one request, layer by layer: taken as positions are about to be computed, given back
// as soon as the recipe can no longer see them. This is the one place where a page is released.

#ifndef SWAA_ENGINE_CACHE_SEQUENCE_PAGES_H_
#define SWAA_ENGINE_CACHE_SEQUENCE_PAGES_H_

#include <cstdint>
#include <vector>

#include "engine/cache/page_pool.h"
#include "engine/device/step.h"
#include "engine/recipe/recipe.h"

namespace swaa {

// Not thread-safe: the engine thread's. Every change is also written to `updates` for the device's
// page table, whose entries are the zero page wherever no page is held.
class SequencePages {
 public:
  explicit SequencePages(int32_t num_layers) : layers_(num_layers) {}

  // Pages that Extend(positions) would take.
  int64_t Missing(int64_t positions) const;

  // Takes pages so that positions 0 .. positions - 1 that are not computed yet have room in every
  // layer.
  void Extend(int64_t positions, int32_t slot, PagePool* pool,
              std::vector<PageTableUpdate>* updates);

  // Takes a reference to pages that hold the first blocks of one layer already (the zero page where
  // the layer keeps none). Before any Extend, once for every layer with as many blocks.
  void Share(int32_t layer, const std::vector<int32_t>& shared, int32_t slot, PagePool* pool,
             std::vector<PageTableUpdate>* updates);

  // Gives back the pages that hold nothing `recipe` keeps once `computed` positions are computed.
  void ReleaseInvisible(const Recipe& recipe, int64_t computed, int32_t slot, PagePool* pool,
                        std::vector<PageTableUpdate>* updates);

  void ReleaseAll(int32_t slot, PagePool* pool, std::vector<PageTableUpdate>* updates);

  int64_t held() const { return held_; }
  // That full attention would hold.
  int64_t held_by_full_attention() const { return blocks_ * static_cast<int64_t>(layers_.size()); }
  // Held pages that no other request holds.
  int64_t Exclusive(const PagePool& pool) const;
  int64_t peak_held() const { return peak_held_; }
  // The page of a block of 64 positions, or the zero page.
  int32_t Page(int32_t layer, int64_t block) const;

 private:
  struct Layer {
    std::vector<int32_t> pages;  // [blocks]; the zero page where none is held
    int64_t released_to = 0;     // blocks below it were looked at: kept ones among them are sinks
  };

  void Release(int32_t layer, int64_t block, int32_t slot, PagePool* pool,
               std::vector<PageTableUpdate>* updates);

  std::vector<Layer> layers_;
  int64_t blocks_ = 0;  // of every layer
  int64_t held_ = 0;
  int64_t peak_held_ = 0;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_CACHE_SEQUENCE_PAGES_H_
