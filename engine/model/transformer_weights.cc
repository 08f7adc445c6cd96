// Loading a transformer's weights.

#include "engine/model/transformer_weights.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace swaa {
namespace {

using kernels::Buffer;
using kernels::HostRows;
using kernels::MemoryKind;
using kernels::Weight;

class Loader {
 public:
  Loader(kernels::Operators* operators, const ModelConfig& config, const WeightSource& source,
         const std::function<void(double)>& on_progress)
      : operators_(operators),
        config_(config),
        source_(source),
        on_progress_(on_progress),
        head_width_(int64_t{config.heads} * config.head_dim),
        kv_width_(int64_t{config.kv_heads} * config.head_dim) {}

  absl::StatusOr<std::unique_ptr<TransformerWeights>> Load() {
    auto weights = std::make_unique<TransformerWeights>();
    SWAA_ASSIGN_OR_RETURN(WeightView embedding,
                          Find({WeightRole::kTokenEmbedding}, config_.vocab_size, config_.hidden));
    for (int32_t l = 0; l < config_.num_layers; ++l) {
      SWAA_ASSIGN_OR_RETURN(LayerWeights layer, LoadLayer(l));
      weights->layers.push_back(std::move(layer));
    }
    SWAA_ASSIGN_OR_RETURN(weights->output_norm,
                          Vector({{WeightRole::kOutputNorm, config_.hidden}}, 0));
    const WeightRole output =
        config_.tied_embeddings ? WeightRole::kTokenEmbedding : WeightRole::kOutput;
    SWAA_ASSIGN_OR_RETURN(weights->output,
                          Matrix({{output, config_.vocab_size}}, 0, config_.hidden));
    const Weight* tied = config_.tied_embeddings ? weights->output.get() : nullptr;
    SWAA_ASSIGN_OR_RETURN(
        weights->embedding,
        operators_->MakeEmbedding(
            tied, {embedding.rows, embedding.read_rows, embedding.stored_bf16()}, config_.hidden));
    bytes_ += weights->embedding->bytes();
    weights->bytes = bytes_;
    return weights;
  }

 private:
  struct Part {
    WeightRole role;
    int64_t rows;
  };

  absl::StatusOr<WeightView> Find(WeightKey key, int64_t rows, int64_t columns) {
    SWAA_ASSIGN_OR_RETURN(WeightView view, source_.Find(key));
    if (view.rows != rows || view.columns != columns) {
      return absl::InvalidArgumentError(
          absl::StrCat("weight of role ", static_cast<int>(key.role), ", layer ", key.layer,
                       ": shape [", view.rows, ", ", view.columns,
                       "], but the configuration makes it [", rows, ", ", columns, "]"));
    }
    return view;
  }

  // Parts under one another as one packed matrix of `columns` input features.
  absl::StatusOr<std::unique_ptr<Weight>> Matrix(const std::vector<Part>& parts, int32_t layer,
                                                 int64_t columns, int32_t expert = 0) {
    std::vector<HostRows> rows;
    for (const Part& part : parts) {
      SWAA_ASSIGN_OR_RETURN(const WeightView view,
                            Find({part.role, layer, expert}, part.rows, columns));
      rows.push_back({view.rows, view.read_rows, view.stored_bf16()});
    }
    SWAA_ASSIGN_OR_RETURN(auto weight, operators_->PackWeight(rows, columns));
    bytes_ += weight->bytes();
    Progress(weight->out_features() * columns);
    return weight;
  }

  // Parts one after the other as one f32 vector; `rows` of a part is its length.
  absl::StatusOr<std::unique_ptr<Buffer>> Vector(const std::vector<Part>& parts, int32_t layer) {
    int64_t length = 0;
    for (const Part& part : parts) length += part.rows;
    std::vector<float> values(length);
    float* out = values.data();
    for (const Part& part : parts) {
      SWAA_ASSIGN_OR_RETURN(WeightView view, Find({part.role, layer}, 1, part.rows));
      view.read_rows(0, 1, out);
      out += part.rows;
    }
    SWAA_ASSIGN_OR_RETURN(auto buffer, operators_->Allocate(length * 4, MemoryKind::kWeights));
    operators_->Upload(values.data(), length * 4, buffer->data());
    bytes_ += buffer->bytes();
    return buffer;
  }

