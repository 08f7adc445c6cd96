// Kernels, CPU backend: attention of up to 16 rows (decode, short chunks) by tile products. A page
// is read once, while the next one is on its way; tiles have no more rows than there are.

#include <cstdint>
#include <cstring>
#include <immintrin.h>

#include "kernels/cpu/attention_amx.h"
#include "kernels/cpu/attention_visibility.h"
#include "kernels/cpu/page_layout.h"

namespace swaa::kernels::cpu {
namespace {

constexpr int kVectors = kPageTokens / 16;
constexpr int64_t kScoreRowBytes = kPageTokens * 4;
constexpr int64_t kWeightRowBytes = kPageTokens * 2;

struct Rows {
  uint16_t* q;        // [head_dim / 32][rows][32]
  float* out;         // [rows, head_dim]
  float* sum;         // [rows, 16], to be added up
  float* maximum;     // [rows]
  float* scores;      // [rows, kPageTokens]
  uint16_t* weights;  // [rows, kPageTokens]
};

struct Page {
  const uint16_t* keys;
  const uint16_t* values;
  const uint16_t* next_keys;  // of the page that comes next
  int32_t first_key;
};

Rows RowsIn(void* workspace, const AttentionTask& task) {
  Rows rows;
  rows.q = static_cast<uint16_t*>(workspace);
  float* out = reinterpret_cast<float*>(rows.q + kTileRows * task.head_dim);
  rows.sum = out + kTileRows * task.head_dim;
  rows.maximum = rows.sum + kTileRows * 16;
  rows.scores = rows.maximum + kTileRows;
  rows.weights = reinterpret_cast<uint16_t*>(rows.scores + kTileRows * kPageTokens);
  rows.out = task.partial != nullptr ? task.partial : out;
  return rows;
}

void PackRows(const AttentionTask& task, const Rows& rows) {
  const int32_t count = task.queries * task.group;
  for (int32_t row = 0; row < count; ++row) {
    const float* q = task.q + row / task.group * task.q_stride + row % task.group * task.head_dim;
    for (int32_t d = 0; d < task.head_dim; d += 32) {
      _mm512_store_si512(rows.q + d * count + row * 32,
                         RoundToBf16(_mm512_loadu_ps(q + d), _mm512_loadu_ps(q + d + 16)));
    }
    rows.maximum[row] = kNoMaximum;
  }
  memset(rows.out, 0, sizeof(float) * count * task.head_dim);
  memset(rows.sum, 0, sizeof(float) * count * 16);
}

Page PageAt(const AttentionTask& task, int32_t visit) {
  const int32_t page = VisitedPage(task, visit);
  const int32_t next_visit = visit + 1 < task.visit_end ? visit + 1 : visit;
  const std::byte* next = PageAddress(task, VisitedPage(task, next_visit));
  const std::byte* address = PageAddress(task, page);
  return {reinterpret_cast<const uint16_t*>(address + task.key_offset),
          reinterpret_cast<const uint16_t*>(address + task.value_offset),
          reinterpret_cast<const uint16_t*>(next + task.key_offset), page * kPageTokens};
}

// Fetches two kilobytes.
inline __attribute__((always_inline)) void PrefetchTwoTiles(const uint16_t* from) {
  const char* lines = reinterpret_cast<const char*>(from);
#pragma GCC unroll 32
  for (int i = 0; i < 32; ++i) _mm_prefetch(lines + i * 64, _MM_HINT_T0);
}

// Two tiles of 16 keys at a time.
void ScorePage(const Rows& rows, int32_t count, int32_t head_dim, const Page& page) {
  for (int32_t key = 0; key < kPageTokens; key += 2 * kKeyTile) {
    const uint16_t* first = page.keys + key * head_dim;
    const uint16_t* second = first + kKeyTile * head_dim;
    ZeroTile<0>();
    ZeroTile<1>();
    for (int32_t d = 0; d < head_dim; d += 32) {
      LoadTile<4>(rows.q + d * count);
      LoadTile<6>(first + d * kKeyTile);
      MultiplyTiles<0, 4, 6>();
      LoadTile<7>(second + d * kKeyTile);
      MultiplyTiles<1, 4, 7>();
      PrefetchTwoTiles(page.values + key * head_dim + d * 2 * kKeyTile);
    }
    StoreTile<0>(rows.scores + key, kScoreRowBytes);
    StoreTile<1>(rows.scores + key + kKeyTile, kScoreRowBytes);
  }
}

// Bit k: the query at `position` sees key first_key + k.
uint64_t PageMask(const AttentionTask& task, int32_t position, int32_t first_key) {
  const auto low_bits = [](int32_t n) {
    return n <= 0 ? 0 : n >= 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1;
  };
  const int32_t past = position + 1 - first_key;
  return low_bits(past) & (low_bits(task.sinks - first_key) | ~low_bits(past - task.window));
}

// Turns the scores of a row into weights.
void WeighRow(const AttentionTask& task, const Rows& rows, int32_t row, uint64_t mask) {
  const float* scores = rows.scores + row * kPageTokens;
  __m512 x[kVectors];
  __m512 top = _mm512_set1_ps(-__builtin_inff());
  for (int i = 0; i < kVectors; ++i) {
    x[i] = _mm512_load_ps(scores + i * 16);
    top = _mm512_mask_max_ps(top, static_cast<__mmask16>(mask >> (16 * i)), top, x[i]);
  }
  float* sum = rows.sum + row * 16;
  const float page_maximum = _mm512_reduce_max_ps(top) * task.scale_log2;
  if (page_maximum > rows.maximum[row] + kMaximumSlack) {
    const __m512 factor =
        RescaleFactor(_mm512_set1_ps(rows.maximum[row]), _mm512_set1_ps(page_maximum));
    rows.maximum[row] = page_maximum;
    _mm512_store_ps(sum, _mm512_mul_ps(factor, _mm512_load_ps(sum)));
    float* out = rows.out + row * task.head_dim;
    for (int32_t d = 0; d < task.head_dim; d += 16) {
      _mm512_storeu_ps(out + d, _mm512_mul_ps(factor, _mm512_loadu_ps(out + d)));
    }
  }
  const __m512 scale = _mm512_set1_ps(task.scale_log2);
  const __m512 maximum = _mm512_set1_ps(rows.maximum[row]);
  for (int i = 0; i < kVectors; ++i) {
    x[i] = _mm512_maskz_mov_ps(static_cast<__mmask16>(mask >> (16 * i)),
                               Exp2(_mm512_fmsub_ps(x[i], scale, maximum)));
  }
  const __m512 total = _mm512_add_ps(_mm512_add_ps(x[0], x[1]), _mm512_add_ps(x[2], x[3]));
  _mm512_store_ps(sum, _mm512_add_ps(_mm512_load_ps(sum), total));
  uint16_t* weights = rows.weights + row * kPageTokens;
  _mm512_store_si512(weights, RoundToBf16(x[0], x[1]));
  _mm512_store_si512(weights + kUnitKeys, RoundToBf16(x[2], x[3]));
}

// 32 dimensions at a time.
void AddValues(const Rows& rows, int32_t head_dim, const Page& page) {
  for (int32_t d = 0; d < head_dim; d += 32) {
    float* out = rows.out + d;
    LoadTile<0>(out, head_dim * 4);
    LoadTile<1>(out + 16, head_dim * 4);
    for (int32_t key = 0; key < kPageTokens; key += kUnitKeys) {
      const uint16_t* values = page.values + key * head_dim + d * kUnitKeys;
      LoadTile<4>(rows.weights + key, kWeightRowBytes);
      LoadTile<6>(values);
      MultiplyTiles<0, 4, 6>();
      LoadTile<7>(values + kTileBf16s);
      MultiplyTiles<1, 4, 7>();
      PrefetchTwoTiles(page.next_keys + key * head_dim + d * kUnitKeys);
    }
    StoreTile<0>(out, head_dim * 4);
    StoreTile<1>(out + 16, head_dim * 4);
  }
}

void VisitPages(const AttentionTask& task, const Rows& rows) {
  const int32_t count = task.queries * task.group;
  const int32_t last_position = task.first_position + task.queries - 1;
  for (int32_t visit = task.visit_begin; visit < task.visit_end; ++visit) {
    const Page page = PageAt(task, visit);
    ScorePage(rows, count, task.head_dim, page);
    const bool all = Classify(task, task.first_position, last_position, page.first_key,
                              kPageTokens) == Visibility::kAll;
    for (int32_t row = 0; row < count; ++row) {
      const int32_t position = task.first_position + row / task.group;
      WeighRow(task, rows, row, all ? ~uint64_t{0} : PageMask(task, position, page.first_key));
    }
    AddValues(rows, task.head_dim, page);
  }
}

}  // namespace

int64_t AmxDecodeWorkspaceBytes(int32_t head_dim) {
  return kTileRows * (head_dim * 6 + 64 + 4 + kScoreRowBytes + kWeightRowBytes);
}

void RunAmxDecode(const AttentionTask& task, void* workspace) {
  const Rows rows = RowsIn(workspace, task);
  const int32_t count = task.queries * task.group;
  PackRows(task, rows);
  ConfigureTiles(count);
  VisitPages(task, rows);
  ReleaseTiles();
  float* maxima = task.partial == nullptr ? nullptr : task.partial + count * task.head_dim;
  for (int32_t row = 0; row < count; ++row) {
    const float sum = _mm512_reduce_add_ps(_mm512_load_ps(rows.sum + row * 16));
    if (maxima != nullptr) {
      maxima[row] = rows.maximum[row];
      maxima[count + row] = sum;
    } else {
      const float* out = rows.out + row * task.head_dim;
      WriteOutputRow(task, row, 1 / sum, [out](int32_t d) { return _mm512_loadu_ps(out + d); });
    }
  }
}

}  // namespace swaa::kernels::cpu
