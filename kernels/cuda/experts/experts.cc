// A mixture of experts: its scratch memory, the choice of kernels, and their order.

#include "kernels/cuda/experts/experts.h"

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/cuda/experts/stages.h"

namespace swaa::kernels::cuda {
namespace {

constexpr int64_t kAlignment = 256;
// With more pairs an expert the tensor cores' kernel is faster.
constexpr int64_t kStreamedPairsPerExpert = 8;

// Where the parts of the scratch begin, and its bytes.
class ScratchLayout {
 public:
  ScratchLayout(const ExpertsShape& shape, int64_t rows) {
    const int64_t pairs = rows * shape.experts_per_row;
    experts = Take(pairs * 4);
    shares = Take(pairs * 4);
    places = Take(pairs * 4);
    pair_rows = Take(pairs * 4);
    tiles = Take(MaxExpertTiles(pairs, shape.count, kStreamedTilePairs) *
                 static_cast<int64_t>(sizeof(ExpertTile)));
    tile_count = Take(4);
    gated = Take(pairs * shape.width * 2);
    y = Take(pairs * shape.hidden * 2);
  }

  int64_t experts, shares, places, pair_rows, tiles, tile_count;
  int64_t gated;  // bf16 [pairs, width]
  int64_t y;      // bf16 [pairs, hidden]
  int64_t bytes() const { return bytes_; }

 private:
  int64_t Take(int64_t bytes) {
    const int64_t begin = bytes_;
    bytes_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return begin;
  }
  int64_t bytes_ = 0;
};

absl::Status CheckSize(const char* name, int64_t size) {
  if (size > 0 && size % 8 == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("experts: ", name, " ", size, ": on CUDA it must be a positive multiple of 8"));
}

absl::Status CheckLimit(const char* name, int64_t value, int64_t limit) {
  if (value >= 1 && value <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("experts: ", name, " ", value, ": on CUDA it must be 1 to ", limit));
}

}  // namespace

absl::Status CheckExpertsShape(const ExpertsShape& shape) {
  absl::Status status = CheckSize("hidden", shape.hidden);
  status.Update(CheckSize("width", shape.width));
  status.Update(CheckLimit("count", shape.count, kMaxExperts));
  status.Update(CheckLimit("experts_per_row", shape.experts_per_row,
                           shape.count < kMaxExpertsPerRow ? shape.count : kMaxExpertsPerRow));
  return status;
}

int64_t ExpertsScratchBytes(const ExpertsShape& shape, int64_t rows) {
  return ScratchLayout(shape, rows).bytes();
}

absl::Status PrepareExperts() { return PrepareTiledExpertProduct(); }

void RunExperts(const ExpertsArguments& a, const Launch& launch, ExpertsKernel kernel) {
  if (a.rows == 0) return;
  const absl::Status status = CheckExpertsShape(a.shape);
  SWAA_CHECK(status.ok()) << status;
  const int64_t pairs = a.rows * a.shape.experts_per_row;
  if (kernel == ExpertsKernel::kAutomatic) {
    kernel = pairs <= kStreamedPairsPerExpert * a.shape.count ? ExpertsKernel::kStreamed
                                                              : ExpertsKernel::kTiled;
  }
  const bool streamed = kernel == ExpertsKernel::kStreamed;
  const int32_t tile_pairs = streamed ? kStreamedTilePairs : kTiledTilePairs;
  const ScratchLayout layout(a.shape, a.rows);
  const ExpertRoutes routes = {
      .experts = reinterpret_cast<int32_t*>(a.scratch + layout.experts),
      .shares = reinterpret_cast<float*>(a.scratch + layout.shares),
      .places = reinterpret_cast<int32_t*>(a.scratch + layout.places),
      .rows = reinterpret_cast<int32_t*>(a.scratch + layout.pair_rows),
      .tiles = reinterpret_cast<ExpertTile*>(a.scratch + layout.tiles),
      .tile_count = reinterpret_cast<int32_t*>(a.scratch + layout.tile_count)};
  RouteRows({.routes = routes,
             .logits = a.logits,
             .slots = a.slots,
             .rows = static_cast<int32_t>(a.rows),
             .experts = a.shape.count,
             .experts_per_row = a.shape.experts_per_row,
             .tile_pairs = tile_pairs,
             .normalize = a.normalize},
            launch);
  auto* gated = reinterpret_cast<Bf16*>(a.scratch + layout.gated);
  auto* y = reinterpret_cast<Bf16*>(a.scratch + layout.y);
  const auto multiply = streamed ? StreamedExpertProduct : TiledExpertProduct;
  ExpertProduct product = {
      .experts = a.experts,
      .routes = routes,
      .x = a.x,
      .out = gated,
      .in_features = static_cast<int32_t>(a.shape.hidden),
      .out_features = static_cast<int32_t>(a.shape.width),
      .max_tiles = static_cast<int32_t>(MaxExpertTiles(pairs, a.shape.count, tile_pairs)),
      .gate_up = true};
  multiply(product, launch);
  product.x = gated;
  product.out = y;
  product.in_features = static_cast<int32_t>(a.shape.width);
  product.out_features = static_cast<int32_t>(a.shape.hidden);
  product.gate_up = false;
  multiply(product, launch);
  CombineExperts({.routes = routes,
                  .y = y,
                  .out = a.out,
                  .rows = static_cast<int32_t>(a.rows),
                  .hidden = static_cast<int32_t>(a.shape.hidden),
                  .experts_per_row = a.shape.experts_per_row},
                 launch);
}

}  // namespace swaa::kernels::cuda
