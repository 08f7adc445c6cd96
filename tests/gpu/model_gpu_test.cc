// Every switch of the model families on the GPU against the same weights on the CPU in f32: mixed
// recipes, chunks, both sides of the prompt's end in one step, decoding in captured graphs two
// steps deep.

#include <cmath>
#include <cuda_runtime_api.h>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "engine/model/model_device.h"
#include "engine/model/transformer.h"
#include "tests/unit/model/tiny_model.h"
#include "tests/unit/testing/seed.h"

namespace swaa {
namespace {

using kernels::KeySpan;

constexpr int32_t kSlots = 6;
constexpr int32_t kMaxBlocks = 8;

// A sequence with what each layer sees while prefilling and while decoding.
struct Sequence {
  std::vector<int32_t> tokens;
  int32_t prompt_tokens = 0;
  std::vector<KeySpan> prefill;  // [layers]
  std::vector<KeySpan> decode;
  int32_t computed = 0;
  std::vector<double> logprobs;  // of token i + 1 after i
};

ModelConfig SmallConfig(int32_t head_dim) {
  ModelConfig config = TinyConfig();
  config.head_dim = head_dim;
  config.hidden = 128;
  config.heads = 6;
  config.kv_heads = 2;
  config.ffn_width = 192;
  config.vocab_size = 264;
  return config;
}

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

class ModelGpuTest : public ::testing::Test {
 protected:
  void Load(const ModelConfig& config, const std::string& device = "cuda", int32_t ranks = 1) {
    config_ = config;
    checkpoint_.config = config;
    checkpoint_.weights = std::make_shared<RandomWeights>(config, seed_);
    gpu_ = Create(device, "auto", ranks);
    cpu_ = Create("cpu", "f32");
  }

  std::unique_ptr<Device> Create(const std::string& device, const std::string& dtype,
                                 int32_t ranks = 1) {
    ModelDeviceOptions options;
    options.ranks = ranks;
    options.operators = {.device = device, .dtype = dtype};
    options.kv_cache_bytes = int64_t{64} << 20;
    options.max_step_tokens = 2 * kSlots * 100;
    options.num_slots = kSlots;
    auto created = CreateModelDevice(checkpoint_, options);
    EXPECT_TRUE(created.ok()) << created.status();
    return created.ok() ? *std::move(created) : nullptr;
  }

  // Rows of one slot that see everything before them; the token after the last is drawn, or scored.
  Step RowsOf(int32_t slot, int32_t first, std::vector<int32_t> tokens, bool draws) const {
    const auto count = static_cast<int32_t>(tokens.size());
    return {
        .tokens = std::move(tokens),
        .sequences = {{slot, 0, count, first}},
        .layer_class = std::vector<uint8_t>(config_.num_layers, 0),
        .spans = {KeySpan{}},
        .logits = {
            {.row = count - 1, .slot = slot, .known_token = draws ? -1 : 1, .alternatives = 0}}};
  }

  // The first block of a slot in all layers: pages from `first_page` on.
  std::vector<PageTableUpdate> FirstBlock(int32_t slot, int32_t first_page) const {
    std::vector<PageTableUpdate> updates;
    for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
      updates.push_back({slot, layer, 0, first_page + layer});
    }
    return updates;
  }

  KeySpan RandomSpan() {
    if (random_() % 3 == 0) return {};
    return {.window = 1 + static_cast<int32_t>(random_() % 150),
            .sinks = static_cast<int32_t>(random_() % 80)};
  }

  std::vector<Sequence> RandomSequences() {
    std::vector<Sequence> sequences(kSlots);
    for (Sequence& sequence : sequences) {
      const auto length = static_cast<int32_t>(40 + random_() % (kMaxBlocks * 64 - 40));
      sequence.prompt_tokens = static_cast<int32_t>(1 + random_() % length);
      for (int32_t i = 0; i < length; ++i) {
        sequence.tokens.push_back(static_cast<int32_t>(random_() % config_.vocab_size));
      }
      for (int32_t l = 0; l < config_.num_layers; ++l) {
        sequence.prefill.push_back(RandomSpan());
        sequence.decode.push_back(RandomSpan());
      }
    }
    return sequences;
  }

