// A step's way into the GPU and out of it, and the steps that warm it up.

#include <algorithm>
#include <new>
#include <span>
#include <vector>

#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/elementwise/elementwise.h"

namespace swaa::kernels::cuda {
namespace {

ScoredToken Scored(int32_t alternatives, const SampledToken& sampled, const Alternatives& others) {
  ScoredToken scored{.token = sampled.token};
  if (alternatives < 0) return scored;
  scored.logprob = sampled.logprob;
  for (int32_t i = 0; i < alternatives && others.tokens[i] >= 0; ++i) {
    scored.top.emplace_back(others.tokens[i], others.logprobs[i]);
  }
  return scored;
}

bool Filters(const SlotSetup& setup) {
  const SamplingParams& sampling = *setup.sampling;
  return sampling.temperature > 0 &&
         (sampling.top_k > 0 || sampling.top_p < 1 || sampling.min_p > 0);
}

// No two sequences are of one request. Of two rows of a request the later attends to the key of the
// earlier, which no kernel before attention may have stored.
bool EachHasItsSlot(std::span<const SequenceRows> sequences, int32_t num_slots) {
  std::vector<bool> seen(num_slots);
  for (const SequenceRows& sequence : sequences) {
    if (seen[sequence.slot]) return false;
    seen[sequence.slot] = true;
  }
  return true;
}

}  // namespace

StagedStep* CudaOperators::Stage(const StepInput& input) {
  MakeCurrent();
  CudaStep& step = steps_[next_step_];
  next_step_ = (next_step_ + 1) % kStepsInFlight;
  SWAA_CHECK(!step.in_flight);
  SWAA_CUDA_CHECK(cudaEventRecord(step.begin, stream_));
  for (const SlotSetup& setup : input.setups) filters_of_slot_[setup.slot] = Filters(setup);
  Describe(input, &step);
  inputs_.Send(input, attention_.get(), stream_, &step);
  // Last, for it may run out of memory: the page table must have its changes by then. A step that
  // is submitted already may continue what this one begins, and would write to whatever pages the
  // slot named before.
  try {
    const absl::Status set_up = sampler_->SetUp(input.setups, stream_);
    sampler_bytes_ = sampler_->bytes();  // grows with what is asked of draws
    ThrowIfError(set_up);
  } catch (const std::bad_alloc&) {
    SWAA_CUDA_CHECK(cudaStreamSynchronize(stream_));  // nobody else waits until the block is read
    throw;
  }
  return &step;
}

void CudaOperators::Describe(const StepInput& input, CudaStep* step) {
  const auto rows = static_cast<int64_t>(input.tokens.size());
  step->host_logits.assign(input.logits.begin(), input.logits.end());
  const auto wanted = static_cast<int64_t>(input.logits.size());
  const bool decodes = static_cast<int64_t>(input.sequences.size()) == rows && wanted == rows &&
                       EachHasItsSlot(input.sequences, capacity_.num_slots);
  const int64_t graph_rows = decodes ? GraphRows(rows) : 0;
  if (graph_rows > 0) {
    step->SetRows(graph_rows, graph_rows);
  } else {
    step->SetRows(rows, wanted);
  }
  if (!step->all_wanted()) FindWantedRows(input, &step->wanted_sequences);
  static const std::vector<int32_t> kNone;
  GroupRowsByAdapter(input, step->all_wanted() ? kNone : step->wanted_sequences.rows,
                     &step->adapter_rows, &step->wanted_adapter_rows);
  step->SetShape({.graph_rows = graph_rows,
                  .features = FeaturesOf(input.logits),
                  .adapted = AdaptedProducts(input, *step)});
}

// Steps of equal sets share their graphs; of few sets, as adapters come in a few kinds.
std::vector<bool> CudaOperators::AdaptedProducts(const StepInput& input, const CudaStep& step) {
  if (step.adapter_rows.rows.empty()) return {};
  std::vector<bool> adapted(capacity_.adapted_products);
  for (const auto& adapter : input.adapters) {
    for (size_t product = 0; product < adapter.size(); ++product) {
      if (adapter[product] != nullptr) adapted[product] = true;
    }
  }
  if (adapted_sets_.size() < kMaxAdaptedSets) adapted_sets_.insert(adapted);
  if (!adapted_sets_.contains(adapted)) adapted.assign(adapted.size(), true);
  return adapted;
}

SamplingFeatures CudaOperators::FeaturesOf(std::span<const LogitsRow> rows) const {
  SamplingFeatures features{.filters = false, .logprobs = false, .alternatives = false};
  for (const LogitsRow& row : rows) {
    features.filters |= row.known_token < 0 && filters_of_slot_[row.slot];
    features.logprobs |= row.alternatives >= 0;
    features.alternatives |= row.alternatives > 0;
  }
  return features;
}

void CudaOperators::Replay(StagedStep* step, absl::FunctionRef<void()> enqueue) {
  const StepShape& shape = static_cast<const CudaStep*>(step)->shape;
  if (shape.graph_rows == 0) {
    enqueue();
    return;
  }
  if (communicator_ != nullptr && !graphs_.Has(shape)) {
    graphs_.Capture(shape, stream_, enqueue);
    // Making a graph takes memory, for which a GPU may have to wait that waits for this one.
    ThrowIfError(communicator_->Agree(0).status());
  }
  graphs_.Replay(shape, stream_, enqueue);
}

void CudaOperators::Submit(StagedStep* staged) {
  auto* step = static_cast<CudaStep*>(staged);
  const auto rows = static_cast<int64_t>(step->host_logits.size());
  if (rows > 0) {
    CopyWords({.from = result_tokens(),
               .to = step->result_tokens.data(),
               .bytes = rows * static_cast<int64_t>(sizeof(SampledToken))},
              {.stream = stream_});
  }
  if (rows > 0 && step->shape.features.alternatives) {
    SWAA_CUDA_CHECK(cudaMemcpyAsync(step->result_alternatives.data(), result_alternatives(),
                                    rows * sizeof(Alternatives), cudaMemcpyDeviceToHost, stream_));
  }
  SWAA_CUDA_CHECK(cudaEventRecord(step->end, stream_));
  step->in_flight = true;
}

void CudaOperators::Discard(StagedStep* staged) {
  MakeCurrent();
  SWAA_CUDA_CHECK(cudaStreamSynchronize(stream_));  // nobody else waits until its block is read
}

absl::StatusOr<StepOutput> CudaOperators::Wait(StagedStep* staged) {
  auto* step = static_cast<CudaStep*>(staged);
  MakeCurrent();
  SWAA_RETURN_IF_ERROR(CudaStatus(cudaEventSynchronize(step->end), "a step"));
  // What was aborted has ended, too.
  if (communicator_ != nullptr) SWAA_RETURN_IF_ERROR(communicator_->status());
  StepOutput output;
  float milliseconds = 0;
  SWAA_RETURN_IF_ERROR(
      CudaStatus(cudaEventElapsedTime(&milliseconds, step->begin, step->end), "a step"));
  output.seconds = milliseconds / 1e3;
  const auto* tokens = reinterpret_cast<const SampledToken*>(step->result_tokens.data());
  const auto* alternatives =
      reinterpret_cast<const Alternatives*>(step->result_alternatives.data());
  output.tokens.reserve(step->host_logits.size());
  for (size_t i = 0; i < step->host_logits.size(); ++i) {
    output.tokens.push_back(Scored(step->host_logits[i].alternatives, tokens[i], alternatives[i]));
  }
  step->in_flight = false;
  return output;
}

absl::Status CudaOperators::WarmUp(absl::FunctionRef<void(StagedStep*)> forward) {
  try {
    MakeCurrent();
    ChooseAlgorithms(forward);
    CaptureGraphs(forward);
  } catch (const CudaError& error) {
    return absl::InternalError(error.what());
  }
  return absl::OkStatus();
}

CudaStep* CudaOperators::StageDeadRows(int64_t rows, const StepShape& shape) {
  CudaStep& step = steps_[0];
  step.host_logits.clear();
  step.SetShape(shape);
  step.SetRows(rows, rows);
  const std::vector<uint8_t> layer_class(capacity_.model.num_layers, 0);
  inputs_.Send({.layer_class = layer_class}, attention_.get(), stream_, &step);
  return &step;
}

void CudaOperators::ChooseAlgorithms(absl::FunctionRef<void(StagedStep*)> forward) {
  warming_up_ = true;
  // Products take memory to be measured in: as above.
  if (communicator_ != nullptr) communicator_->KeepTogether(true);
  for (int64_t rows = 1; rows <= capacity_.max_rows;) {
    const int64_t bucket = std::min<int64_t>(RowsBucket(rows), capacity_.max_rows);
    forward(StageDeadRows(bucket, {}));
    SWAA_CUDA_CHECK(cudaStreamSynchronize(stream_));
    rows = bucket + 1;
  }
  warming_up_ = false;
  if (communicator_ != nullptr) communicator_->KeepTogether(false);
}

void CudaOperators::CaptureGraphs(absl::FunctionRef<void(StagedStep*)> forward) {
  const auto most = std::min<int64_t>({capacity_.num_slots, capacity_.max_rows, kMaxGraphRows});
  for (const int64_t rows : AllGraphRows(most)) {
    for (const bool filters : {false, true}) {
      const StepShape shape{.graph_rows = rows,
                            .features = {filters, /*logprobs=*/false, /*alternatives=*/false}};
      CudaStep* step = StageDeadRows(rows, shape);
      graphs_.Capture(shape, stream_, [&] { forward(step); });
      SWAA_CUDA_CHECK(cudaStreamSynchronize(stream_));
    }
  }
}

}  // namespace swaa::kernels::cuda
