// A small random model and its forward pass in double precision.

#include "tests/unit/model/tiny_model.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "absl/status/status.h"
#include "engine/model/transformer.h"
#include "kernels/reference/attention.h"
#include "kernels/reference/operators.h"

namespace swaa {

namespace reference = kernels::reference;

ModelConfig TinyConfig() {
  ModelConfig config;
  config.architecture = "llama";
  config.name = "tiny";
  config.num_layers = 3;
  config.hidden = 80;
  config.ffn_width = 112;
  config.heads = 6;
  config.kv_heads = 2;
  config.head_dim = 32;
  config.vocab_size = 131;
  config.max_context_tokens = 512;
  config.norm_epsilon = 1e-5f;
  config.rope_theta = 1000;
  return config;
}

ModelConfig TinyMixtureConfig() {
  ModelConfig config = TinyConfig();
  config.architecture = "qwen3_moe";
  config.qk_norm = true;
  config.experts = ExpertsConfig{
      .count = 6, .per_token = 2, .ffn_width = 40, .normalize = true, .dense_layers = {1}};
  return config;
}

RandomWeights::RandomWeights(const ModelConfig& c, uint64_t seed) {
  std::mt19937_64 random(seed);
  auto add = [&](WeightRole role, int32_t layer, int64_t rows, int64_t columns, double mean,
                 double deviation, int32_t expert = 0) {
    std::normal_distribution<double> normal(mean, deviation);
    Tensor& tensor = tensors_[{role, layer, expert}];
    tensor = {rows, columns, std::vector<double>(rows * columns)};
    for (double& value : tensor.values) value = static_cast<float>(normal(random));
  };
  const int64_t head_width = int64_t{c.heads} * c.head_dim;
  const int64_t kv_width = int64_t{c.kv_heads} * c.head_dim;
  const double in_hidden = 1 / std::sqrt(c.hidden);
  add(WeightRole::kTokenEmbedding, 0, c.vocab_size, c.hidden, 0, 1);
  if (!c.tied_embeddings) add(WeightRole::kOutput, 0, c.vocab_size, c.hidden, 0, in_hidden);
  add(WeightRole::kOutputNorm, 0, 1, c.hidden, 1, 0.2);
  for (int32_t l = 0; l < c.num_layers; ++l) {
    add(WeightRole::kAttentionNorm, l, 1, c.hidden, 1, 0.2);
    // Queries and keys larger than usual make attention sharp: masks then matter.
    add(WeightRole::kQuery, l, head_width, c.hidden, 0, 1.5 * in_hidden);
    add(WeightRole::kKey, l, kv_width, c.hidden, 0, 1.5 * in_hidden);
    add(WeightRole::kValue, l, kv_width, c.hidden, 0, in_hidden);
    add(WeightRole::kAttentionOutput, l, c.hidden, head_width, 0, 1 / std::sqrt(head_width));
    if (c.qkv_bias) {
      add(WeightRole::kQueryBias, l, 1, head_width, 0, 0.5);
      add(WeightRole::kKeyBias, l, 1, kv_width, 0, 0.5);
      add(WeightRole::kValueBias, l, 1, kv_width, 0, 0.5);
    }
    if (c.output_bias) add(WeightRole::kAttentionOutputBias, l, 1, c.hidden, 0, 0.5);
    if (c.qk_norm) {
      add(WeightRole::kQueryNorm, l, 1, c.head_dim, 1, 0.2);
      add(WeightRole::kKeyNorm, l, 1, c.head_dim, 1, 0.2);
    }
    add(WeightRole::kFfnNorm, l, 1, c.hidden, 1, 0.2);
    if (!c.is_mixture(l)) {
      add(WeightRole::kFfnGate, l, c.ffn_width, c.hidden, 0, in_hidden);
      add(WeightRole::kFfnUp, l, c.ffn_width, c.hidden, 0, in_hidden);
      add(WeightRole::kFfnDown, l, c.hidden, c.ffn_width, 0, 1 / std::sqrt(c.ffn_width));
      continue;
    }
    const int32_t width = c.experts->ffn_width;
    add(WeightRole::kRouter, l, c.experts->count, c.hidden, 0, 2 * in_hidden);
    for (int32_t e = 0; e < c.experts->count; ++e) {
      add(WeightRole::kExpertGate, l, width, c.hidden, 0, in_hidden, e);
      add(WeightRole::kExpertUp, l, width, c.hidden, 0, in_hidden, e);
      add(WeightRole::kExpertDown, l, c.hidden, width, 0, 1 / std::sqrt(width), e);
    }
  }
}

absl::StatusOr<WeightView> RandomWeights::Find(WeightKey key) const {
  const auto found = tensors_.find({key.role, key.layer, key.expert});
  if (found == tensors_.end()) return absl::NotFoundError("no such tensor in the random model");
  const Tensor* tensor = &found->second;
  WeightView view;
  view.rows = tensor->rows;
  view.columns = tensor->columns;
  view.read_rows = [tensor](int64_t first_row, int64_t count, float* out) {
    const double* from = tensor->values.data() + first_row * tensor->columns;
    std::transform(from, from + count * tensor->columns, out,
                   [](double value) { return static_cast<float>(value); });
  };
  return view;
}

void RandomWeights::Add(WeightRole role, int32_t layer, std::span<const double> update) {
  std::vector<double>& values = tensors_.at({role, layer, 0}).values;
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(values[i] + update[i]);
}

std::span<const double> RandomWeights::Values(WeightRole role, int32_t layer,
                                              int32_t expert) const {
  const auto found = tensors_.find({role, layer, expert});
  return found == tensors_.end() ? std::span<const double>() : found->second.values;
}

namespace {

// Query, key or value of all tokens: [tokens, heads * head_dim], normed and rotated where `rotate`.
std::vector<double> Project(const ModelConfig& c, std::span<const double> x,
                            std::span<const double> weight, std::span<const double> bias,
                            std::span<const double> norm, bool rotate) {
  std::vector<double> out = reference::Linear(x, weight, bias, c.hidden);
  if (!norm.empty()) out = reference::RmsNorm(out, norm, c.norm_epsilon);
  if (!rotate) return out;
  const std::vector<float> frequencies = RopeInverseFrequencies(c);
  const size_t tokens = x.size() / c.hidden;
  const size_t width = out.size() / tokens;
  for (size_t t = 0; t < tokens; ++t) {
    reference::Rope(std::span(out).subspan(t * width, width), static_cast<double>(t), frequencies);
  }
  return out;
}

// Softmax attention of all tokens, head by head: [tokens, heads * head_dim].
std::vector<double> Attend(const ModelConfig& c, const std::vector<double>& q,
                           const std::vector<double>& k, const std::vector<double>& v,
                           std::span<const kernels::KeySpan> spans, int32_t layer) {
  const int64_t d = c.head_dim, q_width = c.heads * d, kv_width = c.kv_heads * d;
  const auto tokens = static_cast<int64_t>(q.size()) / q_width;
  std::vector<double> out(q.size());
  for (int64_t i = 0; i < tokens; ++i) {
    const kernels::KeySpan& span = spans[i * c.num_layers + layer];
    for (int64_t h = 0; h < c.heads; ++h) {
      const int64_t kv_offset = h / (c.heads / c.kv_heads) * d;
      std::vector<double> weights(i + 1);
      double sum = 0;
      for (int64_t j = 0; j <= i; ++j) {
        if (!reference::Visible(span, i, j)) continue;
        double dot = 0;
        for (int64_t e = 0; e < d; ++e) {
          dot += q[i * q_width + h * d + e] * k[j * kv_width + kv_offset + e];
        }
        weights[j] = std::exp(dot / std::sqrt(d));
        sum += weights[j];
      }
      for (int64_t j = 0; j <= i; ++j) {
        for (int64_t e = 0; e < d; ++e) {
          out[i * q_width + h * d + e] += weights[j] / sum * v[j * kv_width + kv_offset + e];
        }
      }
    }
  }
  return out;
}

// Rows of gate beside the same rows of up.
std::vector<double> Beside(std::span<const double> gate, std::span<const double> up,
                           int64_t columns) {
  std::vector<double> both;
  for (size_t row = 0; row < gate.size(); row += columns) {
    both.insert(both.end(), gate.begin() + row, gate.begin() + row + columns);
    both.insert(both.end(), up.begin() + row, up.begin() + row + columns);
  }
  return both;
}

std::vector<double> FeedForward(const ModelConfig& c, const RandomWeights& w, int32_t layer,
                                std::span<const double> x) {
  using enum WeightRole;
  const auto gate = reference::Linear(x, w.Values(kFfnGate, layer), {}, c.hidden);
  const auto up = reference::Linear(x, w.Values(kFfnUp, layer), {}, c.hidden);
  const auto gated = reference::SiluMul(Beside(gate, up, c.ffn_width), c.ffn_width);
  return reference::Linear(gated, w.Values(kFfnDown, layer), {}, c.ffn_width);
}

std::vector<double> Mixture(const ModelConfig& c, const RandomWeights& w, int32_t layer,
                            std::span<const double> x, double* routing_margin) {
  using enum WeightRole;
  const ExpertsConfig& mixture = *c.experts;
  const auto logits = reference::Linear(x, w.Values(kRouter, layer), {}, c.hidden);
  for (size_t row = 0; row < logits.size(); row += mixture.count) {
    std::vector<double> sorted(logits.begin() + row, logits.begin() + row + mixture.count);
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    *routing_margin =
        std::min(*routing_margin, sorted[mixture.per_token - 1] - sorted[mixture.per_token]);
  }
  std::vector<std::vector<double>> gate_up;  // of each expert one under the other
  std::vector<reference::Expert> experts;
  for (int32_t e = 0; e < mixture.count; ++e) {
    const auto gate = w.Values(kExpertGate, layer, e), up = w.Values(kExpertUp, layer, e);
    gate_up.push_back(Beside(gate, up, static_cast<int64_t>(gate.size())));
  }
  for (int32_t e = 0; e < mixture.count; ++e) {
    experts.push_back({gate_up[e], w.Values(kExpertDown, layer, e)});
  }
  const auto shares =
      reference::ExpertShares(logits, mixture.count, mixture.per_token, mixture.normalize);
  return reference::Experts(x, shares, experts, c.hidden);
}

void Add(std::vector<double>& x, const std::vector<double>& y) {
  std::transform(x.begin(), x.end(), y.begin(), x.begin(), std::plus<>());
}

}  // namespace

std::vector<double> ReferenceLogits(const ModelConfig& c, const RandomWeights& w,
                                    std::span<const int32_t> tokens,
                                    std::span<const kernels::KeySpan> spans,
                                    double* routing_margin) {
  using enum WeightRole;
  double margin = std::numeric_limits<double>::infinity();
  std::vector<double> x;
  for (int32_t token : tokens) {
    const auto row = w.Values(kTokenEmbedding, 0).subspan(int64_t{token} * c.hidden, c.hidden);
    x.insert(x.end(), row.begin(), row.end());
  }
  for (int32_t l = 0; l < c.num_layers; ++l) {
    const auto normed = reference::RmsNorm(x, w.Values(kAttentionNorm, l), c.norm_epsilon);
    const auto q = Project(c, normed, w.Values(kQuery, l), w.Values(kQueryBias, l),
                           w.Values(kQueryNorm, l), true);
    const auto k =
        Project(c, normed, w.Values(kKey, l), w.Values(kKeyBias, l), w.Values(kKeyNorm, l), true);
    const auto v = Project(c, normed, w.Values(kValue, l), w.Values(kValueBias, l), {}, false);
    const auto attended = Attend(c, q, k, v, spans, l);
    Add(x, reference::Linear(attended, w.Values(kAttentionOutput, l),
                             w.Values(kAttentionOutputBias, l), c.heads * c.head_dim));
    const auto ffn_in = reference::RmsNorm(x, w.Values(kFfnNorm, l), c.norm_epsilon);
    Add(x, c.is_mixture(l) ? Mixture(c, w, l, ffn_in, &margin) : FeedForward(c, w, l, ffn_in));
  }
  if (routing_margin != nullptr) *routing_margin = margin;
  const auto normed = reference::RmsNorm(x, w.Values(kOutputNorm, 0), c.norm_epsilon);
  return reference::Linear(normed, w.Values(c.tied_embeddings ? kTokenEmbedding : kOutput, 0), {},
                           c.hidden);
}

}  // namespace swaa
