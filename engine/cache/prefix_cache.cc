// The tree of cached blocks.

#include "engine/cache/prefix_cache.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/check.h"
#include "engine/recipe/visibility.h"
#include "kernels/page_count.h"

namespace swaa {
namespace {

constexpr int64_t kBlock = kernels::kPageTokens;

// What a recipe keeps of a prefix of some blocks: a layer keeps all, or sinks and a window.
struct KeptBlocks {
  std::vector<bool> slides;  // [layers]
  int32_t sliding = 0;       // how many
  int64_t sinks = 0;         // blocks
  int64_t window = 0;        // positions

  explicit KeptBlocks(const Recipe& recipe) : slides(recipe.num_layers()) {
    if (!recipe.window.has_value()) return;
    for (int32_t layer = 0; layer < recipe.num_layers(); ++layer) {
      slides[layer] = !recipe.layer_full[layer] && !recipe.decode_full[layer];
      sliding += slides[layer];
    }
    sinks = kernels::PageCount(recipe.sinks);
    window = int64_t{*recipe.window};
  }

  // The first block of the window behind `length` blocks.
  int64_t WindowBegin(int64_t length) const {
    return std::max<int64_t>(0, length * kBlock - window + 1) / kBlock;
  }
};

bool SameMask(const std::shared_ptr<const MaskSignature>& a,
              const std::shared_ptr<const MaskSignature>& b) {
  return a == b || (a != nullptr && b != nullptr && *a == *b);
}

}  // namespace

struct PrefixCache::Candidate {
  Block* parent;
  PrefixScope scope;
  Tokens tokens;
  std::shared_ptr<const MaskSignature> mask;
  ContentHash hash;
};

PrefixCache::PrefixCache(int32_t num_layers, PagePool* pool)
    : num_layers_(num_layers), pool_(pool), homes_(pool->total_pages() + 1) {
  // As many blocks as full attention fills: the table would grow in the middle of a step, and move
  // what it has in milliseconds.
  by_hash_.reserve(pool->total_pages() / num_layers + 1);
}

PrefixCache::Candidate PrefixCache::CandidateOf(const PrefixKey& key, const KnownTokens& tokens,
                                                Block* parent, int64_t index) const {
  Candidate candidate{.parent = parent, .scope = key.scope, .mask = key.MaskOf(index)};
  tokens.Copy(index * kBlock, kBlock, candidate.tokens.data());
  ContentHasher hasher(parent == nullptr ? key.scope.digest : parent->hash);
  hasher.AddTokens(candidate.tokens);
  const ContentHash mask = candidate.mask == nullptr ? ContentHash{} : candidate.mask->digest;
  hasher.Add(mask.high);
  hasher.Add(mask.low);
  candidate.hash = hasher.Finish();
  return candidate;
}

PrefixCache::Block* PrefixCache::Child(const Candidate& candidate) {
  const auto [begin, end] = by_hash_.equal_range(candidate.hash.low);
  for (auto it = begin; it != end; ++it) {
    Block& block = it->second;
    if (block.hash == candidate.hash && block.parent == candidate.parent &&
        (candidate.parent != nullptr || block.scope == candidate.scope) &&
        block.tokens == candidate.tokens && SameMask(block.mask, candidate.mask)) {
      return &block;
    }
  }
  return nullptr;
}

PrefixCache::Block* PrefixCache::AddChild(const Candidate& candidate) {
  Block block{.parent = candidate.parent,
              .scope = candidate.scope,
              .tokens = candidate.tokens,
              .mask = candidate.mask,
              .hash = candidate.hash,
              .pages = std::vector<int32_t>(num_layers_, kernels::kZeroPage)};
  Block* added = &by_hash_.emplace(candidate.hash.low, std::move(block))->second;
  if (candidate.parent != nullptr) {
    ++candidate.parent->children;
    Changed(*candidate.parent);
  } else {
    ++version_;  // a look-up that found nothing at all may find this
  }
  return added;
}

// Removes a block that holds no page and leads to none, and its ancestors likewise.
void PrefixCache::RemoveIfUseless(Block* block) {
  while (block != nullptr) {
    if (block->held_pages + block->children + block->cursors + block->lookups > 0) return;
    const auto [begin, end] = by_hash_.equal_range(block->hash.low);
    const auto entry =
        std::find_if(begin, end, [&](const auto& entry) { return &entry.second == block; });
    block = block->parent;
    by_hash_.erase(entry);
    if (block != nullptr) --block->children;
  }
}

bool PrefixCache::Walk(const PrefixKey& key, const KnownTokens& tokens, int64_t most_tokens,
                       Lookup* lookup, int64_t* blocks) {
  if (lookup->version_ == version_) return true;
  std::vector<Block*>& path = lookup->path_;
  for (auto index = static_cast<int64_t>(path.size()); index < most_tokens / kBlock; ++index) {
    if (!key.IsShareable(tokens.prompt_tokens(), index)) break;
    if (*blocks == 0) return false;
    --*blocks;
    Block* parent = path.empty() ? nullptr : path.back();
    Block* block = Child(CandidateOf(key, tokens, parent, index));
    if (block == nullptr) break;
    path.push_back(block);
    ++block->lookups;
  }
  return true;
}

// The most blocks of the path after which every page that the recipe keeps is here. A longer prefix
// can be served where a shorter one cannot: a window needs only its own end.
int64_t PrefixCache::LongestServed(const std::vector<Block*>& path, const Recipe& recipe) const {
  const KeptBlocks kept(recipe);
  const auto blocks = static_cast<int64_t>(path.size());
  int64_t most = blocks;             // the layers that keep all have the blocks below it
  int64_t sinks_to = blocks;         // the sliding ones lack the first sink block here
  std::vector<int64_t> gap(blocks);  // [block] the last one up to it that a sliding layer lacks
  int64_t last_gap = -1;
  for (int64_t index = 0; index < blocks; ++index) {
    const Block& block = *path[index];
    for (int32_t layer = 0; block.held_pages < num_layers_ && layer < num_layers_; ++layer) {
      if (block.pages[layer] != kernels::kZeroPage) continue;
      if (kept.slides[layer]) {
        last_gap = index;
        if (index < kept.sinks) sinks_to = std::min(sinks_to, index);
      } else {
        most = std::min(most, index);
      }
    }
    gap[index] = last_gap;
  }
  for (int64_t length = most; length > 0; --length) {
    const bool sinks = std::min(length, kept.sinks) <= sinks_to;
    if (kept.sliding == 0 || (sinks && gap[length - 1] < kept.WindowBegin(length))) return length;
  }
  return 0;
}

void PrefixCache::CountPages(const Recipe& recipe, int64_t blocks, Lookup* lookup) const {
  const KeptBlocks kept(recipe);
  const int64_t window_begin = kept.WindowBegin(blocks);
  lookup->tokens_ = blocks * kBlock;
  lookup->pages_ = lookup->evictable_pages_ = 0;
  for (int64_t index = 0; index < blocks; ++index) {
    const Block& block = *lookup->path_[index];
    const bool all = kept.sliding == 0 || index < kept.sinks || index >= window_begin;
    lookup->pages_ += all ? num_layers_ : num_layers_ - kept.sliding;
    if (all && block.held_pages == num_layers_) {
      lookup->evictable_pages_ += block.idle_pages;
      continue;
    }
    for (int32_t layer = 0; block.idle_pages > 0 && layer < num_layers_; ++layer) {
      if (!all && kept.slides[layer]) continue;
      lookup->evictable_pages_ += pool_->references(block.pages[layer]) == 0;
    }
  }
}

void PrefixCache::Find(const PrefixKey& key, const KnownTokens& tokens, const Recipe& recipe,
                       int64_t most_tokens, Lookup* lookup) {
  if (lookup->version_ == version_) return;
  int64_t all = std::numeric_limits<int64_t>::max();
  Walk(key, tokens, most_tokens, lookup, &all);
  CountPages(recipe, LongestServed(lookup->path_, recipe), lookup);
  lookup->version_ = version_;
}

void PrefixCache::Forget(Lookup* lookup) {
  const std::vector<Block*> path = std::exchange(*lookup, {}).path_;
  for (Block* block : path) --block->lookups;
  if (!path.empty()) RemoveIfUseless(path.back());
}

PrefixCache::Cursor PrefixCache::Adopt(Lookup* lookup, const Recipe& recipe, int32_t slot,
                                       SequencePages* pages,
                                       std::vector<PageTableUpdate>* updates) {
  SWAA_CHECK_EQ(lookup->version_, version_) << "the look-up is stale";
  const KeptBlocks kept(recipe);
  Cursor cursor{.blocks = lookup->tokens_ / kBlock};
  const int64_t window_begin = kept.WindowBegin(cursor.blocks);
  for (int32_t layer = 0; layer < num_layers_ && cursor.blocks > 0; ++layer) {
    std::vector<int32_t> shared(cursor.blocks, kernels::kZeroPage);
    for (int64_t block = 0; block < cursor.blocks; ++block) {
      if (kept.slides[layer] && block >= kept.sinks && block < window_begin) continue;
      shared[block] = lookup->path_[block]->pages[layer];
    }
    pages->Share(layer, shared, slot, pool_, updates);
  }
  if (cursor.blocks > 0) {
    cursor.block = lookup->path_[cursor.blocks - 1];
    ++cursor.block->cursors;
  }
  Forget(lookup);
  return cursor;
}

void PrefixCache::Forget(Cursor* cursor) {
  Block* block = std::exchange(*cursor, {}).block;
  if (block == nullptr) return;
  --block->cursors;
  RemoveIfUseless(block);
}

void PrefixCache::Register(const PrefixKey& key, const KnownTokens& tokens, int64_t computed,
                           const SequencePages& pages, Cursor* cursor) {
  for (; !cursor->closed && (cursor->blocks + 1) * kBlock <= computed; ++cursor->blocks) {
    if (!key.IsShareable(tokens.prompt_tokens(), cursor->blocks)) {
      cursor->closed = true;
      return;
    }
    const Candidate candidate = CandidateOf(key, tokens, cursor->block, cursor->blocks);
    Block* block = Child(candidate);
    if (block == nullptr) block = AddChild(candidate);
    TakePages(pages, cursor->blocks, block);
    ++block->cursors;
    if (cursor->block != nullptr) --cursor->block->cursors;
    cursor->block = block;
  }
}

// The pages of a request's block that the cache lacks.
void PrefixCache::TakePages(const SequencePages& pages, int64_t index, Block* block) {
  const int32_t held_before = block->held_pages;
  for (int32_t layer = 0; layer < num_layers_; ++layer) {
    const int32_t page = pages.Page(layer, index);
    if (page == kernels::kZeroPage || block->pages[layer] != kernels::kZeroPage) continue;
    if (pool_->registered(page)) continue;
    pool_->Register(page);
    block->pages[layer] = page;
    ++block->held_pages;
    homes_[page] = {block, layer};
  }
  if (block->held_pages == held_before) return;
  Changed(*block);
  if (held_before > 0) return;
  ++blocks_;
  Tell(BlockChange::Kind::kAdded, *block);
}

void PrefixCache::Tell(BlockChange::Kind kind, const Block& block) const {
  if (!observer_) return;
  observer_({.kind = kind,
             .hash = block.hash,
             .parent = block.parent == nullptr ? nullptr : &block.parent->hash,
             .scope = block.scope,
             .tokens = block.tokens});
}

void PrefixCache::OnEvicted(int32_t page) {
  const Home home = std::exchange(homes_[page], {});
  SWAA_CHECK(home.block != nullptr) << "page " << page << " is no block's";
  home.block->pages[home.layer] = kernels::kZeroPage;
  --home.block->held_pages;
  --home.block->idle_pages;
  Changed(*home.block);
  if (home.block->held_pages > 0) return;
  --blocks_;
  Tell(BlockChange::Kind::kRemoved, *home.block);
  RemoveIfUseless(home.block);
}

void PrefixCache::OnHeld(int32_t page, bool held) {
  Block* block = homes_[page].block;
  SWAA_CHECK(block != nullptr) << "page " << page << " is no block's";
  block->idle_pages += held ? -1 : 1;
  Changed(*block);
}

}  // namespace swaa
