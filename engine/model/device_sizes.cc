// What a device is to hold, and whether it fits.

#include "engine/model/device_sizes.h"

#include <algorithm>
#include <limits>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/model/adapter_weights.h"
#include "engine/model/rank_slices.h"
#include "engine/model/tensor_parallel_device.h"
#include "kernels/page_count.h"

namespace swaa {
namespace {

// Of a new process: code, libraries, tables. Kept free beside weights and pages.
constexpr int64_t kReserveBytes = int64_t{128} << 20;
// Logits are computed for at least this many rows at a time; a multiple of every block of rows.
constexpr int32_t kLogitsRows = 64;

double MiB(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

// With the values that suit the backend where none are given.
ModelDeviceOptions Resolve(ModelDeviceOptions options, std::string_view backend) {
  const bool cpu = backend == "cpu";
  if (options.kv_cache_bytes == 0 && cpu) options.kv_cache_bytes = int64_t{2} << 30;
  if (options.max_step_tokens == 0) options.max_step_tokens = cpu ? 512 : 8192;
  return options;
}

}  // namespace

DeviceSizes::DeviceSizes(const kernels::Operators* operators, const ModelConfig* config,
                         const ModelDeviceOptions& options)
    : operators_(operators),
      config_(config),
      options_(Resolve(options, operators->backend())),
      shape_(ShapeOf(*config, operators->shard())) {}

absl::Status DeviceSizes::Check() {
  SWAA_RETURN_IF_ERROR(FillInfo());
  SWAA_RETURN_IF_ERROR(operators_->Supports(shape_));
  return CheckMemory();
}

int64_t DeviceSizes::RestBytes() const {
  const int64_t tables = operators_->StateBytes(step_capacity());  // of no pages yet
  return operators_->AvailableBytes() - tables;
}

absl::Status DeviceSizes::FillInfo() {
  if (options_.max_step_tokens < 1 || options_.num_slots < 1 || options_.max_context_tokens < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("model device: max_step_tokens ", options_.max_step_tokens, " and num_slots ",
                     options_.num_slots, " must be at least 1, max_context_tokens ",
                     options_.max_context_tokens, " not negative"));
  }
  const int32_t context = options_.max_context_tokens > 0
                              ? std::min(options_.max_context_tokens, config_->max_context_tokens)
                              : config_->max_context_tokens;
  info_.backend = std::string(operators_->backend());
  info_.name = operators_->device_name();
  info_.num_layers = config_->num_layers;
  info_.page_bytes = operators_->KvPageBytes(shape_.kv_heads, shape_.head_dim);
  info_.num_slots = options_.num_slots;
  info_.max_pages_per_layer = static_cast<int32_t>(kernels::PageCount(context));
  info_.max_step_tokens = options_.max_step_tokens;
  info_.max_steps_in_flight = operators_->max_steps_in_flight();
  if (options_.kv_cache_bytes == 0) return absl::OkStatus();  // known when all else is there
  return SetPages(options_.kv_cache_bytes / ranks());
}

absl::Status DeviceSizes::SetPages(int64_t bytes) {
  const int64_t pages = bytes / info_.page_bytes;
  if (pages < config_->num_layers + 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("kv_cache_bytes: ", bytes * ranks(), " holds ", std::max<int64_t>(pages, 0),
                     " pages of ", info_.page_bytes * ranks(), " bytes; this model needs at least ",
                     LeastPoolBytes() * ranks(), " bytes: a page for each of its ",
                     config_->num_layers, " layers and the zero page"));
  }
  info_.num_pages =
      static_cast<int32_t>(std::min<int64_t>(pages, std::numeric_limits<int32_t>::max()));
  return absl::OkStatus();
}

Transformer::Capacity DeviceSizes::transformer_capacity() const {
  return {.step_rows = options_.max_step_tokens, .logits_rows = logits_rows()};
}

