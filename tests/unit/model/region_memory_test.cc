// Memory that runs out inside a parallel region costs the step, not the process. This program's own
// allocation functions refuse threads of such regions when told to.

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <omp.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/model/model_device.h"
#include "kernels/cpu/parallel_ranges.h"
#include "tests/unit/model/tiny_model.h"

namespace {

std::atomic<bool> refuse_new = false;      // operator new within parallel regions
std::atomic<bool> refuse_aligned = false;  // aligned_alloc there
std::atomic<int> refusals = 0;

bool Refuses(const std::atomic<bool>& refuse) {
  if (!refuse.load() || omp_in_parallel() == 0) return false;
  ++refusals;
  return true;
}

}  // namespace

// Not inlined: the compiler would see that what new returns goes to free.
[[gnu::noinline]] void* operator new(size_t bytes) {
  if (Refuses(refuse_new)) throw std::bad_alloc();
  if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}
void* operator new[](size_t bytes) { return operator new(bytes); }
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { operator delete(memory); }
void operator delete[](void* memory) noexcept { operator delete(memory); }
void operator delete[](void* memory, size_t) noexcept { operator delete(memory); }

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