  // Rows of every unfinished sequence, at most `chunk` each; every row's next token is scored.
  Step NextStep(std::vector<Sequence>* sequences, int32_t chunk) {
    Step step;
    std::vector<std::vector<KeySpan>> columns;  // of each sequence in the step
    for (int32_t slot = 0; slot < kSlots; ++slot) {
      Sequence& sequence = (*sequences)[slot];
      for (const bool decodes : {false, true}) {
        const auto end = decodes ? static_cast<int32_t>(sequence.tokens.size()) - 1
                                 : std::min(sequence.prompt_tokens,
                                            static_cast<int32_t>(sequence.tokens.size()) - 1);
        const int32_t count = std::min(chunk, end - sequence.computed);
        if (count <= 0 || decodes != (sequence.computed >= sequence.prompt_tokens)) continue;
        const auto first_row = static_cast<int32_t>(step.tokens.size());
        step.sequences.push_back({slot, first_row, count, sequence.computed});
        columns.push_back(decodes ? sequence.decode : sequence.prefill);
        for (int32_t i = 0; i < count; ++i) {
          const int32_t position = sequence.computed + i;
          step.tokens.push_back(sequence.tokens[position]);
          step.logits.push_back({.row = first_row + i,
                                 .slot = slot,
                                 .known_token = sequence.tokens[position + 1],
                                 .alternatives = 0});
        }
        sequence.computed += count;
      }
    }
    step.layer_class.resize(config_.num_layers);
    std::iota(step.layer_class.begin(), step.layer_class.end(), uint8_t{0});
    for (int32_t l = 0; l < config_.num_layers; ++l) {
      for (const auto& column : columns) step.spans.push_back(column[l]);
    }
    return step;
  }

  std::vector<PageTableUpdate> AllPages() {
    std::vector<int32_t> pages(kSlots * config_.num_layers * kMaxBlocks);
    std::iota(pages.begin(), pages.end(), 1);
    std::shuffle(pages.begin(), pages.end(), random_);
    std::vector<PageTableUpdate> updates;
    for (int32_t slot = 0; slot < kSlots; ++slot) {
      for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
        for (int32_t block = 0; block < kMaxBlocks; ++block) {
          updates.push_back({slot, layer, block, pages[updates.size()]});
        }
      }
    }
    return updates;
  }

  // Scores all sequences in chunks of random sizes, as many steps deep as the device is.
  void Score(Device* device, std::vector<Sequence>* sequences, const std::vector<int32_t>& chunks) {
    std::vector<Step> in_flight;
    std::vector<PageTableUpdate> pages = AllPages();
    const auto collect = [&] {
      const Step& step = in_flight.front();
      const StepResult result = device->Collect();
      ASSERT_TRUE(result.status.ok()) << result.status;
      ASSERT_EQ(result.tokens.size(), step.logits.size());
      for (size_t i = 0; i < step.logits.size(); ++i) {
        (*sequences)[step.logits[i].slot].logprobs.push_back(result.tokens[i].logprob);
      }
      in_flight.erase(in_flight.begin());
    };
    for (size_t n = 0;; ++n) {
      Step step = NextStep(sequences, chunks[n % chunks.size()]);
      if (step.tokens.empty()) break;
      step.id = n;
      step.page_table_updates = std::exchange(pages, {});
      if (static_cast<int32_t>(in_flight.size()) == device->info().max_steps_in_flight) collect();
      if (HasFatalFailure()) return;
      in_flight.push_back(step);
      device->Submit(std::move(step));
    }
    while (!in_flight.empty() && !HasFatalFailure()) collect();
  }

  void Compare(const std::string& what) {
    std::vector<int32_t> chunks;
    for (int i = 0; i < 7; ++i) {
      // Single rows are steps that graphs replay.
      chunks.push_back(random_() % 2 == 0 ? 1 : static_cast<int32_t>(1 + random_() % 100));
    }
    std::vector<Sequence> on_gpu = RandomSequences();
    std::vector<Sequence> on_cpu = on_gpu;
    Score(gpu_.get(), &on_gpu, chunks);
    ASSERT_FALSE(HasFatalFailure()) << what;
    Score(cpu_.get(), &on_cpu, {100});
    ASSERT_FALSE(HasFatalFailure()) << what;
    double sum = 0, worst = 0, scale = 0;
    int64_t count = 0;
    for (int32_t s = 0; s < kSlots; ++s) {
      ASSERT_EQ(on_gpu[s].logprobs.size(), on_gpu[s].tokens.size() - 1) << what;
      for (size_t i = 0; i < on_gpu[s].logprobs.size(); ++i) {
        const double difference = std::abs(on_gpu[s].logprobs[i] - on_cpu[s].logprobs[i]);
        ASSERT_TRUE(std::isfinite(difference)) << what << ", sequence " << s << ", row " << i;
        sum += difference;
        scale += std::abs(on_cpu[s].logprobs[i]);
        worst = std::max(worst, difference);
        ++count;
      }
    }
    // Weights and activations in bf16 beside f32; a wrong key or a wrong rotation is off by far
    // more. Relative to the log-probabilities: tied random embeddings give logits ten times as
    // large.
    const double mean = sum / scale;
    worst *= static_cast<double>(count) / scale;
    std::cout << what << ": relative differences, mean " << mean << ", worst " << worst
              << std::endl;
    EXPECT_LT(mean, 0.005) << what;
    EXPECT_LT(worst, 0.06) << what;
  }

  const uint32_t seed_ = testing::Seed();
  std::mt19937 random_{seed_};
  ModelConfig config_;
  Checkpoint checkpoint_;
  std::unique_ptr<Device> gpu_;
  std::unique_ptr<Device> cpu_;
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
