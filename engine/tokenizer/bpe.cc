// Byte-pair merging inside one piece.

#include "engine/tokenizer/bpe.h"

#include <algorithm>
#include <functional>
#include <limits>

namespace swaa {
namespace {

constexpr size_t kShort = 48;  // symbols; below, a scan per merge is faster than a heap
constexpr uint32_t kNoRank = std::numeric_limits<uint32_t>::max();

}  // namespace

void Bpe::AddMerge(int32_t left, int32_t right, int32_t merged) {
  const uint32_t rank = static_cast<uint32_t>(merged_.size());
  if (merges_.try_emplace(Key(left, right), Merge{rank, merged}).second) merged_.push_back(merged);
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
  // A linked list over the symbols, and a heap of candidates, rank << 32 | position, for the lowest
  // to come first. A candidate whose pair has changed since has another rank by now and is passed
  // over.
  constexpr int32_t kGone = -1;
  const uint32_t size = static_cast<uint32_t>(symbols.size());
  std::vector<uint32_t> next(size), previous(size);  // `size`: none
  std::vector<uint32_t> rank(size, kNoRank);         // of the symbol with its right neighbour
  std::vector<uint64_t> heap;
  const auto rank_pair = [&](uint32_t left) {
    const Merge* merge = next[left] == size ? nullptr : Find(symbols[left], symbols[next[left]]);
    rank[left] = merge == nullptr ? kNoRank : merge->rank;
    if (merge != nullptr) heap.push_back(uint64_t{merge->rank} << 32 | left);
    return merge != nullptr;
  };
  for (uint32_t i = 0; i < size; ++i) {
    next[i] = i + 1;
    previous[i] = i == 0 ? size : i - 1;
  }
  for (uint32_t i = 0; i < size; ++i) rank_pair(i);
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint32_t left = static_cast<uint32_t>(heap.back());
    const uint32_t its_rank = static_cast<uint32_t>(heap.back() >> 32);
    heap.pop_back();
    if (rank[left] != its_rank) continue;
    const uint32_t right = next[left];
    symbols[left] = merged_[its_rank];
    symbols[right] = kGone;
    rank[right] = kNoRank;
    next[left] = next[right];
    if (next[left] != size) previous[next[left]] = left;
    if (rank_pair(left)) std::push_heap(heap.begin(), heap.end(), std::greater<>());
    if (previous[left] != size && rank_pair(previous[left])) {
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
  }
  std::erase(symbols, kGone);
}

}  // namespace swaa
