// Kernels, CPU backend: attention of many rows by tile products (AMX, bf16 pages).
//
// Rows go in pairs of tiles (32 rows), keys in units of 32. Blocks of 512 keys stay in the
// second-level cache while all row pairs pass over them; an item is one row pair and up to eight
// units of a block. Its scores are computed two units at a time, so that the processor can turn
// some into weights while the tile unit computes the next, and all eight meet the values at once,
// so that sums load and store once.
//
// Weights are 2^(score - maximum) with the maximum that the row had before: right as long as no sum
// of weights grows too large, which a check after the fact shows. Only then, and in a row's first
// item, is the maximum of the scores taken.
//
// One file, although long: an item's steps are inlined into each other.

#include "kernels/cpu/attention_amx.h"

#include <cstdint>
#include <cstring>
#include <immintrin.h>

#include "kernels/cpu/attention_visibility.h"
#include "kernels/cpu/page_layout.h"

namespace swaa::kernels::cpu {
namespace {

constexpr int kPairRows = 2 * kTileRows;
constexpr int kItemUnits = 8;
constexpr int kBlockUnits = 16;
constexpr int kUnitScores = 4 * kTileFloats;  // [2 key tiles][2 row tiles][16][16]
constexpr int kUnitWeights = 2 * kTileBf16s;  // [2 row tiles][16][32]
constexpr int32_t kMaxRows = 1024;
constexpr int32_t kQueryRowsAhead = 24;
// A row's lane of weights may sum up to this before its maximum must be raised.
constexpr float kLargestSum = 1e9f;

struct Unit {
  const uint16_t* keys;    // 2 key tiles
  const uint16_t* values;  // head_dim / 16 value tiles
  int32_t first_key;
};

// A task's state. Matrices of rows are stored as tiles.
struct Rows {
  float* scores;      // of an item
  uint16_t* weights;  // of an item
  uint16_t* q;        // [pairs][2 tiles][head_dim / 32][16][32]
  float* out;         // [pairs][2 tiles][head_dim / 16][16][16]
  float* maximum;     // [pairs * 32], of scores in base 2
  float* sum;         // [pairs * 32][16], to be added up
  int32_t* position;  // [pairs * 32]
};

// One row pair's part of the state.
struct RowPair {
  const uint16_t* q;
  float* out;
  float* maximum;
  float* sum;
  const int32_t* position;
};

// Which keys 32 rows see of up to eight units.
struct Masks {
  alignas(64) uint32_t rows[kItemUnits][kPairRows];
};

int32_t PairsOf(int32_t rows) { return (rows + kPairRows - 1) / kPairRows; }

int64_t WorkspaceBytes(int32_t rows, int32_t head_dim) {
  const int64_t padded = static_cast<int64_t>(PairsOf(rows)) * kPairRows;
  const int64_t bytes =
      kItemUnits * (kUnitScores * 4 + kUnitWeights * 2) + padded * (head_dim * 6 + 4 + 64 + 4);
  const int64_t decode = AmxDecodeWorkspaceBytes(head_dim);
  return bytes > decode ? bytes : decode;
}

Rows RowsIn(void* workspace, const AttentionTask& task) {
  const int64_t padded = static_cast<int64_t>(PairsOf(task.queries * task.group)) * kPairRows;
  Rows rows;
  rows.scores = static_cast<float*>(workspace);
  rows.weights = reinterpret_cast<uint16_t*>(rows.scores + kItemUnits * kUnitScores);
  rows.q = rows.weights + kItemUnits * kUnitWeights;
  rows.out = reinterpret_cast<float*>(rows.q + padded * task.head_dim);
  rows.maximum = rows.out + padded * task.head_dim;
  rows.sum = rows.maximum + padded;
  rows.position = reinterpret_cast<int32_t*>(rows.sum + padded * 16);
  return rows;
}

RowPair PairAt(const Rows& rows, int32_t pair, int32_t head_dim) {
  const int64_t row = static_cast<int64_t>(pair) * kPairRows;
  return {rows.q + row * head_dim, rows.out + row * head_dim, rows.maximum + row,
          rows.sum + row * 16, rows.position + row};
}

// ---- tile products. kHeadDim 0 stands for any head_dim.

template <int kHeadDim>
inline __attribute__((always_inline)) void ScoreUnit(const uint16_t* q, const uint16_t* keys,
                                                     int32_t any_head_dim, float* scores) {
  const int32_t head_dim = kHeadDim != 0 ? kHeadDim : any_head_dim;
  const int32_t tile = head_dim * kTileRows;
  ZeroTile<0>();
  ZeroTile<1>();
  ZeroTile<2>();
  ZeroTile<3>();
#pragma GCC unroll 4
  for (int32_t step = 0; step < tile; step += kTileBf16s) {
    LoadTile<4>(q + step);
    LoadTile<6>(keys + step);
    MultiplyTiles<0, 4, 6>();
    LoadTile<5>(q + tile + step);
    MultiplyTiles<1, 5, 6>();
    LoadTile<7>(keys + tile + step);
    MultiplyTiles<2, 4, 7>();
    MultiplyTiles<3, 5, 7>();
  }
  StoreTile<0>(scores);
  StoreTile<1>(scores + kTileFloats);
  StoreTile<2>(scores + 2 * kTileFloats);
  StoreTile<3>(scores + 3 * kTileFloats);
}

// out += weights * values, 32 dimensions at a time.
template <int kHeadDim>
inline void AddValues(const Unit* units, int count, const uint16_t* weights, int32_t any_head_dim,
                      float* out) {
  const int32_t head_dim = kHeadDim != 0 ? kHeadDim : any_head_dim;
#pragma GCC unroll 1
  for (int32_t d = 0; d < head_dim; d += 32) {
    float* upper = out + d * kTileRows;
    float* lower = upper + head_dim * kTileRows;
    LoadTile<0>(upper);
    LoadTile<2>(upper + kTileFloats);
    LoadTile<1>(lower);
    LoadTile<3>(lower + kTileFloats);
#pragma GCC unroll 1
    for (int u = 0; u < count; ++u) {
      LoadTile<4>(weights + u * kUnitWeights);
      LoadTile<6>(units[u].values + d * kUnitKeys);
      MultiplyTiles<0, 4, 6>();
      LoadTile<5>(weights + u * kUnitWeights + kTileBf16s);
      MultiplyTiles<1, 5, 6>();
      LoadTile<7>(units[u].values + d * kUnitKeys + kTileBf16s);
      MultiplyTiles<2, 4, 7>();
      MultiplyTiles<3, 5, 7>();
    }
    StoreTile<0>(upper);
    StoreTile<2>(upper + kTileFloats);
    StoreTile<1>(lower);
    StoreTile<3>(lower + kTileFloats);
  }
}

// ---- softmax

inline __m512 Load(const float* p) { return _mm512_load_ps(p); }

// The scores of row `row` of a pair in one unit: 16 keys here, the other 16 two tiles on.
inline const float* ScoresOf(const float* unit_scores, int row) { return unit_scores + row * 16; }
constexpr int kOtherKeys = 2 * kTileFloats;

// Turns scores of kUnits units into weights, for all 32 rows. sum = old_sum + weights; returns the
// largest new sums.
template <int kUnits, bool kMasked>
inline __attribute__((always_inline)) __m512 WeighUnits(const AttentionTask& task,
                                                        const float* scores,
                                                        const uint32_t (*masks)[kPairRows],
                                                        const float* maximum, const float* old_sum,
                                                        float* sum, uint16_t* weights) {
  const __m512 scale = _mm512_set1_ps(task.scale_log2);
  __m512 largest = _mm512_setzero_ps();
  for (int row = 0; row < kPairRows; ++row) {
    const __m512 row_maximum = _mm512_set1_ps(maximum[row]);
    __m512 low_sum = Load(old_sum + row * 16);
    __m512 high_sum = _mm512_setzero_ps();
#pragma GCC unroll 2
    for (int u = 0; u < kUnits; ++u) {
      const float* s = ScoresOf(scores + u * kUnitScores, row);
      __m512 low = Exp2(_mm512_fmsub_ps(Load(s), scale, row_maximum));
      __m512 high = Exp2(_mm512_fmsub_ps(Load(s + kOtherKeys), scale, row_maximum));
      if (kMasked) {
        const uint32_t mask = masks[u][row];
        low = _mm512_maskz_mov_ps(static_cast<__mmask16>(mask), low);
        high = _mm512_maskz_mov_ps(static_cast<__mmask16>(mask >> 16), high);
      }
      low_sum = _mm512_add_ps(low_sum, low);
      high_sum = _mm512_add_ps(high_sum, high);
      _mm512_store_si512(weights + u * kUnitWeights + row * 32, RoundToBf16(low, high));
    }
    low_sum = _mm512_add_ps(low_sum, high_sum);
    largest = _mm512_max_ps(low_sum, largest);
    _mm512_store_ps(sum + row * 16, low_sum);
  }
  return largest;
}

bool EveryRowHasMaximum(const float* maximum) {
  const __m512 lowest = _mm512_min_ps(Load(maximum), Load(maximum + 16));
  return _mm512_cmp_ps_mask(lowest, _mm512_set1_ps(kNoMaximum / 2), _CMP_LT_OQ) == 0;
}

// Weights of an item with the maxima as they are; false if some are too old.
template <int kHeadDim, bool kMasked>
bool WeighWithOldMaxima(const AttentionTask& task, const RowPair& pair, const Unit* units,
                        int count, const Masks& masks, float* scores, uint16_t* weights) {
  if (!EveryRowHasMaximum(pair.maximum)) return false;
  alignas(64) float sum[kPairRows * 16];
  const float* old_sum = pair.sum;
  __m512 largest = _mm512_setzero_ps();
  for (int u = 0; u < count; u += 2) {
    ScoreUnit<kHeadDim>(pair.q, units[u].keys, task.head_dim, scores);
    __m512 unit_largest;
    if (u + 1 < count) {
      ScoreUnit<kHeadDim>(pair.q, units[u + 1].keys, task.head_dim, scores + kUnitScores);
      unit_largest = WeighUnits<2, kMasked>(task, scores, masks.rows + u, pair.maximum, old_sum,
                                            sum, weights + u * kUnitWeights);
    } else {
      unit_largest = WeighUnits<1, kMasked>(task, scores, masks.rows + u, pair.maximum, old_sum,
                                            sum, weights + u * kUnitWeights);
    }
    largest = _mm512_max_ps(unit_largest, largest);
    old_sum = sum;
  }
  const __m512 limit = _mm512_set1_ps(kLargestSum);
  if (_mm512_cmp_ps_mask(largest, limit, _CMP_NLE_UQ) != 0) return false;
  memcpy(pair.sum, sum, sizeof(sum));
  return true;
}

// Lane r: the largest score of row first_row + r that it sees in the item.
template <bool kMasked>
__m512 ItemMaxima(const float* scores, int first_row, int count, const Masks& masks) {
  alignas(64) float maxima[16];
  for (int row = first_row; row < first_row + 16; ++row) {
    __m512 top = _mm512_set1_ps(-__builtin_inff());
    for (int u = 0; u < count; ++u) {
      const float* s = ScoresOf(scores + u * kUnitScores, row);
      const uint32_t mask = kMasked ? masks.rows[u][row] : ~0u;
      top = _mm512_mask_max_ps(top, static_cast<__mmask16>(mask), top, Load(s));
      top = _mm512_mask_max_ps(top, static_cast<__mmask16>(mask >> 16), top, Load(s + kOtherKeys));
    }
    maxima[row - first_row] = _mm512_reduce_max_ps(top);
  }
  return Load(maxima);
}

// Raises the maxima of rows first_row .. first_row + 15 to `candidates` and scales what they summed
// up.
void RaiseMaxima(const RowPair& pair, int first_row, int32_t head_dim, __m512 candidates) {
  const __m512 old_maximum = Load(pair.maximum + first_row);
  const __m512 slack = _mm512_add_ps(old_maximum, _mm512_set1_ps(kMaximumSlack));
  if (_mm512_cmp_ps_mask(candidates, slack, _CMP_GT_OQ) == 0) return;
  const __m512 maximum = _mm512_max_ps(old_maximum, candidates);
  _mm512_store_ps(pair.maximum + first_row, maximum);
  alignas(64) float factors[16];
  _mm512_store_ps(factors, RescaleFactor(old_maximum, maximum));
  for (int r = 0; r < 16; ++r) {
    const __m512 factor = _mm512_set1_ps(factors[r]);
    float* sum = pair.sum + (first_row + r) * 16;
    _mm512_store_ps(sum, _mm512_mul_ps(factor, Load(sum)));
    float* out = pair.out + first_row * head_dim + r * 16;
    for (int32_t d = 0; d < head_dim; d += 16) {
      _mm512_store_ps(out + d * 16, _mm512_mul_ps(factor, Load(out + d * 16)));
    }
  }
}

// Weights of an item after its own maxima are known.
template <int kHeadDim, bool kMasked>
void WeighWithNewMaxima(const AttentionTask& task, const RowPair& pair, const Unit* units,
                        int count, const Masks& masks, float* scores, uint16_t* weights) {
  for (int u = 0; u < count; ++u) {
    ScoreUnit<kHeadDim>(pair.q, units[u].keys, task.head_dim, scores + u * kUnitScores);
  }
  const __m512 scale = _mm512_set1_ps(task.scale_log2);
  for (int first_row = 0; first_row < kPairRows; first_row += 16) {
    const __m512 maxima = ItemMaxima<kMasked>(scores, first_row, count, masks);
    RaiseMaxima(pair, first_row, task.head_dim, _mm512_mul_ps(maxima, scale));
  }
  for (int u = 0; u < count; ++u) {
    WeighUnits<1, kMasked>(task, scores + u * kUnitScores, masks.rows + u, pair.maximum, pair.sum,
                           pair.sum, weights + u * kUnitWeights);
  }
}

// ---- items, blocks, tasks

template <int kHeadDim, bool kMasked>
void AttendItem(const AttentionTask& task, const Rows& rows, const RowPair& pair, const Unit* units,
                int count) {
  Masks masks;
  if (kMasked) {
    const __m512i upper = _mm512_load_si512(pair.position);
    const __m512i lower = _mm512_load_si512(pair.position + 16);
    for (int u = 0; u < count; ++u) {
      _mm512_store_si512(masks.rows[u], UnitMasks(task, upper, units[u].first_key));
      _mm512_store_si512(masks.rows[u] + 16, UnitMasks(task, lower, units[u].first_key));
    }
  }
  if (!WeighWithOldMaxima<kHeadDim, kMasked>(task, pair, units, count, masks, rows.scores,
                                             rows.weights)) {
    WeighWithNewMaxima<kHeadDim, kMasked>(task, pair, units, count, masks, rows.scores,
                                          rows.weights);
  }
  AddValues<kHeadDim>(units, count, rows.weights, task.head_dim, pair.out);
}

template <int kHeadDim, bool kMasked>
void AttendItems(const AttentionTask& task, const Rows& rows, const RowPair& pair,
                 const Unit* units, int count) {
  for (int begin = 0; begin < count; begin += kItemUnits) {
    const int left = count - begin;
    AttendItem<kHeadDim, kMasked>(task, rows, pair, units + begin,
                                  left < kItemUnits ? left : kItemUnits);
  }
}

// All units of a block that the rows of a pair see: those in part first, as few rows see all of a
// window's edges, and the pair's first item is its slowest.
template <int kHeadDim>
void AttendBlock(const AttentionTask& task, const Rows& rows, int32_t pair_index, const Unit* units,
                 int count) {
  const RowPair pair = PairAt(rows, pair_index, task.head_dim);
  const int32_t first_position = pair.position[0];
  const int32_t last_position = pair.position[kPairRows - 1];
  Unit in_part[kBlockUnits], whole[kBlockUnits];
  int in_part_count = 0, whole_count = 0;
  for (int u = 0; u < count; ++u) {
    switch (Classify(task, first_position, last_position, units[u].first_key, kUnitKeys)) {
      case Visibility::kNone:
        break;
      case Visibility::kSome:
        in_part[in_part_count++] = units[u];
        break;
      case Visibility::kAll:
        whole[whole_count++] = units[u];
        break;
    }
  }
  AttendItems<kHeadDim, true>(task, rows, pair, in_part, in_part_count);
  AttendItems<kHeadDim, false>(task, rows, pair, whole, whole_count);
}

// Unit u of a task is half u % 2 of visit u / 2.
Unit UnitAt(const AttentionTask& task, int32_t unit) {
  const int32_t page = VisitedPage(task, unit / 2);
  const int32_t half = unit % 2;
  const std::byte* address = PageAddress(task, page);
  const int64_t offset = static_cast<int64_t>(half) * kUnitKeys * task.head_dim;
  return {reinterpret_cast<const uint16_t*>(address + task.key_offset) + offset,
          reinterpret_cast<const uint16_t*>(address + task.value_offset) + offset,
          page * kPageTokens + half * kUnitKeys};
}

void PrefetchUnit(const Unit& unit, int32_t head_dim) {
  for (int32_t i = 0; i < kUnitKeys * head_dim; i += 32) {
    _mm_prefetch(reinterpret_cast<const char*>(unit.keys + i), _MM_HINT_T1);
    _mm_prefetch(reinterpret_cast<const char*>(unit.values + i), _MM_HINT_T1);
  }
}

// Fetches the next block into the second-level cache, a piece with every row pair of this one.
struct BlockPrefetch {
  int32_t next;
  int32_t end;
  int32_t step;

