// A batch of requests over pages in random order.

#include "tests/gpu/attention_problem.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/cuda/attention/attention_limits.h"
#include "tests/gpu/attention_reference.h"
#include "tests/gpu/random_fill.h"

namespace swaa::kernels::cuda {
namespace {

using testing::DeviceArray;
using testing::FillNormal;

constexpr int kPoison = 0xff;  // a byte; two make a NaN
constexpr int32_t kPlanSlack = 4096;

int32_t Multiprocessors() {
  int count = 0;
  SWAA_CUDA_CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0));
  return count;
}

}  // namespace

AttentionProblem::AttentionProblem(const AttentionProblemOptions& options,
                                   std::vector<AttentionRequest> requests)
    : options_(options), requests_(std::move(requests)) {
  shape_ = {.heads = options.heads,
            .kv_heads = options.kv_heads,
            .head_dim = options.head_dim,
            .scale = 1.f / std::sqrt(static_cast<float>(options.head_dim)),
            .num_layers = static_cast<int32_t>(options.layer_class.size())};
  PlaceRequests();
  BuildPages();
  q_stride_ = int64_t{options.heads + 2 * options.kv_heads} * options.head_dim;
  // NaN: keys and values beside the queries, and rows of nobody.
  q_ = DeviceArray<Bf16>(rows_ * q_stride_, kPoison);
  DeviceArray<Bf16> dense(rows_ * options.heads * options.head_dim);
  FillNormal(dense.data(), dense.size(), options.seed * 7 + 2, options.query_deviation);
  const int64_t width = int64_t{options.heads} * options.head_dim;
  for (const SequenceRows& s : sequences_) {
    if (s.query_count == 0) continue;
    SWAA_CUDA_CHECK(cudaMemcpy2D(q_.data() + s.first_row * q_stride_, q_stride_ * sizeof(Bf16),
                                 dense.data() + s.first_row * width, width * sizeof(Bf16),
                                 width * sizeof(Bf16), s.query_count, cudaMemcpyDeviceToDevice));
  }
  out_ = DeviceArray<Bf16>(rows_ * width);
  PoisonOutput();
  SWAA_CUDA_CHECK(cudaDeviceSynchronize());
}

int32_t AttentionProblem::num_classes() const {
  return static_cast<int32_t>(requests_.front().spans.size());
}

void AttentionProblem::PlaceRequests() {
  std::vector<int32_t> slots(requests_.size());
  std::iota(slots.begin(), slots.end(), 0);
  std::mt19937_64 random(options_.seed);
  std::shuffle(slots.begin(), slots.end(), random);
  slot_tokens_.assign(requests_.size(), 0);
  rows_ = options_.gap_rows;
  for (size_t s = 0; s < requests_.size(); ++s) {
    const AttentionRequest& r = requests_[s];
    if (r.same_slot_as >= 0) slots[s] = slots[r.same_slot_as];
    sequences_.push_back({.slot = slots[s],
                          .first_row = static_cast<int32_t>(rows_),
                          .query_count = r.query_count,
                          .first_position = r.first_position});
    rows_ += r.query_count + options_.gap_rows;
    slot_tokens_[slots[s]] = std::max(slot_tokens_[slots[s]], r.first_position + r.query_count);
  }
  for (int32_t c = 0; c < num_classes(); ++c)
    for (const AttentionRequest& r : requests_) spans_.push_back(r.spans[c]);
  shape_.max_pages =
      (*std::max_element(slot_tokens_.begin(), slot_tokens_.end()) + kPageTokens - 1) / kPageTokens;
}

bool AttentionProblem::PageIsVisible(int32_t slot, int32_t layer, int32_t block) const {
  for (size_t s = 0; s < requests_.size(); ++s) {
    const SequenceRows& rows = sequences_[s];
    if (rows.slot != slot || rows.query_count == 0) continue;
    const KeySpan& span = spans_[options_.layer_class[layer] * sequences_.size() + s];
    const int64_t first_key = int64_t{block} * kPageTokens;
    if (first_key >= rows.first_position + rows.query_count) continue;
    if (span.full() || first_key < span.sinks ||
        first_key + kPageTokens > int64_t{rows.first_position} - span.window + 1)
      return true;
  }
  return false;
}

