// Which key tiles the CUDA attention kernels visit, against the definition of visible keys.

#include "kernels/cuda/attention/visited_tiles.h"

#include <algorithm>
#include <cstdint>
#include <random>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/unit/testing/seed.h"

namespace swaa::kernels::cuda {
namespace {

// The definition, in 64 bits, from the span as the caller gives it.
bool Visible(const KeySpan& span, int64_t i, int64_t j) {
  return j <= i && (span.full() || i - j < span.window || j < span.sinks);
}

struct Rows {
  int32_t first, last;  // positions
  KeySpan span;
  int32_t tile_tokens;
};

std::string Describe(const Rows& r) {
  return absl::StrCat("rows ", r.first, "..", r.last, " W=", r.span.window, " K=", r.span.sinks,
                      " tiles of ", r.tile_tokens);
}

// How many of the tile's pairs are visible: none, some, all.
struct Count {
  int64_t visible = 0, pairs = 0, hidden_by_future = 0, hidden_by_span = 0;
};
Count CountPairs(const Rows& r, int32_t first_key, int32_t keys) {
  Count count;
  for (int64_t i = r.first; i <= r.last; ++i) {
    for (int64_t j = first_key; j < int64_t{first_key} + keys; ++j) {
      ++count.pairs;
      if (Visible(r.span, i, j)) {
        ++count.visible;
      } else if (j > i) {
        ++count.hidden_by_future;
      } else {
        ++count.hidden_by_span;
      }
    }
  }
  return count;
}

void CheckRows(const Rows& r) {
  SCOPED_TRACE(Describe(r));
  const ResolvedSpan span = Resolve(r.span);
  const VisitedTiles visited = Visit(r.first, r.last, span, r.tile_tokens);
  ASSERT_GE(visited.window_tiles, 1);
  ASSERT_EQ(visited.Tile(0), r.last / r.tile_tokens);
  std::set<int32_t> tiles;
  int32_t before = visited.Tile(0) + 1;
  for (int32_t v = 0; v < visited.count(); ++v) {
    const int32_t tile = visited.Tile(v);
    ASSERT_GE(tile, 0);
    ASSERT_LT(tile, before) << "tiles are visited from the last down, each once";
    before = tile;
    tiles.insert(tile);
  }
  for (int32_t tile = 0; tile <= r.last / r.tile_tokens + 1; ++tile) {
    const int32_t first_key = tile * r.tile_tokens;
    const Count count = CountPairs(r, first_key, r.tile_tokens);
    ASSERT_EQ(tiles.contains(tile), count.visible > 0) << "tile " << tile;
    ASSERT_EQ(SeesAny(first_key, r.tile_tokens, r.first, r.last, span.window, span.sinks),
              count.visible > 0)
        << "tile " << tile;
    ASSERT_EQ(NeedsCausalMask(first_key, r.tile_tokens, r.first), count.hidden_by_future > 0)
        << "tile " << tile;
    const bool span_mask = NeedsSpanMask(first_key, r.tile_tokens, r.last, span.window, span.sinks);
    if (count.hidden_by_span > 0) {
      ASSERT_TRUE(span_mask) << "tile " << tile;
    } else if (span_mask) {
      // Claimed for nothing only where the sinks end inside the tile and right of the window's
      // edge.
      ASSERT_GT(span.sinks, r.last - span.window) << "tile " << tile;
      ASSERT_GT(span.sinks, first_key) << "tile " << tile;
    }
  }
}

TEST(VisitedTilesTest, EdgesOfTiles) {
  const std::vector<int32_t> edges = {1, 63, 64, 65, 127, 128, 129, 300, 5000};
  std::vector<int32_t> sinks = edges;
  sinks.push_back(0);
  for (const int32_t tile_tokens : {64, 128}) {
    for (const int32_t first : {0, 1, 63, 64, 127, 128, 191, 500, 700}) {
      for (const int32_t rows : {1, 2, 64, 128, 192}) {
        CheckRows({first, first + rows - 1, KeySpan{}, tile_tokens});
        for (const int32_t w : edges)
          for (const int32_t k : sinks)
            CheckRows({first, first + rows - 1, {.window = w, .sinks = k}, tile_tokens});
      }
    }
  }
}

TEST(VisitedTilesTest, AnyRows) {
  const uint64_t seed = testing::Seed();
  std::mt19937_64 random(seed);
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  const auto below = [&](int32_t n) { return static_cast<int32_t>(random() % n); };
  for (int i = 0; i < 2000; ++i) {
    const int32_t first = below(1 << (1 + below(11)));
    Rows rows{.first = first,
              .last = first + below(192),
              .span = {.window = 1 + below(1 << (1 + below(12))), .sinks = below(2) * below(600)},
              .tile_tokens = below(2) == 0 ? 64 : 128};
    if (below(5) == 0) rows.span = {};
    CheckRows(rows);
    if (HasFatalFailure()) return;
  }
}

// Spans near the ends of int32 do not overflow: they see everything.
TEST(VisitedTilesTest, HugeSpans) {
  constexpr int32_t kMax = KeySpan::kFull;
  for (const KeySpan& span :
       {KeySpan{.window = kMax - 1, .sinks = 0}, KeySpan{.window = kMax - 1, .sinks = kMax},
        KeySpan{.window = 1, .sinks = kMax}, KeySpan{.window = 1 << 30, .sinks = 7},
        KeySpan{.window = (1 << 30) - 1, .sinks = kMax}}) {
    CheckRows({300, 427, span, 128});
    const VisitedTiles tiles = Visit((1 << 20) - 64, (1 << 20) - 1, Resolve(span), 64);
    EXPECT_EQ(tiles.count(), (1 << 20) / 64);
  }
}

}  // namespace
}  // namespace swaa::kernels::cuda
