// Every switch of the model families on the GPU, and what happens when its memory runs out.

#include <cuda_runtime_api.h>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "engine/model/transformer.h"
#include "tests/gpu/model_gpu_fixture.h"

namespace swaa {
namespace {

// All memory of the GPU that can still be had.
class RestOfTheMemory {
 public:
  RestOfTheMemory() {
    for (size_t bytes = size_t{1} << 32; bytes >= size_t{1} << 20; bytes /= 2) {
      for (void* block = nullptr; cudaMalloc(&block, bytes) == cudaSuccess;) {
        blocks_.push_back(block);
      }
    }
    cudaGetLastError();
  }
  ~RestOfTheMemory() {
    for (void* block : blocks_) cudaFree(block);
  }

 private:
  std::vector<void*> blocks_;
};

TEST_F(ModelGpuTest, EveryFamilySwitchAndHeadSizeMatchesTheCpu) {
  SCOPED_TRACE(seed_);
  struct Variant {
    const char* name;
    int32_t head_dim;
    void (*set)(ModelConfig&);
  };
  const Variant variants[] = {
      {"plain, 64", 64, [](ModelConfig&) {}},
      {"plain, 96", 96, [](ModelConfig&) {}},
      {"plain, 128", 128, [](ModelConfig&) {}},
      {"tied", 64, [](ModelConfig& c) { c.tied_embeddings = true; }},
      {"qkv bias", 64, [](ModelConfig& c) { c.qkv_bias = true; }},
      {"output bias", 64, [](ModelConfig& c) { c.output_bias = true; }},
      {"qk norm", 128, [](ModelConfig& c) { c.qk_norm = true; }},
  };
  for (const Variant& variant : variants) {
    ModelConfig config = SmallConfig(variant.head_dim);
    variant.set(config);
    Load(config);
    ASSERT_TRUE(gpu_ != nullptr && cpu_ != nullptr) << variant.name;
    EXPECT_EQ(gpu_->info().backend, "cuda");
    EXPECT_EQ(gpu_->info().max_steps_in_flight, 2);
    // What is checked before loading; norms and biases are not worth counting.
    const auto operators = kernels::CreateOperators({.device = "cuda"});
    ASSERT_TRUE(operators.ok()) << operators.status();
    EXPECT_GE(Transformer::MaxWeightBytes(**operators, config) + (32 << 10),
              gpu_->info().weight_bytes)
        << variant.name;
    Compare(variant.name);
    if (HasFatalFailure()) return;
  }
}

TEST_F(ModelGpuTest, ManyMixesOfOneModel) {
  SCOPED_TRACE(seed_);
  Load(SmallConfig(64));
  ASSERT_TRUE(gpu_ != nullptr && cpu_ != nullptr);
  for (int round = 0; round < 10; ++round) {
    Compare("round " + std::to_string(round));
    if (HasFatalFailure()) return;
  }
}

TEST_F(ModelGpuTest, AnotherGpuThanTheFirstComputesTheSame) {
  SCOPED_TRACE(seed_);
  int count = 0;
  ASSERT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
  if (count < 2) GTEST_SKIP() << "one GPU";
  Load(SmallConfig(64), "cuda:1");
  ASSERT_TRUE(gpu_ != nullptr && cpu_ != nullptr);
  Compare("cuda:1");
}

TEST_F(ModelGpuTest, GpusThatShareAModelComputeTheSame) {
  SCOPED_TRACE(seed_);
  int count = 0;
  ASSERT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
  if (count < 2) GTEST_SKIP() << "one GPU";
  struct Variant {
    const char* name;
    void (*set)(ModelConfig&);
  };
  const Variant variants[] = {
      {"plain", [](ModelConfig&) {}},
      {"tied", [](ModelConfig& c) { c.tied_embeddings = true; }},
      {"biases", [](ModelConfig& c) { c.qkv_bias = c.output_bias = true; }},
      {"qk norm, one KV head",
       [](ModelConfig& c) {
         c.qk_norm = true;
         c.kv_heads = 1;
       }},
  };
  for (const int32_t ranks : {2, 4, 8}) {
    if (ranks > count) continue;
    for (const Variant& variant : variants) {
      ModelConfig config = SmallConfig(64);
      config.heads = 8;
      variant.set(config);
      Load(config, "cuda", ranks);
      ASSERT_TRUE(gpu_ != nullptr && cpu_ != nullptr) << variant.name;
      Compare(std::string(variant.name) + ", ranks: " + std::to_string(ranks));
      if (HasFatalFailure()) return;
    }
  }
}

// The step that ran out of memory fails, and nothing else: neither the device, nor what others keep
// in pages that the failed step's slot named before.
TEST_F(ModelGpuTest, AStepThatRunsOutOfMemoryFailsAlone) {
  SCOPED_TRACE(seed_);
  Load(SmallConfig(64));
  ASSERT_TRUE(gpu_ != nullptr);
  uint64_t id = 0;
  const auto submit = [&](Step step) {
    step.id = id++;
    gpu_->Submit(std::move(step));
  };
  const auto compute = [&](Step step) {
    submit(std::move(step));
    return gpu_->Collect();
  };
  const std::vector<int32_t> tokens(20, 7);
  // Slot 1 had the pages that slot 0 has now.
  Step former = RowsOf(1, 0, tokens, false);
  former.page_table_updates = FirstBlock(1, 1);
  ASSERT_TRUE(compute(std::move(former)).status.ok());
  Step prompt = RowsOf(0, 0, tokens, false);
  prompt.page_table_updates = FirstBlock(0, 1);
  ASSERT_TRUE(compute(std::move(prompt)).status.ok());
  const StepResult before = compute(RowsOf(0, 20, {5}, false));
  ASSERT_TRUE(before.status.ok()) << before.status;

  Step greedy = RowsOf(1, 0, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, true);
  greedy.page_table_updates = FirstBlock(1, 100);
  auto sampling = std::make_shared<kernels::SamplingParams>();
  sampling->presence_penalty = 1;
  greedy.setups = {{.slot = 1,
                    .sampling = sampling,
                    .prompt = std::make_shared<const std::vector<int32_t>>(16 << 20, 3)}};
  {
    const RestOfTheMemory taken;
    submit(greedy);
    submit(RowsOf(1, 10, {kDrawnToken}, true));
    const StepResult failed = gpu_->Collect();
    EXPECT_EQ(failed.status.code(), absl::StatusCode::kResourceExhausted) << failed.status;
    EXPECT_FALSE(failed.device_lost);
    EXPECT_TRUE(gpu_->Collect().status.ok());
    const StepResult after = compute(RowsOf(0, 20, {5}, false));
    ASSERT_TRUE(after.status.ok()) << after.status;
    EXPECT_EQ(after.tokens.at(0).logprob, before.tokens.at(0).logprob);
  }
  const StepResult again = compute(greedy);
  EXPECT_TRUE(again.status.ok()) << again.status;
}

TEST_F(ModelGpuTest, TellsWhereItsMemoryWentAndOfTheCard) {
  Load(SmallConfig(64));
  ASSERT_TRUE(gpu_ != nullptr);
  kernels::MemoryUse memory;
  kernels::DeviceFacts facts;
  // As metrics ask: on a thread that has not used the GPU.
  std::thread([&] {
    memory = gpu_->Memory(0);
    facts = gpu_->Facts(0);
  }).join();
  const DeviceInfo& info = gpu_->info();
  EXPECT_GE(memory.weights, info.weight_bytes);  // pieces are rounded up
  EXPECT_LT(memory.weights, 2 * info.weight_bytes);
  EXPECT_EQ(memory.kv, info.num_pages * info.page_bytes);
  EXPECT_GT(memory.workspace, 0);
  EXPECT_GT(memory.free, int64_t{1} << 30);
  if (!facts.name.has_value()) GTEST_SKIP() << "the driver's NVML is not here";
  EXPECT_EQ(*facts.name, info.name);
  EXPECT_GE(facts.count.value_or(0), 1);
  // What is told has the unit that it claims.
  EXPECT_GT(facts.clock_hertz.value_or(1e9), 1e8);
  EXPECT_LT(facts.clock_hertz.value_or(1e9), 1e10);
  EXPECT_GT(facts.power_watts.value_or(100), 5);
  EXPECT_LT(facts.power_watts.value_or(100), 2000);
  EXPECT_LT(facts.power_limit_watts.value_or(100), 2000);
  EXPECT_GT(facts.temperature_celsius.value_or(40), 10);
  EXPECT_LT(facts.temperature_celsius.value_or(40), 110);
}

TEST_F(ModelGpuTest, WhatTheGpuLacksIsRefusedByName) {
  ModelConfig config = SmallConfig(64);
  config.head_dim = 32;
  checkpoint_.config = config;
  checkpoint_.weights = std::make_shared<RandomWeights>(config, seed_);
  ModelDeviceOptions options;
  options.operators.device = "cuda";
  auto device = CreateModelDevice(checkpoint_, options);
  EXPECT_EQ(device.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(device.status().message().find("32"), std::string::npos) << device.status();
  EXPECT_NE(device.status().message().find("--device cpu"), std::string::npos) << device.status();
  config = SmallConfig(64);
  config.vocab_size = 263;
  checkpoint_.config = config;
  checkpoint_.weights = std::make_shared<RandomWeights>(config, seed_);
  device = CreateModelDevice(checkpoint_, options);
  EXPECT_EQ(device.status().code(), absl::StatusCode::kUnimplemented) << device.status();
  EXPECT_NE(device.status().message().find("--device cpu"), std::string::npos) << device.status();
  options.operators.device = "cuda:99";
  device = CreateModelDevice(checkpoint_, options);
  EXPECT_EQ(device.status().code(), absl::StatusCode::kInvalidArgument);
  options.operators = {.device = "cuda", .gpu_memory_utilization = 1.5};
  device = CreateModelDevice(checkpoint_, options);
  EXPECT_EQ(device.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace swaa
