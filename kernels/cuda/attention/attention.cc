// Paged attention on CUDA: chooses the kernels for the device, writes plans, launches.

#include "kernels/cuda/attention/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "absl/memory/memory.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cuda/attention/attention_limits.h"
#include "kernels/cuda/attention/decode_params.h"
#include "kernels/cuda/attention/prefill_plan.h"
#include "kernels/cuda/cuda_check.h"

namespace swaa::kernels::cuda {
namespace {

constexpr int32_t kDeepSharedBytes = 160 * 1024;
// Classes planned at a time; more are planned one after another.
constexpr int32_t kPlanBlocks = 8;
// Blocks of the portable prefill kernel that a multiprocessor holds.
constexpr int32_t kPortablePrefillBlocks = 2;

absl::StatusOr<int32_t> DeviceAttribute(cudaDeviceAttr attribute, const std::string& name) {
  int device = 0, value = 0;
  SWAA_RETURN_IF_ERROR(CudaStatus(cudaGetDevice(&device), "cudaGetDevice"));
  SWAA_RETURN_IF_ERROR(CudaStatus(cudaDeviceGetAttribute(&value, attribute, device), name));
  return value;
}

// Lays arrays one after another into a plan's bytes.
class PlanWriter {
 public:
  PlanWriter(std::byte* begin, int64_t capacity) : begin_(begin), capacity_(capacity) {}
  int64_t at() const { return at_; }
  void Align() { at_ = AlignUp(at_, 16); }
  template <class T>
  T* Place(int64_t count) {
    T* here = reinterpret_cast<T*>(begin_ + at_);
    at_ += count * static_cast<int64_t>(sizeof(T));
    SWAA_CHECK_LE(at_, capacity_) << "the plan's memory is too small for this step";
    return here;
  }

 private:
  std::byte* begin_;
  int64_t capacity_;
  int64_t at_ = 0;
};

float ScaleLog2(const AttentionShape& shape) { return shape.scale * std::numbers::log2e_v<float>; }

}  // namespace

AttentionPlan::AttentionPlan(std::byte* host, std::byte* device, int64_t bytes, DecodePlan* decode,
                             int32_t max_classes)
    : host_(host), device_(device), bytes_(bytes), decode_(decode), max_classes_(max_classes) {}

absl::StatusOr<std::unique_ptr<PagedAttention>> PagedAttention::Create(const Options& options) {
  auto attention = absl::WrapUnique(new PagedAttention(options));
  SWAA_RETURN_IF_ERROR(attention->Prepare());
  return attention;
}

absl::Status PagedAttention::Prepare() {
  const AttentionShape& shape = options_.shape;
  SWAA_ASSIGN_OR_RETURN(const int32_t major,
                        DeviceAttribute(cudaDevAttrComputeCapabilityMajor, "compute capability"));
  SWAA_ASSIGN_OR_RETURN(const int32_t minor,
                        DeviceAttribute(cudaDevAttrComputeCapabilityMinor, "compute capability"));
  SWAA_ASSIGN_OR_RETURN(multiprocessors_,
                        DeviceAttribute(cudaDevAttrMultiProcessorCount, "multiprocessors"));
  SWAA_ASSIGN_OR_RETURN(
      const int32_t shared_bytes,
      DeviceAttribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, "shared memory of a block"));
  compute_capability_ = 10 * major + minor;
  SWAA_RETURN_IF_ERROR(SupportsAttention(shape.head_dim, shape.heads, shape.kv_heads,
                                         compute_capability_, options_.kernels));
  SWAA_CHECK(shape.scale > 0) << "scale " << shape.scale;
  hopper_ = compute_capability_ == 90 && options_.kernels != AttentionKernels::kPortable;
  deep_ = shared_bytes >= kDeepSharedBytes;
  const int32_t group = shape.heads / shape.kv_heads;
  if (hopper_) {
    SWAA_RETURN_IF_ERROR(PrepareHopperPrefill(shape.head_dim));
    SWAA_RETURN_IF_ERROR(PrepareHopperDecode(shape.head_dim, group));
    SWAA_ASSIGN_OR_RETURN(
        pool_maps_, EncodePoolMaps(options_.pool, options_.pages, shape.kv_heads, shape.head_dim));
    geometry_ = HopperPrefillGeometry(shape.head_dim);
  } else {
    SWAA_RETURN_IF_ERROR(PreparePortablePrefill(shape.head_dim));
    SWAA_RETURN_IF_ERROR(PreparePortableDecode(shape.head_dim, group, deep_));
    geometry_ = PortablePrefillGeometry(shape.head_dim);
  }
  const WorkspaceLayout layout = LayoutWorkspace(shape, multiprocessors_);
  std::byte* base = options_.workspace;
  counter_ = reinterpret_cast<int*>(base + layout.counter);
  prefill_arrivals_ = reinterpret_cast<uint32_t*>(base + layout.prefill_arrivals);
  decode_partials_ = reinterpret_cast<DecodePartial*>(base + layout.decode_partials);
  prefill_partials_ = reinterpret_cast<float*>(base + layout.prefill_partials);
  return absl::OkStatus();
}

