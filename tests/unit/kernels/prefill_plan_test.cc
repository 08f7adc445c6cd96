// The plan of prefill attention on CUDA: covers what it must exactly once, in bounds, balanced.

#include "kernels/cuda/attention/prefill_plan.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/unit/testing/seed.h"

namespace swaa::kernels::cuda {
namespace {

constexpr PrefillPlanOptions kHopper{
    .query_rows = 128, .key_rows = 128, .heads = 32, .blocks = 132, .max_results = 792};

struct Problem {
  std::vector<SequenceRows> sequences;
  std::vector<KeySpan> spans;
  void Add(int32_t first_position, int32_t count, KeySpan span) {
    int32_t row = 5;  // rows of others come first
    if (!sequences.empty()) row = sequences.back().first_row + sequences.back().query_count + 3;
    sequences.push_back({.slot = static_cast<int32_t>(sequences.size()) * 7 + 1,
                         .first_row = row,
                         .query_count = count,
                         .first_position = first_position});
    spans.push_back(span);
  }
};

// Every row of every sequence is in one tile, whose parts are the tile's visits, each once.
void CheckCovered(const Problem& problem, const PrefillPlanOptions& options,
                  const std::vector<QueryTile>& tiles) {
  std::map<std::tuple<int32_t, int32_t>, std::vector<QueryTile>> by_tile;  // slot, position
  for (const QueryTile& t : tiles) {
    ASSERT_EQ(t.position % options.query_rows, 0);
    by_tile[{t.slot, t.position}].push_back(t);
  }
  int64_t covered = 0, rows = 0;
  std::set<int32_t> splits;
  std::vector<bool> results(options.max_results, false);
  for (size_t s = 0; s < problem.sequences.size(); ++s) {
    const SequenceRows& sequence = problem.sequences[s];
    rows += sequence.query_count;
    for (auto& [key, parts] : by_tile) {
      if (std::get<0>(key) != sequence.slot) continue;
      const QueryTile& t = parts.front();
      const ResolvedSpan span = Resolve(problem.spans[s]);
      const VisitedTiles visited =
          Visit(t.position + t.first, t.position + t.last, span, options.key_rows);
      EXPECT_EQ(t.window, span.window);
      EXPECT_EQ(t.sinks, span.sinks);
      EXPECT_EQ(t.out_row, sequence.first_row + t.position - sequence.first_position);
      EXPECT_GE(t.position + t.first, sequence.first_position);
      EXPECT_LT(t.position + t.last, sequence.first_position + sequence.query_count);
      covered += t.last - t.first + 1;
      ASSERT_EQ(parts.size(), static_cast<size_t>(t.parts));
      std::sort(parts.begin(), parts.end(),
                [](const QueryTile& a, const QueryTile& b) { return a.part < b.part; });
      int32_t end = 0;
      for (int32_t p = 0; p < t.parts; ++p) {
        EXPECT_EQ(parts[p].part, p);
        EXPECT_EQ(parts[p].begin, end);
        EXPECT_GT(parts[p].end, parts[p].begin);
        EXPECT_EQ(parts[p].first_result, t.first_result);
        EXPECT_EQ(parts[p].split, t.split);
        end = parts[p].end;
      }
      EXPECT_EQ(end, visited.count());
      if (t.parts == 1) continue;
      EXPECT_TRUE(splits.insert(t.split).second) << "two tiles count arrivals at " << t.split;
      for (int32_t r = 0; r < options.heads * t.parts; ++r) {
        ASSERT_LT(t.first_result + r, options.max_results);
        ASSERT_FALSE(results[t.first_result + r]) << "two parts leave result " << r;
        results[t.first_result + r] = true;
      }
    }
  }
  EXPECT_EQ(covered, rows);
  if (!splits.empty()) {
    EXPECT_EQ(*splits.rbegin() + 1, static_cast<int32_t>(splits.size()));
    EXPECT_LE(static_cast<int32_t>(splits.size()) * options.heads, options.max_results / 2);
  }
}

std::vector<QueryTile> Plan(const Problem& problem, const PrefillPlanOptions& options) {
  std::vector<QueryTile> tiles;
  PlanPrefill(problem.sequences, problem.spans, options, &tiles);
  for (size_t i = 1; i < tiles.size(); ++i) {
    EXPECT_GE(tiles[i - 1].end - tiles[i - 1].begin, tiles[i].end - tiles[i].begin);
  }
  CheckCovered(problem, options, tiles);
  return tiles;
}

TEST(PrefillPlanTest, AlignsTilesToAbsolutePositions) {
  Problem problem;
  problem.Add(100, 200, {});
  const auto tiles = Plan(problem, kHopper);
  std::set<int32_t> positions;
  for (const QueryTile& t : tiles) positions.insert(t.position);
  EXPECT_EQ(positions, (std::set<int32_t>{0, 128, 256}));
}

// A chunk of 128 at 32640 has 32 items for 132 blocks: uncut, a quarter of them would work.
TEST(PrefillPlanTest, CutsKeysOfFewLongItems) {
  Problem problem;
  problem.Add(32640, 128, {});
  const auto tiles = Plan(problem, kHopper);
  EXPECT_GE(tiles.size(), 4u);
  const auto whole = Plan(
      problem, {.query_rows = 128, .key_rows = 128, .heads = 32, .blocks = 132, .max_results = 0});
  EXPECT_EQ(whole.size(), 1u);
}

TEST(PrefillPlanTest, LeavesManyItemsWhole) {
  Problem problem;
  problem.Add(0, 8192, {});
  EXPECT_EQ(Plan(problem, kHopper).size(), 64u);
}

TEST(PrefillPlanTest, KeepsWhatTilesHeldBefore) {
  Problem problem;
  problem.Add(0, 300, {});
  std::vector<QueryTile> tiles(2, QueryTile{.slot = 99});
  PlanPrefill(problem.sequences, problem.spans, kHopper, &tiles);
  ASSERT_EQ(tiles.size(), 5u);
  EXPECT_EQ(tiles[0].slot, 99);
  EXPECT_EQ(tiles[1].slot, 99);
  EXPECT_EQ(tiles[2].slot, 1);
}

// Dealt longest first to the blocks, steps end earlier than with the keys uncut: on average, hardly
// later in any case, and much where there is much to gain. The plan estimates, this test deals.
TEST(PrefillPlanTest, CutsPay) {
  const auto duration = [](const std::vector<QueryTile>& tiles, int32_t heads, int32_t blocks) {
    std::multiset<int64_t> ends;
    for (int32_t b = 0; b < blocks; ++b) ends.insert(0);
    for (const QueryTile& t : tiles) {
      for (int32_t h = 0; h < heads; ++h) {
        const int64_t begin = *ends.begin();
        ends.erase(ends.begin());
        ends.insert(begin + t.end - t.begin + (t.parts > 1 ? 4 : 2));
      }
    }
    return static_cast<double>(*ends.rbegin());
  };
  const uint64_t seed = testing::Seed();
  std::mt19937_64 random(seed);
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  const auto below = [&](int32_t n) { return static_cast<int32_t>(random() % n); };
  constexpr int kCases = 2000;
  double sum = 0;
  for (int i = 0; i < kCases; ++i) {
    Problem problem;
    for (int s = 1 + below(5); s > 0; --s) {
      problem.Add(
          below(1 << (5 + below(11))), 1 + below(700),
          below(3) == 0 ? KeySpan{.window = 1 + below(5000), .sinks = below(200)} : KeySpan{});
    }
    const auto cut = Plan(problem, kHopper);
    PrefillPlanOptions never = kHopper;
    never.max_results = 0;
    const auto whole = Plan(problem, never);
    const double ratio = duration(cut, 32, 132) / duration(whole, 32, 132);
    EXPECT_LE(ratio, 1.2) << "case " << i;
    sum += ratio;
    if (HasFatalFailure()) return;
  }
  EXPECT_LT(sum / kCases, 0.98);
  Problem chunk;
  chunk.Add(32640, 128, {});
  EXPECT_LT(duration(Plan(chunk, kHopper), 32, 132), 75);  // 258 uncut, 64.5 without any loss
}

TEST(PrefillPlanTest, AnyStep) {
  const uint64_t seed = testing::Seed();
  std::mt19937_64 random(seed);
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  const auto below = [&](int32_t n) { return static_cast<int32_t>(random() % n); };
  for (int i = 0; i < 1000; ++i) {
    PrefillPlanOptions options{.query_rows = below(2) == 0 ? 128 : 192,
                               .key_rows = below(2) == 0 ? 128 : 64,
                               .heads = 1 + below(32),
                               .blocks = 1 + below(264)};
    options.max_results = 6 * options.blocks;
    Problem problem;
    for (int s = below(12); s > 0; --s) {
      problem.Add(below(1 << (1 + below(16))), 1 + below(1 << (1 + below(10))),
                  below(3) == 0
                      ? KeySpan{.window = 1 + below(1 << (1 + below(12))), .sinks = below(300)}
                      : KeySpan{});
    }
    Plan(problem, options);
    if (HasFatalFailure() || HasNonfatalFailure()) {
      FAIL() << "case " << i;
    }
  }
}

}  // namespace
}  // namespace swaa::kernels::cuda
