// Byte-pair merging inside one piece.

#ifndef SWAA_ENGINE_TOKENIZER_BPE_H_
#define SWAA_ENGINE_TOKENIZER_BPE_H_

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"

namespace swaa {

// Merges by rank: the lowest rank first, the leftmost among equals. Immutable once filled; then any
// thread.
class Bpe {
 public:
  // `byte_tokens`: byte -> token, or -1 where the vocabulary lacks the byte.
  explicit Bpe(const std::array<int32_t, 256>& byte_tokens) : byte_tokens_(byte_tokens) {}

  // Adds the merge of the next rank. Of two with the same pair the first stays.
  void AddMerge(int32_t left, int32_t right, int32_t merged);

  // Appends the tokens of `piece`. Bytes that the vocabulary lacks leave no trace, as with Hugging
  // Face's tokenizers. Time is O(n log n).
  void Encode(std::string_view piece, std::vector<int32_t>& out) const;

 private:
  struct Merge {
    uint32_t rank;
    int32_t merged;
  };
  static uint64_t Key(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  const Merge* Find(int32_t left, int32_t right) const;
  void MergeShort(std::vector<int32_t>& symbols) const;
  void MergeLong(std::vector<int32_t>& symbols) const;

  std::array<int32_t, 256> byte_tokens_;
  absl::flat_hash_map<uint64_t, Merge> merges_;
  std::vector<int32_t> merged_;  // rank -> result
};

}  // namespace swaa

#endif  // SWAA_ENGINE_TOKENIZER_BPE_H_
