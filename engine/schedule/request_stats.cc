// What a request cost.

#include "engine/schedule/request_stats.h"

#include <algorithm>

#include "engine/recipe/visibility.h"
#include "kernels/page_count.h"

namespace swaa {
namespace {

int64_t FullAttentionPages(int64_t positions, int32_t num_layers) {
  return kernels::PageCount(positions) * num_layers;
}

}  // namespace

GenerationStats StatsOf(const RequestState& request, const DeviceInfo& device, SteadyTime now) {
  const int64_t prompt = request.prompt_tokens();
  const bool answered = request.first_token_at != SteadyTime::max();
  const SteadyTime arrival = request.request.arrival;
  const SteadyTime admitted = request.accepted ? request.admitted_at : now;
  const SteadyTime first = answered ? request.first_token_at : now;
  GenerationStats stats;
  stats.prompt_tokens = static_cast<int32_t>(prompt);
  stats.completion_tokens = request.reported_output();
  // Every position that the answer needed, once, however often it was computed.
  const int64_t positions = answered ? prompt + stats.completion_tokens - 1 : request.most_computed;
  stats.queue_time = absl::FromChrono(admitted - arrival);
  stats.prefill_time = absl::FromChrono(first - admitted);
  stats.decode_time = absl::FromChrono(now - first);
  if (answered) stats.time_to_first_token = absl::FromChrono(first - arrival);
  stats.peak_kv_bytes = std::max(request.peak_pages, request.pages.peak_held()) * device.page_bytes;
  stats.full_attention_kv_bytes =
      FullAttentionPages(positions, device.num_layers) * device.page_bytes;
  stats.attended_keys =
      AttendedKeys(request.request.recipe, prompt, request.cached_tokens, positions);
  stats.full_attention_attended_keys =
      SumVisibleKeys(kernels::KeySpan{}, request.cached_tokens, positions) * device.num_layers;
  stats.preemptions = request.preemptions;
  stats.cached_prompt_tokens = request.cached_tokens;
  stats.prefill_attended_keys = AttendedKeys(request.request.recipe, prompt, request.cached_tokens,
                                             std::min(positions, prompt));
  const RequestCost& cost = request.cost;
  if (cost.known && cost.step_seconds > 0) {
    stats.device_seconds = cost.device_seconds;
    stats.full_attention_device_seconds = cost.full_attention_device_seconds;
  }
  stats.recomputed_device_seconds = cost.recomputed_device_seconds;
  stats.step_seconds = cost.step_seconds;
  return stats;
}

}  // namespace swaa
