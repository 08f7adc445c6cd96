// adapter_config.json: what PEFT writes beside an adapter's weights.

#ifndef SWAA_ENGINE_CHECKPOINT_PEFT_CONFIG_H_
#define SWAA_ENGINE_CHECKPOINT_PEFT_CONFIG_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace swaa {

inline constexpr int32_t kMaxLoraRank = 1024;

// How large the product of a module's two matrices counts.
struct LoraScale {
  int32_t rank = 0;
  double scale = 0;
};

// Immutable; any thread.
class PeftConfig {
 public:
  virtual ~PeftConfig() = default;
  // Of a module, such as "model.layers.0.self_attn.q_proj": by the first pattern of rank_pattern
  // and of alpha_pattern that its name's end matches, as in PEFT; else the adapter's. A pattern
  // that takes too long to match is INVALID_ARGUMENT.
  virtual absl::StatusOr<LoraScale> ScaleOf(const std::string& module) const = 0;
};

// INVALID_ARGUMENT with `place` and key for what is malformed; UNIMPLEMENTED, naming the option,
// for what would make the adapter compute something else than low-rank updates of the model's
// linear layers: another kind of adapter, DoRA, biases, saved modules, other target modules, an
// initialisation that changes the base model, and options that this build does not know.
absl::StatusOr<std::unique_ptr<const PeftConfig>> ParsePeftConfig(std::string_view text,
                                                                  const std::string& place);

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_PEFT_CONFIG_H_
