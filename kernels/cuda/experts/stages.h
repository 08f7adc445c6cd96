// The kernels of a mixture of experts, and what they hand to one another in device memory.

#ifndef SWAA_KERNELS_CUDA_EXPERTS_STAGES_H_
#define SWAA_KERNELS_CUDA_EXPERTS_STAGES_H_

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/cuda/elementwise/launch.h"
#include "kernels/cuda/experts/experts.h"

namespace swaa::kernels::cuda {

// Pairs of one expert that a block of a product computes.
struct ExpertTile {
  int32_t expert;
  int32_t first;  // of the sorted pairs
  int32_t count;  // 1 .. the tile's size
  int32_t unused;
};

// Which expert gets which rows. Sorted pairs are numbered by expert, and by row within one.
struct ExpertRoutes {
  // [rows, experts_per_row], by falling logits; -1 and nothing for a dead row:
  int32_t* experts;
  float* shares;
  int32_t* places;  // among the sorted pairs
  // [pairs], by place:
  int32_t* rows;
  ExpertTile* tiles;    // [max_tiles]
  int32_t* tile_count;  // [1]
};

struct RouteParams {
  ExpertRoutes routes;
  const float* logits;
  const int32_t* slots;
  int32_t rows;
  int32_t experts;
  int32_t experts_per_row;
  int32_t tile_pairs;
  bool normalize;
};

// A product of every pair's row by its expert's weight.
struct ExpertProduct {
  const ExpertPointers* experts;
  ExpertRoutes routes;
  const Bf16* x;  // gate_up: [rows, in_features]; down: [pairs, in_features]
  Bf16* out;      // [pairs, out_features]
  int32_t in_features;
  int32_t out_features;  // of gate_up: the width, its halves multiplied as silu(gate) * up
  int32_t max_tiles;
  bool gate_up;
};

struct CombineParams {
  ExpertRoutes routes;
  const Bf16* y;  // [pairs, hidden]
  Bf16* out;      // [rows, hidden]
  int32_t rows;
  int32_t hidden;
  int32_t experts_per_row;
};

// Tiles of at most this many pairs: few rows, bound by reading the touched experts' weights once.
inline constexpr int32_t kStreamedTilePairs = 16;
// And these: many rows, bound by the tensor cores.
inline constexpr int32_t kTiledTilePairs = 128;

// The most tiles that `pairs` pairs can make.
constexpr int64_t MaxExpertTiles(int64_t pairs, int64_t experts, int64_t tile_pairs) {
  return pairs < experts ? pairs : experts + (pairs - experts) / tile_pairs;
}

void RouteRows(const RouteParams& params, const Launch& launch);
void StreamedExpertProduct(const ExpertProduct& product, const Launch& launch);
absl::Status PrepareTiledExpertProduct();
void TiledExpertProduct(const ExpertProduct& product, const Launch& launch);
// out[r, :] = sum_i shares[r, i] * y[places[r, i], :], i rising.
void CombineExperts(const CombineParams& params, const Launch& launch);

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_EXPERTS_STAGES_H_
