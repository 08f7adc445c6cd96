// What a request's cached blocks depend on besides its tokens: computed once per request.

#ifndef SWAA_ENGINE_CACHE_PREFIX_KEY_H_
#define SWAA_ENGINE_CACHE_PREFIX_KEY_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "engine/cache/content_hash.h"
#include "engine/recipe/recipe.h"

namespace swaa {

// Whose blocks may be found: a digest of the client's salt and of the adapter.
struct PrefixScope {
  ContentHash digest;
  bool operator==(const PrefixScope&) const = default;
};

// `adapter` names one load of an adapter, not its name; 0: the base model. The salt itself is not
// kept.
PrefixScope MakePrefixScope(std::string_view salt, uint64_t adapter);

// The mask under which blocks beyond W + K were computed: W, K and F. D changes no prompt position
// and is no part of it.
struct MaskSignature {
  uint32_t window = 0;
  uint32_t sinks = 0;
  std::vector<bool> layer_full;
  ContentHash digest;  // of the others

  bool operator==(const MaskSignature&) const = default;
};

struct PrefixKey {
  PrefixScope scope;
  // Blocks below it see everything whatever the recipe, so that all recipes share them.
  int64_t neutral_blocks = 0;
  std::shared_ptr<const MaskSignature> mask;  // of the other blocks; null where none is masked
  // Generated positions see more than prompt positions would, in a layer of D that is not in F.
  bool decode_sees_more = false;

  // Null where the recipe cannot matter.
  const std::shared_ptr<const MaskSignature>& MaskOf(int64_t block) const {
    static const std::shared_ptr<const MaskSignature> kNeutral;
    return block < neutral_blocks ? kNeutral : mask;
  }
  // Whether block `block` of a request may be shared with prompts: its positions are prompt
  // positions, or saw no more than prompt positions do.
  bool IsShareable(int64_t prompt_tokens, int64_t block) const;
};

PrefixKey MakePrefixKey(const PrefixScope& scope, const Recipe& recipe);

// A request's known tokens, without copying them: the prompt, and the output behind it.
struct KnownTokens {
  std::span<const int32_t> prompt;
  std::span<const int32_t> output;

  int64_t prompt_tokens() const { return static_cast<int64_t>(prompt.size()); }
  // Positions first .. first + count - 1; they must be known.
  void Copy(int64_t first, int64_t count, int32_t* tokens) const;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_CACHE_PREFIX_KEY_H_
