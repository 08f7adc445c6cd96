// What a step computes on the GPU: the operators, each on its kernels.

#include <utility>
#include <vector>

#include "base/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device_weights.h"
#include "kernels/cuda/elementwise/elementwise.h"
#include "kernels/cuda/ranks/sum_norm.h"

namespace swaa::kernels::cuda {
namespace {

constexpr int64_t kMostReadElements = int64_t{512} << 10;  // of other ranks, by each of several

}  // namespace

void CudaOperators::Embed(const StagedStep& staged, const Embedding& table, void* out) {
  const CudaStep& step = Cast(staged);
  const auto& embedding = static_cast<const DeviceEmbedding&>(table);
  // Follows a copy, not a kernel.
  cuda::Embed({.ids = step.tokens,
               .slots = step.slots,
               .drawn = sampler_->drawn(),
               .table = embedding.data(),
               .out = out,
               .out_type = precision_.residual,
               .rows = step.rows(),
               .hidden = embedding.hidden(),
               .vocab = embedding.vocab()},
              {.stream = stream_, .programmatic = false});
}

void CudaOperators::RopeTable(const StagedStep& staged, const float* inverse_frequencies,
                              float attention_factor, float* cos_sin) {
  const CudaStep& step = Cast(staged);
  cuda::RopeTable({.positions = step.positions,
                   .inverse_frequencies = inverse_frequencies,
                   .cos_sin = cos_sin,
                   .rows = step.rows(),
                   .half = capacity_.model.head_dim / 2,
                   .factor = attention_factor},
                  launch());
}

bool CudaOperators::SumAndNorm(const kernels::AddNormParams& p) {
  const int64_t others = communicator_->shard().size - 1;
  // Each rank reads all of every other's: with more than two, NCCL moves less of much.
  if (others > 1 && others * p.rows * p.hidden > kMostReadElements) return false;
  const RankBuffers* const deltas = communicator_->Peers(static_cast<const Bf16*>(p.delta));
  if (deltas == nullptr) return false;
  SumNorm({.deltas = *deltas,
           .residual = static_cast<float*>(p.residual),
           .weight = p.weight,
           .out = static_cast<Bf16*>(p.out),
           .rows = p.rows,
           .hidden = p.hidden,
           .epsilon = p.epsilon},
          launch());
  communicator_->Meet();
  return true;
}

void CudaOperators::AddNorm(const kernels::AddNormParams& p) {
  Launch how = launch();
  if (communicator_ != nullptr && p.delta != nullptr) {
    if (SumAndNorm(p)) return;
    communicator_->AllReduce(p.delta, p.rows * p.hidden, precision_.deltas);
    how.programmatic = false;  // NCCL's kernels let no other begin early
  }
  cuda::AddNorm({.residual = p.residual,
                 .residual_type = precision_.residual,
                 .delta = static_cast<const Bf16*>(p.delta),
                 .weight = p.weight,
                 .out = static_cast<Bf16*>(p.out),
                 .rows = p.rows,
                 .hidden = p.hidden,
                 .epsilon = p.epsilon},
                how);
}

LinearArguments CudaOperators::ArgumentsOf(const Weight& weight, const void* x,
                                           int64_t rows) const {
  return {.weight = static_cast<const DeviceWeight&>(weight).data(),
          .out_features = weight.out_features(),
          .in_features = weight.in_features(),
          .x = static_cast<const Bf16*>(x),
          .rows = rows};
}

void CudaOperators::Multiply(const LinearArguments& product) {
  if (warming_up_) {
    // What is timed has its workspace in common with what is under way.
    SWAA_CUDA_CHECK(cudaStreamSynchronize(stream_));
    ThrowIfError(products_->Prepare(product, {&product.rows, 1}));
  }
  products_->Run(product, stream_, launch().programmatic);
}

bool CudaOperators::IsAdapted(const LoraUpdate* update) {
  return update != nullptr && Cast(*update->step).shape.adapted[update->product];
}

void CudaOperators::MultiplyAdapted(LinearArguments product, const LoraUpdate& update,
                                    Bf16* gated) {
  SWAA_CHECK(product.out_type == DataType::kBf16 && !product.silu_mul);
  product.shares_x = true;
  Multiply(product);
  const CudaStep& step = Cast(*update.step);
  AddLora({.rows = update.wanted_rows ? step.wanted_lora : step.lora,
           .product = update.product,
           .x = product.x,
           .in_features = product.in_features,
           .out = static_cast<Bf16*>(product.out),
           .out_features = product.out_features,
           .gated = gated,
           .sums = lora_sums_},
          device_.multiprocessors, launch());
}

void CudaOperators::Linear(const LinearParams& p) {
  LinearArguments product = ArgumentsOf(*p.weight, p.x, p.rows);
  product.bias = p.bias;
  product.out = p.out;
  product.out_type = p.out_type;
  if (IsAdapted(p.lora)) {
    MultiplyAdapted(product, *p.lora, nullptr);
  } else {
    Multiply(product);
  }
}

void CudaOperators::GatedLinear(const GatedLinearParams& p) {
  LinearArguments product = ArgumentsOf(*p.weight, p.x, p.rows);
  product.out = p.scratch;
  if (IsAdapted(p.lora)) {
    MultiplyAdapted(product, *p.lora, static_cast<Bf16*>(p.out));
    return;
  }
  product.silu_mul = true;
  if (products_->IsSkinny(product)) {
    product.out = p.out;
    Multiply(product);
    return;
  }
  product.silu_mul = false;
  Multiply(product);
  cuda::SiluMul({.gate_up = static_cast<const Bf16*>(p.scratch),
                 .out = static_cast<Bf16*>(p.out),
                 .rows = p.rows,
                 .width = p.weight->out_features() / 2},
                launch());
}

const ExpertPointers* CudaOperators::PointersTo(std::span<const ExpertWeights> experts) {
  const auto found = experts_.find(experts.data());
  if (found != experts_.end()) return found->second;
  // Only while warming up: no graph has the layer yet.
  std::vector<ExpertPointers> pointers;
  for (const ExpertWeights& expert : experts) {
    pointers.push_back({.gate_up = static_cast<const DeviceWeight&>(*expert.gate_up).data(),
                        .down = static_cast<const DeviceWeight&>(*expert.down).data()});
  }
  const auto bytes = static_cast<int64_t>(pointers.size() * sizeof(ExpertPointers));
  absl::StatusOr<std::byte*> memory = arena_.Allocate(bytes, "tables of experts");
  ThrowIfError(memory.status());
  Upload(pointers.data(), bytes, *memory);
  const auto* table = reinterpret_cast<const ExpertPointers*>(*memory);
  experts_.emplace(experts.data(), table);
  return table;
}

void CudaOperators::Experts(const ExpertsParams& p) {
  const Weight& down = *p.experts.front().down;
  // Rows of a graph beyond the step's are dead.
  const bool padded = p.step != nullptr && Cast(*p.step).shape.graph_rows > 0;
  RunExperts({.shape = {.hidden = down.out_features(),
                        .width = down.in_features(),
                        .count = static_cast<int32_t>(p.experts.size()),
                        .experts_per_row = p.experts_per_row},
              .normalize = p.normalize,
              .experts = PointersTo(p.experts),
              .logits = p.logits,
              .slots = padded ? Cast(*p.step).slots : nullptr,
              .x = static_cast<const Bf16*>(p.x),
              .scratch = static_cast<std::byte*>(p.scratch),
              .out = static_cast<Bf16*>(p.out),
              .rows = p.rows},
             launch());
}

void CudaOperators::RopeAndStore(const StagedStep& staged, const kernels::RopeAndStoreParams& p) {
  const CudaStep& step = Cast(staged);
  if (RopesInAttention(step)) {
    rope_ = {.cos_sin = p.cos_sin,
             .q_norm = p.q_norm,
             .k_norm = p.k_norm,
             .norm_epsilon = p.norm_epsilon,
             .pool = reinterpret_cast<Bf16*>(pool_)};
    return;
  }
  cuda::RopeAndStore({.qkv = static_cast<Bf16*>(p.qkv),
                      .cos_sin = p.cos_sin,
                      .q_norm = p.q_norm,
                      .k_norm = p.k_norm,
                      .norm_epsilon = p.norm_epsilon,
                      .positions = step.positions,
                      .slots = step.slots,
                      .page_table = inputs_.page_table(),
                      .pages = pages(),
                      .rows = step.rows(),
                      .layer = p.layer,
                      .heads = capacity_.model.heads,
                      .kv_heads = capacity_.model.kv_heads,
                      .head_dim = capacity_.model.head_dim,
                      .rotate_queries = p.rotate_queries},
                     launch());
}

const AttentionQueries& CudaOperators::QueriesOf(const Bf16* qkv) {
  const auto found = queries_.find(qkv);
  if (found != queries_.end()) return found->second;
  absl::StatusOr<AttentionQueries> queries =
      attention_->Queries(qkv, PaddedRows(capacity_.max_rows), capacity_.model.qkv_width());
  ThrowIfError(queries.status());
  return queries_.emplace(qkv, *std::move(queries)).first->second;
}

void CudaOperators::Attention(const StagedStep& staged, const kernels::AttentionParams& p) {
  const CudaStep& step = Cast(staged);
  const AttentionPlan& plan = p.wanted_rows ? *step.wanted_attention : *step.attention;
  const AttentionLaunch how{.stream = stream_, .dependent = launch().programmatic};
  auto* out = static_cast<Bf16*>(p.out);
  const AttentionQueries& queries = QueriesOf(static_cast<const Bf16*>(p.qkv));
  if (step.shape.graph_rows > 0) {
    // What is captured decodes whatever a later step holds.
    attention_->Decode(p.layer, plan, queries, out, how,
                       RopesInAttention(step) ? rope_ : DecodeRope{});
  } else {
    attention_->Run(p.layer, plan, queries, out, how);
  }
}

void CudaOperators::GatherWantedRows(const StagedStep& staged, const void* x, int64_t row_bytes,
                                     void* out) {
  const CudaStep& step = Cast(staged);
  cuda::GatherRows({.x = x,
                    .indices = step.wanted,
                    .out = out,
                    .rows = step.wanted_rows(),
                    .row_bytes = row_bytes},
                   launch());
}

void CudaOperators::Sample(StagedStep* staged, const kernels::SampleParams& p) {
  const CudaStep& step = Cast(*staged);
  sampler_->Sample({.logits = p.logits,
                    .rows = step.logits + p.first,
                    .live_rows = step.slice_rows + p.first / capacity_.max_logits_rows,
                    .tokens = result_tokens() + p.first,
                    .alternatives = result_alternatives() + p.first,
                    .max_rows = static_cast<int32_t>(p.count),
                    .features = step.shape.features},
                   launch());
}

}  // namespace swaa::kernels::cuda
