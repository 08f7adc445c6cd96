// The tree of cached blocks.

#include "engine/cache/prefix_cache.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "engine/recipe/visibility.h"
#include "kernels/types.h"

namespace swaa {
namespace {

constexpr int64_t kBlock = kernels::kPageTokens;

uint64_t HashOf(uint64_t parent, const std::vector<int32_t>& tokens, const std::string& signature) {
  uint64_t hash = parent * 0x9e3779b97f4a7c15u + std::hash<std::string>()(signature);
  for (int32_t token : tokens) {
    hash = (hash ^ static_cast<uint32_t>(token)) * 0xff51afd7ed558ccdu;
    hash ^= hash >> 32;
  }
  return hash;
}

bool SeesEverything(const Recipe& recipe, int64_t block) {
  return !recipe.window.has_value() ||
         (block + 1) * kBlock <= int64_t{*recipe.window} + int64_t{recipe.sinks} ||
         std::all_of(recipe.layer_full.begin(), recipe.layer_full.end(), [](bool f) { return f; });
}

// {W, K, F} in bytes; empty where the recipe cannot matter.
std::string SignatureOf(const Recipe& recipe, int64_t block) {
  if (SeesEverything(recipe, block)) return "";
  std::string signature = std::to_string(*recipe.window) + "/" + std::to_string(recipe.sinks) + "/";
  for (bool full : recipe.layer_full) signature += full ? 'F' : '.';
  return signature;
}

// Unlike any block's signature: those begin with a digit.
std::string RootSignature(const PrefixScope& scope) {
  return "root " + std::to_string(scope.adapter_load) + " " + scope.salt;
}

std::vector<int32_t> TokensOf(const PrefixCache::TokenAt& token_at, int64_t block) {
  std::vector<int32_t> tokens(kBlock);
  for (int64_t i = 0; i < kBlock; ++i) tokens[i] = token_at(block * kBlock + i);
  return tokens;
}

}  // namespace

bool IsShareable(const Recipe& recipe, int64_t prompt_tokens, int64_t block) {
  if ((block + 1) * kBlock <= prompt_tokens || SeesEverything(recipe, block)) return true;
  for (int32_t layer = 0; layer < recipe.num_layers(); ++layer) {
    if (recipe.decode_full[layer] && !recipe.layer_full[layer]) return false;
  }
  return true;
}

PrefixCache::Node PrefixCache::Child(Node parent, const std::vector<int32_t>& tokens,
                                     const std::string& signature) const {
  const auto [begin, end] = by_hash_.equal_range(HashOf(parent, tokens, signature));
  for (auto it = begin; it != end; ++it) {
    const Block& block = nodes_.at(it->second);
    if (block.parent == parent && block.tokens == tokens && block.signature == signature) {
      return it->second;
    }
  }
  return kNone;
}

PrefixCache::Node PrefixCache::AddChild(Node parent, std::vector<int32_t> tokens,
                                        std::string signature) {
  const Node node = next_node_++;
  const uint64_t hash = HashOf(parent, tokens, signature);
  if (parent != kNone) ++nodes_.at(parent).children;
  nodes_.emplace(node, Block{.parent = parent,
                             .tokens = std::move(tokens),
                             .signature = std::move(signature),
                             .pages = std::vector<int32_t>(num_layers_, kernels::kZeroPage),
                             .hash = hash});
  by_hash_.emplace(hash, node);
  return node;
}

// Removes a node that holds no page and leads to none, and its ancestors likewise.
void PrefixCache::RemoveIfUseless(Node node) {
  while (node != kNone) {
    const auto it = nodes_.find(node);
    const Block& block = it->second;
    if (block.held_pages > 0 || block.children > 0 || block.cursors > 0) return;
    const auto [begin, end] = by_hash_.equal_range(block.hash);
    by_hash_.erase(
        std::find_if(begin, end, [&](const auto& entry) { return entry.second == node; }));
    node = block.parent;
    nodes_.erase(it);
    if (node != kNone) --nodes_.at(node).children;
  }
}

std::vector<PrefixCache::Node> PrefixCache::Walk(const PrefixScope& scope, const TokenAt& token_at,
                                                 const Recipe& recipe, int64_t prompt_tokens,
                                                 int64_t blocks) const {
  std::vector<Node> path;
  Node node = Child(kNone, {}, RootSignature(scope));
  for (int64_t block = 0; block < blocks && node != kNone; ++block) {
    if (!IsShareable(recipe, prompt_tokens, block)) break;
    node = Child(node, TokensOf(token_at, block), SignatureOf(recipe, block));
    if (node != kNone) path.push_back(node);
  }
  return path;
}

// The most blocks of the path after which every page that the recipe keeps is here. A longer prefix
// can be served where a shorter one cannot: a window needs only its own end.
int64_t PrefixCache::LongestServed(const std::vector<Node>& path, const Recipe& recipe) const {
  const auto blocks = static_cast<int64_t>(path.size());
  std::vector<bool> served(blocks + 1, true);
  std::vector<const Block*> nodes;
  for (Node node : path) nodes.push_back(&nodes_.at(node));
  for (int32_t layer = 0; layer < num_layers_; ++layer) {
    int64_t first_missing = blocks;  // all blocks below it are here
    int64_t run = 0;                 // blocks here without a gap, up to where we are
    for (int64_t length = 1; length <= blocks; ++length) {
      const bool here = nodes[length - 1]->pages[layer] != kernels::kZeroPage;
      run = here ? run + 1 : 0;
      if (!here) first_missing = std::min(first_missing, length - 1);
      const KeptPositions kept = Kept(recipe, layer, length * kBlock);
      const int64_t sinks = std::min(length, (kept.keep_first + kBlock - 1) / kBlock);
      const int64_t window = length - std::min(length, kept.keep_from / kBlock);
      if (first_missing < sinks || run < window) served[length] = false;
    }
  }
  int64_t longest = blocks;
  while (!served[longest]) --longest;  // served[0] stays true
  return longest;
}

PrefixCache::Hit PrefixCache::Find(const PrefixScope& scope, const TokenAt& token_at,
                                   const Recipe& recipe, int64_t prompt_tokens,
                                   int64_t most_tokens) const {
  Hit hit;
  hit.path = Walk(scope, token_at, recipe, prompt_tokens, most_tokens / kBlock);
  hit.path.resize(LongestServed(hit.path, recipe));
  hit.tokens = static_cast<int64_t>(hit.path.size()) * kBlock;
  for (int32_t layer = 0; layer < num_layers_; ++layer) {
    const KeptPositions kept = Kept(recipe, layer, hit.tokens);
    for (size_t block = 0; block < hit.path.size(); ++block) {
      if (!KeepsPage(kept, static_cast<int64_t>(block))) continue;
      ++hit.pages;
      const int32_t page = nodes_.at(hit.path[block]).pages[layer];
      if (pool_->references(page) == 0) ++hit.evictable_pages;
    }
  }
  return hit;
}

void PrefixCache::Adopt(const Hit& hit, const Recipe& recipe, int32_t slot, SequencePages* pages,
                        std::vector<PageTableUpdate>* updates) {
  std::vector<const Block*> nodes;
  for (Node node : hit.path) nodes.push_back(&nodes_.at(node));
  for (int32_t layer = 0; layer < num_layers_; ++layer) {
    const KeptPositions kept = Kept(recipe, layer, hit.tokens);
    std::vector<int32_t> shared(nodes.size(), kernels::kZeroPage);
    for (size_t block = 0; block < nodes.size(); ++block) {
      if (KeepsPage(kept, static_cast<int64_t>(block))) shared[block] = nodes[block]->pages[layer];
    }
    pages->Share(layer, shared, slot, pool_, updates);
  }
}

PrefixCache::Cursor PrefixCache::Follow(const Hit& hit) {
  Cursor cursor;
  if (hit.path.empty()) return cursor;
  cursor = {.node = hit.path.back(), .blocks = static_cast<int64_t>(hit.path.size())};
  ++nodes_.at(cursor.node).cursors;
  return cursor;
}

void PrefixCache::Forget(Cursor* cursor) {
  const Node node = std::exchange(*cursor, {}).node;
  if (node == kNone) return;
  --nodes_.at(node).cursors;
  RemoveIfUseless(node);
}

void PrefixCache::Register(const PrefixScope& scope, const TokenAt& token_at, const Recipe& recipe,
                           int64_t prompt_tokens, int64_t computed, const SequencePages& pages,
                           Cursor* cursor) {
  for (; !cursor->closed && (cursor->blocks + 1) * kBlock <= computed; ++cursor->blocks) {
    const int64_t block = cursor->blocks;
    if (!IsShareable(recipe, prompt_tokens, block)) {
      cursor->closed = true;
      return;
    }
    Node parent = cursor->node;
    if (parent == kNone) {
      parent = Child(kNone, {}, RootSignature(scope));
      if (parent == kNone) parent = AddChild(kNone, {}, RootSignature(scope));
      ++nodes_.at(parent).cursors;
    }
    std::vector<int32_t> tokens = TokensOf(token_at, block);
    std::string signature = SignatureOf(recipe, block);
    Node node = Child(parent, tokens, signature);
    if (node == kNone) node = AddChild(parent, std::move(tokens), std::move(signature));
    Block& entry = nodes_.at(node);
    for (int32_t layer = 0; layer < num_layers_; ++layer) {
      const int32_t page = pages.Page(layer, block);
      if (page == kernels::kZeroPage || entry.pages[layer] != kernels::kZeroPage) continue;
      if (pool_->registered(page)) continue;
      pool_->Register(page);
      entry.pages[layer] = page;
      ++entry.held_pages;
      homes_[page] = {node, layer};
    }
    ++entry.cursors;
    --nodes_.at(parent).cursors;
    cursor->node = node;
  }
}

void PrefixCache::OnEvicted(int32_t page) {
  const auto home = homes_.find(page);
  SWAA_CHECK(home != homes_.end()) << "page " << page << " is no block's";
  const Node node = home->second.node;
  Block& block = nodes_.at(node);
  block.pages[home->second.layer] = kernels::kZeroPage;
  --block.held_pages;
  homes_.erase(home);
  RemoveIfUseless(node);
}

}  // namespace swaa
