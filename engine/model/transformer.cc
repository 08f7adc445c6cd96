// The forward pass of a decoder-only transformer.

#include "engine/model/transformer.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "base/check.h"
#include "base/status_macros.h"

namespace swaa {

using kernels::Buffer;
using kernels::DataType;
using kernels::MemoryKind;
using kernels::StagedStep;

struct Transformer::Activations {
  std::unique_ptr<Buffer> residual;         // [rows, hidden]
  std::unique_ptr<Buffer> delta;            // [rows, hidden]: what is added to it next
  std::unique_ptr<Buffer> ffn_delta;        // likewise, of the feed-forward; null: in delta, too
  std::unique_ptr<Buffer> normed;           // [rows, hidden]
  std::unique_ptr<Buffer> qkv;              // [rows, (heads + 2 kv_heads) * head_dim]
  std::unique_ptr<Buffer> attended;         // [rows, heads * head_dim]
  std::unique_ptr<Buffer> gate_up;          // [rows, 2 ffn_width]
  std::unique_ptr<Buffer> ffn;              // [rows, ffn_width]
  std::unique_ptr<Buffer> cos_sin;          // f32 [rows, head_dim]
  std::unique_ptr<Buffer> wanted_residual;  // as residual, for the rows whose logits are wanted
  std::unique_ptr<Buffer> wanted_qkv;       // as qkv
  std::unique_ptr<Buffer> logits;           // f32 [logits_rows, vocab]
  std::unique_ptr<Buffer> router_logits;    // f32 [rows, experts]
  std::unique_ptr<Buffer> experts;          // scratch of Operators::Experts
  std::unique_ptr<Buffer> columns;          // f32: this rank's part of logits, the router's too
};

namespace {

float* Floats(const std::unique_ptr<Buffer>& buffer) {
  return buffer == nullptr ? nullptr : reinterpret_cast<float*>(buffer->data());
}

kernels::ExpertsShape ExpertsShapeOf(const ModelConfig& c, const kernels::Shard& shard) {
  return {.hidden = c.hidden,
          .width = SlicesOf(c, shard).expert.count,
          .count = c.experts->count,
          .experts_per_row = c.experts->per_token};
}

// Layers with one feed-forward network.
int64_t DenseLayers(const ModelConfig& config) {
  if (!config.experts.has_value()) return config.num_layers;
  return static_cast<int64_t>(config.experts->dense_layers.size());
}

// Bytes of every buffer of Activations, in its order; 0 where the model does not need it.
std::vector<int64_t> ActivationSizes(const kernels::Operators& operators, const ModelConfig& config,
                                     const Transformer::Capacity& capacity) {
  const kernels::Shard shard = operators.shard();
  const kernels::ModelShape shape = ShapeOf(config, shard);
  const kernels::Precision& types = operators.precision();
  const int64_t rows = operators.PaddedRows(capacity.step_rows);
  const int64_t activation = SizeOf(types.activations), query = SizeOf(types.queries);
  const int64_t ffn_width = DenseLayers(config) > 0 ? shape.ffn_width : 0;
  const bool mixture = config.experts.has_value();
  const int64_t logits_rows = operators.PaddedRows(capacity.logits_rows);
  const int64_t columns = std::max(logits_rows * kernels::MostColumns(shape.vocab, shard.size),
                                   rows * kernels::MostColumns(shape.experts, shard.size));
  return {rows * shape.hidden * SizeOf(types.residual),
          rows * shape.hidden * SizeOf(types.deltas),
          shard.size > 1 ? rows * shape.hidden * SizeOf(types.deltas) : 0,
          rows * shape.hidden * activation,
          rows * shape.qkv_width() * query,
          rows * shape.head_width() * activation,
          rows * 2 * ffn_width * activation,
          rows * ffn_width * activation,
          rows * shape.head_dim * 4,
          rows * shape.hidden * SizeOf(types.residual),
          rows * shape.qkv_width() * query,
          logits_rows * shape.vocab * 4,
          rows * shape.experts * 4,
          mixture ? operators.ExpertScratchBytes(ExpertsShapeOf(config, shard), rows) : 0,
          shard.size > 1 ? columns * 4 : 0};
}

}  // namespace

int64_t Transformer::MaxWeightBytes(const kernels::Operators& operators,
                                    const ModelConfig& config) {
  const kernels::Shard shard = operators.shard();
  const kernels::ModelShape s = ShapeOf(config, shard);
  const int64_t attention = operators.MaxWeightBytes(s.qkv_width(), s.hidden) +
                            operators.MaxWeightBytes(s.hidden, s.head_width());
  const auto ffn = [&](int64_t width) {
    return operators.MaxWeightBytes(2 * width, s.hidden) +
           operators.MaxWeightBytes(s.hidden, width);
  };
  const int64_t dense = DenseLayers(config);
  int64_t layers = s.num_layers * attention + dense * ffn(s.ffn_width);
  if (config.experts.has_value()) {
    const RankSlices slices = SlicesOf(config, shard);
    layers += (s.num_layers - dense) * (operators.MaxWeightBytes(slices.router.count, s.hidden) +
                                        s.experts * ffn(slices.expert.count));
  }
  // A rank's part of the output is not the whole table.
  const bool shared = config.tied_embeddings && shard.size == 1;
  const int64_t embedding = shared ? 0 : operators.EmbeddingBytes(s.vocab, s.hidden);
  return layers + operators.MaxWeightBytes(s.logits_columns, s.hidden) + embedding;
}

int64_t Transformer::ActivationBytes(const kernels::Operators& operators, const ModelConfig& config,
                                     const Capacity& capacity) {
  int64_t bytes = 0;
  for (const int64_t size : ActivationSizes(operators, config, capacity)) bytes += size;
  return bytes;
}

Transformer::Transformer(kernels::Operators* operators, const ModelConfig& config,
                         const Capacity& capacity)
    : operators_(operators),
      config_(config),
      shape_(ShapeOf(config, operators->shard())),
      capacity_(capacity) {}

Transformer::~Transformer() = default;

absl::StatusOr<std::unique_ptr<Transformer>> Transformer::Load(
    kernels::Operators* operators, const ModelConfig& config, const WeightSource& weights,
    const Capacity& capacity, const std::function<void(double)>& on_progress) {
  std::unique_ptr<Transformer> transformer(new Transformer(operators, config, capacity));
  SWAA_ASSIGN_OR_RETURN(transformer->weights_,
                        LoadTransformerWeights(operators, config, weights, on_progress));
  const std::vector<float> frequencies = RopeInverseFrequencies(config);
  const auto bytes = static_cast<int64_t>(frequencies.size() * sizeof(float));
  SWAA_ASSIGN_OR_RETURN(transformer->inverse_frequencies_,
                        operators->Allocate(bytes, MemoryKind::kWorkspace));
  operators->Upload(frequencies.data(), bytes, transformer->inverse_frequencies_->data());
  SWAA_RETURN_IF_ERROR(transformer->AllocateActivations());
  return transformer;
}

absl::Status Transformer::AllocateActivations() {
  activations_ = std::make_unique<Activations>();
  Activations& a = *activations_;
  std::unique_ptr<Buffer>* const buffers[] = {
      &a.residual,   &a.delta,   &a.ffn_delta,     &a.normed,  &a.qkv,
      &a.attended,   &a.gate_up, &a.ffn,           &a.cos_sin, &a.wanted_residual,
      &a.wanted_qkv, &a.logits,  &a.router_logits, &a.experts, &a.columns};
  const std::vector<int64_t> sizes = ActivationSizes(*operators_, config_, capacity_);
  SWAA_CHECK_EQ(sizes.size(), std::size(buffers));
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0) continue;
    SWAA_ASSIGN_OR_RETURN(*buffers[i], operators_->Allocate(sizes[i], MemoryKind::kWorkspace));
  }
  return absl::OkStatus();
}

