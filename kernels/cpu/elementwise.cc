// Which elementwise variant belongs to an instruction set.

#include "kernels/cpu/elementwise.h"

namespace swaa::kernels::cpu {

const ElementwiseKernels& ElementwiseFor(InstructionSet set) {
  switch (set) {
    case InstructionSet::kGeneric:
      return generic::kElementwise;
    case InstructionSet::kAvx2:
      return avx2::kElementwise;
    case InstructionSet::kAvx512:
    case InstructionSet::kAvx512Bf16:
    case InstructionSet::kAmx:
      return avx512::kElementwise;
  }
  return generic::kElementwise;
}

}  // namespace swaa::kernels::cpu