void AttentionProblem::BuildPages() {
  const int32_t layers = shape_.num_layers;
  struct Entry {
    int64_t index;         // in the table
    int32_t past_the_end;  // positions of the page that the slot has not got
  };
  std::vector<Entry> visible;
  for (size_t slot = 0; slot < slot_tokens_.size(); ++slot) {
    for (int32_t l = 0; l < layers; ++l) {
      for (int32_t b = 0; b * kPageTokens < slot_tokens_[slot]; ++b) {
        if (!PageIsVisible(static_cast<int32_t>(slot), l, b)) continue;
        visible.push_back({(static_cast<int64_t>(slot) * layers + l) * shape_.max_pages + b,
                           std::max(0, (b + 1) * kPageTokens - slot_tokens_[slot])});
      }
    }
  }
  const int64_t used = visible.size(), spare = options_.poisoned ? used / 4 + 8 : 0;
  pages_ = 1 + used + spare;
  std::vector<int32_t> order(pages_ - 1);
  std::iota(order.begin(), order.end(), 1);
  std::mt19937_64 random(options_.seed + 1);
  std::shuffle(order.begin(), order.end(), random);
  const int64_t head_elements = int64_t{kPageTokens} * shape_.head_dim;
  const int64_t page_elements = 2 * shape_.kv_heads * head_elements;
  pool_ = DeviceArray<Bf16>(pages_ * page_elements);
  FillNormal(pool_.data(), pool_.size(), options_.seed * 7 + 1, 1);
  SWAA_CUDA_CHECK(cudaMemset(pool_.data(), 0, page_elements * sizeof(Bf16)));
  std::vector<int32_t> entries(slot_tokens_.size() * layers * shape_.max_pages, kZeroPage);
  for (int64_t i = 0; i < used; ++i) {
    entries[visible[i].index] = order[i];
    if (!options_.poisoned || visible[i].past_the_end == 0) continue;
    const int32_t first = kPageTokens - visible[i].past_the_end;
    SWAA_CUDA_CHECK(cudaMemset2D(pool_.data() + order[i] * page_elements + first * shape_.head_dim,
                                 head_elements * sizeof(Bf16), kPoison,
                                 visible[i].past_the_end * shape_.head_dim * sizeof(Bf16),
                                 shape_.kv_heads));
  }
  for (int64_t i = used; i < used + spare; ++i) {
    SWAA_CUDA_CHECK(
        cudaMemset(pool_.data() + order[i] * page_elements, kPoison, page_elements * sizeof(Bf16)));
  }
  table_ = DeviceArray<int32_t>(entries);
}

PagedAttention::Options AttentionProblem::AttentionOptions(std::byte* workspace,
                                                           AttentionKernels kernels) const {
  return {.shape = shape_,
          .pool = pool_.data(),
          .pages = pages_,
          .page_table = table_.data(),
          .workspace = workspace,
          .kernels = kernels};
}

void AttentionProblem::PoisonOutput() const {
  SWAA_CUDA_CHECK(cudaMemset(out_.data(), kPoison, out_.size() * sizeof(Bf16)));
  // Neither the host nor the stream of the kernel under test waits for a memset.
  SWAA_CUDA_CHECK(cudaStreamSynchronize(nullptr));
}

double AttentionProblem::Error(const AttentionStep& step, int32_t layer, int32_t samples) const {
  std::vector<ReferenceRow> rows;
  int32_t longest = 0;
  const size_t class_begin = step.layer_class[layer] * step.sequences.size();
  for (size_t s = 0; s < step.sequences.size(); ++s) {
    const SequenceRows& sequence = step.sequences[s];
    longest = std::max(longest, sequence.first_position + sequence.query_count);
    for (int32_t r = 0; r < sequence.query_count; ++r)
      for (int32_t h = 0; h < shape_.heads; ++h)
        rows.push_back({.slot = sequence.slot,
                        .row = sequence.first_row + r,
                        .position = sequence.first_position + r,
                        .head = h,
                        .span = step.spans[class_begin + s]});
  }
  if (samples > 0 && static_cast<size_t>(samples) < rows.size()) {
    std::mt19937_64 random(options_.seed + 2);
    for (int32_t i = 0; i < samples; ++i) std::swap(rows[i], rows[random() % rows.size()]);
    rows.resize(samples);
  }
  const DeviceArray<ReferenceRow> device_rows(rows);
  return CompareWithReference({.q = q_.data(),
                               .q_stride = q_stride_,
                               .out = out_.data(),
                               .rows = device_rows.data(),
                               .row_count = static_cast<int64_t>(device_rows.size()),
                               .longest = longest,
                               .table = {table_.data(), shape_.num_layers, shape_.max_pages},
                               .pool = pool_.data(),
                               .layer = layer,
                               .heads = shape_.heads,
                               .kv_heads = shape_.kv_heads,
                               .head_dim = shape_.head_dim,
                               .scale = shape_.scale});
}

