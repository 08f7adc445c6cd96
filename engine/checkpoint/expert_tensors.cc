// Tensors that hold a weight of every expert, taken apart.

#include "engine/checkpoint/expert_tensors.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/checkpoint/tensor_weights.h"
#include "engine/checkpoint/text_checks.h"

namespace swaa {
namespace {

// A tensor of all experts: what stands behind its layer's prefix, and whose weights lie in it, of
// each expert one under the other.
struct Stack {
  WeightNaming naming;
  std::string_view prefix;
  std::string_view name;
  std::vector<WeightRole> roles;
};

const std::vector<Stack>& Stacks() {
  using enum WeightNaming;
  static const auto* stacks = new std::vector<Stack>{
      {kGguf, "blk.", ".ffn_gate_exps.weight", {WeightRole::kExpertGate}},
      {kGguf, "blk.", ".ffn_up_exps.weight", {WeightRole::kExpertUp}},
      {kGguf, "blk.", ".ffn_down_exps.weight", {WeightRole::kExpertDown}},
      {kHuggingFace,
       "model.layers.",
       ".mlp.experts.gate_up_proj",
       {WeightRole::kExpertGate, WeightRole::kExpertUp}},
      {kHuggingFace, "model.layers.", ".mlp.experts.down_proj", {WeightRole::kExpertDown}},
  };
  return *stacks;
}

// [experts, rows of all roles, columns].
std::vector<int64_t> StackShape(const Stack& stack, const ModelConfig& config) {
  std::vector<int64_t> shape = WeightShape(SpecOf(stack.roles.front()), config);
  shape.front() *= static_cast<int64_t>(stack.roles.size());
  shape.insert(shape.begin(), config.experts->count);
  return shape;
}

absl::Status Split(const Stack& stack, int32_t layer, const ModelConfig& config,
                   const StoredTensor& whole, StoredTensors* tensors) {
  const auto roles = static_cast<int64_t>(stack.roles.size());
  StoredTensor part = whole;
  part.shape = WeightShape(SpecOf(stack.roles.front()), config);
  part.bytes = whole.bytes / (config.experts->count * roles);
  for (int32_t expert = 0; expert < config.experts->count; ++expert) {
    for (const WeightRole role : stack.roles) {
      const std::string name = WeightName({role, layer, expert}, stack.naming);
      if (!tensors->emplace(name, part).second) {
        return absl::InvalidArgumentError(
            absl::StrCat(whole.file->path(), ": offset ", FileOffset(whole), ": ", Quoted(name),
                         " is both a tensor of its own and part of one of all experts"));
      }
      part.data += part.bytes;
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status SplitExpertTensors(const ModelConfig& config, WeightNaming naming,
                                StoredTensors* tensors) {
  if (!config.experts.has_value()) return absl::OkStatus();
  for (const Stack& stack : Stacks()) {
    if (stack.naming != naming) continue;
    const std::vector<int64_t> shape = StackShape(stack, config);
    for (int32_t layer = 0; layer < config.num_layers; ++layer) {
      if (!config.is_mixture(layer)) continue;
      const std::string name =
          absl::StrCat(std::string(stack.prefix), layer, std::string(stack.name));
      const auto found = tensors->find(name);
      if (found == tensors->end()) continue;
      const StoredTensor whole = found->second;
      SWAA_RETURN_IF_ERROR(CheckTensorShape(whole, shape, name));
      tensors->erase(found);
      SWAA_RETURN_IF_ERROR(Split(stack, layer, config, whole, tensors));
    }
  }
  return absl::OkStatus();
}

}  // namespace swaa
