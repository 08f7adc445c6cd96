// Weights of the right shapes without a file of weights, for measuring speed and
// for tests: what they compute means nothing.

#include <algorithm>
#include <cstdint>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/split_mix64.h"
#include "engine/checkpoint/tensor_weights.h"
#include "engine/checkpoint/validate_config.h"

namespace swaa {
namespace {

constexpr float kStandardDeviation = 0.02f;

// Near enough to normal: the sum of four uniform 16-bit numbers, centred and scaled.
float NearNormal(uint64_t bits) {
  const int64_t sum = static_cast<int64_t>((bits & 0xffff) + (bits >> 16 & 0xffff) +
                                           (bits >> 32 & 0xffff) + (bits >> 48));
  constexpr int64_t kMean = 2 * 65535;
  constexpr float kDeviation = 65536 * 0.57735027f;  // sqrt(4 / 12)
  return static_cast<float>(sum - kMean) * (kStandardDeviation / kDeviation);
}

bool IsNorm(WeightRole role) {
  switch (role) {
    case WeightRole::kOutputNorm:
    case WeightRole::kAttentionNorm:
    case WeightRole::kQueryNorm:
    case WeightRole::kKeyNorm:
    case WeightRole::kFfnNorm:
      return true;
    default:
      return false;
  }
}

void FillRow(uint64_t stream, int64_t columns, float* out) {
  const uint64_t start = SplitMix64Output(stream);
  for (int64_t i = 0; i < columns; ++i) {
    out[i] = NearNormal(SplitMix64Output(start + kSplitMix64Step * static_cast<uint64_t>(i + 1)));
  }
}

class DummyWeights : public WeightSource {
 public:
  explicit DummyWeights(ModelConfig config) : config_(std::move(config)) {}

  absl::StatusOr<WeightView> Find(WeightKey key) const override {
    const auto [role, wanted_layer, wanted_expert] = key;
    const WeightSpec& spec = SpecOf(role);
    const int32_t layer = spec.per == WeightPer::kModel ? 0 : wanted_layer;
    const int32_t expert = spec.per == WeightPer::kExpert ? wanted_expert : 0;
    if (!spec.present(config_, layer) || layer < 0 || layer >= config_.num_layers || expert < 0 ||
        (expert > 0 && expert >= config_.experts->count)) {
      return absl::NotFoundError(absl::StrCat("random weights: no tensor '",
                                              WeightName(key, WeightNaming::kHuggingFace), "'"));
    }
    WeightView view;
    view.rows = spec.rows == nullptr ? 1 : spec.rows(config_);
    view.columns = spec.columns(config_);
    const bool is_vector = spec.rows == nullptr;
    const float constant = IsNorm(role) ? 1.0f : 0.0f;
    static_assert(kMaxExperts <= 1 << 12 && kMaxLayers <= 1 << 12);
    const uint64_t stream = static_cast<uint64_t>(role) << 56 |
                            static_cast<uint64_t>(expert) << 44 |
                            static_cast<uint64_t>(layer) << 32;
    view.read_rows = [rows = view.rows, columns = view.columns, is_vector, constant, stream](
                         int64_t first_row, int64_t count, float* out) {
      SWAA_CHECK(first_row >= 0 && count >= 0 && first_row <= rows - count) << first_row;
      if (is_vector) {
        std::fill_n(out, count * columns, constant);
        return;
      }
      for (int64_t i = 0; i < count; ++i) {
        FillRow(stream + static_cast<uint64_t>(first_row + i), columns, out + i * columns);
      }
    };
    return view;
  }

  int64_t mapped_bytes() const override { return 0; }

 private:
  const ModelConfig config_;
};

}  // namespace

std::shared_ptr<const WeightSource> MakeDummyWeights(const ModelConfig& config) {
  return std::make_shared<DummyWeights>(config);
}

}  // namespace swaa
