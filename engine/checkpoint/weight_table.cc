// A weight of another model family is one row here.

#include "engine/checkpoint/weight_table.h"

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace swaa {
namespace {

using Config = const ModelConfig&;

using enum WeightPer;

constexpr auto kAlways = [](Config, int32_t) { return true; };
constexpr auto kUntied = [](Config c, int32_t) { return !c.tied_embeddings; };
constexpr auto kBias = [](Config c, int32_t) { return c.qkv_bias; };
constexpr auto kOutputBias = [](Config c, int32_t) { return c.output_bias; };
constexpr auto kQkNorm = [](Config c, int32_t) { return c.qk_norm; };
constexpr auto kDense = [](Config c, int32_t layer) { return !c.is_mixture(layer); };
constexpr auto kMixture = [](Config c, int32_t layer) { return c.is_mixture(layer); };

constexpr auto kVocab = [](Config c) { return int64_t{c.vocab_size}; };
constexpr auto kHidden = [](Config c) { return int64_t{c.hidden}; };
constexpr auto kFfn = [](Config c) { return int64_t{c.ffn_width}; };
constexpr auto kQueries = [](Config c) { return int64_t{c.heads} * c.head_dim; };
constexpr auto kKeys = [](Config c) { return int64_t{c.kv_heads} * c.head_dim; };
constexpr auto kHead = [](Config c) { return int64_t{c.head_dim}; };
constexpr auto kExperts = [](Config c) { return int64_t{c.experts->count}; };
constexpr auto kExpertFfn = [](Config c) { return int64_t{c.experts->ffn_width}; };

constexpr WeightSpec kSpecs[] = {
    {WeightRole::kTokenEmbedding, kModel, kAlways, kVocab, kHidden, "token_embd.weight",
     "model.embed_tokens.weight"},
    {WeightRole::kOutput, kModel, kUntied, kVocab, kHidden, "output.weight", "lm_head.weight"},
    {WeightRole::kOutputNorm, kModel, kAlways, nullptr, kHidden, "output_norm.weight",
     "model.norm.weight"},
    {WeightRole::kAttentionNorm, kLayer, kAlways, nullptr, kHidden, "blk.{}.attn_norm.weight",
     "model.layers.{}.input_layernorm.weight"},
    {WeightRole::kQuery, kLayer, kAlways, kQueries, kHidden, "blk.{}.attn_q.weight",
     "model.layers.{}.self_attn.q_proj.weight"},
    {WeightRole::kKey, kLayer, kAlways, kKeys, kHidden, "blk.{}.attn_k.weight",
     "model.layers.{}.self_attn.k_proj.weight"},
    {WeightRole::kValue, kLayer, kAlways, kKeys, kHidden, "blk.{}.attn_v.weight",
     "model.layers.{}.self_attn.v_proj.weight"},
    {WeightRole::kAttentionOutput, kLayer, kAlways, kHidden, kQueries, "blk.{}.attn_output.weight",
     "model.layers.{}.self_attn.o_proj.weight"},
    {WeightRole::kQueryBias, kLayer, kBias, nullptr, kQueries, "blk.{}.attn_q.bias",
     "model.layers.{}.self_attn.q_proj.bias"},
    {WeightRole::kKeyBias, kLayer, kBias, nullptr, kKeys, "blk.{}.attn_k.bias",
     "model.layers.{}.self_attn.k_proj.bias"},
    {WeightRole::kValueBias, kLayer, kBias, nullptr, kKeys, "blk.{}.attn_v.bias",
     "model.layers.{}.self_attn.v_proj.bias"},
    {WeightRole::kAttentionOutputBias, kLayer, kOutputBias, nullptr, kHidden,
     "blk.{}.attn_output.bias", "model.layers.{}.self_attn.o_proj.bias"},
    {WeightRole::kQueryNorm, kLayer, kQkNorm, nullptr, kHead, "blk.{}.attn_q_norm.weight",
     "model.layers.{}.self_attn.q_norm.weight"},
    {WeightRole::kKeyNorm, kLayer, kQkNorm, nullptr, kHead, "blk.{}.attn_k_norm.weight",
     "model.layers.{}.self_attn.k_norm.weight"},
    {WeightRole::kFfnNorm, kLayer, kAlways, nullptr, kHidden, "blk.{}.ffn_norm.weight",
     "model.layers.{}.post_attention_layernorm.weight"},
    {WeightRole::kFfnGate, kLayer, kDense, kFfn, kHidden, "blk.{}.ffn_gate.weight",
     "model.layers.{}.mlp.gate_proj.weight"},
    {WeightRole::kFfnUp, kLayer, kDense, kFfn, kHidden, "blk.{}.ffn_up.weight",
     "model.layers.{}.mlp.up_proj.weight"},
    {WeightRole::kFfnDown, kLayer, kDense, kHidden, kFfn, "blk.{}.ffn_down.weight",
     "model.layers.{}.mlp.down_proj.weight"},
    {WeightRole::kRouter, kLayer, kMixture, kExperts, kHidden, "blk.{}.ffn_gate_inp.weight",
     "model.layers.{}.mlp.gate.weight"},
    {WeightRole::kExpertGate, WeightPer::kExpert, kMixture, kExpertFfn, kHidden,
     "blk.{}.ffn_gate_exps.weight", "model.layers.{}.mlp.experts.{}.gate_proj.weight"},
    {WeightRole::kExpertUp, WeightPer::kExpert, kMixture, kExpertFfn, kHidden,
     "blk.{}.ffn_up_exps.weight", "model.layers.{}.mlp.experts.{}.up_proj.weight"},
    {WeightRole::kExpertDown, WeightPer::kExpert, kMixture, kHidden, kExpertFfn,
     "blk.{}.ffn_down_exps.weight", "model.layers.{}.mlp.experts.{}.down_proj.weight"},
};

// The first "{}" replaced; false where there is none.
bool Fill(std::string* pattern, int32_t number) {
  const size_t place = pattern->find("{}");
  if (place == std::string::npos) return false;
  *pattern = absl::StrCat(pattern->substr(0, place), number, pattern->substr(place + 2));
  return true;
}

}  // namespace

std::span<const WeightSpec> WeightSpecs() { return kSpecs; }

const WeightSpec& SpecOf(WeightRole role) {
  const WeightSpec& spec = kSpecs[static_cast<int>(role)];
  SWAA_CHECK(spec.role == role) << "the table is not in the order of the enumeration";
  return spec;
}

std::vector<WeightKey> WeightKeys(const WeightSpec& spec, const ModelConfig& config) {
  const int32_t layers = spec.per == WeightPer::kModel ? 1 : config.num_layers;
  const int32_t experts =
      spec.per == WeightPer::kExpert && config.experts.has_value() ? config.experts->count : 1;
  std::vector<WeightKey> keys;
  for (int32_t layer = 0; layer < layers; ++layer) {
    if (!spec.present(config, layer)) continue;
    for (int32_t expert = 0; expert < experts; ++expert) {
      keys.push_back({spec.role, layer, expert});
    }
  }
  return keys;
}

std::vector<int64_t> WeightShape(const WeightSpec& spec, const ModelConfig& config) {
  if (spec.rows == nullptr) return {spec.columns(config)};
  return {spec.rows(config), spec.columns(config)};
}

std::string WeightName(WeightKey key, WeightNaming naming) {
  const WeightSpec& spec = SpecOf(key.role);
  std::string name(naming == WeightNaming::kGguf ? spec.gguf : spec.hugging_face);
  Fill(&name, key.layer);
  if (spec.per != WeightPer::kExpert || Fill(&name, key.expert)) return name;
  return absl::StrCat(name, "[", key.expert, "]");
}

}  // namespace swaa
