// The prefix cache: finds pages that earlier requests computed for the same first tokens under the
// same mask.
//
// Blocks of 64 tokens form a tree. A node is one block behind its parent's: its tokens, and the
// mask under which they were computed (prefix_key.h); a block without a parent also has its scope.
// Identity is exact: hashes only find candidates, tokens and masks are compared, and a path
// determines all tokens before it.

#ifndef SWAA_ENGINE_CACHE_PREFIX_CACHE_H_
#define SWAA_ENGINE_CACHE_PREFIX_CACHE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine/cache/block_change.h"
#include "engine/cache/content_hash.h"
#include "engine/cache/page_pool.h"
#include "engine/cache/prefix_key.h"
#include "engine/cache/sequence_pages.h"
#include "engine/recipe/recipe.h"
#include "kernels/types.h"

namespace swaa {

// Not thread-safe: the engine thread's. What throws bad_alloc (Walk, Find, Register) has changed
// nothing that a repeated call or Forget would not expect.
class PrefixCache {
  struct Block;

 public:
  // `pool` tells this cache of evictions (OnEvicted) and of holders (OnHeld).
  PrefixCache(int32_t num_layers, PagePool* pool);

  // What a waiting request would find, kept from look-up to look-up. Ends with Forget or Adopt.
  class Lookup {
   public:
    int64_t tokens() const { return tokens_; }
    int64_t pages() const { return pages_; }  // that the recipe keeps
    // Of them, those that nobody holds: adopting takes them from the pool's available ones.
    int64_t evictable_pages() const { return evictable_pages_; }

   private:
    friend class PrefixCache;
    std::vector<Block*> path_;  // as far as the tree has the tokens
    int64_t tokens_ = 0;
    int64_t pages_ = 0;
    int64_t evictable_pages_ = 0;
    uint64_t version_ = 0;  // of the cache when it was found; 0: never
  };
  // Compares tokens for Find, which is most of a first look-up's work, from where the last Walk
  // ended: of at most *blocks blocks, which it takes off. Whether Find has none left to compare.
  // The arguments, here and of Find, are those of the first time.
  bool Walk(const PrefixKey& key, const KnownTokens& tokens, int64_t most_tokens, Lookup* lookup,
            int64_t* blocks);
  // Brings `lookup` up to date with the longest prefix of whole blocks, at most `most_tokens` long,
  // for which every page that `recipe` keeps is here. In O(1) while nothing has changed on its
  // path, otherwise linear in the prefix; tokens are compared once.
  void Find(const PrefixKey& key, const KnownTokens& tokens, const Recipe& recipe,
            int64_t most_tokens, Lookup* lookup);
  void Forget(Lookup* lookup);

  // Moves on with every change of what some kept look-up has found.
  uint64_t version() const { return version_; }

  // Where a request has got to in registering its blocks. Ends with Forget.
  struct Cursor {
    Block* block = nullptr;
    int64_t blocks = 0;   // registered or found
    bool closed = false;  // a block of it may not be shared, nor any behind it
  };
  // Gives the pages that an up-to-date look-up found to a request that holds none.
  Cursor Adopt(Lookup* lookup, const Recipe& recipe, int32_t slot, SequencePages* pages,
               std::vector<PageTableUpdate>* updates);
  // Registers the blocks that are full once `computed` positions are computed, before any page of
  // theirs is released. A block that is here already keeps its pages and takes only those of layers
  // it lacks.
  void Register(const PrefixKey& key, const KnownTokens& tokens, int64_t computed,
                const SequencePages& pages, Cursor* cursor);
  void Forget(Cursor* cursor);

  // The pool gave `page` a new use.
  void OnEvicted(int32_t page);
  // A registered page got its first holder or lost its last.
  void OnHeld(int32_t page, bool held);

  // Called, and must not throw, with every block of which a first page comes here, and with every
  // one that has lost its last. For routers that send requests to where their prefix is.
  void SetObserver(BlockObserver observer) { observer_ = std::move(observer); }

  // Of 64 tokens, that have pages here.
  int64_t blocks() const { return blocks_; }
  // Of the tree: besides these blocks, those that lead to one or that a request has got to.
  size_t nodes() const { return by_hash_.size(); }

 private:
  using Tokens = std::array<int32_t, kernels::kPageTokens>;

  struct Block {
    Block* parent = nullptr;
    PrefixScope scope;  // where there is no parent
    Tokens tokens;
    std::shared_ptr<const MaskSignature> mask;  // null: no recipe matters here
    ContentHash hash;
    std::vector<int32_t> pages;  // [layers]; the zero page where none is here
    int32_t held_pages = 0;      // pages that are here
    int32_t idle_pages = 0;      // of them, those that nobody holds
    int32_t children = 0;
    int32_t cursors = 0;
    int32_t lookups = 0;  // kept ones whose path it is on
  };
  struct Home {
    Block* block = nullptr;
    int32_t layer = 0;
  };
  // Block `index` of a request, ready to be compared.
  struct Candidate;

  Candidate CandidateOf(const PrefixKey& key, const KnownTokens& tokens, Block* parent,
                        int64_t index) const;
  Block* Child(const Candidate& candidate);
  Block* AddChild(const Candidate& candidate);
  void RemoveIfUseless(Block* block);
  int64_t LongestServed(const std::vector<Block*>& path, const Recipe& recipe) const;
  void CountPages(const Recipe& recipe, int64_t blocks, Lookup* lookup) const;
  void TakePages(const SequencePages& pages, int64_t index, Block* block);
  void Changed(const Block& block) { version_ += block.lookups > 0; }
  void Tell(BlockChange::Kind kind, const Block& block) const;

  const int32_t num_layers_;
  PagePool* const pool_;
  std::unordered_multimap<uint64_t, Block> by_hash_;  // by the hash's low half
  std::vector<Home> homes_;                           // [pages] of registered pages
  int64_t blocks_ = 0;
  uint64_t version_ = 1;
  BlockObserver observer_;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_CACHE_PREFIX_CACHE_H_