  BlockPrefetch(int32_t begin, int32_t end_unit, int32_t pairs)
      : next(begin),
        end(begin + kBlockUnits < end_unit ? begin + kBlockUnits : end_unit),
        step((kBlockUnits + pairs - 1) / pairs) {}

  void Advance(const AttentionTask& task) {
    for (int32_t i = 0; i < step && next < end; ++i, ++next) {
      PrefetchUnit(UnitAt(task, next), task.head_dim);
    }
  }
};

template <int kHeadDim>
void VisitUnits(const AttentionTask& task, const Rows& rows) {
  const int32_t pairs = PairsOf(task.queries * task.group);
  const int32_t end_unit = 2 * task.visit_end;
  for (int32_t begin = 2 * task.visit_begin; begin < end_unit; begin += kBlockUnits) {
    const int count = begin + kBlockUnits < end_unit ? kBlockUnits : end_unit - begin;
    Unit units[kBlockUnits];
    for (int u = 0; u < count; ++u) units[u] = UnitAt(task, begin + u);
    BlockPrefetch prefetch(begin + kBlockUnits, end_unit, pairs);
    for (int32_t pair = 0; pair < pairs; ++pair) {
      prefetch.Advance(task);
      AttendBlock<kHeadDim>(task, rows, pair, units, count);
    }
  }
}

const float* QueryRow(const AttentionTask& task, int32_t row) {
  return task.q + row / task.group * task.q_stride + row % task.group * task.head_dim;
}

// A token's heads are too few bytes for the processor to fetch the next ones by itself.
void PrefetchQuery(const AttentionTask& task, int32_t row) {
  const float* q = QueryRow(task, row);
  for (int32_t d = 0; d < task.head_dim; d += 16) {
    _mm_prefetch(reinterpret_cast<const char*>(q + d), _MM_HINT_T0);
  }
}

// Queries as tiles of bf16. Rows beyond the last are zero and stand at the last position.
void PackRows(const AttentionTask& task, const Rows& rows) {
  const int32_t count = task.queries * task.group;
  const int32_t padded = PairsOf(count) * kPairRows;
  for (int32_t row = 0; row < padded; ++row) {
    if (row + kQueryRowsAhead < count) PrefetchQuery(task, row + kQueryRowsAhead);
    const int32_t real_row = row < count ? row : count - 1;
    rows.position[row] = task.first_position + real_row / task.group;
    rows.maximum[row] = kNoMaximum;
    uint16_t* tile_row = rows.q +
                         static_cast<int64_t>(row / kTileRows) * kTileRows * task.head_dim +
                         row % kTileRows * 32;
    const float* q = QueryRow(task, real_row);
    for (int32_t d = 0; d < task.head_dim; d += 32) {
      const __m512i packed = row < count
                                 ? RoundToBf16(_mm512_loadu_ps(q + d), _mm512_loadu_ps(q + d + 16))
                                 : _mm512_setzero_si512();
      _mm512_store_si512(tile_row + d * kTileRows, packed);
    }
  }
  memset(rows.out, 0, sizeof(float) * padded * task.head_dim);
  memset(rows.sum, 0, sizeof(float) * padded * 16);
}

// Where 16 dimensions of a row's sums lie: at this, plus d * 16.
const float* OutputRow(const AttentionTask& task, const Rows& rows, int32_t row) {
  return rows.out + static_cast<int64_t>(row / kTileRows) * kTileRows * task.head_dim +
         row % kTileRows * 16;
}

void WriteRows(const AttentionTask& task, const Rows& rows) {
  for (int32_t row = 0; row < task.queries * task.group; ++row) {
    const float sum = _mm512_reduce_add_ps(Load(rows.sum + row * 16));
    const float* out = OutputRow(task, rows, row);
    WriteOutputRow(task, row, 1 / sum, [out](int32_t d) { return Load(out + d * 16); });
  }
}

void WritePartial(const AttentionTask& task, const Rows& rows) {
  const int32_t count = task.queries * task.group;
  float* maxima = task.partial + static_cast<int64_t>(count) * task.head_dim;
  for (int32_t row = 0; row < count; ++row) {
    const float* out = OutputRow(task, rows, row);
    float* partial = task.partial + static_cast<int64_t>(row) * task.head_dim;
    for (int32_t d = 0; d < task.head_dim; d += 16) {
      _mm512_storeu_ps(partial + d, Load(out + d * 16));
    }
    maxima[row] = rows.maximum[row];
    maxima[count + row] = _mm512_reduce_add_ps(Load(rows.sum + row * 16));
  }
}

void RunManyRows(const AttentionTask& task, void* workspace) {
  const Rows rows = RowsIn(workspace, task);
  PackRows(task, rows);
  ConfigureTiles(kTileRows);
  switch (task.head_dim) {
    case 64:
      VisitUnits<64>(task, rows);
      break;
    case 128:
      VisitUnits<128>(task, rows);
      break;
    default:
      VisitUnits<0>(task, rows);
  }
  ReleaseTiles();
  if (task.partial != nullptr) {
    WritePartial(task, rows);
  } else {
    WriteRows(task, rows);
  }
}

void RunTask(const AttentionTask& task, void* workspace) {
  if (task.queries * task.group <= kTileRows) {
    RunAmxDecode(task, workspace);
  } else {
    RunManyRows(task, workspace);
  }
}

}  // namespace

const AttentionVariant kAmxBf16Pages = {"amx", kMaxRows, WorkspaceBytes, RunTask};

}  // namespace swaa::kernels::cpu
