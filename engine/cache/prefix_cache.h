// The prefix cache: finds pages that earlier requests computed for the same first tokens under the
// same mask.
//
// Blocks of 64 tokens form a tree. A node is one block behind its parent's: its tokens, and the
// mask signature under which they were computed. The signature is empty where no recipe can matter
// - positions below W + K see everything whatever the recipe - so that all recipes share those
// blocks exactly; otherwise it names W, K and F. D changes no prompt position and is no part of it.
// Roots are (adapter, salt). Identity is exact: hashes only find candidates, tokens and signatures
// are compared, and a path determines all tokens before it.

#ifndef SWAA_ENGINE_CACHE_PREFIX_CACHE_H_
#define SWAA_ENGINE_CACHE_PREFIX_CACHE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/cache/page_pool.h"
#include "engine/cache/sequence_pages.h"
#include "engine/recipe/recipe.h"

namespace swaa {

// What a cached block depends on besides its tokens.
struct PrefixScope {
  std::string salt;
  uint64_t adapter_load = 0;  // one load of an adapter, not its name; 0: the base model
};

// Whether block `block` of a request may be shared with prompts: its positions are prompt
// positions, or saw no more than prompt positions do.
bool IsShareable(const Recipe& recipe, int64_t prompt_tokens, int64_t block);

// Not thread-safe: the engine thread's.
class PrefixCache {
 public:
  // A place in the tree; kNone is outside.
  using Node = uint64_t;
  static constexpr Node kNone = 0;

  PrefixCache(int32_t num_layers, PagePool* pool) : num_layers_(num_layers), pool_(pool) {}

  // The longest prefix of whole blocks, at most `most_tokens` long, for which every page that
  // `recipe` keeps is here. token_at(p) is the token at position p.
  struct Hit {
    int64_t tokens = 0;
    std::vector<Node> path;       // a node a block
    int64_t pages = 0;            // that the recipe keeps
    int64_t evictable_pages = 0;  // of them, those that no request holds
  };
  using TokenAt = std::function<int32_t(int64_t position)>;
  Hit Find(const PrefixScope& scope, const TokenAt& token_at, const Recipe& recipe,
           int64_t prompt_tokens, int64_t most_tokens) const;

  // Gives the hit's kept pages to a request that holds none. The hit must be fresh.
  void Adopt(const Hit& hit, const Recipe& recipe, int32_t slot, SequencePages* pages,
             std::vector<PageTableUpdate>* updates);

  // Where a request has got to in registering its blocks. Ends with Forget.
  struct Cursor {
    Node node = kNone;
    int64_t blocks = 0;   // registered or found
    bool closed = false;  // a block of it may not be shared, nor any behind it
  };
  // Registers the blocks that are full once `computed` positions are computed, before any page of
  // theirs is released. A block that is here already keeps its pages and takes only those of layers
  // it lacks.
  void Register(const PrefixScope& scope, const TokenAt& token_at, const Recipe& recipe,
                int64_t prompt_tokens, int64_t computed, const SequencePages& pages,
                Cursor* cursor);
  // The cursor after adopting a hit.
  Cursor Follow(const Hit& hit);
  void Forget(Cursor* cursor);

  // The pool gave `page` a new use.
  void OnEvicted(int32_t page);

  int64_t blocks() const { return static_cast<int64_t>(nodes_.size()); }

 private:
  struct Block {
    Node parent = kNone;
    std::vector<int32_t> tokens;  // 64; a root has none
    std::string signature;        // a root's: its scope
    std::vector<int32_t> pages;   // [layers]; the zero page where none is here
    int32_t held_pages = 0;
    int32_t children = 0;
    int32_t cursors = 0;
    uint64_t hash = 0;
  };
  struct Home {
    Node node = kNone;
    int32_t layer = 0;
  };

  Node Child(Node parent, const std::vector<int32_t>& tokens, const std::string& signature) const;
  Node AddChild(Node parent, std::vector<int32_t> tokens, std::string signature);
  void RemoveIfUseless(Node node);
  std::vector<Node> Walk(const PrefixScope& scope, const TokenAt& token_at, const Recipe& recipe,
                         int64_t prompt_tokens, int64_t blocks) const;
  int64_t LongestServed(const std::vector<Node>& path, const Recipe& recipe) const;

  const int32_t num_layers_;
  PagePool* const pool_;
  Node next_node_ = 1;
  std::unordered_map<Node, Block> nodes_;
  std::unordered_multimap<uint64_t, Node> by_hash_;
  std::unordered_map<int32_t, Home> homes_;  // of registered pages
};

}  // namespace swaa

#endif  // SWAA_ENGINE_CACHE_PREFIX_CACHE_H_
