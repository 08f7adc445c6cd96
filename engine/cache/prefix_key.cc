// What a request's cached blocks depend on.

#include "engine/cache/prefix_key.h"

#include <algorithm>
#include <limits>

#include "kernels/types.h"

namespace swaa {
namespace {

constexpr int64_t kBlock = kernels::kPageTokens;

}  // namespace

PrefixScope MakePrefixScope(std::string_view salt, uint64_t adapter) {
  ContentHasher hasher({});
  hasher.Add(adapter);
  hasher.AddBytes(salt);
  return {hasher.Finish()};
}

bool PrefixKey::IsShareable(int64_t prompt_tokens, int64_t block) const {
  return !decode_sees_more || block < neutral_blocks || (block + 1) * kBlock <= prompt_tokens;
}

PrefixKey MakePrefixKey(const PrefixScope& scope, const Recipe& recipe) {
  PrefixKey key{.scope = scope, .neutral_blocks = std::numeric_limits<int64_t>::max()};
  const bool all_full =
      std::all_of(recipe.layer_full.begin(), recipe.layer_full.end(), [](bool f) { return f; });
  if (!recipe.window.has_value() || all_full) return key;
  key.neutral_blocks = (int64_t{*recipe.window} + int64_t{recipe.sinks}) / kBlock;
  MaskSignature mask{
      .window = *recipe.window, .sinks = recipe.sinks, .layer_full = recipe.layer_full};
  ContentHasher hasher({});
  hasher.Add(uint64_t{mask.window} << 32 | mask.sinks);
  for (bool full : mask.layer_full) hasher.Add(full ? 1 : 0);
  mask.digest = hasher.Finish();
  key.mask = std::make_shared<const MaskSignature>(std::move(mask));
  for (int32_t layer = 0; layer < recipe.num_layers(); ++layer) {
    key.decode_sees_more |= recipe.decode_full[layer] && !recipe.layer_full[layer];
  }
  return key;
}

void KnownTokens::Copy(int64_t first, int64_t count, int32_t* tokens) const {
  const int64_t of_prompt = std::clamp<int64_t>(prompt_tokens() - first, 0, count);
  const auto from_prompt = prompt.subspan(of_prompt > 0 ? first : 0, of_prompt);
  std::copy(from_prompt.begin(), from_prompt.end(), tokens);
  const auto from_output =
      output.subspan(std::max<int64_t>(0, first - prompt_tokens()), count - of_prompt);
  std::copy(from_output.begin(), from_output.end(), tokens + of_prompt);
}

}  // namespace swaa