std::string AttentionProblem::TouchedRow(const AttentionStep& step) const {
  std::vector<bool> owned(rows_, false);
  for (const SequenceRows& s : step.sequences)
    for (int32_t r = 0; r < s.query_count; ++r) owned[s.first_row + r] = true;
  const std::vector<Bf16> out = out_.Get();
  const int64_t width = int64_t{shape_.heads} * shape_.head_dim;
  for (int64_t r = 0; r < rows_; ++r) {
    if (owned[r]) continue;
    for (int64_t i = r * width; i < (r + 1) * width; ++i)
      if (out[i].bits != 0xffff) return absl::StrCat("row ", r, " element ", i - r * width);
  }
  return "";
}

double AttentionProblem::Pairs(int32_t layer) const {
  double sum = 0;
  for (size_t s = 0; s < sequences_.size(); ++s) {
    const KeySpan& span = spans_[options_.layer_class[layer] * sequences_.size() + s];
    for (int32_t r = 0; r < sequences_[s].query_count; ++r) {
      const double keys = sequences_[s].first_position + r + 1.;
      const double outside = span.full() ? 0 : std::max(0., keys - span.window);
      sum += keys - outside + std::min<double>(span.sinks, outside);
    }
  }
  return sum;
}

AttentionRunner::AttentionRunner(const AttentionProblem& problem, AttentionKernels kernels,
                                 int32_t max_classes)
    : problem_(problem) {
  const AttentionShape& shape = problem.shape();
  const int32_t multiprocessors = Multiprocessors();
  workspace_ = DeviceArray<std::byte>(AttentionWorkspaceBytes(shape, multiprocessors), 0);
  counter_bytes_ = LayoutWorkspace(shape, multiprocessors).prefill_partials;
  // Results of parts are written before they are read.
  SWAA_CUDA_CHECK(
      cudaMemset(workspace_.data() + counter_bytes_, kPoison, workspace_.size() - counter_bytes_));
  plan_bytes_ = AttentionPlanBytes(shape, multiprocessors,
                                   static_cast<int32_t>(problem.step().sequences.size()) + 8,
                                   static_cast<int32_t>(problem.rows()) + kPlanSlack, max_classes);
  device_plan_ = DeviceArray<std::byte>(plan_bytes_);
  decode_plans_ = DeviceArray<DecodePlan>(max_classes);
  SWAA_CUDA_CHECK(cudaMallocHost(reinterpret_cast<void**>(&host_plan_), plan_bytes_));
  plan_ = AttentionPlan(host_plan_, device_plan_.data(), plan_bytes_, decode_plans_.data(),
                        max_classes);
  auto attention = PagedAttention::Create(problem.AttentionOptions(workspace_.data(), kernels));
  SWAA_CHECK(attention.ok()) << attention.status();
  attention_ = std::move(attention).value();
  auto queries = attention_->Queries(problem.q(), problem.rows(), problem.q_stride());
  SWAA_CHECK(queries.ok()) << queries.status();
  queries_ = *queries;
}

AttentionRunner::~AttentionRunner() { cudaFreeHost(host_plan_); }

void AttentionRunner::Plan(const AttentionStep& step, cudaStream_t stream) {
  const int64_t bytes = attention_->Write(step, &plan_);
  SWAA_CUDA_CHECK(
      cudaMemcpyAsync(device_plan_.data(), host_plan_, bytes, cudaMemcpyHostToDevice, stream));
  attention_->PlanDecode(plan_, stream);
}

void AttentionRunner::Run(int32_t layer, const AttentionLaunch& launch) {
  attention_->Run(layer, plan_, queries_, problem_.out(), launch);
}

bool AttentionRunner::CountersAreZero() const {
  std::vector<std::byte> bytes(counter_bytes_);
  SWAA_CUDA_CHECK(
      cudaMemcpy(bytes.data(), workspace_.data(), counter_bytes_, cudaMemcpyDeviceToHost));
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace swaa::kernels::cuda
