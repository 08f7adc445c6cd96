// An adapter's weights on a device.

#include "engine/model/adapter_weights.h"

#include <array>
#include <span>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"
#include "engine/checkpoint/dequantize.h"
#include "engine/model/rank_slices.h"
#include "engine/model/sliced_rows.h"

namespace swaa {
namespace {

using kernels::LoraSpec;
using kernels::Slice;

// A weight of which a product is made, with its outputs.
struct Part {
  WeightRole role;
  Slice outputs;
};

struct Product {
  std::vector<Part> parts;  // under one another
  Slice inputs;
};

// By AdaptedProduct.
std::array<Product, kAdaptedProducts> ProductsOf(const ModelConfig& c,
                                                 const kernels::Shard& shard) {
  const RankSlices s = SlicesOf(c, shard);
  const Slice hidden = {0, c.hidden};
  return {{{{{WeightRole::kQuery, s.query},
             {WeightRole::kKey, s.key_value},
             {WeightRole::kValue, s.key_value}},
            hidden},
           {{{WeightRole::kAttentionOutput, hidden}}, s.query},
           {{{WeightRole::kFfnGate, s.ffn}, {WeightRole::kFfnUp, s.ffn}}, hidden},
           {{{WeightRole::kFfnDown, hidden}}, s.ffn}}};
}

kernels::RowReader ReaderOf(const StoredTensor& tensor, double scale) {
  return [&tensor, scale](int64_t first_row, int64_t count, float* out) {
    const int64_t columns = tensor.shape[1], row_bytes = tensor.bytes / tensor.shape[0];
    for (int64_t r = 0; r < count; ++r, out += columns) {
      DequantizeRow(tensor.type, tensor.data + (first_row + r) * row_bytes, columns, out);
      for (int64_t c = 0; c < columns; ++c) out[c] = static_cast<float>(out[c] * scale);
    }
  };
}

// A rank's part of a product's inputs, or of its outputs, is the same part of what an adapter adds.
LoraSpec SpecFor(const Product& product, int32_t layer, const LoraCheckpoint& checkpoint) {
  LoraSpec spec{.in_features = product.inputs.count};
  int64_t first_output = 0;
  for (const Part& part : product.parts) {
    const auto found = checkpoint.matrices.find({part.role, layer});
    if (found != checkpoint.matrices.end()) {
      const LoraMatrices& matrices = found->second;
      const Slice rank = {0, matrices.rank};
      spec.parts.push_back({.first_output = first_output,
                            .outputs = part.outputs.count,
                            .rank = matrices.rank,
                            .down = SlicedReader(ReaderOf(matrices.down, 1), matrices.down.shape[1],
                                                 rank, product.inputs),
                            .up = SlicedReader(ReaderOf(matrices.up, matrices.scale), matrices.rank,
                                               part.outputs, rank)});
    }
    first_output += part.outputs.count;
  }
  return spec;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const AdapterWeights>> AdapterWeights::Pack(
    kernels::Operators* operators, const ModelConfig& config, const LoraCheckpoint& checkpoint) {
  const std::array<Product, kAdaptedProducts> products = ProductsOf(config, operators->shard());
  std::vector<LoraSpec> specs;
  std::vector<int32_t> places;  // of the specs
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    for (size_t product = 0; product < kAdaptedProducts; ++product) {
      LoraSpec spec = SpecFor(products[product], layer, checkpoint);
      if (spec.parts.empty()) continue;
      specs.push_back(std::move(spec));
      places.push_back(PlaceOf(layer, static_cast<AdaptedProduct>(product)));
    }
  }
  SWAA_ASSIGN_OR_RETURN(auto packed, operators->PackLora(specs));
  SWAA_CHECK_EQ(packed.size(), specs.size());
  auto adapter = std::make_shared<AdapterWeights>();
  adapter->weights_.resize(config.num_layers * kAdaptedProducts);
  for (size_t i = 0; i < packed.size(); ++i) {
    adapter->bytes_ += packed[i]->bytes();
    adapter->weights_[places[i]] = packed[i].get();
  }
  adapter->owned_ = std::move(packed);
  return adapter;
}

}  // namespace swaa