const kernels::LoraUpdate* Transformer::UpdateOf(int32_t layer, AdaptedProduct product,
                                                 const StagedStep& step, bool wanted_rows) {
  if (!step.adapted()) return nullptr;
  update_ = {.step = &step, .wanted_rows = wanted_rows, .product = PlaceOf(layer, product)};
  return &update_;
}

void Transformer::Forward(StagedStep* step) {
  Activations& a = *activations_;
  SWAA_CHECK_LE(step->rows(), operators_->PaddedRows(capacity_.step_rows));
  operators_->Embed(*step, *weights_->embedding, a.residual->data());
  operators_->RopeTable(*step, Floats(inverse_frequencies_), RopeAttentionFactor(config_),
                        Floats(a.cos_sin));
  kernels::AttentionParams attention{.qkv = a.qkv->data(), .out = a.attended->data()};
  const int32_t last = config_.num_layers - 1;
  for (int32_t l = 0; l <= last; ++l) {
    const LayerWeights& layer = weights_->layers[l];
    AddNorm(l == 0 ? nullptr : FfnDelta(), *layer.attention_norm, step->rows(), a.residual->data());
    ComputeQkv(layer, l, *step);
    attention.layer = l;
    if (l < last) ComputeRest(layer, *step, attention, step->rows(), a.residual->data());
  }
  if (step->wanted_rows() == 0) return;
  void* residual = a.residual->data();
  if (!step->all_wanted()) {
    // In the last layer only these rows go past keys and values.
    const kernels::Precision& types = operators_->precision();
    operators_->GatherWantedRows(*step, a.qkv->data(), shape_.qkv_width() * SizeOf(types.queries),
                                 a.wanted_qkv->data());
    operators_->GatherWantedRows(*step, a.residual->data(),
                                 int64_t{shape_.hidden} * SizeOf(types.residual),
                                 a.wanted_residual->data());
    attention.qkv = a.wanted_qkv->data();
    attention.wanted_rows = true;
    residual = a.wanted_residual->data();
  }
  ComputeRest(weights_->layers.back(), *step, attention, step->wanted_rows(), residual);
  ComputeLogits(step, residual);
}

