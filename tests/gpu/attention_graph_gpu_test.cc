// Attention on the GPU inside graphs, under the tail of other kernels, and with several plans.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_check.h"
#include "tests/gpu/attention_problem.h"
#include "tests/gpu/attention_test_support.h"

namespace swaa::kernels::cuda {
namespace {

using testing::DeviceArray;

constexpr int32_t kLayers = 6, kSlots = 24, kCapacity = 2500;

// Slots whose pages are all there, so that any step of them can run.
std::vector<AttentionRequest> FullSlots() {
  return std::vector<AttentionRequest>(
      kSlots, {.first_position = kCapacity - 1, .query_count = 1, .spans = {{}}});
}

// A step that decodes some of the slots, in up to max_classes classes.
struct RandomStep {
  std::vector<SequenceRows> sequences;
  std::vector<KeySpan> spans;
  std::vector<uint8_t> layer_class;

  RandomStep(std::mt19937_64& random, const AttentionStep& full, int32_t max_classes) {
    const auto below = [&](int32_t n) { return static_cast<int32_t>(random() % n); };
    const int32_t classes = 1 + below(max_classes);
    for (SequenceRows s : full.sequences) {
      s.first_position = below(kCapacity);
      s.query_count = below(4) > 0;
      sequences.push_back(s);
    }
    sequences.front().query_count = 1;
    for (int32_t i = 0; i < classes * kSlots; ++i) {
      spans.push_back(below(3) == 0
                          ? KeySpan{}
                          : KeySpan{.window = 1 + below(2000), .sinks = below(2) * below(200)});
    }
    for (int32_t l = 0; l < kLayers; ++l)
      layer_class.push_back(static_cast<uint8_t>(below(classes)));
  }
  AttentionStep step() const { return {sequences, spans, layer_class}; }
};

class AttentionGraphGpuTest : public ::testing::TestWithParam<AttentionKernels> {
 protected:
  void SetUp() override {
    if (GetParam() == AttentionKernels::kHopper && !DeviceIsHopper()) {
      GTEST_SKIP() << "the kernels for Hopper need compute capability 9.0";
    }
    SWAA_CUDA_CHECK(cudaStreamCreate(&stream_));
  }
  void TearDown() override {
    if (stream_ != nullptr) SWAA_CUDA_CHECK(cudaStreamDestroy(stream_));
  }

  cudaGraphExec_t Capture(const std::function<void()>& enqueue) {
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    SWAA_CUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    enqueue();
    SWAA_CUDA_CHECK(cudaStreamEndCapture(stream_, &graph));
    SWAA_CUDA_CHECK(cudaGraphInstantiate(&executable, graph, 0));
    SWAA_CUDA_CHECK(cudaGraphDestroy(graph));
    return executable;
  }

  AttentionLaunch Launch(bool dependent) const {
    return {.stream = stream_, .dependent = dependent};
  }

