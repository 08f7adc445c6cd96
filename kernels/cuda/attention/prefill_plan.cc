// Cuts the prefill rows of a step into work items.

#include "kernels/cuda/attention/prefill_plan.h"

#include <algorithm>
#include <array>

namespace swaa::kernels::cuda {
namespace {

// In key tiles: what an item costs beside its own, and what a part costs on top.
constexpr int64_t kItemCost = 2;
constexpr int64_t kPartCost = 2;
// With so many items a block, the last ones to end are too few to matter.
constexpr int64_t kEnoughItems = 8;
// A cut must gain so much of the time, and leave so many key tiles to a part.
constexpr double kWorthwhile = 0.97;
constexpr int32_t kFewestTiles = 8;
constexpr std::array<int32_t, 9> kCuts = {2, 3, 4, 5, 6, 8, 10, 12, 16};

// Items of equal cost.
struct Jobs {
  int64_t cost = 0;
  int64_t count = 0;
};

int32_t Parts(int32_t visits, int32_t longest_part) {
  return (visits + longest_part - 1) / longest_part;
}

// Appends the uncut tiles.
void AppendTiles(std::span<const SequenceRows> sequences, std::span<const KeySpan> spans,
                 const PrefillPlanOptions& options, std::vector<QueryTile>* tiles) {
  for (size_t s = 0; s < sequences.size(); ++s) {
    const SequenceRows& rows = sequences[s];
    const ResolvedSpan span = Resolve(spans[s]);
    const int32_t end = rows.first_position + rows.query_count;
    // Aligned to absolute multiples of the tile's rows: a window's edge then lies alike in all of
    // them, and no tile visits one key tile more.
    int32_t position = rows.first_position / options.query_rows * options.query_rows;
    for (; position < end; position += options.query_rows) {
      const int32_t first = std::max(position, rows.first_position);
      const int32_t last = std::min(position + options.query_rows, end) - 1;
      QueryTile tile = {};
      tile.slot = rows.slot;
      tile.position = position;
      tile.out_row = rows.first_row + position - rows.first_position;
      tile.first = first - position;
      tile.last = last - position;
      tile.window = span.window;
      tile.sinks = span.sinks;
      tile.visited = Visit(first, last, span, options.key_rows);
      tile.end = tile.visited.count();
      tile.parts = 1;
      tiles->push_back(tile);
    }
  }
}

// The jobs of all heads when no part is longer than longest_part; results of parts in *results.
void CollectJobs(std::span<const QueryTile> tiles, int64_t heads, int32_t longest_part,
                 std::vector<Jobs>* jobs, int64_t* results) {
  jobs->clear();
  *results = 0;
  for (const QueryTile& tile : tiles) {
    const int64_t visits = tile.end, parts = Parts(tile.end, longest_part);
    const int64_t extra = kItemCost + (parts > 1 ? kPartCost : 0);
    const int64_t longer = visits % parts;  // parts that have one visit more
    if (longer > 0) jobs->push_back({visits / parts + 1 + extra, longer * heads});
    jobs->push_back({visits / parts + extra, (parts - longer) * heads});
    if (parts > 1) *results += parts * heads;
  }
  std::sort(jobs->begin(), jobs->end(),
            [](const Jobs& a, const Jobs& b) { return a.cost > b.cost; });
}

// When the last block ends, longest jobs first. A lower bound that dealing comes close to, because
// jobs are many and alike: the mean, and for every k the k + 1 shortest of the k * blocks + 1
// longest jobs, of which one block must take as many.
int64_t Duration(std::span<const Jobs> jobs, int64_t blocks) {
  int64_t count = 0, work = 0;
  for (const Jobs& j : jobs) count += j.count, work += j.count * j.cost;
  // Sum of the `n` longest, for rising n.
  struct Prefix {
    std::span<const Jobs> jobs;
    size_t next = 0;
    int64_t passed = 0, sum = 0;
    int64_t Longest(int64_t n) {
      while (passed + jobs[next].count < n) {
        passed += jobs[next].count;
        sum += jobs[next].count * jobs[next].cost;
        ++next;
      }
      return sum + (n - passed) * jobs[next].cost;
    }
  };
  Prefix with{jobs}, without{jobs};
  int64_t duration = (work + blocks - 1) / blocks;
  for (int64_t k = 0; k * blocks < count; ++k) {
    duration = std::max(duration, with.Longest(k * blocks + 1) - without.Longest(k * blocks - k));
  }
  return duration;
}

// The longest part that lets the blocks end earliest; `longest` when nothing is to be cut.
int32_t ChooseCut(std::span<const QueryTile> tiles, int32_t longest,
                  const PrefillPlanOptions& options) {
  const int64_t items = static_cast<int64_t>(tiles.size()) * options.heads;
  if (items == 0 || items > kEnoughItems * options.blocks) return longest;
  std::vector<Jobs> jobs;
  jobs.reserve(2 * tiles.size());
  int64_t results;
  CollectJobs(tiles, options.heads, longest, &jobs, &results);
  int64_t best = Duration(jobs, options.blocks);
  int32_t best_part = longest;
  for (const int32_t cut : kCuts) {
    if (longest / cut < kFewestTiles) break;
    const int32_t part = Parts(longest, cut);
    CollectJobs(tiles, options.heads, part, &jobs, &results);
    if (results > options.max_results) break;
    const int64_t duration = Duration(jobs, options.blocks);
    if (duration < best * kWorthwhile) best = duration, best_part = part;
  }
  return best_part;
}

// Replaces every tile by its parts.
void CutTiles(int32_t longest_part, int32_t heads, size_t first_tile,
              std::vector<QueryTile>* tiles) {
  const size_t whole = tiles->size();
  int32_t results = 0, splits = 0;
  for (size_t i = first_tile; i < whole; ++i) {
    QueryTile tile = (*tiles)[i];
    const int64_t visits = tile.end;
    tile.parts = Parts(tile.end, longest_part);
    if (tile.parts == 1) continue;
    tile.first_result = results;
    tile.split = splits++;
    results += tile.parts * heads;
    for (int32_t part = 0; part < tile.parts; ++part) {
      tile.part = part;
      tile.begin = static_cast<int32_t>(visits * part / tile.parts);
      tile.end = static_cast<int32_t>(visits * (part + 1) / tile.parts);
      if (part == 0) {
        (*tiles)[i] = tile;
      } else {
        tiles->push_back(tile);
      }
    }
  }
}

// Longest first; equally long ones in order of appearance, so that neighbours in a sequence share
// keys in L2.
void SortTiles(size_t first_tile, std::vector<QueryTile>* tiles) {
  const size_t count = tiles->size() - first_tile;
  std::vector<uint64_t> keys(count);
  const QueryTile* from = tiles->data() + first_tile;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t length = from[i].end - from[i].begin;
    keys[i] = (static_cast<uint64_t>(~length) << 32) | i;
  }
  std::sort(keys.begin(), keys.end());
  const std::vector<QueryTile> unsorted(from, from + count);
  for (size_t i = 0; i < count; ++i)
    (*tiles)[first_tile + i] = unsorted[static_cast<uint32_t>(keys[i])];
}

}  // namespace

void PlanPrefill(std::span<const SequenceRows> sequences, std::span<const KeySpan> spans,
                 const PrefillPlanOptions& options, std::vector<QueryTile>* tiles) {
  const size_t first_tile = tiles->size();
  AppendTiles(sequences, spans, options, tiles);
  const std::span<const QueryTile> added(tiles->data() + first_tile, tiles->size() - first_tile);
  int32_t longest = 0;
  for (const QueryTile& tile : added) longest = std::max(longest, tile.end);
  const int32_t longest_part = ChooseCut(added, longest, options);
  if (longest_part < longest) CutTiles(longest_part, options.heads, first_tile, tiles);
  SortTiles(first_tile, tiles);
}

}  // namespace swaa::kernels::cuda