void* Transformer::FfnDelta() const {
  const Activations& a = *activations_;
  return (a.ffn_delta == nullptr ? a.delta : a.ffn_delta)->data();
}

void Transformer::AddNorm(void* delta, const Buffer& weight, int64_t rows, void* residual) {
  operators_->AddNorm({.residual = residual,
                       .delta = delta,
                       .weight = reinterpret_cast<const float*>(weight.data()),
                       .out = activations_->normed->data(),
                       .rows = rows,
                       .hidden = config_.hidden,
                       .epsilon = config_.norm_epsilon});
}

void Transformer::ComputeQkv(const LayerWeights& layer, int32_t index, const StagedStep& step) {
  Activations& a = *activations_;
  operators_->Linear({.weight = layer.qkv.get(),
                      .x = a.normed->data(),
                      .bias = Floats(layer.qkv_bias),
                      .out = a.qkv->data(),
                      .out_type = operators_->precision().queries,
                      .rows = step.rows(),
                      .lora = UpdateOf(index, AdaptedProduct::kQkv, step, false)});
  const bool last = index == config_.num_layers - 1;
  operators_->RopeAndStore(step, {.qkv = a.qkv->data(),
                                  .cos_sin = Floats(a.cos_sin),
                                  .q_norm = Floats(layer.query_norm),
                                  .k_norm = Floats(layer.key_norm),
                                  .norm_epsilon = config_.norm_epsilon,
                                  .layer = index,
                                  .rotate_queries = !last || step.wanted_rows() > 0});
}

