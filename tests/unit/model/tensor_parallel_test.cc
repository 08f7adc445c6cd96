// Ranks that share a model against one device that has it whole, in f32 on the CPU: every family,
// quantised files, an adapter; and what becomes of a step that fails on one of them.

#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/peft_adapter.h"
#include "engine/model/model_device.h"
#include "engine/model/rank_slices.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/model/tiny_model.h"

namespace swaa {
namespace {

using ::testing::HasSubstr;

constexpr int32_t kSlots = 2;
constexpr int32_t kDecodeSteps = 6;
constexpr double kTolerance = 2e-3;

absl::StatusOr<std::unique_ptr<Device>> MakeDevice(const Checkpoint& checkpoint, int32_t ranks) {
  ModelDeviceOptions options;
  options.operators = {.dtype = "f32", .threads = 2};
  options.ranks = ranks;
  options.kv_cache_bytes = 8 << 20;
  options.max_step_tokens = 200;
  options.num_slots = kSlots;
  return CreateModelDevice(checkpoint, options);
}

// Drives a device by hand: slot 0 with greedy draws, slot 1 with random ones, which has the adapter
// if there is one. Gives all that it was told, the tokens that were drawn as the last of each step.
class Driver {
 public:
  Driver(Device* device, const ModelConfig& config, std::shared_ptr<const DeviceAdapter> adapter)
      : device_(device), config_(config), adapter_(std::move(adapter)) {}

  std::vector<ScoredToken> Run() {
    // Prompts of 70 and 20 tokens, every row of the first scored; the second's last row draws.
    std::vector<int32_t> first = Tokens(70, 11), second = Tokens(20, 5);
    Step step = Prepare();
    AddRows(&step, 0, first, 0, /*score_all=*/true);
    AddRows(&step, 1, second, 0, /*score_all=*/false);
    std::vector<ScoredToken> all;
    int32_t length = 70, other_length = 20;
    for (int32_t i = 0; i <= kDecodeSteps; ++i) {
      device_->Submit(std::move(step));
      StepResult result = device_->Collect();
      EXPECT_TRUE(result.status.ok()) << result.status;
      if (!result.status.ok()) return all;
      const size_t drawn = i == 0 ? 70 - 1 : 0;
      const int32_t next = result.tokens[drawn].token, other = result.tokens[drawn + 1].token;
      for (ScoredToken& token : result.tokens) all.push_back(std::move(token));
      step = Prepare();
      AddRows(&step, 0, {next}, length++, false);
      AddRows(&step, 1, {other}, other_length++, false);
    }
    return all;
  }

 private:
  std::vector<int32_t> Tokens(int32_t count, int32_t stride) const {
    std::vector<int32_t> tokens(count);
    for (int32_t i = 0; i < count; ++i) tokens[i] = (i * stride + 3) % config_.vocab_size;
    return tokens;
  }

  Step Prepare() {
    Step step;
    step.id = ++steps_;
    step.layer_class.assign(config_.num_layers, 0);
    for (int32_t layer = 1; layer < config_.num_layers; layer += 2) step.layer_class[layer] = 1;
    const int32_t classes = config_.num_layers > 1 ? 2 : 1;
    // The second class slides.
    step.spans.assign(kSlots, {});
    if (classes == 2) step.spans.resize(2 * kSlots, {.window = 16, .sinks = 4});
    if (adapter_ != nullptr) {
      step.adapters = {adapter_};
      step.sequence_adapters = {-1, 0};
    }
    if (steps_ > 1) return step;
    for (int32_t slot = 0; slot < kSlots; ++slot) {
      auto sampling = std::make_shared<kernels::SamplingParams>();
      if (slot == 0) sampling->temperature = 0;
      if (slot == 1) sampling->top_k = 40;
      sampling->seed = 17;
      step.setups.push_back({.slot = slot, .sampling = sampling});
      for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
        for (int32_t block = 0; block < 2; ++block) {
          const int32_t page = 1 + (slot * config_.num_layers + layer) * 2 + block;
          step.page_table_updates.push_back({slot, layer, block, page});
        }
      }
    }
    return step;
  }

