// The forward pass of a decoder-only transformer.

#include "engine/model/transformer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/check.h"
#include "base/status_macros.h"

namespace swaa {

using kernels::Buffer;
using kernels::DataType;

struct Transformer::Activations {
  int64_t max_rows = 0;
  std::unique_ptr<Buffer> x;           // f32 [rows, hidden], the residual stream
  std::unique_ptr<Buffer> normed;      // [rows, hidden]
  std::unique_ptr<Buffer> qkv;         // f32 [rows, (heads + 2 kv_heads) * head_dim]
  std::unique_ptr<Buffer> attended;    // [rows, heads * head_dim]
  std::unique_ptr<Buffer> gate_up;     // [rows, 2 ffn_width]
  std::unique_ptr<Buffer> ffn;         // [rows, ffn_width]
  std::unique_ptr<Buffer> cos_sin;     // f32 [rows, head_dim]
  std::unique_ptr<Buffer> wanted_x;    // f32, as x, for the rows whose logits are wanted
  std::unique_ptr<Buffer> wanted_qkv;  // f32, as qkv
  std::unique_ptr<Buffer> logits;      // f32 [kLogitsRows, vocab]
  std::vector<int32_t> positions;      // of the step's rows
};

namespace {

float* Floats(const std::unique_ptr<Buffer>& buffer) {
  return reinterpret_cast<float*>(buffer->data());
}

// The wanted rows of a step as sequences of their own, numbered from 0, with their spans of one
// layer.
struct WantedRows {
  std::vector<int32_t> rows;  // of the step
  std::vector<kernels::SequenceRows> sequences;
  std::vector<kernels::KeySpan> spans;  // [sequences]
};

WantedRows FindWantedRows(const Step& step, int32_t layer, int32_t num_layers) {
  WantedRows wanted;
  size_t s = 0;
  for (const LogitsRow& logits : step.logits) {
    while (logits.row >= step.sequences[s].first_row + step.sequences[s].query_count) ++s;
    const kernels::SequenceRows& from = step.sequences[s];
    const int32_t position = from.first_position + logits.row - from.first_row;
    if (!wanted.sequences.empty()) {
      // Neighbours of one sequence stay one, so that attention tiles them.
      kernels::SequenceRows& last = wanted.sequences.back();
      if (wanted.rows.back() + 1 == logits.row && logits.row != from.first_row) {
        ++last.query_count;
        wanted.rows.push_back(logits.row);
        continue;
      }
    }
    wanted.sequences.push_back({.slot = from.slot,
                                .first_row = static_cast<int32_t>(wanted.rows.size()),
                                .query_count = 1,
                                .first_position = position});
    wanted.spans.push_back(step.spans[s * num_layers + layer]);
    wanted.rows.push_back(logits.row);
  }
  return wanted;
}

}  // namespace

std::vector<float> RopeInverseFrequencies(const ModelConfig& config) {
  std::vector<float> frequencies(config.head_dim / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    double frequency = std::pow(config.rope_theta, -2.0 * static_cast<double>(i) / config.head_dim);
    if (config.rope_scaling.has_value()) {
      // Llama 3: long waves are stretched, short ones kept, those between blended.
      const Llama3RopeScaling& scaling = *config.rope_scaling;
      const double turns = scaling.original_context * frequency / (2 * std::numbers::pi);
      const double share = std::clamp(
          (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor),
          0.0, 1.0);
      frequency *= share + (1 - share) / scaling.factor;
    }
    if (!config.rope_frequency_factors.empty()) frequency /= config.rope_frequency_factors[i];
    frequencies[i] = static_cast<float>(frequency);
  }
  return frequencies;
}

int64_t EstimateWeightBytes(const ModelConfig& c, DataType type) {
  const int64_t qkv = int64_t{c.heads + 2 * c.kv_heads} * c.head_dim;
  const int64_t layer =
      c.hidden * (qkv + int64_t{c.heads} * c.head_dim) + 3 * int64_t{c.hidden} * c.ffn_width;
  return (c.num_layers * layer + int64_t{c.vocab_size} * c.hidden) * SizeOf(type);
}

int64_t EstimateActivationBytes(const ModelConfig& c, int64_t max_step_tokens) {
  const int64_t qkv = int64_t{c.heads + 2 * c.kv_heads} * c.head_dim;
  const int64_t row = 4 * (3 * c.hidden + 3 * qkv + 3 * int64_t{c.ffn_width} + c.head_dim);
  return max_step_tokens * row + Transformer::kLogitsRows * 4 * int64_t{c.vocab_size};
}

Transformer::Transformer(kernels::Operators* operators, const ModelConfig& config)
    : operators_(operators),
      config_(config),
      inverse_frequencies_(RopeInverseFrequencies(config)) {}

Transformer::~Transformer() = default;

absl::StatusOr<std::unique_ptr<Transformer>> Transformer::Load(
    kernels::Operators* operators, const ModelConfig& config, const WeightSource& weights,
    int64_t max_step_tokens, const std::function<void(double)>& on_progress) {
  std::unique_ptr<Transformer> transformer(new Transformer(operators, config));
  SWAA_ASSIGN_OR_RETURN(transformer->weights_,
                        LoadTransformerWeights(operators, config, weights, on_progress));
  SWAA_RETURN_IF_ERROR(transformer->AllocateActivations(max_step_tokens));
  return transformer;
}

absl::Status Transformer::AllocateActivations(int64_t max_step_tokens) {
  activations_ = std::make_unique<Activations>();
  Activations& a = *activations_;
  a.max_rows = max_step_tokens;
  const int64_t rows = operators_->PaddedRows(max_step_tokens);
  const int64_t element = SizeOf(operators_->precision().activations);
  const int64_t head_width = int64_t{config_.heads} * config_.head_dim;
  const int64_t qkv_width = head_width + 2 * int64_t{config_.kv_heads} * config_.head_dim;
  struct Wanted {
    std::unique_ptr<Buffer>* buffer;
    int64_t bytes;
  };
  const Wanted all[] = {
      {&a.x, rows * config_.hidden * 4},
      {&a.normed, rows * config_.hidden * element},
      {&a.qkv, rows * qkv_width * 4},
      {&a.attended, rows * head_width * element},
      {&a.gate_up, rows * 2 * config_.ffn_width * element},
      {&a.ffn, rows * config_.ffn_width * element},
      {&a.cos_sin, rows * config_.head_dim * 4},
      {&a.wanted_x, rows * config_.hidden * 4},
      {&a.wanted_qkv, rows * qkv_width * 4},
      {&a.logits, operators_->PaddedRows(kLogitsRows) * config_.vocab_size * 4},
  };
  for (const Wanted& wanted : all) {
    SWAA_ASSIGN_OR_RETURN(*wanted.buffer, operators_->Allocate(wanted.bytes));
  }
  a.positions.reserve(max_step_tokens);
  return absl::OkStatus();
}

void Transformer::Forward(const Step& step, const kernels::PageTableView& page_table,
                          const kernels::PagePoolView& pages, const LogitsConsumer& consume) {
  const auto rows = static_cast<int64_t>(step.tokens.size());
  Activations& a = *activations_;
  SWAA_CHECK_LE(rows, a.max_rows);
  if (rows == 0) return;
  PrepareRows(step);
  kernels::AttentionParams attention{
      .q = Floats(a.qkv),
      .q_stride = (config_.heads + 2 * config_.kv_heads) * static_cast<int64_t>(config_.head_dim),
      .out = a.attended->data(),
      .sequences = step.sequences,
      .span_stride = config_.num_layers,
      .page_table = page_table,
      .pages = pages,
      .heads = config_.heads,
      .kv_heads = config_.kv_heads,
      .head_dim = config_.head_dim,
      .scale = 1 / std::sqrt(static_cast<float>(config_.head_dim))};
  const int32_t last = config_.num_layers - 1;
  for (int32_t l = 0; l <= last; ++l) {
    ComputeQkv(weights_->layers[l], l, step, page_table, pages);
    attention.layer = l;
    attention.spans = step.spans.data() + l;
    if (l < last) ComputeRest(weights_->layers[l], attention, rows, Floats(a.x));
  }
  if (!step.logits.empty()) {
    ComputeLastLayer(step, attention);
    ComputeLogits(static_cast<int64_t>(step.logits.size()), consume);
  }
  operators_->Finish();
}

void Transformer::PrepareRows(const Step& step) {
  Activations& a = *activations_;
  a.positions.assign(step.tokens.size(), 0);
  for (const kernels::SequenceRows& sequence : step.sequences) {
    for (int32_t r = 0; r < sequence.query_count; ++r) {
      a.positions[sequence.first_row + r] = sequence.first_position + r;
    }
  }
  operators_->Embed(*weights_->embedding, step.tokens, Floats(a.x));
  operators_->RopeTable(a.positions, inverse_frequencies_, 1.0f, Floats(a.cos_sin));
}

void Transformer::ComputeQkv(const LayerWeights& layer, int32_t index, const Step& step,
                             const kernels::PageTableView& page_table,
                             const kernels::PagePoolView& pages) {
  Activations& a = *activations_;
  const auto rows = static_cast<int64_t>(step.tokens.size());
  operators_->RmsNorm({.x = Floats(a.x),
                       .weight = Floats(layer.attention_norm),
                       .out = a.normed->data(),
                       .rows = rows,
                       .hidden = config_.hidden,
                       .epsilon = config_.norm_epsilon});
  operators_->Linear({.weight = layer.qkv.get(),
                      .x = a.normed->data(),
                      .bias = layer.qkv_bias == nullptr ? nullptr : Floats(layer.qkv_bias),
                      .out = a.qkv->data(),
                      .out_type = DataType::kF32,
                      .rows = rows});
  const bool last = index == config_.num_layers - 1;
  operators_->RopeAndStore(
      {.qkv = Floats(a.qkv),
       .cos_sin = Floats(a.cos_sin),
       .q_norm = layer.query_norm == nullptr ? nullptr : Floats(layer.query_norm),
       .k_norm = layer.key_norm == nullptr ? nullptr : Floats(layer.key_norm),
       .norm_epsilon = config_.norm_epsilon,
       .sequences = step.sequences,
       .page_table = page_table,
       .pages = pages,
       .layer = index,
       .heads = config_.heads,
       .kv_heads = config_.kv_heads,
       .head_dim = config_.head_dim,
       .rotate_queries = !last || !step.logits.empty()});
}

void Transformer::ComputeRest(const LayerWeights& layer, const kernels::AttentionParams& attention,
                              int64_t rows, float* x) {
  Activations& a = *activations_;
  const DataType type = operators_->precision().activations;
  operators_->Attention(attention);
  operators_->Linear({.weight = layer.attention_output.get(),
                      .x = a.attended->data(),
                      .out = x,
                      .out_type = DataType::kF32,
                      .rows = rows,
                      .accumulate = true});
  operators_->RmsNorm({.x = x,
                       .weight = Floats(layer.ffn_norm),
                       .out = a.normed->data(),
                       .rows = rows,
                       .hidden = config_.hidden,
                       .epsilon = config_.norm_epsilon});
  operators_->Linear({.weight = layer.gate_up.get(),
                      .x = a.normed->data(),
                      .out = a.gate_up->data(),
                      .out_type = type,
                      .rows = rows});
  operators_->SiluMul(a.gate_up->data(), rows, config_.ffn_width, a.ffn->data());
  operators_->Linear({.weight = layer.ffn_down.get(),
                      .x = a.ffn->data(),
                      .out = x,
                      .out_type = DataType::kF32,
                      .rows = rows,
                      .accumulate = true});
}

void Transformer::ComputeLastLayer(const Step& step, kernels::AttentionParams attention) {
  Activations& a = *activations_;
  const WantedRows wanted = FindWantedRows(step, attention.layer, config_.num_layers);
  operators_->GatherRows(Floats(a.qkv), wanted.rows, attention.q_stride, Floats(a.wanted_qkv));
  operators_->GatherRows(Floats(a.x), wanted.rows, config_.hidden, Floats(a.wanted_x));
  attention.q = Floats(a.wanted_qkv);
  attention.sequences = wanted.sequences;
  attention.spans = wanted.spans.data();
  attention.span_stride = 1;
  ComputeRest(weights_->layers.back(), attention, static_cast<int64_t>(wanted.rows.size()),
              Floats(a.wanted_x));
  operators_->Finish();  // `wanted` is read until then
}

void Transformer::ComputeLogits(int64_t rows, const LogitsConsumer& consume) {
  Activations& a = *activations_;
  for (int64_t first = 0; first < rows; first += kLogitsRows) {
    const int64_t count = std::min(kLogitsRows, rows - first);
    operators_->RmsNorm({.x = Floats(a.wanted_x) + first * config_.hidden,
                         .weight = Floats(weights_->output_norm),
                         .out = a.normed->data(),
                         .rows = count,
                         .hidden = config_.hidden,
                         .epsilon = config_.norm_epsilon});
    operators_->Linear({.weight = weights_->output.get(),
                        .x = a.normed->data(),
                        .out = a.logits->data(),
                        .out_type = DataType::kF32,
                        .rows = count});
    operators_->Finish();
    consume(first, count, Floats(a.logits));
  }
}

}  // namespace swaa
