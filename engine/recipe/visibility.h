// What a recipe makes visible: the one place where a recipe becomes a window, and what follows from
// it for pages and statistics. Pure functions of
//
//   visible(l, i, j)  =  j <= i  and  ( l in F  or  i - j < W  or  j < K  or  (l in D and i >= P) )

#ifndef SWAA_ENGINE_RECIPE_VISIBILITY_H_
#define SWAA_ENGINE_RECIPE_VISIBILITY_H_

#include <cstdint>

#include "engine/recipe/recipe.h"
#include "kernels/types.h"

namespace swaa {

// Position i of a request with P prompt tokens: i < P prefills, i >= P decodes, whatever the step
// looks like.
enum class Phase { kPrefill, kDecode };

inline Phase PhaseOf(int32_t position, int32_t prompt_tokens) {
  return position < prompt_tokens ? Phase::kPrefill : Phase::kDecode;
}

// The span of keys that `layer` sees in `phase`.
kernels::KeySpan SpanOf(const Recipe& recipe, int32_t layer, Phase phase);

// Keys visible to a query at `position`.
int64_t VisibleKeys(const kernels::KeySpan& span, int64_t position);

// Sum of VisibleKeys over positions first .. last - 1, in closed form. 0 if first >= last.
int64_t SumVisibleKeys(const kernels::KeySpan& span, int64_t first, int64_t last);

// Visible (query, key) pairs over all layers for positions first .. last - 1 of a request with
// prompt_tokens prompt tokens.
int64_t AttendedKeys(const Recipe& recipe, int64_t prompt_tokens, int64_t first, int64_t last);

// The positions that `layer` must keep once `computed` positions are computed:
// p < keep_first, or p >= keep_from (keep_from <= computed). A layer that keeps all has keep_from =
// 0.
struct KeptPositions {
  int64_t keep_first = 0;
  int64_t keep_from = 0;
};
KeptPositions Kept(const Recipe& recipe, int32_t layer, int64_t computed);

// Whether page `block` (positions 64 block .. 64 block + 63) holds a position that is kept or not
// yet computed.
bool KeepsPage(const KeptPositions& kept, int64_t block);

// Pages over all layers that a request of this recipe holds after `computed` positions.
int64_t PagesHeld(const Recipe& recipe, int64_t computed);

// Pages over all layers that suffice at every step on the way from 0 to `total` positions, when no
// step computes more than `chunk_tokens` of its positions: a sliding layer needs at most ceil(K/64)
// + ceil((W + C)/64) + 1, however long the prompt.
int64_t PeakPages(const Recipe& recipe, int64_t total, int64_t chunk_tokens);

}  // namespace swaa

#endif  // SWAA_ENGINE_RECIPE_VISIBILITY_H_