  void AddRows(Step* step, int32_t slot, const std::vector<int32_t>& tokens, int32_t position,
               bool score_all) {
    const auto first = static_cast<int32_t>(step->tokens.size());
    const auto count = static_cast<int32_t>(tokens.size());
    step->sequences.push_back(
        {.slot = slot, .first_row = first, .query_count = count, .first_position = position});
    step->tokens.insert(step->tokens.end(), tokens.begin(), tokens.end());
    for (int32_t r = 0; score_all && r + 1 < count; ++r) {
      step->logits.push_back(
          {.row = first + r, .slot = slot, .known_token = tokens[r + 1], .alternatives = 3});
    }
    step->logits.push_back({.row = first + count - 1,
                            .slot = slot,
                            .alternatives = 3,
                            .output_index = static_cast<uint32_t>(steps_ - 1)});
  }

  Device* const device_;
  const ModelConfig config_;
  const std::shared_ptr<const DeviceAdapter> adapter_;
  uint64_t steps_ = 0;
};

std::vector<ScoredToken> RunOn(const Checkpoint& checkpoint, int32_t ranks,
                               const std::string& adapter) {
  auto device = MakeDevice(checkpoint, ranks);
  EXPECT_TRUE(device.ok()) << device.status();
  if (!device.ok()) return {};
  EXPECT_EQ((*device)->info().ranks, ranks);
  std::shared_ptr<const DeviceAdapter> loaded;
  if (!adapter.empty()) {
    const auto read = ReadPeftFolder(adapter, checkpoint.config,
                                     [](const std::string&) { return absl::OkStatus(); });
    EXPECT_TRUE(read.ok()) << read.status();
    auto made = (*device)->LoadAdapter(*read);
    EXPECT_TRUE(made.ok()) << made.status();
    loaded = *made;
    EXPECT_GT(loaded->bytes(), 0);
  }
  return Driver(device->get(), checkpoint.config, loaded).Run();
}

void ExpectSameAsOneDevice(const Checkpoint& checkpoint, int32_t ranks,
                           const std::string& adapter = "") {
  const std::vector<ScoredToken> expected = RunOn(checkpoint, 1, adapter);
  const std::vector<ScoredToken> got = RunOn(checkpoint, ranks, adapter);
  ASSERT_EQ(expected.size(), 70 + 1 + 2 * kDecodeSteps);
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i].token, expected[i].token) << i;
    ASSERT_NEAR(got[i].logprob, expected[i].logprob, kTolerance) << i;
    ASSERT_EQ(got[i].top.size(), 3u);
    for (size_t t = 0; t < 3; ++t) {
      ASSERT_NEAR(got[i].top[t].second, expected[i].top[t].second, kTolerance) << i;
    }
  }
}

Checkpoint RandomCheckpoint(const ModelConfig& config) {
  Checkpoint checkpoint;
  checkpoint.config = config;
  checkpoint.weights = std::make_shared<RandomWeights>(config, 7);
  return checkpoint;
}

ModelConfig WideConfig() {
  ModelConfig config = TinyConfig();
  config.heads = 8;
  config.kv_heads = 4;
  return config;
}

TEST(TensorParallelTest, EverySwitchOfTheFamilies) {
  struct Case {
    const char* name;
    void (*change)(ModelConfig&);
  };
  const Case cases[] = {
      {"llama", [](ModelConfig&) {}},
      {"KV heads on two ranks each", [](ModelConfig& c) { c.kv_heads = 2; }},
      {"one KV head", [](ModelConfig& c) { c.kv_heads = 1; }},
      {"tied", [](ModelConfig& c) { c.tied_embeddings = true; }},
      {"qwen2", [](ModelConfig& c) { c.qkv_bias = true; }},
      {"qwen3", [](ModelConfig& c) { c.qk_norm = true; }},
      {"biased", [](ModelConfig& c) { c.qkv_bias = c.output_bias = true; }},
      {"qwen3_moe",
       [](ModelConfig& c) {
         c.qk_norm = true;
         c.experts = TinyMixtureConfig().experts;
       }},
  };
  for (const Case& c : cases) {
    ModelConfig config = WideConfig();
    c.change(config);
    for (const int32_t ranks : {2, 4}) {
      SCOPED_TRACE(std::string(c.name) + ", ranks: " + std::to_string(ranks));
      ExpectSameAsOneDevice(RandomCheckpoint(config), ranks);
    }
  }
}

