// A step on its way through the CPU backend: what Stage kept of the engine's step.

#ifndef SWAA_KERNELS_CPU_CPU_STEP_H_
#define SWAA_KERNELS_CPU_CPU_STEP_H_

#include <chrono>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/adapter_rows.h"
#include "kernels/cpu/attention_plan.h"
#include "kernels/cpu/sampler.h"
#include "kernels/operators.h"
#include "kernels/wanted_rows.h"

namespace swaa::kernels::cpu {

class CpuStep : public StagedStep {
 public:
  void Take(const StepInput& input, const CpuSampler& sampler) {
    begin = std::chrono::steady_clock::now();
    sequences.assign(input.sequences.begin(), input.sequences.end());
    layer_class.assign(input.layer_class.begin(), input.layer_class.end());
    spans.assign(input.spans.begin(), input.spans.end());
    logits.assign(input.logits.begin(), input.logits.end());
    tokens.assign(input.tokens.begin(), input.tokens.end());
    positions.resize(tokens.size());
    for (const SequenceRows& sequence : sequences) {
      for (int32_t r = 0; r < sequence.query_count; ++r) {
        const int32_t row = sequence.first_row + r;
        positions[row] = sequence.first_position + r;
        if (tokens[row] == kDrawnToken) tokens[row] = sampler.drawn(sequence.slot);
      }
    }
    FindWantedRows(input, &wanted);
    GroupRowsByAdapter(input, wanted.rows, &adapter_rows, &wanted_adapter_rows);
    adapted_ = !adapter_rows.rows.empty();
    num_adapters = input.adapters.size();
    lora_weights.clear();
    const size_t products = input.adapters.empty() ? 0 : input.adapters.front().size();
    for (size_t product = 0; product < products; ++product) {
      for (const auto& adapter : input.adapters) lora_weights.push_back(adapter[product]);
    }
    rows_ = static_cast<int64_t>(tokens.size());
    wanted_rows_ = static_cast<int64_t>(wanted.rows.size());
    output = {.tokens = std::vector<ScoredToken>(logits.size())};
  }

  // After Take: what the adapters add to one product.
  std::span<const LoraWeight* const> LoraWeightsOf(int32_t product) const {
    return std::span(lora_weights).subspan(product * num_adapters, num_adapters);
  }

  // After Take: the attention of every class of layers, and of the wanted rows.
  void PlanAttention(const AttentionShape& shape, const CpuAttentionOptions& options) {
    const size_t classes = sequences.empty() ? 0 : spans.size() / sequences.size();
    if (plans.size() < classes) plans.resize(classes);
    for (size_t c = 0; c < classes; ++c) {
      cpu::PlanAttention(shape, sequences,
                         std::span(spans).subspan(c * sequences.size(), sequences.size()), options,
                         &plans[c]);
    }
    if (!all_wanted()) {
      cpu::PlanAttention(shape, wanted.sequences, wanted.spans, options, &wanted_plan);
    }
  }

  std::chrono::steady_clock::time_point begin;
  std::vector<int32_t> tokens;
  std::vector<int32_t> positions;  // [rows]
  std::vector<SequenceRows> sequences;
  std::vector<uint8_t> layer_class;
  std::vector<KeySpan> spans;
  std::vector<LogitsRow> logits;
  WantedRows wanted;
  AdapterRows adapter_rows;
  AdapterRows wanted_adapter_rows;              // numbered as the wanted rows
  std::vector<const LoraWeight*> lora_weights;  // [products, adapters]
  size_t num_adapters = 0;
  std::vector<AttentionPlan> plans;  // [at least the classes]
  AttentionPlan wanted_plan;
  StepOutput output;
};

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_CPU_STEP_H_