  cudaStream_t stream_ = nullptr;
};

INSTANTIATE_TEST_SUITE_P(Kernels, AttentionGraphGpuTest,
                         ::testing::Values(AttentionKernels::kHopper, AttentionKernels::kPortable),
                         [](const auto& info) {
                           return info.param == AttentionKernels::kHopper ? "Hopper" : "Portable";
                         });

// One graph, replayed with other sequences, dead slots, positions, classes and spans each time.
TEST_P(AttentionGraphGpuTest, ReplaysAnyStep) {
  const uint64_t seed = TestSeed();
  std::mt19937_64 random(seed);
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  const std::vector<uint8_t> one_class(kLayers, 0);
  for (const bool dependent : {false, true}) {
    const AttentionProblem problem({.layer_class = one_class, .poisoned = false, .seed = seed},
                                   FullSlots());
    AttentionRunner runner(problem, GetParam());
    std::vector<DeviceArray<Bf16>> outs;
    for (int32_t l = 0; l < kLayers; ++l)
      outs.emplace_back(problem.rows() * problem.shape().heads * problem.shape().head_dim);
    runner.Plan(problem.step(), stream_);
    const cudaGraphExec_t graph = Capture([&] {
      runner.attention().PlanDecode(runner.plan(), stream_);
      for (int32_t l = 0; l < kLayers; ++l) {
        runner.attention().Decode(l, runner.plan(), runner.queries(), outs[l].data(),
                                  Launch(dependent));
      }
    });
    for (int32_t replay = 0; replay < 20; ++replay) {
      const RandomStep random_step(random, problem.step(), 8);
      for (const auto& out : outs)
        SWAA_CUDA_CHECK(cudaMemset(out.data(), 0xff, out.size() * sizeof(Bf16)));
      SWAA_CUDA_CHECK(cudaStreamSynchronize(nullptr));  // nobody waits for a memset
      runner.Plan(random_step.step(), stream_);
      SWAA_CUDA_CHECK(cudaGraphLaunch(graph, stream_));
      SWAA_CUDA_CHECK(cudaStreamSynchronize(stream_));
      for (int32_t l = 0; l < kLayers; ++l) {
        SWAA_CUDA_CHECK(cudaMemcpy(problem.out(), outs[l].data(), outs[l].size() * sizeof(Bf16),
                                   cudaMemcpyDeviceToDevice));
        const double error = problem.Error(random_step.step(), l);
        ASSERT_TRUE(error < kErrorLimit)
            << "dependent " << dependent << " replay " << replay << " layer " << l << ": " << error;
        ASSERT_EQ(problem.TouchedRow(random_step.step()), "");
      }
      ASSERT_TRUE(runner.CountersAreZero());
    }
    SWAA_CUDA_CHECK(cudaGraphExecDestroy(graph));
  }
}

// A chain in which every launch starts under the tail of the one before gives the same bits as one
// in which each waits, with all launches writing the same output and the same workspace.
TEST_P(AttentionGraphGpuTest, DependentLaunchesGiveTheSameBits) {
  std::vector<AttentionRequest> requests;
  for (int32_t i = 0; i < 10; ++i) {
    requests.push_back({.first_position = 300 * i + 40,
                        .query_count = i % 2 == 0 ? 1 : 90,
                        .spans = {{}, {.window = 500, .sinks = 20}}});
  }
  const AttentionProblem problem({.layer_class = {0, 1, 1, 0, 1}, .seed = 7}, requests);
  AttentionRunner runner(problem, GetParam());
  runner.Plan(problem.step(), stream_);
  std::vector<Bf16> expected;
  for (int chain = 0; chain < 30; ++chain) {
    problem.PoisonOutput();
    for (int32_t i = 0; i < 25; ++i) runner.Run(i % 5, Launch(chain > 0));
    const std::vector<Bf16> out = OutputOf(problem);
    if (chain == 0) {
      expected = out;
      ASSERT_TRUE(problem.Error(problem.step(), 4) < kErrorLimit);
    }
    ASSERT_TRUE(SameBits(expected, out)) << "chain " << chain;
    ASSERT_TRUE(runner.CountersAreZero());
  }
}

// The last layer computes other rows than the rest: two plans are held at a time.
TEST_P(AttentionGraphGpuTest, TwoPlansAtATime) {
  std::vector<AttentionRequest> requests = {
      {.first_position = 900, .query_count = 200, .spans = {{}}},
      {.first_position = 500, .query_count = 1, .spans = {{}}},
      {.first_position = 0, .query_count = 130, .spans = {{.window = 70, .sinks = 3}}}};
  const AttentionProblem problem({.seed = 8}, requests);
  AttentionRunner all(problem, GetParam());
  // Of each sequence only the last row, in the same workspace.
  std::vector<SequenceRows> last(problem.step().sequences.begin(), problem.step().sequences.end());
  for (SequenceRows& s : last) {
    s.first_row += s.query_count - 1;
    s.first_position += s.query_count - 1;
    s.query_count = 1;
  }
  const AttentionStep last_step{last, problem.step().spans, problem.step().layer_class};
  std::vector<std::byte> host(1 << 16);
  DeviceArray<std::byte> device(1 << 16);
  DeviceArray<DecodePlan> decode(1);
  AttentionPlan last_plan(host.data(), device.data(), 1 << 16, decode.data(), 1);
  all.Plan(problem.step(), stream_);
  const int64_t bytes = all.attention().Write(last_step, &last_plan);
  SWAA_CUDA_CHECK(
      cudaMemcpyAsync(device.data(), host.data(), bytes, cudaMemcpyHostToDevice, stream_));
  all.attention().PlanDecode(last_plan, stream_);
  EXPECT_FALSE(last_plan.has_prefill());
  EXPECT_EQ(last_plan.decode_sequences(), 3);
  all.Run(0, Launch(false));
  SWAA_CUDA_CHECK(cudaStreamSynchronize(stream_));
  EXPECT_TRUE(problem.Error(problem.step(), 0) < kErrorLimit);
  problem.PoisonOutput();
  all.attention().Run(1, last_plan, all.queries(), problem.out(), Launch(true));
  SWAA_CUDA_CHECK(cudaStreamSynchronize(stream_));
  EXPECT_TRUE(problem.Error(last_step, 1) < kErrorLimit);
  EXPECT_EQ(problem.TouchedRow(last_step), "");
}

}  // namespace
}  // namespace swaa::kernels::cuda
