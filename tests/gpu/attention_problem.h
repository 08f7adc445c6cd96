// Tests and benchmarks of attention on the GPU: a batch of requests over pages in random order.
// Pages that no query sees, pages of nobody, K past a sequence's end and output rows are NaN; the
// table names the zero page for what is not visible.

#ifndef SWAA_TESTS_GPU_ATTENTION_PROBLEM_H_
#define SWAA_TESTS_GPU_ATTENTION_PROBLEM_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/attention/attention.h"
#include "kernels/types.h"
#include "tests/gpu/device_array.h"

namespace swaa::kernels::cuda {

struct AttentionRequest {
  int32_t first_position = 0;
  int32_t query_count = 1;     // 0: a dead slot
  std::vector<KeySpan> spans;  // by class
  int32_t same_slot_as = -1;   // an earlier request: both sides of a prompt's end in one step
};

struct AttentionProblemOptions {
  int32_t heads = 32;
  int32_t kv_heads = 8;
  int32_t head_dim = 128;
  std::vector<uint8_t> layer_class = {0, 0};  // by layer
  bool poisoned = true;                       // else pages of nobody are left out
  float query_deviation = 1;                  // of q's elements; 5 makes softmax sharp
  int32_t gap_rows = 3;                       // of nobody, between requests
  uint64_t seed = 1;
};

class AttentionProblem {
 public:
  AttentionProblem(const AttentionProblemOptions& options, std::vector<AttentionRequest> requests);

  const AttentionShape& shape() const { return shape_; }
  const AttentionProblemOptions& options() const { return options_; }
  // Of the requests as given. Points into this object.
  AttentionStep step() const { return {sequences_, spans_, options_.layer_class}; }
  int32_t num_classes() const;
  int64_t rows() const { return rows_; }
  int64_t q_stride() const { return q_stride_; }
  const Bf16* q() const { return q_.data(); }
  Bf16* out() const { return out_.data(); }
  PagedAttention::Options AttentionOptions(std::byte* workspace, AttentionKernels kernels) const;

  void PoisonOutput() const;
  // Of what `out` holds for a step's rows in a layer: ||out - expected|| / ||expected||, NaN when a
  // value is. With samples > 0 of so many random rows and heads.
  double Error(const AttentionStep& step, int32_t layer, int32_t samples = 0) const;
  // "" or the first row of nobody that is no longer poisoned.
  std::string TouchedRow(const AttentionStep& step) const;

  // Visible pairs of query and key in a layer, of one head.
  double Pairs(int32_t layer) const;

 private:
  void PlaceRequests();
  // Pages of all slots and layers; what must be poisoned of them.
  void BuildPages();
  bool PageIsVisible(int32_t slot, int32_t layer, int32_t block) const;

  AttentionProblemOptions options_;
  std::vector<AttentionRequest> requests_;
  AttentionShape shape_;
  std::vector<SequenceRows> sequences_;
  std::vector<KeySpan> spans_;        // [classes, sequences]
  std::vector<int32_t> slot_tokens_;  // by slot
  int64_t rows_ = 0, q_stride_ = 0, pages_ = 0;
  testing::DeviceArray<Bf16> pool_, q_, out_;
  testing::DeviceArray<int32_t> table_;
};

// A PagedAttention over a problem, with all memory it needs.
class AttentionRunner {
 public:
  // Aborts when the kernels do not serve the problem.
  AttentionRunner(const AttentionProblem& problem, AttentionKernels kernels,
                  int32_t max_classes = 8);
  ~AttentionRunner();
  AttentionRunner(const AttentionRunner&) = delete;
  AttentionRunner& operator=(const AttentionRunner&) = delete;

  // Plans a step, copies the plan and plans decoding, on the stream.
  void Plan(const AttentionStep& step, cudaStream_t stream = nullptr);
  void Run(int32_t layer, const AttentionLaunch& launch = {});

  PagedAttention& attention() { return *attention_; }
  AttentionPlan& plan() { return plan_; }
  const AttentionQueries& queries() const { return queries_; }
  // Are the counters zero, as they must be between launches?
  bool CountersAreZero() const;

 private:
  const AttentionProblem& problem_;
  testing::DeviceArray<std::byte> workspace_, device_plan_;
  testing::DeviceArray<DecodePlan> decode_plans_;
  std::byte* host_plan_ = nullptr;  // pinned
  int64_t plan_bytes_ = 0, counter_bytes_ = 0;
  std::unique_ptr<PagedAttention> attention_;
  AttentionPlan plan_{nullptr, nullptr, 0, nullptr, 0};
  AttentionQueries queries_;
};

}  // namespace swaa::kernels::cuda

#endif  // SWAA_TESTS_GPU_ATTENTION_PROBLEM_H_
