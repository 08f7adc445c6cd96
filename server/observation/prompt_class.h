// Prompts by length, as metrics and reports tell them apart.

#ifndef SWAA_SERVER_OBSERVATION_PROMPT_CLASS_H_
#define SWAA_SERVER_OBSERVATION_PROMPT_CLASS_H_

#include <algorithm>
#include <array>
#include <cstdint>

namespace swaa::server {

// The label `prompt_len`.
inline constexpr std::array<const char*, 5> kPromptClassNames = {"le_2k", "le_8k", "le_32k",
                                                                 "le_128k", "gt_128k"};

// Index into kPromptClassNames.
inline int32_t PromptClassIndex(int64_t prompt_tokens) {
  constexpr std::array<int64_t, 4> kEdges = {2048, 8192, 32768, 131072};
  return static_cast<int32_t>(std::lower_bound(kEdges.begin(), kEdges.end(), prompt_tokens) -
                              kEdges.begin());
}

}  // namespace swaa::server

#endif  // SWAA_SERVER_OBSERVATION_PROMPT_CLASS_H_
