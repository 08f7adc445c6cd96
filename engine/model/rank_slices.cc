// How the ranks of a tensor-parallel model share it.

#include "engine/model/rank_slices.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"

namespace swaa {
namespace {

using kernels::Slice;

constexpr int32_t kMostRanks = 64;

Slice Part(int64_t width, const kernels::Shard& shard) {
  const int64_t part = width / shard.size;
  return {part * shard.rank, part};
}

// Why so many ranks cannot share the model; empty: they can.
std::string Obstacle(const ModelConfig& c, int32_t ranks) {
  const auto divides = [ranks](int32_t number) { return number % ranks == 0; };
  if (!divides(c.heads)) return absl::StrCat("its ", c.heads, " attention heads");
  if (!divides(c.kv_heads) && ranks % c.kv_heads != 0) {
    return absl::StrCat("its ", c.kv_heads, " KV heads");
  }
  const bool dense = !c.experts.has_value() || !c.experts->dense_layers.empty();
  if (dense && !divides(c.ffn_width)) {
    return absl::StrCat("its feed-forward networks' width of ", c.ffn_width);
  }
  if (c.experts.has_value() && !divides(c.experts->ffn_width)) {
    return absl::StrCat("its experts' width of ", c.experts->ffn_width);
  }
  if (kernels::ColumnsOf({ranks - 1, ranks}, c.vocab_size).count <= 0) {
    return absl::StrCat("its vocabulary of ", c.vocab_size);
  }
  return "";
}

}  // namespace

absl::Status CheckRanks(const ModelConfig& config, int32_t ranks) {
  if (ranks < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor_parallel_size: ", ranks, " is not at least 1"));
  }
  const std::string obstacle = Obstacle(config, ranks);
  if (obstacle.empty()) return absl::OkStatus();
  std::string possible;
  for (int32_t other = 1; other <= kMostRanks; ++other) {
    if (!Obstacle(config, other).empty()) continue;
    absl::StrAppend(&possible, possible.empty() ? "" : ", ", other);
  }
  return absl::InvalidArgumentError(absl::StrCat("tensor_parallel_size: ", ranks,
                                                 " ranks cannot share this model: ", obstacle,
                                                 "; take one of ", possible));
}

RankSlices SlicesOf(const ModelConfig& c, const kernels::Shard& shard) {
  const int64_t head_dim = c.head_dim;
  RankSlices slices;
  slices.query = Part(c.heads * head_dim, shard);
  const int64_t first_kv_head = int64_t{c.kv_heads} * shard.rank / shard.size;
  const int64_t kv_heads = std::max(1, c.kv_heads / shard.size);
  slices.key_value = {first_kv_head * head_dim, kv_heads * head_dim};
  slices.ffn = Part(c.ffn_width, shard);
  if (c.experts.has_value()) {
    slices.expert = Part(c.experts->ffn_width, shard);
    slices.router = kernels::ColumnsOf(shard, c.experts->count);
  }
  slices.vocabulary = kernels::ColumnsOf(shard, c.vocab_size);
  return slices;
}

kernels::ModelShape ShapeOf(const ModelConfig& c, const kernels::Shard& shard) {
  const RankSlices slices = SlicesOf(c, shard);
  return {.num_layers = c.num_layers,
          .hidden = c.hidden,
          .ffn_width = static_cast<int32_t>(slices.ffn.count),
          .heads = c.heads / shard.size,
          .kv_heads = static_cast<int32_t>(slices.key_value.count / c.head_dim),
          .head_dim = c.head_dim,
          .attention_scale = 1 / std::sqrt(static_cast<float>(c.head_dim)),
          .vocab = c.vocab_size,
          .logits_columns = static_cast<int32_t>(slices.vocabulary.count),
          .experts = c.experts.has_value() ? c.experts->count : 0,
          .experts_per_row = c.experts.has_value() ? c.experts->per_token : 0,
          .expert_width = static_cast<int32_t>(slices.expert.count)};
}

}  // namespace swaa
