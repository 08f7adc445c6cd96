// Tests of kernels: a random attention problem over pages, its answer in double precision, and its
// computation by an instruction set of the CPU backend.

#ifndef SWAA_TESTS_UNIT_KERNELS_ATTENTION_PROBLEM_H_
#define SWAA_TESTS_UNIT_KERNELS_ATTENTION_PROBLEM_H_

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/attention.h"
#include "kernels/types.h"

namespace swaa::kernels {

struct HeadShape {
  int32_t heads = 4;
  int32_t kv_heads = 2;
  int32_t head_dim = 64;
};

struct SequenceCase {
  int32_t first_position = 0;
  int32_t queries = 1;
  KeySpan span;
};

struct ProblemOptions {
  HeadShape shape;
  DataType kv = DataType::kBf16;
  DataType out = DataType::kF32;
  // Standard deviation of scores.
  float score_deviation = 1.5f;
  // Queries are exact in bf16, so that large scores do not show their rounding.
  bool round_queries = false;
  // Adds about this much to a score from one position to the next.
  float score_slope = 0;
};

struct Errors {
  double total = 0;      // ||out - expected|| / ||expected||
  double worst_row = 0;  // the same of the worst row of one head
  std::string worst_where;
};

// Pages lie in random order. What no query may see names a page of NaN; what is not written in a
// page that some query sees is random and finite.
class AttentionProblem {
 public:
  AttentionProblem(const ProblemOptions& options, std::vector<SequenceCase> sequences,
                   uint32_t seed);

  // Rows of all sequences, one after another: [rows, heads, head_dim] as f32. Memory for rows is
  // NaN before.
  std::vector<float> Run(const cpu::AttentionKernels& kernels, int32_t threads) const;

  // NaN anywhere makes both errors infinite.
  Errors Compare(const std::vector<float>& out) const;

 private:
  struct Sequence;
  int64_t RowWidth() const { return int64_t{options_.shape.heads} * options_.shape.head_dim; }
  void FillPoolWithGarbage();
  void AddSequence(const SequenceCase& sequence_case);
  void StorePages(const Sequence& sequence);
  void ComputeExpected(const Sequence& sequence);
  float Draw(bool round);

  ProblemOptions options_;
  std::mt19937 random_;
  std::normal_distribution<float> normal_;  // one draw makes two values
  std::vector<Sequence> sequences_;
  std::vector<SequenceRows> rows_;
  std::vector<KeySpan> spans_;
  std::vector<float> q_;  // [rows, q_stride_]
  int64_t q_stride_ = 0;
  int64_t row_count_ = 0;
  std::vector<double> expected_;  // [rows, heads, head_dim]
  std::vector<int32_t> table_;    // [slots, layers, max_pages]
  int32_t max_pages_ = 0;
  std::vector<int32_t> free_pages_;
  std::vector<std::byte> pool_memory_;
  PagePoolView pool_;
};

struct AttentionProblem::Sequence {
  SequenceCase what;
  int32_t slot = 0;
  int64_t first_row = 0;
  std::vector<float> k;  // [keys, kv_heads, head_dim]
  std::vector<float> v;
};

}  // namespace swaa::kernels

#endif  // SWAA_TESTS_UNIT_KERNELS_ATTENTION_PROBLEM_H_