  absl::StatusOr<LayerWeights> LoadLayer(int32_t l) {
    const int64_t hidden = config_.hidden, ffn = config_.ffn_width;
    LayerWeights w;
    SWAA_ASSIGN_OR_RETURN(w.attention_norm, Vector({{WeightRole::kAttentionNorm, hidden}}, l));
    SWAA_ASSIGN_OR_RETURN(w.qkv, Matrix({{WeightRole::kQuery, head_width_},
                                         {WeightRole::kKey, kv_width_},
                                         {WeightRole::kValue, kv_width_}},
                                        l, hidden));
    if (config_.qkv_bias) {
      SWAA_ASSIGN_OR_RETURN(w.qkv_bias, Vector({{WeightRole::kQueryBias, head_width_},
                                                {WeightRole::kKeyBias, kv_width_},
                                                {WeightRole::kValueBias, kv_width_}},
                                               l));
    }
    if (config_.qk_norm) {
      SWAA_ASSIGN_OR_RETURN(w.query_norm, Vector({{WeightRole::kQueryNorm, config_.head_dim}}, l));
      SWAA_ASSIGN_OR_RETURN(w.key_norm, Vector({{WeightRole::kKeyNorm, config_.head_dim}}, l));
    }
    SWAA_ASSIGN_OR_RETURN(w.attention_output,
                          Matrix({{WeightRole::kAttentionOutput, hidden}}, l, head_width_));
    if (config_.output_bias) {
      SWAA_ASSIGN_OR_RETURN(w.output_bias, Vector({{WeightRole::kAttentionOutputBias, hidden}}, l));
    }
    SWAA_ASSIGN_OR_RETURN(w.ffn_norm, Vector({{WeightRole::kFfnNorm, hidden}}, l));
    if (config_.is_mixture(l)) {
      SWAA_RETURN_IF_ERROR(LoadExperts(l, &w));
      return w;
    }
    SWAA_ASSIGN_OR_RETURN(
        w.gate_up, Matrix({{WeightRole::kFfnGate, ffn}, {WeightRole::kFfnUp, ffn}}, l, hidden));
    SWAA_ASSIGN_OR_RETURN(w.ffn_down, Matrix({{WeightRole::kFfnDown, hidden}}, l, ffn));
    return w;
  }

  absl::Status LoadExperts(int32_t l, LayerWeights* w) {
    const int64_t hidden = config_.hidden, ffn = config_.experts->ffn_width;
    const int32_t count = config_.experts->count;
    SWAA_ASSIGN_OR_RETURN(w->router, Matrix({{WeightRole::kRouter, count}}, l, hidden));
    for (int32_t e = 0; e < count; ++e) {
      SWAA_ASSIGN_OR_RETURN(
          auto gate_up,
          Matrix({{WeightRole::kExpertGate, ffn}, {WeightRole::kExpertUp, ffn}}, l, hidden, e));
      SWAA_ASSIGN_OR_RETURN(auto down, Matrix({{WeightRole::kExpertDown, hidden}}, l, ffn, e));
      w->experts.push_back({gate_up.get(), down.get()});
      w->expert_weights.push_back(std::move(gate_up));
      w->expert_weights.push_back(std::move(down));
    }
    return absl::OkStatus();
  }

  void Progress(int64_t elements) {
    elements_ += elements;
    if (on_progress_)
      on_progress_(static_cast<double>(elements_) / static_cast<double>(Elements()));
  }

  // Of all matrices.
  int64_t Elements() const {
    const int64_t hidden = config_.hidden;
    int64_t all = hidden * config_.vocab_size;
    for (int32_t l = 0; l < config_.num_layers; ++l) {
      all += hidden * (2 * head_width_ + 2 * kv_width_);
      all += config_.is_mixture(l)
                 ? hidden * config_.experts->count * (1 + 3 * int64_t{config_.experts->ffn_width})
                 : hidden * 3 * int64_t{config_.ffn_width};
    }
    return all;
  }

  kernels::Operators* operators_;
  const ModelConfig& config_;
  const WeightSource& source_;
  const std::function<void(double)>& on_progress_;
  int64_t head_width_;
  int64_t kv_width_;
  int64_t elements_ = 0;
  int64_t bytes_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TransformerWeights>> LoadTransformerWeights(
    kernels::Operators* operators, const ModelConfig& config, const WeightSource& source,
    const std::function<void(double)>& on_progress) {
  return Loader(operators, config, source, on_progress).Load();
}

}  // namespace swaa
