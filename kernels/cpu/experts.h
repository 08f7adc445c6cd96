// Mixtures of experts on the CPU: rows sorted by expert, two grouped products over them, and each
// row's sum of what its experts made of it.

#ifndef SWAA_KERNELS_CPU_EXPERTS_H_
#define SWAA_KERNELS_CPU_EXPERTS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/linear.h"
#include "kernels/operators.h"

namespace swaa::kernels::cpu {

// Which expert gets which rows. A pair is a row at one of its experts; pairs are numbered by
// expert, and by row within one.
struct ExpertRoutes {
  struct Group {
    int32_t expert = 0;
    int64_t first_pair = 0;
    int64_t pairs = 0;  // at least 1
  };
  std::vector<Group> groups;  // of the experts that some row goes to, in their order
  std::vector<int32_t> rows;  // [pairs]
  // [rows, experts_per_row], by falling logits:
  std::vector<int32_t> experts;
  std::vector<float> shares;
  std::vector<int32_t> pairs;
};

// As ExpertsParams says. experts_per_row is at most `experts`. Memory of `routes` is used again.
void RouteRows(std::span<const float> logits, int32_t experts, int32_t experts_per_row,
               bool normalize, int threads, ExpertRoutes* routes);

// Used by one thread, in whose OpenMP threads it computes. `linear` outlives it.
class CpuExperts {
 public:
  CpuExperts(const Precision& precision, const ElementwiseKernels& elementwise, int threads,
             CpuLinear* linear)
      : activations_(precision.activations),
        elementwise_(elementwise),
        threads_(threads),
        linear_(linear) {}

  // As Operators::ExpertScratchBytes and Operators::Experts.
  int64_t ScratchBytes(const ExpertsShape& shape, int64_t rows) const;
  void Run(const ExpertsParams& params);

 private:
  void Multiply(const ExpertsParams& params, const Weight* ExpertWeights::*weight, const void* x,
                DataType out_type, void* out);

  DataType activations_;
  const ElementwiseKernels& elementwise_;
  int threads_;
  CpuLinear* linear_;
  ExpertRoutes routes_;
  std::vector<LinearParams> products_;
};

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_EXPERTS_H_