TEST(TensorParallelTest, FilesOfEveryFamily) {
  for (const char* file :
       {"tiny-llama", "tiny-llama31.gguf", "tiny-qwen2", "tiny-qwen2.gguf", "tiny-qwen3",
        "tiny-qwen3.gguf", "tiny-qwen3-biased", "tiny-qwen3moe", "tiny-qwen3moe.gguf"}) {
    SCOPED_TRACE(file);
    const auto checkpoint = LoadCheckpoint(std::string("tests/data/") + file, LoadFormat::kAuto);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    ExpectSameAsOneDevice(*checkpoint, 2);
  }
}

TEST(TensorParallelTest, Adapters) {
  for (const char* model : {"llama31", "qwen2"}) {
    SCOPED_TRACE(model);
    const std::string path = std::string("tests/data/tiny-") + model;
    const auto checkpoint = LoadCheckpoint(path, LoadFormat::kAuto);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    ExpectSameAsOneDevice(*checkpoint, 2, path + "-lora");
  }
}

TEST(TensorParallelTest, InfoCountsAllRanks) {
  const Checkpoint checkpoint = RandomCheckpoint(WideConfig());
  const auto one = MakeDevice(checkpoint, 1), two = MakeDevice(checkpoint, 2);
  ASSERT_TRUE(one.ok() && two.ok());
  const DeviceInfo& info = (*two)->info();
  EXPECT_THAT(info.name, HasSubstr("2 ranks of "));
  EXPECT_EQ(info.page_bytes, (*one)->info().page_bytes);
  EXPECT_EQ(info.num_pages, (*one)->info().num_pages);
  int64_t weights = 0;
  for (int32_t rank = 0; rank < 2; ++rank) {
    EXPECT_EQ(2 * (*two)->Memory(rank).kv, (*one)->Memory(0).kv);
    weights += (*two)->Memory(rank).weights;
  }
  EXPECT_EQ(weights, info.weight_bytes);
  // Norms lie on both, and matrices are padded.
  EXPECT_GT(weights, (*one)->Memory(0).weights);
  EXPECT_LT(weights, (*one)->Memory(0).weights + 64 * 1024);
  // A KV head that both have costs both its pages.
  ModelConfig config = WideConfig();
  config.kv_heads = 1;
  const auto shared = MakeDevice(RandomCheckpoint(config), 2);
  ASSERT_TRUE(shared.ok()) << shared.status();
  EXPECT_EQ((*shared)->info().page_bytes, 2 * 2 * 64 * 32 * 4);
}

