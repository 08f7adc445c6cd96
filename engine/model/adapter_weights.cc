// An adapter's weights on a device.

#include "engine/model/adapter_weights.h"

#include <span>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"
#include "engine/checkpoint/dequantize.h"

namespace swaa {
namespace {

using kernels::LoraSpec;

// A weight of which a product is made, with its outputs.
struct Part {
  WeightRole role;
  int64_t outputs;
};

struct Product {
  std::vector<Part> parts;  // under one another
  int64_t in_features;
};

// By AdaptedProduct.
std::array<Product, kAdaptedProducts> ProductsOf(const ModelConfig& c) {
  const int64_t head_width = int64_t{c.heads} * c.head_dim;
  const int64_t kv_width = int64_t{c.kv_heads} * c.head_dim;
  return {{{{{WeightRole::kQuery, head_width},
             {WeightRole::kKey, kv_width},
             {WeightRole::kValue, kv_width}},
            c.hidden},
           {{{WeightRole::kAttentionOutput, c.hidden}}, head_width},
           {{{WeightRole::kFfnGate, c.ffn_width}, {WeightRole::kFfnUp, c.ffn_width}}, c.hidden},
           {{{WeightRole::kFfnDown, c.hidden}}, c.ffn_width}}};
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

LoraSpec SpecFor(const Product& product, int32_t layer, const LoraCheckpoint& checkpoint) {
  LoraSpec spec{.in_features = product.in_features};
  int64_t first_output = 0;
  for (const Part& part : product.parts) {
    const auto found = checkpoint.matrices.find({part.role, layer});
    if (found != checkpoint.matrices.end()) {
      const LoraMatrices& matrices = found->second;
      spec.parts.push_back({.first_output = first_output,
                            .outputs = part.outputs,
                            .rank = matrices.rank,
                            .down = ReaderOf(matrices.down, 1),
                            .up = ReaderOf(matrices.up, matrices.scale)});
    }
    first_output += part.outputs;
  }
  return spec;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const AdapterWeights>> AdapterWeights::Pack(
    kernels::Operators* operators, const ModelConfig& config, const LoraCheckpoint& checkpoint) {
  const std::array<Product, kAdaptedProducts> products = ProductsOf(config);
  std::vector<LoraSpec> specs;
  std::vector<size_t> places;  // layer * kAdaptedProducts + product
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    for (size_t product = 0; product < kAdaptedProducts; ++product) {
      LoraSpec spec = SpecFor(products[product], layer, checkpoint);
      if (spec.parts.empty()) continue;
      specs.push_back(std::move(spec));
      places.push_back(layer * kAdaptedProducts + product);
    }
  }
  SWAA_ASSIGN_OR_RETURN(auto packed, operators->PackLora(specs));
  SWAA_CHECK_EQ(packed.size(), specs.size());
  auto adapter = std::make_shared<AdapterWeights>();
  adapter->layers_.resize(config.num_layers);
  for (size_t i = 0; i < packed.size(); ++i) {
    adapter->bytes_ += packed[i]->bytes();
    adapter->layers_[places[i] / kAdaptedProducts][places[i] % kAdaptedProducts] =
        std::move(packed[i]);
  }
  return adapter;
}

}  // namespace swaa
