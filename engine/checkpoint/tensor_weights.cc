// Finds the weights of a configuration among the tensors of its files.

#include "engine/checkpoint/tensor_weights.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "engine/checkpoint/expert_tensors.h"
#include "engine/checkpoint/text_checks.h"

namespace swaa {
namespace {

// The row of a file with RopeRows::kInterleaved that holds row `row` of the rotate-half order.
int64_t InterleavedRow(int64_t row, int64_t head_dim) {
  const int64_t head = row / head_dim;
  const int64_t within = row % head_dim;
  const int64_t half = head_dim / 2;
  return head * head_dim + 2 * (within % half) + within / half;
}

bool IsRotated(WeightRole role) {
  return role == WeightRole::kQuery || role == WeightRole::kKey || role == WeightRole::kQueryBias ||
         role == WeightRole::kKeyBias;
}

// Each row by itself, so that any rows may be asked for in any order by any thread.
void ReadRows(const StoredTensor& tensor, int64_t interleaved_head_dim, int64_t first_row,
              int64_t count, float* out) {
  const int64_t columns = tensor.shape.back();
  const int64_t rows = tensor.shape.size() == 1 ? 1 : tensor.shape.front();
  SWAA_CHECK(first_row >= 0 && count >= 0 && first_row <= rows - count)
      << first_row << " + " << count << " of " << rows;
  const int64_t row_bytes = tensor.bytes / rows;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = first_row + i;
    const int64_t stored =
        interleaved_head_dim == 0 ? row : InterleavedRow(row, interleaved_head_dim);
    DequantizeRow(tensor.type, tensor.data + stored * row_bytes, columns, out + i * columns);
  }
}

// A vector whose elements are permuted is read whole.
void ReadInterleavedVector(const StoredTensor& tensor, int64_t head_dim, float* out) {
  const int64_t size = tensor.shape.back();
  std::vector<float> stored(size);
  DequantizeRow(tensor.type, tensor.data, size, stored.data());
  for (int64_t i = 0; i < size; ++i) out[i] = stored[InterleavedRow(i, head_dim)];
}

class TensorWeights : public WeightSource {
 public:
  TensorWeights(ModelConfig config, WeightNaming naming, RopeRows rope_rows, StoredTensors tensors,
                int64_t mapped_bytes, std::string place)
      : config_(std::move(config)),
        naming_(naming),
        rope_rows_(rope_rows),
        tensors_(std::move(tensors)),
        mapped_bytes_(mapped_bytes),
        place_(std::move(place)) {}

  absl::StatusOr<WeightView> Find(WeightKey key) const override {
    const std::string name = WeightName(key, naming_);
    const auto found = tensors_.find(name);
    if (found == tensors_.end() || !SpecOf(key.role).present(config_, key.layer)) {
      return absl::NotFoundError(absl::StrCat(place_, ": no tensor ", Quoted(name)));
    }
    const StoredTensor& tensor = found->second;
    const int64_t head_dim =
        rope_rows_ == RopeRows::kInterleaved && IsRotated(key.role) ? config_.head_dim : 0;
    const bool is_vector = tensor.shape.size() == 1;
    WeightView view;
    view.rows = is_vector ? 1 : tensor.shape.front();
    view.columns = tensor.shape.back();
    view.stored = head_dim == 0 ? tensor.data : nullptr;
    view.stored_type = tensor.type;
    view.read_rows = [tensor, head_dim, is_vector](int64_t first_row, int64_t count, float* out) {
      if (is_vector && head_dim != 0 && count == 1) {
        ReadInterleavedVector(tensor, head_dim, out);
      } else {
        ReadRows(tensor, head_dim, first_row, count, out);
      }
    };
    return view;
  }

  int64_t mapped_bytes() const override { return mapped_bytes_; }

 private:
  const ModelConfig config_;
  const WeightNaming naming_;
  const RopeRows rope_rows_;
  const StoredTensors tensors_;
  const int64_t mapped_bytes_;
  const std::string place_;
};

}  // namespace

absl::Status CheckTensorShape(const StoredTensor& tensor, const std::vector<int64_t>& wanted,
                              const std::string& name) {
  if (tensor.shape == wanted) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(tensor.file->path(), ": offset ", FileOffset(tensor), ": tensor ", Quoted(name),
                   " has shape ", ShapeText(tensor.shape), ", but the configuration asks for ",
                   ShapeText(wanted)));
}

absl::StatusOr<std::shared_ptr<const WeightSource>> MakeTensorWeights(
    const ModelConfig& config, WeightNaming naming, RopeRows rope_rows, StoredTensors tensors,
    int64_t mapped_bytes, const std::string& place) {
  SWAA_RETURN_IF_ERROR(SplitExpertTensors(config, naming, &tensors));
  std::set<std::string> used;
  for (const WeightSpec& spec : WeightSpecs()) {
    const std::vector<WeightKey> keys = WeightKeys(spec, config);
    if (keys.empty()) continue;
    const std::vector<int64_t> shape = WeightShape(spec, config);
    for (const WeightKey& key : keys) {
      std::string name = WeightName(key, naming);
      const auto found = tensors.find(name);
      if (found == tensors.end()) {
        return absl::InvalidArgumentError(absl::StrCat(
            place, ": tensor ", Quoted(name), " of shape ", ShapeText(shape), " is missing"));
      }
      if (absl::Status status = CheckTensorShape(found->second, shape, name); !status.ok())
        return status;
      used.insert(std::move(name));
    }
  }
  for (const auto& [name, tensor] : tensors) {
    if (used.contains(name) || tensor.bytes == 0) continue;
    return absl::UnimplementedError(
        absl::StrCat(tensor.file->path(), ": offset ", FileOffset(tensor), ": tensor ",
                     Quoted(name), " is no part of architecture ", config.architecture,
                     " as this build knows it; without it the model would compute something else"));
  }
  return std::make_shared<TensorWeights>(config, naming, rope_rows, std::move(tensors),
                                         mapped_bytes, place);
}

}  // namespace swaa
