// What a recipe makes visible, and what follows from it.

#include "engine/recipe/visibility.h"

#include <algorithm>

#include "kernels/page_count.h"

namespace swaa {
namespace {

constexpr int64_t kPage = kernels::kPageTokens;

using kernels::PageCount;

// 1 + 2 + ... + n.
int64_t Triangle(int64_t n) { return n * (n + 1) / 2; }

}  // namespace

kernels::KeySpan SpanOf(const Recipe& recipe, int32_t layer, Phase phase) {
  const bool full = !recipe.window.has_value() || recipe.layer_full[layer] ||
                    (phase == Phase::kDecode && recipe.decode_full[layer]);
  if (full) return {};
  // Beyond the largest position a window is full attention, and so are that many sinks.
  constexpr uint32_t kMost = kernels::KeySpan::kFull - 1;
  return {.window = static_cast<int32_t>(std::min(*recipe.window, kMost)),
          .sinks = static_cast<int32_t>(std::min(recipe.sinks, kMost))};
}

int64_t VisibleKeys(const kernels::KeySpan& span, int64_t position) {
  if (span.full()) return position + 1;
  return std::min<int64_t>(position + 1, int64_t{span.window} + span.sinks);
}

int64_t SumVisibleKeys(const kernels::KeySpan& span, int64_t first, int64_t last) {
  if (first >= last) return 0;
  if (span.full()) return Triangle(last) - Triangle(first);
  const int64_t most = int64_t{span.window} + span.sinks;
  const int64_t bend = std::clamp(most, first, last);  // position + 1 <= most below it
  return Triangle(bend) - Triangle(first) + (last - bend) * most;
}

int64_t AttendedKeys(const Recipe& recipe, int64_t prompt_tokens, int64_t first, int64_t last) {
  const int64_t border = std::clamp(prompt_tokens, first, std::max(first, last));
  int64_t keys = 0;
  for (int32_t layer = 0; layer < recipe.num_layers(); ++layer) {
    keys += SumVisibleKeys(SpanOf(recipe, layer, Phase::kPrefill), first, border);
    keys += SumVisibleKeys(SpanOf(recipe, layer, Phase::kDecode), border, last);
  }
  return keys;
}

KeptPositions Kept(const Recipe& recipe, int32_t layer, int64_t computed) {
  if (!recipe.window.has_value() || recipe.layer_full[layer] || recipe.decode_full[layer])
    return {};
  const kernels::KeySpan span = SpanOf(recipe, layer, Phase::kPrefill);
  return {.keep_first = span.sinks, .keep_from = std::max<int64_t>(0, computed - span.window + 1)};
}

bool KeepsPage(const KeptPositions& kept, int64_t block) {
  return block * kPage < kept.keep_first || (block + 1) * kPage > kept.keep_from;
}

int64_t PagesHeld(const Recipe& recipe, int64_t computed) {
  int64_t pages = 0;
  const int64_t blocks = PageCount(computed);
  for (int32_t layer = 0; layer < recipe.num_layers(); ++layer) {
    const KeptPositions kept = Kept(recipe, layer, computed);
    const int64_t sink_blocks = std::min(blocks, PageCount(kept.keep_first));
    const int64_t window_begin = std::clamp(kept.keep_from / kPage, sink_blocks, blocks);
    pages += sink_blocks + blocks - window_begin;
  }
  return pages;
}

int64_t PeakPages(const Recipe& recipe, int64_t total, int64_t chunk_tokens) {
  int64_t pages = 0;
  for (int32_t layer = 0; layer < recipe.num_layers(); ++layer) {
    const bool keeps_all = Kept(recipe, layer, total).keep_from == 0;
    const kernels::KeySpan span = SpanOf(recipe, layer, Phase::kPrefill);
    const int64_t sliding =
        PageCount(span.sinks) + PageCount(int64_t{span.window} + chunk_tokens) + 1;
    pages += keeps_all ? PageCount(total) : std::min(PageCount(total), sliding);
  }
  return pages;
}

}  // namespace swaa
