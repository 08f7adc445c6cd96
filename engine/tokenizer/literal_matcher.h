// Finds literal tokens (special and added ones) in text.

#ifndef SWAA_ENGINE_TOKENIZER_LITERAL_MATCHER_H_
#define SWAA_ENGINE_TOKENIZER_LITERAL_MATCHER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"

namespace swaa {

// A trie of literals. Immutable once filled; then any thread.
class LiteralMatcher {
 public:
  struct Match {
    size_t begin;
    size_t length;
    int32_t token;
  };

  // `literal` is not empty. The first of equal ones stays.
  void Add(std::string_view literal, int32_t token);

  // The leftmost match at or after `from` that `accepts`, and there the longest.
  std::optional<Match> Find(std::string_view text, size_t from,
                            absl::FunctionRef<bool(const Match&)> accepts) const;

  // The token whose literal is exactly `text`.
  std::optional<int32_t> Lookup(std::string_view text) const;

 private:
  // The child of `node` by `byte`, or 0 (the root is no child).
  uint32_t Child(uint32_t node, char byte) const;

  std::vector<int32_t> node_token_ = {-1};            // node -> token that ends there, or -1
  absl::flat_hash_map<uint64_t, uint32_t> children_;  // node << 8 | byte -> node
  std::array<bool, 256> begins_{};                    // bytes that some literal begins with
};

}  // namespace swaa

#endif  // SWAA_ENGINE_TOKENIZER_LITERAL_MATCHER_H_