void Transformer::ComputeRest(const LayerWeights& layer, const StagedStep& step,
                              const kernels::AttentionParams& attention, int64_t rows,
                              void* residual) {
  Activations& a = *activations_;
  const kernels::Precision& types = operators_->precision();
  operators_->Attention(step, attention);
  operators_->Linear({.weight = layer.attention_output.get(),
                      .x = a.attended->data(),
                      .bias = Floats(layer.output_bias),
                      .out = a.delta->data(),
                      .out_type = types.deltas,
                      .rows = rows,
                      .lora = UpdateOf(attention.layer, AdaptedProduct::kAttentionOutput, step,
                                       attention.wanted_rows)});
  AddNorm(a.delta->data(), *layer.ffn_norm, rows, residual);
  if (layer.experts.empty()) {
    ComputeFfn(layer, step, attention, rows);
  } else {
    ComputeExperts(layer, step, rows);
  }
}

void Transformer::ComputeFfn(const LayerWeights& layer, const StagedStep& step,
                             const kernels::AttentionParams& attention, int64_t rows) {
  Activations& a = *activations_;
  const auto update = [&](AdaptedProduct product) {
    return UpdateOf(attention.layer, product, step, attention.wanted_rows);
  };
  operators_->GatedLinear({.weight = layer.gate_up.get(),
                           .x = a.normed->data(),
                           .scratch = a.gate_up->data(),
                           .out = a.ffn->data(),
                           .rows = rows,
                           .lora = update(AdaptedProduct::kGateUp)});
  operators_->Linear({.weight = layer.ffn_down.get(),
                      .x = a.ffn->data(),
                      .out = FfnDelta(),
                      .out_type = operators_->precision().deltas,
                      .rows = rows,
                      .lora = update(AdaptedProduct::kFfnDown)});
}

void Transformer::ComputeExperts(const LayerWeights& layer, const StagedStep& step, int64_t rows) {
  Activations& a = *activations_;
  LinearOfAllRanks(layer.router.get(), a.normed->data(), rows, shape_.experts, *a.router_logits);
  operators_->Experts({.experts = layer.experts,
                       .experts_per_row = config_.experts->per_token,
                       .normalize = config_.experts->normalize,
                       .logits = Floats(a.router_logits),
                       .x = a.normed->data(),
                       .scratch = a.experts->data(),
                       .out = FfnDelta(),
                       .rows = rows,
                       .step = &step});
}

void Transformer::LinearOfAllRanks(const kernels::Weight* weight, const void* x, int64_t rows,
                                   int64_t columns, const Buffer& out) {
  kernels::Communicator* const communicator = operators_->communicator();
  const Buffer& part = communicator == nullptr ? out : *activations_->columns;
  if (weight != nullptr) {
    operators_->Linear(
        {.weight = weight, .x = x, .out = part.data(), .out_type = DataType::kF32, .rows = rows});
  }
  if (communicator == nullptr) return;
  communicator->GatherColumns({.mine = reinterpret_cast<float*>(part.data()),
                               .all = reinterpret_cast<float*>(out.data()),
                               .rows = rows,
                               .columns = columns});
}

void Transformer::ComputeLogits(StagedStep* step, void* residual) {
  Activations& a = *activations_;
  AddNorm(FfnDelta(), *weights_->output_norm, step->wanted_rows(), residual);
  const int64_t row_bytes = config_.hidden * SizeOf(operators_->precision().activations);
  for (int64_t first = 0; first < step->wanted_rows(); first += capacity_.logits_rows) {
    const int64_t count = std::min(capacity_.logits_rows, step->wanted_rows() - first);
    LinearOfAllRanks(weights_->output.get(), a.normed->data() + first * row_bytes, count,
                     shape_.vocab, *a.logits);
    operators_->Sample(step, {.logits = Floats(a.logits), .first = first, .count = count});
  }
}

}  // namespace swaa
