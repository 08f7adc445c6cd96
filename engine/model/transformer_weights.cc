// Loading a transformer's weights.

#include "engine/model/transformer_weights.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/model/rank_slices.h"
#include "engine/model/sliced_rows.h"

namespace swaa {
namespace {

using kernels::Buffer;
using kernels::HostRows;
using kernels::MemoryKind;
using kernels::Slice;
using kernels::Weight;

class Loader {
 public:
  Loader(kernels::Operators* operators, const ModelConfig& config, const WeightSource& source,
         const std::function<void(double)>& on_progress)
      : operators_(operators),
        config_(config),
        source_(source),
        on_progress_(on_progress),
        slices_(SlicesOf(config, operators->shard())),
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
                          Vector({All(WeightRole::kOutputNorm, config_.hidden)}, 0));
    const WeightRole output =
        config_.tied_embeddings ? WeightRole::kTokenEmbedding : WeightRole::kOutput;
    SWAA_ASSIGN_OR_RETURN(
        weights->output,
        Matrix({{output, config_.vocab_size, slices_.vocabulary}}, 0, Whole(config_.hidden)));
    const bool tied_to_whole = config_.tied_embeddings && operators_->shard().size == 1;
    const Weight* tied = tied_to_whole ? weights->output.get() : nullptr;
    SWAA_ASSIGN_OR_RETURN(
        weights->embedding,
        operators_->MakeEmbedding(
            tied, {embedding.rows, embedding.read_rows, embedding.stored_bf16()}, config_.hidden));
    bytes_ += weights->embedding->bytes();
    weights->bytes = bytes_;
    return weights;
  }

 private:
  // Rows of a matrix, or elements of a vector.
  struct Part {
    WeightRole role;
    int64_t of;  // rows that the whole weight has
    Slice rows;
  };
  // Columns of a matrix.
  struct Columns {
    int64_t of;
    Slice slice;
  };
  static Part All(WeightRole role, int64_t rows) { return {role, rows, {0, rows}}; }
  static Columns Whole(int64_t columns) { return {columns, {0, columns}}; }

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

  // Parts under one another as one packed matrix of the columns' input features.
  absl::StatusOr<std::unique_ptr<Weight>> Matrix(const std::vector<Part>& parts, int32_t layer,
                                                 const Columns& columns, int32_t expert = 0) {
    std::vector<HostRows> rows;
    for (const Part& part : parts) {
      SWAA_ASSIGN_OR_RETURN(const WeightView view,
                            Find({part.role, layer, expert}, part.of, columns.of));
      rows.push_back(SlicedRows(view, part.rows, columns.slice));
    }
    SWAA_ASSIGN_OR_RETURN(auto weight, operators_->PackWeight(rows, columns.slice.count));
    bytes_ += weight->bytes();
    Progress(weight->out_features() * columns.slice.count);
    return weight;
  }

