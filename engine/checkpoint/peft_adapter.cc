// Adapters as PEFT saves them.

#include "engine/checkpoint/peft_adapter.h"

#include <cmath>
#include <filesystem>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/checkpoint/mapped_file.h"
#include "engine/checkpoint/safetensors.h"
#include "engine/checkpoint/text_checks.h"
#include "engine/checkpoint/weight_table.h"

namespace swaa {
namespace {

constexpr WeightRole kAdapted[] = {
    WeightRole::kQuery,   WeightRole::kKey,   WeightRole::kValue,  WeightRole::kAttentionOutput,
    WeightRole::kFfnGate, WeightRole::kFfnUp, WeightRole::kFfnDown};

// The largest f16. What a step makes of smaller values stays finite, and so do the pages that
// other requests read later.
constexpr float kMostValue = 65504;

// The module of a weight: its name without ".weight".
std::string ModuleOf(const WeightSpec& spec, int32_t layer) {
  std::string name = WeightName({spec.role, layer}, WeightNaming::kHuggingFace);
  return name.substr(0, name.rfind('.'));
}

absl::Status Wrong(const StoredTensor& tensor, const std::string& name,
                   const std::string& problem) {
  return absl::InvalidArgumentError(absl::StrCat(tensor.file->path(), ": offset ",
                                                 FileOffset(tensor), ": tensor ", Quoted(name), " ",
                                                 problem));
}

// Shape and values.
absl::Status CheckTensor(const StoredTensor& tensor, const std::string& name,
                         const std::vector<int64_t>& shape) {
  if (tensor.shape != shape) {
    return Wrong(tensor, name,
                 absl::StrCat("has shape ", ShapeText(tensor.shape),
                              ", but model and rank make it ", ShapeText(shape)));
  }
  std::vector<float> row(shape[1]);
  const int64_t row_bytes = tensor.bytes / shape[0];
  for (int64_t r = 0; r < shape[0]; ++r) {
    DequantizeRow(tensor.type, tensor.data + r * row_bytes, shape[1], row.data());
    for (int64_t c = 0; c < shape[1]; ++c) {
      if (std::abs(row[c]) <= kMostValue) continue;
      return Wrong(tensor, name,
                   absl::StrCat("has ", row[c], " at [", r, ", ", c,
                                "]; a trained adapter has "
                                "numbers of at most ",
                                kMostValue));
    }
  }
  return absl::OkStatus();
}

class Maker {
 public:
  Maker(const PeftConfig& peft, StoredTensors tensors, const ModelConfig& model,
        const std::string& place)
      : peft_(peft), tensors_(std::move(tensors)), model_(model), place_(place) {}

  absl::StatusOr<LoraCheckpoint> Make() {
    for (const WeightRole role : kAdapted) {
      const WeightSpec& spec = SpecOf(role);
      for (int32_t layer = 0; layer < model_.num_layers; ++layer) {
        if (spec.present(model_, layer)) SWAA_RETURN_IF_ERROR(Take(spec, layer));
      }
    }
    if (!tensors_.empty()) {
      const auto& [name, tensor] = *tensors_.begin();
      return absl::UnimplementedError(absl::StrCat(
          tensor.file->path(), ": offset ", FileOffset(tensor), ": tensor ", Quoted(name),
          " adapts nothing of this model that can be adapted: q_proj, k_proj, v_proj, o_proj, "
          "gate_proj, up_proj and down_proj of its ",
          model_.num_layers, " layers"));
    }
    if (checkpoint_.matrices.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(place_, ": no tensor at all"));
    }
    return std::move(checkpoint_);
  }

 private:
  absl::Status Take(const WeightSpec& spec, int32_t layer) {
    const std::string module = ModuleOf(spec, layer);
    const std::string prefix = absl::StrCat("base_model.model.", module);
    const std::string down_name = absl::StrCat(prefix, ".lora_A.weight");
    const std::string up_name = absl::StrCat(prefix, ".lora_B.weight");
    const auto down = tensors_.extract(down_name);
    const auto up = tensors_.extract(up_name);
    if (down.empty() && up.empty()) return absl::OkStatus();
    if (down.empty() || up.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(place_, ": tensor ",
                                                     Quoted(down.empty() ? down_name : up_name),
                                                     " is missing; its other half is there"));
    }
    absl::StatusOr<LoraScale> scale = peft_.ScaleOf(module);
    if (!scale.ok()) {
      return absl::Status(scale.status().code(),
                          absl::StrCat(place_, ": ", std::string(scale.status().message())));
    }
    const std::vector<int64_t> shape = WeightShape(spec, model_);
    SWAA_RETURN_IF_ERROR(CheckTensor(down.mapped(), down_name, {scale->rank, shape[1]}));
    SWAA_RETURN_IF_ERROR(CheckTensor(up.mapped(), up_name, {shape[0], scale->rank}));
    checkpoint_.rank = std::max(checkpoint_.rank, scale->rank);
    checkpoint_.matrices[{spec.role, layer}] = {
        .rank = scale->rank, .scale = scale->scale, .down = down.mapped(), .up = up.mapped()};
    return absl::OkStatus();
  }

  const PeftConfig& peft_;
  StoredTensors tensors_;  // those that nothing has taken yet
  const ModelConfig& model_;
  const std::string& place_;
  LoraCheckpoint checkpoint_;
};

}  // namespace

absl::StatusOr<LoraCheckpoint> MakeLoraCheckpoint(const PeftConfig& peft, StoredTensors tensors,
                                                  const ModelConfig& model,
                                                  const std::string& place) {
  return Maker(peft, std::move(tensors), model, place).Make();
}

absl::StatusOr<LoraCheckpoint> ReadPeftFolder(
    const std::string& folder, const ModelConfig& model,
    absl::FunctionRef<absl::Status(const std::string& path)> may_open) {
  const std::string config_path = (std::filesystem::path(folder) / "adapter_config.json").string();
  const std::string tensors_path =
      (std::filesystem::path(folder) / "adapter_model.safetensors").string();
  SWAA_RETURN_IF_ERROR(may_open(config_path));
  SWAA_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> config_file,
                        MappedFile::Open(config_path));
  SWAA_ASSIGN_OR_RETURN(const std::unique_ptr<const PeftConfig> peft,
                        ParsePeftConfig(config_file->text(), config_path));
  SWAA_RETURN_IF_ERROR(may_open(tensors_path));
  SWAA_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file,
                        MappedFile::Open(tensors_path));
  SWAA_ASSIGN_OR_RETURN(StoredTensors tensors, ParseSafetensors(file));
  return MakeLoraCheckpoint(*peft, std::move(tensors), model, tensors_path);
}

}  // namespace swaa
