// What adapters add to a product (LoRA, arXiv 2106.09685), on CUDA: rows are grouped into tiles of
// one adapter each, and two kernels, one beside and one after the product itself, go over the
// tiles: shrink (down * x), and expand (out += up * that). Rows without an adapter cost nothing.
// Which adapters there are is read from device memory, so a graph serves any.

#ifndef SWAA_KERNELS_CUDA_LORA_LORA_H_
#define SWAA_KERNELS_CUDA_LORA_LORA_H_

#include <cstdint>

#include "kernels/cuda/elementwise/launch.h"
#include "kernels/types.h"

namespace swaa::kernels::cuda {

inline constexpr int32_t kLoraTileRows = 16;
inline constexpr int32_t kLoraRankBlock = 16;  // ranks are padded to multiples of it
inline constexpr int32_t kMaxLoraRanks = 768;  // of all parts of a product
inline constexpr int32_t kMaxLoraParts = 4;    // of a product
// Up to this many rows the inputs of a tile are shared out among kLoraSplits blocks.
inline constexpr int64_t kLoraSplitRows = 256;
inline constexpr int32_t kLoraSplits = 8;

// A part of a packed weight, in device memory as all of it. Outputs are multiples of 8.
struct LoraDevicePart {
  int32_t first_output;
  int32_t outputs;
  int32_t first_rank;  // among the weight's
  int32_t rank;        // padded
  const Bf16* up;      // [outputs, rank]
};
struct LoraDeviceWeight {
  const Bf16* down;  // [ranks, in_features]
  int32_t ranks;     // padded, of all parts
  int32_t num_parts;
  LoraDevicePart parts[kMaxLoraParts];
};

// Rows of one adapter.
struct LoraTile {
  int32_t adapter;  // of the step; -1: none
  int32_t first;    // of LoraRows::rows
  int32_t count;    // 1 .. kLoraTileRows
  int32_t unused;
};

// The rows of a step by their adapters: tiles of those that have one come first. Device memory.
struct LoraRows {
  const int32_t* tile_count = nullptr;      // of rows with an adapter
  const int32_t* all_tile_count = nullptr;  // of all rows
  const LoraTile* tiles = nullptr;
  const int32_t* rows = nullptr;
  // [adapters, products]; null: the adapter adds nothing there.
  const LoraDeviceWeight* const* weights = nullptr;
  int32_t products = 0;
  // As launches for many rows assume.
  int32_t max_tiles = 0;
  int32_t max_all_tiles = 0;
  int32_t splits = 1;  // kLoraSplits; 1: many rows
};

// Floats of device memory for the sums of steps of at most max_rows rows.
constexpr int64_t LoraSums(int64_t max_rows) {
  const int64_t split = kLoraSplitRows * kLoraSplits;
  return (max_rows > split ? max_rows : split) * kMaxLoraRanks;
}

// 16-byte aligned device memory.
struct LoraArguments {
  LoraRows rows;
  int32_t product = 0;
  const Bf16* x = nullptr;  // [rows, in_features]
  int64_t in_features = 0;
  Bf16* out = nullptr;  // [rows, out_features]
  int64_t out_features = 0;
  // Not null: out is [gate; up] and is left as it is, gated [rows, out_features / 2] becomes
  // silu(gate) * up of all rows, those without an adapter, too.
  Bf16* gated = nullptr;
  float* sums = nullptr;  // LoraSums
};

// out += up * down * x, added in f32. Follows the product that wrote out, and the launch may be
// programmatic: of few rows it reads x before it waits for the product, which therefore may let
// others begin only when what came before the product is complete. Throws CudaError.
void AddLora(const LoraArguments& arguments, int32_t multiprocessors, const Launch& launch);

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_LORA_LORA_H_
