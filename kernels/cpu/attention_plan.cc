// Kernels, CPU backend: cuts one attention call into tasks.

#include "kernels/cpu/attention_plan.h"

#include <algorithm>
#include <numbers>

#include "base/check.h"
#include "kernels/cpu/page_layout.h"

namespace swaa::kernels::cpu {
namespace {

constexpr int32_t kMaxTileQueries = 256;
// Tiles of up to this many rows are bound by the reading of pages: their parts merge at little
// cost, and many of them even out a thread that is held up.
constexpr int32_t kMemoryBoundRows = 64;
constexpr int32_t kPartsPerThread = 2;
constexpr int32_t kPartsPerThreadMemoryBound = 8;
// A part visits at least this many pages.
constexpr int32_t kMinPartPages = 8;
// Reading a page costs about as much as computing this many rows on it.
constexpr int32_t kPageReadRows = 16;

constexpr int32_t DivideUp(int32_t a, int32_t b) { return (a + b - 1) / b; }

int32_t Visits(const AttentionTask& tile) { return tile.visit_end - tile.visit_begin; }

int64_t Cost(const AttentionTask& task) {
  const int64_t rows = static_cast<int64_t>(task.queries) * task.group;
  return Visits(task) * (rows + kPageReadRows);
}

// Sets the pages that queries first_position .. first_position + queries - 1 visit.
void SetVisits(const KeySpan& span, AttentionTask* tile) {
  tile->window = std::min(span.window, kMaxSpan);
  tile->sinks = std::min(span.sinks, kMaxSpan);
  const int32_t end_page = DivideUp(tile->first_position + tile->queries, kPageTokens);
  tile->window_page = std::max(0, tile->first_position - tile->window + 1) / kPageTokens;
  tile->sink_pages = std::min(DivideUp(tile->sinks, kPageTokens), tile->window_page);
  tile->visit_begin = 0;
  tile->visit_end = tile->sink_pages + end_page - tile->window_page;
}

class Planner {
 public:
  Planner(const AttentionParams& params, const CpuAttentionOptions& options, int32_t max_rows,
          AttentionPlan* plan)
      : params_(params), options_(options), max_rows_(max_rows), plan_(plan) {}

  void Run() {
    plan_->entries.clear();
    plan_->merges.clear();
    plan_->partial_floats = 0;
    plan_->max_rows = 0;
    for (size_t s = 0; s < params_.sequences.size(); ++s) {
      AddTiles(params_.sequences[s], params_.spans[s]);
    }
    SplitTiles();
    std::sort(plan_->entries.begin(), plan_->entries.end(), [](const auto& a, const auto& b) {
      if (a.cost != b.cost) return a.cost > b.cost;
      return a.partial_begin < b.partial_begin;
    });
  }

 private:
  // Tile ends lie on multiples of a page where they can, so that few pages are half seen.
  void AddTiles(const SequenceRows& rows, const KeySpan& span) {
    SWAA_CHECK(rows.query_count > 0 && rows.first_position >= 0)
        << rows.query_count << " queries at " << rows.first_position;
    SWAA_CHECK(span.window > 0 && span.sinks >= 0)
        << "window " << span.window << ", sinks " << span.sinks;
    SWAA_CHECK_LE(rows.first_position + rows.query_count,
                  int64_t{params_.page_table.max_pages} * kPageTokens);
    const int32_t group = params_.heads / params_.kv_heads;
    int32_t most = std::clamp(max_rows_ / group, 1, kMaxTileQueries);
    if (most > kPageTokens) most -= most % kPageTokens;
    const int32_t end = rows.first_position + rows.query_count;
    for (int32_t begin = rows.first_position; begin < end;) {
      int32_t tile_end = std::min(begin + most, end);
      const int32_t aligned = tile_end - tile_end % kPageTokens;
      if (tile_end != end && aligned > begin) tile_end = aligned;
      for (int32_t head = 0; head < params_.kv_heads; ++head) {
        AddTile(rows, span, begin, tile_end - begin, head);
      }
      begin = tile_end;
    }
  }

