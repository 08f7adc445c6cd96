// What a request cost.

#include "engine/schedule/request_stats.h"

#include "engine/recipe/visibility.h"
#include "kernels/types.h"

namespace swaa {
namespace {

int64_t FullAttentionPages(int64_t positions, int32_t num_layers) {
  return (positions + kernels::kPageTokens - 1) / kernels::kPageTokens * num_layers;
}

}  // namespace

GenerationStats StatsOf(const RequestState& request, const DeviceInfo& device, absl::Time now) {
  const int64_t prompt = request.prompt_tokens();
  const bool answered = request.first_token_at != absl::InfiniteFuture();
  const absl::Time arrival = request.request.arrival;
  const absl::Time admitted = request.accepted ? request.admitted_at : now;
  const absl::Time first = answered ? request.first_token_at : now;
  GenerationStats stats;
  stats.prompt_tokens = static_cast<int32_t>(prompt);
  stats.completion_tokens = request.reported_output();
  // Every position that the answer needed, once, however often it was computed.
  const int64_t positions = answered ? prompt + stats.completion_tokens - 1 : request.most_computed;
  stats.queue_time = admitted - arrival;
  stats.prefill_time = first - admitted;
  stats.decode_time = now - first;
  if (answered) stats.time_to_first_token = first - arrival;
  stats.peak_kv_bytes = request.pages.peak_held() * device.page_bytes;
  stats.full_attention_kv_bytes =
      FullAttentionPages(positions, device.num_layers) * device.page_bytes;
  stats.attended_keys =
      AttendedKeys(request.request.recipe, prompt, request.cached_tokens, positions);
  stats.full_attention_attended_keys =
      SumVisibleKeys(kernels::KeySpan{}, request.cached_tokens, positions) * device.num_layers;
  stats.preemptions = request.preemptions;
  stats.cached_prompt_tokens = request.cached_tokens;
  return stats;
}

}  // namespace swaa
