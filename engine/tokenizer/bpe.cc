// Engine room, tokenizer: byte-pair merging inside one piece.

#include "engine/tokenizer/bpe.h"

#include <limits>
#include <queue>

namespace swaa {
namespace {

constexpr size_t kShort = 48;  // symbols; below, a scan per merge is faster than a heap
constexpr uint32_t kNoRank = std::numeric_limits<uint32_t>::max();

}  // namespace

void Bpe::AddMerge(int32_t left, int32_t right, int32_t merged) {
  const uint32_t rank = static_cast<uint32_t>(merges_.size());
  merges_.try_emplace(Key(left, right), Merge{rank, merged});
}

const Bpe::Merge* Bpe::Find(int32_t left, int32_t right) const {
  const auto found = merges_.find(Key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void Bpe::Encode(std::string_view piece, std::vector<int32_t>& out) const {
  std::vector<int32_t> symbols;
  symbols.reserve(piece.size());
  for (const char byte : piece) {
    const int32_t token = byte_tokens_[static_cast<uint8_t>(byte)];
    if (token >= 0) symbols.push_back(token);
  }
  if (symbols.size() <= kShort) {
    MergeShort(symbols);
  } else {
    MergeLong(symbols);
  }
  out.insert(out.end(), symbols.begin(), symbols.end());
}

void Bpe::MergeShort(std::vector<int32_t>& symbols) const {
  if (symbols.size() < 2) return;
  std::array<Merge, kShort> merge;  // of symbol i with its right neighbour
  const auto look_up = [&](size_t i) {
    const Merge* found = i + 1 < symbols.size() ? Find(symbols[i], symbols[i + 1]) : nullptr;
    merge[i] = found != nullptr ? *found : Merge{kNoRank, -1};
  };
  for (size_t i = 0; i < symbols.size(); ++i) look_up(i);
  while (symbols.size() > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < symbols.size(); ++i) {
      if (merge[i].rank < merge[best].rank) best = i;
    }
    if (merge[best].rank == kNoRank) return;
    symbols[best] = merge[best].merged;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
    for (size_t i = best + 1; i < symbols.size(); ++i) merge[i] = merge[i + 1];
    look_up(best);
    if (best > 0) look_up(best - 1);
  }
}

void Bpe::MergeLong(std::vector<int32_t>& symbols) const {
  // A linked list over the symbols and a heap of candidates; one whose symbols changed since is
  // stale.
  struct Candidate {
    uint32_t rank;
    uint32_t position;
    int32_t left, right, merged;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  constexpr int32_t kGone = -1;
  const uint32_t size = static_cast<uint32_t>(symbols.size());
  std::vector<uint32_t> next(size), previous(size);  // `size`: none
  std::vector<Candidate> storage;
  storage.reserve(size);
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> heap(std::greater<>{},
                                                                              std::move(storage));
  const auto offer = [&](uint32_t left, uint32_t right) {
    if (left == size || right == size) return;
    const Merge* merge = Find(symbols[left], symbols[right]);
    if (merge != nullptr) {
      heap.push({merge->rank, left, symbols[left], symbols[right], merge->merged});
    }
  };
  for (uint32_t i = 0; i < size; ++i) {
    next[i] = i + 1;
    previous[i] = i == 0 ? size : i - 1;
  }
  for (uint32_t i = 0; i + 1 < size; ++i) offer(i, i + 1);
  while (!heap.empty()) {
    const Candidate top = heap.top();
    heap.pop();
    const uint32_t left = top.position;
    const uint32_t right = next[left];
    if (symbols[left] != top.left || right == size || symbols[right] != top.right) continue;
    symbols[left] = top.merged;
    symbols[right] = kGone;
    next[left] = next[right];
    if (next[right] != size) previous[next[right]] = left;
    offer(previous[left], left);
    offer(left, next[left]);
  }
  std::erase(symbols, kGone);
}

}  // namespace swaa
