// A weight of another model family is one row here.

#include "engine/checkpoint/weight_table.h"

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace swaa {
namespace {

using Config = const ModelConfig&;

constexpr auto kAlways = [](Config) { return true; };
constexpr auto kUntied = [](Config c) { return !c.tied_embeddings; };
constexpr auto kBias = [](Config c) { return c.qkv_bias; };
constexpr auto kOutputBias = [](Config c) { return c.output_bias; };
constexpr auto kQkNorm = [](Config c) { return c.qk_norm; };

constexpr auto kVocab = [](Config c) { return int64_t{c.vocab_size}; };
constexpr auto kHidden = [](Config c) { return int64_t{c.hidden}; };
constexpr auto kFfn = [](Config c) { return int64_t{c.ffn_width}; };
constexpr auto kQueries = [](Config c) { return int64_t{c.heads} * c.head_dim; };
constexpr auto kKeys = [](Config c) { return int64_t{c.kv_heads} * c.head_dim; };
constexpr auto kHead = [](Config c) { return int64_t{c.head_dim}; };

constexpr WeightSpec kSpecs[] = {
    {WeightRole::kTokenEmbedding, false, kAlways, kVocab, kHidden, "token_embd.weight",
     "model.embed_tokens.weight"},
    {WeightRole::kOutput, false, kUntied, kVocab, kHidden, "output.weight", "lm_head.weight"},
    {WeightRole::kOutputNorm, false, kAlways, nullptr, kHidden, "output_norm.weight",
     "model.norm.weight"},
    {WeightRole::kAttentionNorm, true, kAlways, nullptr, kHidden, "blk.{}.attn_norm.weight",
     "model.layers.{}.input_layernorm.weight"},
    {WeightRole::kQuery, true, kAlways, kQueries, kHidden, "blk.{}.attn_q.weight",
     "model.layers.{}.self_attn.q_proj.weight"},
    {WeightRole::kKey, true, kAlways, kKeys, kHidden, "blk.{}.attn_k.weight",
     "model.layers.{}.self_attn.k_proj.weight"},
    {WeightRole::kValue, true, kAlways, kKeys, kHidden, "blk.{}.attn_v.weight",
     "model.layers.{}.self_attn.v_proj.weight"},
    {WeightRole::kAttentionOutput, true, kAlways, kHidden, kQueries, "blk.{}.attn_output.weight",
     "model.layers.{}.self_attn.o_proj.weight"},
    {WeightRole::kQueryBias, true, kBias, nullptr, kQueries, "blk.{}.attn_q.bias",
     "model.layers.{}.self_attn.q_proj.bias"},
    {WeightRole::kKeyBias, true, kBias, nullptr, kKeys, "blk.{}.attn_k.bias",
     "model.layers.{}.self_attn.k_proj.bias"},
    {WeightRole::kValueBias, true, kBias, nullptr, kKeys, "blk.{}.attn_v.bias",
     "model.layers.{}.self_attn.v_proj.bias"},
    {WeightRole::kAttentionOutputBias, true, kOutputBias, nullptr, kHidden,
     "blk.{}.attn_output.bias", "model.layers.{}.self_attn.o_proj.bias"},
    {WeightRole::kQueryNorm, true, kQkNorm, nullptr, kHead, "blk.{}.attn_q_norm.weight",
     "model.layers.{}.self_attn.q_norm.weight"},
    {WeightRole::kKeyNorm, true, kQkNorm, nullptr, kHead, "blk.{}.attn_k_norm.weight",
     "model.layers.{}.self_attn.k_norm.weight"},
    {WeightRole::kFfnNorm, true, kAlways, nullptr, kHidden, "blk.{}.ffn_norm.weight",
     "model.layers.{}.post_attention_layernorm.weight"},
    {WeightRole::kFfnGate, true, kAlways, kFfn, kHidden, "blk.{}.ffn_gate.weight",
     "model.layers.{}.mlp.gate_proj.weight"},
    {WeightRole::kFfnUp, true, kAlways, kFfn, kHidden, "blk.{}.ffn_up.weight",
     "model.layers.{}.mlp.up_proj.weight"},
    {WeightRole::kFfnDown, true, kAlways, kHidden, kFfn, "blk.{}.ffn_down.weight",
     "model.layers.{}.mlp.down_proj.weight"},
};

}  // namespace

std::span<const WeightSpec> WeightSpecs() { return kSpecs; }

const WeightSpec& SpecOf(WeightRole role) {
  const WeightSpec& spec = kSpecs[static_cast<int>(role)];
  SWAA_CHECK(spec.role == role) << "the table is not in the order of the enumeration";
  return spec;
}

std::vector<int64_t> WeightShape(const WeightSpec& spec, const ModelConfig& config) {
  if (spec.rows == nullptr) return {spec.columns(config)};
  return {spec.rows(config), spec.columns(config)};
}

std::string WeightName(const WeightSpec& spec, WeightNaming naming, int32_t layer) {
  std::string pattern(naming == WeightNaming::kGguf ? spec.gguf : spec.hugging_face);
  const size_t place = pattern.find("{}");
  if (place == std::string::npos) return pattern;
  return absl::StrCat(pattern.substr(0, place), layer, pattern.substr(place + 2));
}

}  // namespace swaa
