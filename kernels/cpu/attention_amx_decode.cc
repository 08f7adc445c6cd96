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
      const uint64_t mask = all ? ~uint64_t{0} : PageMask(task, position, page.first_key);
      WeighPage(task, mask, rows.scores + row * kPageTokens,
                {rows.out + row * task.head_dim, rows.sum + row * 16, rows.maximum + row},
                rows.weights + row * kPageTokens);
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
  WriteSums(task, {rows.out, rows.sum, rows.maximum});
}

}  // namespace swaa::kernels::cpu
