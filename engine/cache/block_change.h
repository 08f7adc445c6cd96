// What the prefix cache tells of its blocks.

#ifndef SWAA_ENGINE_CACHE_BLOCK_CHANGE_H_
#define SWAA_ENGINE_CACHE_BLOCK_CHANGE_H_

#include <cstdint>
#include <functional>
#include <span>

#include "engine/cache/content_hash.h"
#include "engine/cache/prefix_key.h"

namespace swaa {

// A block that came or went. Everything is valid during the call alone.
struct BlockChange {
  enum class Kind { kAdded, kRemoved };
  Kind kind;
  // Of scope, mask and all tokens up to the block's end, equal on all replicas.
  ContentHash hash;
  const ContentHash*
      parent;  // of the block before it, which may not be here; null: it is the first
  PrefixScope scope;
  std::span<const int32_t> tokens;  // the block's own, 64
};

// Called on the engine thread; must not block and must not call the engine.
using BlockObserver = std::function<void(const BlockChange& change)>;

}  // namespace swaa

#endif  // SWAA_ENGINE_CACHE_BLOCK_CHANGE_H_
