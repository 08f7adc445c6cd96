// Kernels, CPU backend: which rows see which keys. Private to each variant (unnamed namespace),
// because variants are compiled for different processors.

#ifndef SWAA_KERNELS_CPU_ATTENTION_VISIBILITY_H_
#define SWAA_KERNELS_CPU_ATTENTION_VISIBILITY_H_

#include <cstdint>

#include "kernels/cpu/attention_task.h"

namespace swaa::kernels::cpu {
namespace {

enum class Visibility { kNone, kSome, kAll };

// What queries at first_position .. last_position see of keys first_key .. first_key + count - 1.
[[maybe_unused]] inline Visibility Classify(const AttentionTask& task, int32_t first_position,
                                            int32_t last_position, int32_t first_key,
                                            int32_t count) {
  const int32_t last_key = first_key + count - 1;
  if (first_key > last_position) return Visibility::kNone;
  if (last_key <= first_position - task.window && first_key >= task.sinks) return Visibility::kNone;
  const bool in_past = last_key <= first_position;
  const bool in_span = first_key > last_position - task.window || last_key < task.sinks;
  return in_past && in_span ? Visibility::kAll : Visibility::kSome;
}

[[maybe_unused]] inline int32_t VisitedPage(const AttentionTask& task, int32_t visit) {
  return visit < task.sink_pages ? visit : task.window_page + visit - task.sink_pages;
}

[[maybe_unused]] inline const std::byte* PageAddress(const AttentionTask& task, int32_t page) {
  return task.pool + task.pages[page] * task.page_bytes;
}

}  // namespace
}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_ATTENTION_VISIBILITY_H_