absl::StatusOr<AttentionQueries> PagedAttention::Queries(const Bf16* q, int64_t rows,
                                                         int64_t row_stride) const {
  const AttentionShape& shape = options_.shape;
  SWAA_CHECK_EQ(row_stride % 8, 0) << "rows of queries are read 16 bytes at a time";
  AttentionQueries queries{.q = q, .row_stride = row_stride};
  if (!hopper_) return queries;
  SWAA_ASSIGN_OR_RETURN(queries.map, EncodeQueryMap(q, rows, row_stride, shape.heads,
                                                    shape.head_dim, geometry_.query_rows));
  return queries;
}

void PagedAttention::Classify(const AttentionStep& step) {
  decode_.clear();
  prefill_.clear();
  prefill_rows_.clear();
  for (size_t s = 0; s < step.sequences.size(); ++s) {
    const SequenceRows& rows = step.sequences[s];
    if (rows.query_count == 0) continue;
    SWAA_CHECK(rows.query_count > 0 && rows.first_position >= 0 && rows.slot >= 0 &&
               rows.first_position + rows.query_count <=
                   int64_t{options_.shape.max_pages} * kPageTokens)
        << "sequence " << s << ": slot " << rows.slot << ", " << rows.query_count
        << " rows at position " << rows.first_position;
    if (rows.query_count == 1 && decode_.size() < kMaxDecodeSequences) {
      decode_.push_back(static_cast<int32_t>(s));
    } else {
      prefill_.push_back(static_cast<int32_t>(s));
      prefill_rows_.push_back(rows);
    }
  }
}

int64_t PagedAttention::Write(const AttentionStep& step, AttentionPlan* plan) {
  const int64_t sequences = step.sequences.size();
  const int64_t classes =
      sequences > 0 ? step.spans.size() / sequences
                    : 1 + *std::max_element(step.layer_class.begin(), step.layer_class.end());
  SWAA_CHECK_EQ(classes * sequences, static_cast<int64_t>(step.spans.size()));
  SWAA_CHECK_LE(classes, plan->max_classes_);
  SWAA_CHECK_EQ(step.layer_class.size(), static_cast<size_t>(options_.shape.num_layers));
  for (const uint8_t c : step.layer_class) SWAA_CHECK_LT(int64_t{c}, classes);
  Classify(step);
  PlanWriter writer(plan->host_, plan->bytes_);
  StepHeader header;
  header.decode_sequences = static_cast<int32_t>(decode_.size());
  header.classes = static_cast<int32_t>(classes);
  writer.Place<StepHeader>(1);  // filled in at the end
  std::copy(step.layer_class.begin(), step.layer_class.end(),
            writer.Place<uint8_t>(step.layer_class.size()));
  writer.Align();
  header.sequences_offset = static_cast<int32_t>(writer.at());
  SequenceRows* rows = writer.Place<SequenceRows>(decode_.size());
  for (const int32_t s : decode_) *rows++ = step.sequences[s];
  header.spans_offset = static_cast<int32_t>(writer.at());
  KeySpan* spans = writer.Place<KeySpan>(classes * decode_.size());
  for (int64_t c = 0; c < classes; ++c)
    for (const int32_t s : decode_) *spans++ = step.spans[c * sequences + s];
  writer.Align();
  plan->tiles_.assign(classes, {});
  for (int64_t c = 0; c < classes && !prefill_.empty(); ++c) {
    PlanTiles(step.spans.subspan(c * sequences, sequences));
    plan->tiles_[c] = {.offset = writer.at(), .count = static_cast<int32_t>(tiles_.size())};
    std::copy(tiles_.begin(), tiles_.end(), writer.Place<QueryTile>(tiles_.size()));
  }
  std::memcpy(plan->host_, &header, sizeof(header));
  plan->layer_class_.assign(step.layer_class.begin(), step.layer_class.end());
  plan->decode_sequences_ = header.decode_sequences;
  plan->has_prefill_ = !prefill_.empty();
  return writer.at();
}

