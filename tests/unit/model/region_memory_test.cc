// Memory that runs out inside a parallel region, or anywhere on the device's thread, costs the step
// and not the process. This program's own allocation functions refuse threads of such regions when
// told to, or one allocation of the device's thread; not those of libraries, which may not stand
// it.

#include <atomic>
#include <cstdlib>
#include <dlfcn.h>
#include <execinfo.h>
#include <memory>
#include <new>
#include <omp.h>
#include <string_view>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/model/model_device.h"
#include "kernels/cpu/parallel_ranges.h"
#include "tests/unit/model/tiny_model.h"
#include "tests/unit/testing/refusing_new.h"

namespace {

std::atomic<bool> refuse_new = false;      // operator new within parallel regions
std::atomic<bool> refuse_aligned = false;  // aligned_alloc there
std::atomic<int> refusals = 0;

thread_local bool is_tests_thread = false;
thread_local bool is_looking = false;
std::atomic<int64_t> allocations = 0;   // of the device's thread
std::atomic<int64_t> refused_one = -1;  // of them; none
std::atomic<bool> counts = false;

bool IsOfALibrary() {
  void* frames[24];
  const int count = backtrace(frames, 24);
  for (int i = 0; i < count; ++i) {
    Dl_info info;
    if (dladdr(frames[i], &info) == 0) continue;
    const std::string_view file = info.dli_fname;
    if (file.find("libdnnl") != file.npos || file.find("libgomp") != file.npos) return true;
  }
  return false;
}

bool RefusesOne() {
  if (!counts || is_tests_thread || is_looking || omp_in_parallel() != 0) return false;
  is_looking = true;
  const bool refuses = !IsOfALibrary() && allocations++ == refused_one;
  is_looking = false;
  if (refuses) ++refusals;
  return refuses;
}

bool Refuses(const std::atomic<bool>& refuse) {
  if (!refuse.load() || omp_in_parallel() == 0) return false;
  ++refusals;
  return true;
}

}  // namespace

bool swaa::testing::RefusesAllocation() { return Refuses(refuse_new) || RefusesOne(); }

extern "C" void* aligned_alloc(size_t alignment, size_t bytes) noexcept {
  void* memory = nullptr;
  if (Refuses(refuse_aligned)) return nullptr;
  return posix_memalign(&memory, alignment, bytes) == 0 ? memory : nullptr;
}

namespace swaa {
namespace {

constexpr int32_t kLayers = 3;  // TinyConfig's

class RegionMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Checkpoint checkpoint;
    checkpoint.config = TinyConfig();
    checkpoint.weights = std::make_shared<RandomWeights>(checkpoint.config, 7);
    ASSERT_EQ(checkpoint.config.num_layers, kLayers);
    ModelDeviceOptions options;
    options.operators = {.dtype = "f32", .threads = 2};
    options.kv_cache_bytes = 8 << 20;
    options.max_step_tokens = 64;
    auto device = CreateModelDevice(checkpoint, options);
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = *std::move(device);
    refusals = 0;
  }

  // A prompt of four rows, each of which draws a token.
  StepResult Compute() {
    Step step;
    step.id = ++steps_;
    step.tokens = {3, 1, 4, 1};
    step.sequences = {{.slot = 0, .first_row = 0, .query_count = 4, .first_position = 0}};
    step.layer_class.assign(kLayers, 0);
    step.spans.assign(1, {});
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      step.page_table_updates.push_back({0, layer, 0, 1 + layer});
    }
    auto sampling = std::make_shared<kernels::SamplingParams>();
    sampling->top_k = 5;
    step.setups.push_back({.slot = 0, .sampling = sampling});
    for (int32_t row = 0; row < 4; ++row) {
      step.logits.push_back({.row = row, .slot = 0, .alternatives = 2});
    }
    device_->Submit(std::move(step));
    return device_->Collect();
  }

  void ExpectAFailedStep(std::atomic<bool>* refuse) {
    refuse->store(true);
    const StepResult failed = Compute();
    refuse->store(false);
    EXPECT_GT(refusals, 0);
    EXPECT_EQ(failed.status.code(), absl::StatusCode::kResourceExhausted) << failed.status;
    EXPECT_THAT(std::string(failed.status.message()), ::testing::HasSubstr("out of memory"));
    EXPECT_FALSE(failed.device_lost);
    EXPECT_TRUE(failed.tokens.empty());
  }

  std::unique_ptr<Device> device_;
  uint64_t steps_ = 0;
};

TEST_F(RegionMemoryTest, DrawsFailTheirStepAndTheDeviceGoesOn) {
  ExpectAFailedStep(&refuse_new);
  const StepResult next = Compute();
  ASSERT_TRUE(next.status.ok()) << next.status;
  EXPECT_EQ(next.tokens.size(), 4u);
}

TEST_F(RegionMemoryTest, AttentionFailsItsStepAndTheDeviceGoesOn) {
  ExpectAFailedStep(&refuse_aligned);
  const StepResult next = Compute();
  ASSERT_TRUE(next.status.ok()) << next.status;
  EXPECT_EQ(next.tokens.size(), 4u);
}

TEST_F(RegionMemoryTest, AnyAllocationOfTheDevicesThreadFailsItsStepAtMost) {
  is_tests_thread = true;
  void* frame = nullptr;
  backtrace(&frame, 1);  // what it loads, it loads now
  const StepResult expected = Compute();
  int failed = 0;
  for (int64_t n = 0;; ++n) {
    refusals = 0;
    allocations = 0;
    refused_one = n;
    counts = true;
    const StepResult result = Compute();
    counts = false;
    if (refusals == 0) break;  // a step needs fewer
    ASSERT_FALSE(result.device_lost) << n << ": " << result.status;
    if (!result.status.ok()) {
      ++failed;
      EXPECT_EQ(result.status.code(), absl::StatusCode::kResourceExhausted) << result.status;
    }
    const StepResult next = Compute();
    ASSERT_TRUE(next.status.ok()) << n << ": " << next.status;
    ASSERT_EQ(next.tokens.size(), expected.tokens.size());
    for (size_t i = 0; i < next.tokens.size(); ++i) {
      EXPECT_EQ(next.tokens[i].token, expected.tokens[i].token) << n;
    }
  }
  EXPECT_GT(failed, 3);
}

TEST(RegionErrorsTest, SharedLoopsThrowWhatABodyThrows) {
  using kernels::cpu::ForChunks;
  using kernels::cpu::ForRanges;
  constexpr int64_t kItems = 64, kElements = kernels::cpu::kSerialElements;
  const auto body = [](int64_t first, int64_t last) {
    EXPECT_NE(omp_in_parallel(), 0);
    if (first <= 40 && 40 < last) throw std::bad_alloc();
  };
  EXPECT_THROW(ForRanges(2, kItems, kElements, body), std::bad_alloc);
  EXPECT_THROW(ForChunks(2, kItems, 1, kElements, body), std::bad_alloc);
  std::atomic<int64_t> items = 0;
  ForRanges(2, kItems, kElements, [&](int64_t first, int64_t last) { items += last - first; });
  EXPECT_EQ(items, kItems);
}

}  // namespace
}  // namespace swaa
