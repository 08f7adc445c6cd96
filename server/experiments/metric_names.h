// What the server measures of every request of an experiment, and how it is summed: the recorder,
// the report and the validation of declared metrics go by these names.
//
// A server metric is always recorded, declared or not, and has one scale. A declared name that is
// neither of these nor reserved is an outcome that clients record.

#ifndef SWAA_SERVER_EXPERIMENTS_METRIC_NAMES_H_
#define SWAA_SERVER_EXPERIMENTS_METRIC_NAMES_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "swaa/v1/experiment.pb.h"

namespace swaa::server {

// Sums of natural logarithms (METRIC_SCALE_LOG_MEAN). A request without a first token has no
// entry in the sums of the first three; a failed or expired one enters the first one's sketch as
// kInfiniteBin.
inline constexpr char kTimeToFirstTokenSeconds[] = "time_to_first_token_seconds";
inline constexpr char kInterTokenLatencySeconds[] = "inter_token_latency_seconds";
inline constexpr char kRequestDurationSeconds[] = "request_duration_seconds";
inline constexpr char kDeviceSeconds[] = "device_seconds";  // attributed to the request
// Plain sums (METRIC_SCALE_MEAN).
inline constexpr char kCompletionTokens[] = "completion_tokens";
inline constexpr char kCachedPromptRatio[] = "cached_prompt_ratio";
inline constexpr char kPreemptions[] = "preemptions";
inline constexpr char kPeakKvCacheBytes[] = "peak_kv_cache_bytes";
// 0 or 1 for every request that ended (METRIC_SCALE_RATE).
inline constexpr char kErrorRate[] = "error_rate";
inline constexpr char kCancelledRate[] = "cancelled_rate";

// Plain sums that the report needs beside them; reserved. One a request when its arm is chosen,
// of prompt class 0 and triggered false, as neither is known by then:
inline constexpr char kExposures[] = "exposures";
// When it ends:
inline constexpr char kTotalDeviceSeconds[] = "total_device_seconds";
inline constexpr char kAttendedKeys[] = "attended_keys";
inline constexpr char kFullAttentionAttendedKeys[] = "full_attention_attended_keys";
// The error of the model by which its device time was attributed, as it was when the request ended.
inline constexpr char kStepModelError[] = "step_model_error_ratio";
// Beyond it what is attributed is not to be trusted.
inline constexpr double kMostStepModelError = 0.1;

// Of a finished request that was replayed alone, in random order, under the recipe of the arm that
// answered it and under another arm's, one of the two being control: summed in the arm that
// answered, with the request's group, as ShadowMetric(name, other arm).
// ln (control's seconds / the other recipe's), the same of KV bytes.
inline constexpr char kShadowPrefix[] = "shadow_";
inline constexpr char kShadowLogTimeRatio[] = "shadow_log_time_ratio";
inline constexpr char kShadowLogKvCacheBytesRatio[] = "shadow_log_kv_cache_bytes_ratio";
// One entry a token of the answer: its log-probability under the recipe that answered less that
// under the other; whether both would choose the same token.
inline constexpr char kShadowLogprobDifference[] = "shadow_logprob_difference";
inline constexpr char kShadowEqualArgmax[] = "shadow_equal_argmax";
// One entry a request: the first token at which they would not, or the answer's length.
inline constexpr char kShadowFirstDivergence[] = "shadow_first_divergence";

inline std::string ShadowMetric(std::string_view name, int32_t other_arm) {
  return std::string(name) + "." + std::to_string(other_arm);
}

// A metric that the server measures itself.
struct ServerMetric {
  std::string_view name;
  v1::MetricScale scale;
  double default_minimum_detectable_effect;
  // Depends on what else is in the batch, so that arms which share batches do not differ by it as
  // their recipes do.
  bool shared_batch;
};

inline constexpr ServerMetric kServerMetrics[] = {
    {kTimeToFirstTokenSeconds, v1::METRIC_SCALE_LOG_MEAN, 0.05, true},
    {kInterTokenLatencySeconds, v1::METRIC_SCALE_LOG_MEAN, 0.05, true},
    {kRequestDurationSeconds, v1::METRIC_SCALE_LOG_MEAN, 0.05, true},
    {kDeviceSeconds, v1::METRIC_SCALE_LOG_MEAN, 0.05, false},
    {kCompletionTokens, v1::METRIC_SCALE_MEAN, 10, false},
    {kCachedPromptRatio, v1::METRIC_SCALE_MEAN, 0.02, false},
    {kPreemptions, v1::METRIC_SCALE_MEAN, 0.05, false},
    {kPeakKvCacheBytes, v1::METRIC_SCALE_MEAN, 1 << 20, false},
    {kErrorRate, v1::METRIC_SCALE_RATE, 0.01, false},
    {kCancelledRate, v1::METRIC_SCALE_RATE, 0.01, false},
};

// Those that quantiles are kept of.
inline constexpr const char* kSketchedMetrics[] = {
    kTimeToFirstTokenSeconds, kInterTokenLatencySeconds, kRequestDurationSeconds};

// Null: an outcome, or reserved.
inline const ServerMetric* FindServerMetric(std::string_view name) {
  for (const ServerMetric& metric : kServerMetrics) {
    if (metric.name == name) return &metric;
  }
  return nullptr;
}

inline bool IsReservedMetric(std::string_view name) {
  return name == kExposures || name == kTotalDeviceSeconds || name == kAttendedKeys ||
         name == kFullAttentionAttendedKeys || name == kStepModelError ||
         name.starts_with(kShadowPrefix);
}

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_METRIC_NAMES_H_
