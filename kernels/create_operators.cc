// The backends of this build.

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_operators.h"
#include "kernels/operators.h"

namespace swaa::kernels {

absl::StatusOr<std::unique_ptr<Operators>> CreateOperators(const OperatorsOptions& options) {
  if (options.device == "cpu") return cpu::CreateCpuOperators(options);
  return absl::InvalidArgumentError(
      absl::StrCat("device: this build has no \"", options.device, "\"; it has cpu"));
}

}  // namespace swaa::kernels