void PagedAttention::PlanTiles(std::span<const KeySpan> spans) {
  prefill_spans_.clear();
  for (const int32_t s : prefill_) prefill_spans_.push_back(spans[s]);
  tiles_.clear();
  PlanPrefill(prefill_rows_, prefill_spans_,
              {.query_rows = geometry_.query_rows,
               .key_rows = geometry_.key_rows,
               .heads = options_.shape.heads,
               .blocks = hopper_ ? multiprocessors_ : kPortablePrefillBlocks * multiprocessors_,
               .max_results = MaxPrefillResults(multiprocessors_)},
              &tiles_);
}

void PagedAttention::PlanDecode(const AttentionPlan& plan, cudaStream_t stream) const {
  LaunchDecodePlan(reinterpret_cast<const StepHeader*>(plan.device_), plan.decode_,
                   std::min(plan.max_classes_, kPlanBlocks), options_.shape.kv_heads,
                   DecodeBlocks(multiprocessors_), stream);
}

LaunchOptions PagedAttention::LaunchWith(const AttentionLaunch& launch, int32_t blocks) const {
  return {.stream = launch.stream,
          .blocks = blocks,
          .dependent = launch.dependent && compute_capability_ >= 90};
}

void PagedAttention::Prefill(int32_t layer, const AttentionPlan& plan,
                             const AttentionQueries& queries, Bf16* out,
                             const AttentionLaunch& launch) const {
  const AttentionShape& shape = options_.shape;
  if (!plan.has_prefill_) return;
  const AttentionPlan::Tiles& tiles = plan.tiles_[plan.layer_class_[layer]];
  const PrefillParams params{
      .q = queries.q,
      .pool = options_.pool,
      .out = out,
      .tiles = reinterpret_cast<const QueryTile*>(plan.device_ + tiles.offset),
      .table = options_.page_table + int64_t{layer} * shape.max_pages,
      .slot_stride = int64_t{shape.num_layers} * shape.max_pages,
      .q_stride = queries.row_stride,
      .counter = counter_,
      .partials = prefill_partials_,
      .arrivals = prefill_arrivals_,
      .item_count = tiles.count * shape.heads,
      .max_pages = shape.max_pages,
      .heads = shape.heads,
      .kv_heads = shape.kv_heads,
      .group = shape.heads / shape.kv_heads,
      .scale_log2 = ScaleLog2(shape)};
  const LaunchOptions options = LaunchWith(launch, multiprocessors_);
  if (hopper_) {
    LaunchHopperPrefill(shape.head_dim, params, queries.map, pool_maps_, options);
  } else {
    LaunchPortablePrefill(shape.head_dim, params, options);
  }
}

void PagedAttention::Decode(int32_t layer, const AttentionPlan& plan,
                            const AttentionQueries& queries, Bf16* out,
                            const AttentionLaunch& launch, const DecodeRope& rope) const {
  SWAA_CHECK(ropes() || rope.cos_sin == nullptr);
  const AttentionShape& shape = options_.shape;
  const DecodeParams params{.q = queries.q,
                            .pool = options_.pool,
                            .out = out,
                            .step = reinterpret_cast<const StepHeader*>(plan.device_),
                            .plans = plan.decode_,
                            .table = options_.page_table + int64_t{layer} * shape.max_pages,
                            .slot_stride = int64_t{shape.num_layers} * shape.max_pages,
                            .q_stride = queries.row_stride,
                            .partials = decode_partials_,
                            .layer = layer,
                            .heads = shape.heads,
                            .kv_heads = shape.kv_heads,
                            .group = shape.heads / shape.kv_heads,
                            .scale_log2 = ScaleLog2(shape),
                            .rope = rope};
  const LaunchOptions options = LaunchWith(launch, DecodeBlocks(multiprocessors_));
  if (hopper_) {
    LaunchHopperDecode(shape.head_dim, params, pool_maps_, options);
  } else {
    LaunchPortableDecode(shape.head_dim, deep_, params, options);
  }
}

void PagedAttention::Run(int32_t layer, const AttentionPlan& plan, const AttentionQueries& queries,
                         Bf16* out, const AttentionLaunch& launch) const {
  if (plan.has_prefill_) Prefill(layer, plan, queries, out, launch);
  if (plan.decode_sequences_ > 0) Decode(layer, plan, queries, out, launch);
}

}  // namespace swaa::kernels::cuda