  // Parts one after the other as one f32 vector.
  absl::StatusOr<std::unique_ptr<Buffer>> Vector(const std::vector<Part>& parts, int32_t layer) {
    std::vector<float> values;
    for (const Part& part : parts) {
      SWAA_ASSIGN_OR_RETURN(WeightView view, Find({part.role, layer}, 1, part.of));
      std::vector<float> whole(part.of);
      view.read_rows(0, 1, whole.data());
      const auto first = whole.begin() + part.rows.first;
      values.insert(values.end(), first, first + part.rows.count);
    }
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(float));
    SWAA_ASSIGN_OR_RETURN(auto buffer, operators_->Allocate(bytes, MemoryKind::kWeights));
    operators_->Upload(values.data(), bytes, buffer->data());
    bytes_ += buffer->bytes();
    return buffer;
  }

  absl::StatusOr<LayerWeights> LoadLayer(int32_t l) {
    LayerWeights w;
    SWAA_RETURN_IF_ERROR(LoadAttention(l, &w));
    SWAA_ASSIGN_OR_RETURN(w.ffn_norm, Vector({All(WeightRole::kFfnNorm, config_.hidden)}, l));
    if (config_.is_mixture(l)) {
      SWAA_RETURN_IF_ERROR(LoadExperts(l, &w));
      return w;
    }
    const int64_t ffn = config_.ffn_width;
    SWAA_ASSIGN_OR_RETURN(w.gate_up, Matrix({{WeightRole::kFfnGate, ffn, slices_.ffn},
                                             {WeightRole::kFfnUp, ffn, slices_.ffn}},
                                            l, Whole(config_.hidden)));
    SWAA_ASSIGN_OR_RETURN(
        w.ffn_down, Matrix({All(WeightRole::kFfnDown, config_.hidden)}, l, {ffn, slices_.ffn}));
    return w;
  }

  absl::Status LoadAttention(int32_t l, LayerWeights* w) {
    const int64_t hidden = config_.hidden;
    SWAA_ASSIGN_OR_RETURN(w->attention_norm, Vector({All(WeightRole::kAttentionNorm, hidden)}, l));
    SWAA_ASSIGN_OR_RETURN(w->qkv, Matrix({{WeightRole::kQuery, head_width_, slices_.query},
                                          {WeightRole::kKey, kv_width_, slices_.key_value},
                                          {WeightRole::kValue, kv_width_, slices_.key_value}},
                                         l, Whole(hidden)));
    if (config_.qkv_bias) {
      SWAA_ASSIGN_OR_RETURN(w->qkv_bias,
                            Vector({{WeightRole::kQueryBias, head_width_, slices_.query},
                                    {WeightRole::kKeyBias, kv_width_, slices_.key_value},
                                    {WeightRole::kValueBias, kv_width_, slices_.key_value}},
                                   l));
    }
    if (config_.qk_norm) {
      const int64_t head_dim = config_.head_dim;
      SWAA_ASSIGN_OR_RETURN(w->query_norm, Vector({All(WeightRole::kQueryNorm, head_dim)}, l));
      SWAA_ASSIGN_OR_RETURN(w->key_norm, Vector({All(WeightRole::kKeyNorm, head_dim)}, l));
    }
    SWAA_ASSIGN_OR_RETURN(w->attention_output, Matrix({All(WeightRole::kAttentionOutput, hidden)},
                                                      l, {head_width_, slices_.query}));
    if (config_.output_bias && operators_->shard().rank == 0) {
      SWAA_ASSIGN_OR_RETURN(w->output_bias,
                            Vector({All(WeightRole::kAttentionOutputBias, hidden)}, l));
    }
    return absl::OkStatus();
  }

  absl::Status LoadExperts(int32_t l, LayerWeights* w) {
    const int64_t hidden = config_.hidden, ffn = config_.experts->ffn_width;
    const int32_t count = config_.experts->count;
    if (slices_.router.count > 0) {
      SWAA_ASSIGN_OR_RETURN(
          w->router, Matrix({{WeightRole::kRouter, count, slices_.router}}, l, Whole(hidden)));
    }
    for (int32_t e = 0; e < count; ++e) {
      SWAA_ASSIGN_OR_RETURN(auto gate_up, Matrix({{WeightRole::kExpertGate, ffn, slices_.expert},
                                                  {WeightRole::kExpertUp, ffn, slices_.expert}},
                                                 l, Whole(hidden), e));
      SWAA_ASSIGN_OR_RETURN(
          auto down, Matrix({All(WeightRole::kExpertDown, hidden)}, l, {ffn, slices_.expert}, e));
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
    const int64_t experts = config_.experts.has_value() ? config_.experts->count : 0;
    int64_t all = hidden * slices_.vocabulary.count;
    for (int32_t l = 0; l < config_.num_layers; ++l) {
      all += hidden * 2 * (slices_.query.count + slices_.key_value.count);
      all += config_.is_mixture(l)
                 ? hidden * (slices_.router.count + experts * 3 * slices_.expert.count)
                 : hidden * 3 * slices_.ffn.count;
    }
    return all;
  }

  kernels::Operators* operators_;
  const ModelConfig& config_;
  const WeightSource& source_;
  const std::function<void(double)>& on_progress_;
  RankSlices slices_;
  int64_t head_width_;  // of the whole model, as the next
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