int32_t DeviceSizes::logits_rows() const {
  return (options_.num_slots + kLogitsRows - 1) / kLogitsRows * kLogitsRows;
}

kernels::StepCapacity DeviceSizes::step_capacity() const {
  return {.model = shape_,
          .num_pages = info_.num_pages,
          .num_slots = info_.num_slots,
          .max_pages_per_layer = info_.max_pages_per_layer,
          .max_rows = info_.max_step_tokens,
          .max_logits_rows = logits_rows(),
          .max_steps = info_.max_steps_in_flight,
          .adapted_products = PlaceOf(config_->num_layers, AdaptedProduct{})};
}

ModelMemory DeviceSizes::Needs() const {
  const int64_t activations =
      Transformer::ActivationBytes(*operators_, *config_, transformer_capacity());
  const int64_t pages = int64_t{info_.num_pages} * info_.page_bytes;
  const int64_t tables = operators_->StateBytes(step_capacity()) - pages;
  return {.device = info_,
          .weight_bytes = Transformer::MaxWeightBytes(*operators_, *config_),
          .pool_bytes = std::max(pages, LeastPoolBytes()),
          .besides_bytes = activations + tables + kReserveBytes,
          .available_bytes = operators_->AvailableBytes()};
}

absl::StatusOr<ModelMemory> DeviceSizes::Measure() {
  SWAA_RETURN_IF_ERROR(FillInfo());
  SWAA_RETURN_IF_ERROR(operators_->Supports(shape_));
  const ModelMemory memory = Needs();
  if (!pool_takes_the_rest()) return memory;
  const int64_t rest = memory.available_bytes - memory.weight_bytes - memory.besides_bytes;
  SWAA_RETURN_IF_ERROR(SetPages(std::max(rest, LeastPoolBytes())));
  return Needs();
}

absl::Status DeviceSizes::CheckMemory() const {
  const ModelMemory memory = Needs();
  const int64_t weights = memory.weight_bytes, pool = memory.pool_bytes;
  const int64_t besides = memory.besides_bytes, available = memory.available_bytes;
  const int64_t rest = available - weights - besides;
  if (rest >= pool) return absl::OkStatus();
  const std::string need =
      absl::StrCat("not enough memory: ", MiB(weights), " MiB of weights, ", MiB(pool),
                   " MiB of KV pages and ", MiB(besides), " MiB besides are needed",
                   ranks() > 1 ? absl::StrCat(" on each of ", ranks(), " ranks") : "", ", and ",
                   MiB(available), " MiB are available; ");
  if (rest < LeastPoolBytes()) {
    return absl::ResourceExhaustedError(absl::StrCat(
        need, "take a smaller model or a larger machine",
        info_.backend == "cpu" ? ""
                               : ", raise gpu_memory_utilization, or end what else uses the GPU"));
  }
  return absl::ResourceExhaustedError(
      absl::StrCat(need, "lower kv_cache_bytes to ", rest * ranks(), " or less"));
}

absl::StatusOr<ModelMemory> MeasureModelMemory(const ModelConfig& config,
                                               const ModelDeviceOptions& options) {
  SWAA_RETURN_IF_ERROR(CheckRanks(config, options.ranks));
  if (options.ranks == 1) {
    SWAA_ASSIGN_OR_RETURN(const auto operators, kernels::CreateOperators(options.operators));
    return DeviceSizes(operators.get(), &config, options).Measure();
  }
  SWAA_ASSIGN_OR_RETURN(const auto ranks, kernels::CreateRanks(options.operators, options.ranks));
  SWAA_ASSIGN_OR_RETURN(ModelMemory memory,
                        DeviceSizes(ranks[0].get(), &config, options).Measure());
  memory.device = OfAllRanks(memory.device, options.ranks);
  for (int64_t* bytes :
       {&memory.weight_bytes, &memory.pool_bytes, &memory.besides_bytes, &memory.available_bytes}) {
    *bytes *= options.ranks;
  }
  return memory;
}

}  // namespace swaa