TEST(TensorParallelTest, WhatCannotBeSharedIsRefusedWithWhatCan) {
  const auto refusal = [](const ModelConfig& config, int32_t ranks) {
    const auto device = MakeDevice(RandomCheckpoint(config), ranks);
    EXPECT_EQ(device.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(device.status().message());
  };
  EXPECT_EQ(refusal(WideConfig(), 3),
            "tensor_parallel_size: 3 ranks cannot share this model: its 8 attention heads; take "
            "one of 1, 2, 4");
  EXPECT_THAT(refusal(WideConfig(), 0), HasSubstr("0 is not at least 1"));
  ModelConfig config = WideConfig();
  config.kv_heads = 3;
  config.heads = 6;
  config.ffn_width = 120;
  EXPECT_THAT(refusal(config, 2), HasSubstr("its 3 KV heads; take one of 1, 3, 6"));
  config = WideConfig();
  config.ffn_width = 110;
  EXPECT_THAT(refusal(config, 4), HasSubstr("width of 110; take one of 1, 2"));
  config = TinyMixtureConfig();
  config.experts->ffn_width = 25;
  EXPECT_THAT(refusal(config, 2), HasSubstr("its experts' width of 25"));
  config = WideConfig();
  config.vocab_size = 20;
  EXPECT_THAT(refusal(config, 4), HasSubstr("its vocabulary of 20; take one of 1, 2"));
}

// Weights of which one read by one rank fails.
class FailingWeights : public WeightSource {
 public:
  // The first one that begins at `row`.
  FailingWeights(const ModelConfig& config, WeightRole role, int64_t row)
      : weights_(config, 7), role_(role), row_(row) {}

  absl::StatusOr<WeightView> Find(WeightKey key) const override {
    absl::StatusOr<WeightView> view = weights_.Find(key);
    if (key.role != role_ || !view.ok()) return view;
    view->read_rows = [this, read = view->read_rows](int64_t first, int64_t count, float* out) {
      if (first == row_ && !failed_.exchange(true)) {
        throw std::runtime_error("the disk is gone");
      }
      read(first, count, out);
    };
    return view;
  }
  int64_t mapped_bytes() const override { return 0; }

 private:
  const RandomWeights weights_;
  const WeightRole role_;
  const int64_t row_;
  mutable std::atomic<bool> failed_ = false;
};

Checkpoint FailingCheckpoint(const ModelConfig& config, WeightRole role, int64_t row) {
  Checkpoint checkpoint;
  checkpoint.config = config;
  checkpoint.weights = std::make_shared<FailingWeights>(config, role, row);
  return checkpoint;
}

Step OneToken(int32_t token) {
  Step step;
  step.tokens = {token};
  step.sequences = {{.slot = 0, .first_row = 0, .query_count = 1, .first_position = 0}};
  step.layer_class.assign(TinyConfig().num_layers, 0);
  step.spans.assign(1, {});
  for (int32_t layer = 0; layer < TinyConfig().num_layers; ++layer) {
    step.page_table_updates.push_back({0, layer, 0, 1 + layer});
  }
  auto greedy = std::make_shared<kernels::SamplingParams>();
  greedy->temperature = 0;
  step.setups.push_back({.slot = 0, .sampling = greedy});
  step.logits.push_back({.row = 0, .slot = 0});
  return step;
}

TEST(TensorParallelTest, AStepThatFailsOnOneRankEndsOnAllAndTheDeviceIsLost) {
  for (const int32_t ranks : {2, 4}) {
    SCOPED_TRACE(ranks);
    // Embedding rows are read while a step is computed.
    auto device =
        MakeDevice(FailingCheckpoint(WideConfig(), WeightRole::kTokenEmbedding, 99), ranks);
    ASSERT_TRUE(device.ok()) << device.status();
    const auto compute = [&](int32_t token) {
      (*device)->Submit(OneToken(token));
      return (*device)->Collect();
    };
    EXPECT_TRUE(compute(3).status.ok());
    // A step that is wrong for all of them is only that.
    Step wrong = OneToken(3);
    wrong.sequences[0].slot = 9;
    (*device)->Submit(wrong);
    const StepResult refused = (*device)->Collect();
    EXPECT_FALSE(refused.status.ok());
    EXPECT_FALSE(refused.device_lost);
    EXPECT_TRUE(compute(3).status.ok());
    const StepResult failed = compute(99);
    EXPECT_EQ(failed.status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(failed.status.message()), HasSubstr("the disk is gone"));
    EXPECT_TRUE(failed.device_lost);
    EXPECT_TRUE(failed.tokens.empty());
    // The read would succeed now; but nobody knows what the ranks have.
    EXPECT_TRUE(compute(99).device_lost);
  }
}

TEST(TensorParallelTest, ARankThatCannotLoadLetsTheOthersGo) {
  const auto device = MakeDevice(FailingCheckpoint(WideConfig(), WeightRole::kFfnNorm, 0), 2);
  EXPECT_EQ(device.status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(device.status().message()), HasSubstr("the disk is gone"));
}

TEST(TensorParallelTest, StepsThatNobodyCollectedHoldNobodyUp) {
  auto device = MakeDevice(RandomCheckpoint(WideConfig()), 4);
  ASSERT_TRUE(device.ok()) << device.status();
  (*device)->Submit(OneToken(3));
  device->reset();
}

}  // namespace
}  // namespace swaa
