// How the ranks of a tensor-parallel model share it (Megatron-LM, arXiv 1909.08053): query heads
// with the KV heads that they read, the feed-forward networks' inner dimensions and the vocabulary
// are cut into as many parts. A rank's part of attention and of a feed-forward network gives its
// share of a sum over all ranks.

#ifndef SWAA_ENGINE_MODEL_RANK_SLICES_H_
#define SWAA_ENGINE_MODEL_RANK_SLICES_H_

#include <cstdint>

#include "absl/status/status.h"
#include "engine/checkpoint/model_config.h"
#include "kernels/operators.h"

namespace swaa {

// A rank's rows of weights; of products that follow, the same columns.
struct RankSlices {
  kernels::Slice query;      // of [heads * head_dim]
  kernels::Slice key_value;  // of [kv_heads * head_dim]; the same ones on several ranks where there
                             // are more ranks than KV heads
  kernels::Slice ffn;        // of [ffn_width]
  kernels::Slice expert;     // of [experts' ffn_width]
  kernels::Slice router;     // of [experts]; may be empty
  kernels::Slice vocabulary;
};

// INVALID_ARGUMENT says what of the model so many ranks cannot share, and how many can.
absl::Status CheckRanks(const ModelConfig& config, int32_t ranks);

// Of a model that passes CheckRanks.
RankSlices SlicesOf(const ModelConfig& config, const kernels::Shard& shard);
kernels::ModelShape ShapeOf(const ModelConfig& config, const kernels::Shard& shard = {});

}  // namespace swaa

#endif  // SWAA_ENGINE_MODEL_RANK_SLICES_H_