  void AddTile(const SequenceRows& rows, const KeySpan& span, int32_t position, int32_t queries,
               int32_t kv_head) {
    const int64_t row = rows.first_row + position - rows.first_position;
    AttentionTask tile{};
    tile.group = params_.heads / params_.kv_heads;
    tile.head_dim = params_.head_dim;
    const int64_t column = static_cast<int64_t>(kv_head) * tile.group * tile.head_dim;
    tile.q = params_.q + row * params_.q_stride + column;
    tile.q_stride = params_.q_stride;
    tile.out_stride = static_cast<int64_t>(params_.heads) * params_.head_dim;
    tile.out = static_cast<std::byte*>(params_.out) +
               (row * tile.out_stride + column) * SizeOf(options_.out);
    tile.out_is_bf16 = options_.out == DataType::kBf16;
    tile.pages = params_.page_table.Pages(rows.slot, params_.layer);
    tile.pool = params_.pages.base;
    tile.page_bytes = params_.pages.page_bytes;
    tile.key_offset = KeyBlockOffset(options_.kv, params_.head_dim, kv_head);
    tile.value_offset = ValueBlockOffset(options_.kv, params_.head_dim, params_.kv_heads, kv_head);
    tile.queries = queries;
    tile.first_position = position;
    tile.scale_log2 = params_.scale * std::numbers::log2e_v<float>;
    SetVisits(span, &tile);
    plan_->max_rows = std::max(plan_->max_rows, queries * tile.group);
    plan_->entries.push_back({tile, Cost(tile), -1});
  }

  void SplitTiles() {
    int64_t total = 0;
    for (const auto& entry : plan_->entries) total += entry.cost;
    const size_t tiles = plan_->entries.size();
    for (size_t i = 0; i < tiles; ++i) {
      const AttentionTask tile = plan_->entries[i].task;
      const int32_t rows = tile.queries * tile.group;
      const int64_t shares =
          static_cast<int64_t>(options_.threads) *
          (rows <= kMemoryBoundRows ? kPartsPerThreadMemoryBound : kPartsPerThread);
      const int64_t share = std::max<int64_t>(1, total / shares);
      const int64_t wanted = (plan_->entries[i].cost + share - 1) / share;
      const int64_t parts = std::min<int64_t>(wanted, std::max(1, Visits(tile) / kMinPartPages));
      if (parts > 1 && options_.threads > 1) SplitTile(i, tile, static_cast<int32_t>(parts));
    }
  }

  // Part 0 takes the tile's entry, the others are added.
  void SplitTile(size_t entry, const AttentionTask& tile, int32_t parts) {
    plan_->merges.push_back({tile, plan_->partial_floats, parts});
    const int64_t visits = Visits(tile);
    for (int32_t part = 0; part < parts; ++part) {
      AttentionTask task = tile;
      task.visit_begin = static_cast<int32_t>(visits * part / parts);
      task.visit_end = static_cast<int32_t>(visits * (part + 1) / parts);
      const AttentionPlan::Entry added{task, Cost(task), plan_->partial_floats};
      plan_->partial_floats += PartialFloats(task);
      if (part == 0) {
        plan_->entries[entry] = added;
      } else {
        plan_->entries.push_back(added);
      }
    }
  }

  const AttentionParams& params_;
  const CpuAttentionOptions& options_;
  const int32_t max_rows_;
  AttentionPlan* const plan_;
};

}  // namespace

int64_t PartialFloats(const AttentionTask& task) {
  const int64_t rows = static_cast<int64_t>(task.queries) * task.group;
  return (rows * (task.head_dim + 2) + 15) / 16 * 16;
}

void PlanAttention(const AttentionParams& params, const CpuAttentionOptions& options,
                   int32_t max_rows, AttentionPlan* plan) {
  SWAA_CHECK(params.kv_heads > 0 && params.heads % params.kv_heads == 0)
      << params.heads << " heads, " << params.kv_heads << " KV heads";
  SWAA_CHECK(params.head_dim > 0 && params.head_dim % 32 == 0) << "head_dim " << params.head_dim;
  SWAA_CHECK(options.threads > 0) << options.threads << " threads";
  Planner(params, options, max_rows, plan).Run();
}

}  // namespace swaa::kernels::cpu
