// Kernels, CPU backend: cuts the attention of a layer into tasks.

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
  return Visits(task) * (rows + int64_t{task.kv_heads} * kPageReadRows);
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
  Planner(const AttentionShape& shape, const CpuAttentionOptions& options, AttentionPlan* plan)
      : shape_(shape),
        options_(options),
        max_rows_(options.kernels.prefill->max_rows),
        page_bytes_(KvPageBytes(options.kv, shape.kv_heads, shape.head_dim)),
        plan_(plan) {}

  void Run(std::span<const SequenceRows> sequences, std::span<const KeySpan> spans) {
    plan_->entries.clear();
    plan_->merges.clear();
    plan_->partial_floats = 0;
    plan_->max_rows = 0;
    plan_->head_dim = shape_.head_dim;
    plan_->pages = 0;
    for (size_t s = 0; s < sequences.size(); ++s) AddTiles(sequences[s], spans[s]);
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
    const int32_t group = shape_.heads / shape_.kv_heads;
    int32_t most = std::clamp(max_rows_ / group, 1, kMaxTileQueries);
    if (most > kPageTokens) most -= most % kPageTokens;
    const int32_t end = rows.first_position + rows.query_count;
    plan_->pages = std::max(plan_->pages, DivideUp(end, kPageTokens));
    for (int32_t begin = rows.first_position; begin < end;) {
      int32_t tile_end = std::min(begin + most, end);
      const int32_t aligned = tile_end - tile_end % kPageTokens;
      if (tile_end != end && aligned > begin) tile_end = aligned;
      AddTile(rows, span, begin, tile_end - begin);
      begin = tile_end;
    }
  }

  // Of all heads.
  void AddTile(const SequenceRows& rows, const KeySpan& span, int32_t position, int32_t queries) {
    AttentionTask tile{};
    tile.group = shape_.heads / shape_.kv_heads;
    tile.kv_heads = 1;
    tile.head_dim = shape_.head_dim;
    tile.q_stride = shape_.q_stride;
    tile.out_stride = int64_t{shape_.heads} * shape_.head_dim;
    tile.out_is_bf16 = options_.out == DataType::kBf16;
    tile.page_bytes = page_bytes_;
    tile.queries = queries;
    tile.first_position = position;
    tile.scale_log2 = shape_.scale * std::numbers::log2e_v<float>;
    SetVisits(span, &tile);
    const int32_t heads = HeadsTogether(tile);
    tile.kv_heads = heads;
    tile.group *= heads;
    plan_->max_rows = std::max(plan_->max_rows, queries * tile.group);
    const int64_t row = rows.first_row + position - rows.first_position;
    for (int32_t head = 0; head < shape_.kv_heads; head += heads) {
      tile.key_offset = KeyBlockOffset(options_.kv, shape_.head_dim, head);
      tile.value_offset = ValueBlockOffset(options_.kv, shape_.head_dim, shape_.kv_heads, head);
      const int64_t column = int64_t{head} / heads * tile.group * tile.head_dim;
      const AttentionPlace place = {
          .slot = rows.slot,
          .q_begin = row * shape_.q_stride + column,
          .out_begin = (row * tile.out_stride + column) * SizeOf(options_.out)};
      plan_->entries.push_back({tile, place, Cost(tile), -1});
    }
  }

  // KV heads that a tile like this one, which has one, is to have.
  int32_t HeadsTogether(const AttentionTask& tile) const {
    const AttentionVariant* decode = options_.kernels.decode;
    if (tile.queries > 1 || tile.group > kMaxDecodeRows || !decode->heads_together) return 1;
    const int32_t parts = Visits(tile) / kMinPartPages;
    const auto enough = [&](int32_t heads) {
      return options_.threads == 1 ||
             shape_.kv_heads / heads * parts >= kPartsPerThread * options_.threads;
    };
    for (int32_t heads = shape_.kv_heads; heads > 1; --heads) {
      if (shape_.kv_heads % heads == 0 && enough(heads)) return heads;
    }
    return 1;
  }

  void SplitTiles() {
    int64_t total = 0;
    for (const auto& entry : plan_->entries) total += entry.cost;
    const size_t tiles = plan_->entries.size();
    for (size_t i = 0; i < tiles; ++i) {
      const AttentionTask tile = plan_->entries[i].task;
      const int64_t shares =
          static_cast<int64_t>(options_.threads) *
          (RowsOfHead(tile) <= kMemoryBoundRows ? kPartsPerThreadMemoryBound : kPartsPerThread);
      const int64_t share = std::max<int64_t>(1, total / shares);
      const int64_t wanted = (plan_->entries[i].cost + share - 1) / share;
      const int64_t parts = std::min<int64_t>(wanted, std::max(1, Visits(tile) / kMinPartPages));
      if (parts > 1 && options_.threads > 1) SplitTile(i, tile, static_cast<int32_t>(parts));
    }
  }

  // Part 0 takes the tile's entry, the others are added.
  void SplitTile(size_t entry, const AttentionTask& tile, int32_t parts) {
    const AttentionPlace place = plan_->entries[entry].place;
    plan_->merges.push_back({tile, place, plan_->partial_floats, parts});
    const int64_t visits = Visits(tile);
    for (int32_t part = 0; part < parts; ++part) {
      AttentionTask task = tile;
      task.visit_begin = static_cast<int32_t>(visits * part / parts);
      task.visit_end = static_cast<int32_t>(visits * (part + 1) / parts);
      const AttentionPlan::Entry added{task, place, Cost(task), plan_->partial_floats};
      plan_->partial_floats += PartialFloats(task);
      if (part == 0) {
        plan_->entries[entry] = added;
      } else {
        plan_->entries.push_back(added);
      }
    }
  }

  const AttentionShape& shape_;
  const CpuAttentionOptions& options_;
  const int32_t max_rows_;
  const int64_t page_bytes_;
  AttentionPlan* const plan_;
};

}  // namespace

int32_t RowsOfHead(const AttentionTask& task) { return task.queries * task.group / task.kv_heads; }

int64_t PartialFloats(const AttentionTask& task) {
  const int64_t rows = static_cast<int64_t>(task.queries) * task.group;
  return (rows * (task.head_dim + 2) + 15) / 16 * 16;
}

void PlanAttention(const AttentionShape& shape, std::span<const SequenceRows> sequences,
                   std::span<const KeySpan> spans, const CpuAttentionOptions& options,
                   AttentionPlan* plan) {
  SWAA_CHECK(shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0)
      << shape.heads << " heads, " << shape.kv_heads << " KV heads";
  SWAA_CHECK(shape.head_dim > 0 && shape.head_dim % 32 == 0 && shape.head_dim <= kMaxHeadDim)
      << "head_dim " << shape.head_dim;
  SWAA_CHECK(options.threads > 0) << options.threads << " threads";
  SWAA_CHECK(options.kernels.prefill != nullptr) << "no kernels";
  SWAA_CHECK_EQ(sequences.size(), spans.size());
  Planner(shape, options, plan).Run(sequences, spans);
}

}  // namespace swaa::kernels::cpu
