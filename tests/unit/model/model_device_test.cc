// The device: steps in and out, page table updates, refusals.

#include "engine/model/model_device.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/model/tiny_model.h"

namespace swaa {
namespace {

using testing::HasSubstr;

Checkpoint TinyCheckpoint() {
  Checkpoint checkpoint;
  checkpoint.config = TinyConfig();
  checkpoint.weights = std::make_shared<RandomWeights>(checkpoint.config, 7);
  return checkpoint;
}

ModelDeviceOptions SmallOptions() {
  ModelDeviceOptions options;
  options.operators = {.dtype = "f32", .threads = 2};
  options.kv_cache_bytes = 8 << 20;
  options.max_step_tokens = 200;
  options.num_slots = 3;
  return options;
}

// A step over positions first .. first + tokens.size() - 1 of a slot that draws greedily from its
// last row.
Step StepOf(const std::vector<int32_t>& tokens, int32_t slot, int32_t first, bool with_pages) {
  Step step;
  step.id = 42;
  step.tokens = tokens;
  const auto count = static_cast<int32_t>(tokens.size());
  step.sequences = {{.slot = slot, .first_row = 0, .query_count = count, .first_position = first}};
  const int32_t layers = TinyConfig().num_layers;
  step.layer_class.assign(layers, 0);
  step.spans.assign(1, {});
  for (int32_t layer = 0; with_pages && layer < layers; ++layer) {
    for (int32_t block = 0; block < 4; ++block) {
      step.page_table_updates.push_back(
          {slot, layer, block, 1 + (slot * layers + layer) * 4 + block});
    }
  }
  auto greedy = std::make_shared<kernels::SamplingParams>();
  greedy->temperature = 0;
  step.setups.push_back({.slot = slot, .sampling = greedy});
  step.logits.push_back({.row = count - 1, .slot = slot, .alternatives = 2});
  return step;
}

std::vector<int32_t> Tokens(int32_t count) {
  std::vector<int32_t> tokens(count);
  for (int32_t i = 0; i < count; ++i) tokens[i] = (i * 37 + 11) % TinyConfig().vocab_size;
  return tokens;
}

StepResult Compute(Device& device, Step step) {
  device.Submit(std::move(step));
  return device.Collect();
}

TEST(ModelDeviceTest, InfoSaysWhatItHas) {
  double progress = 0;
  ModelDeviceOptions options = SmallOptions();
  options.on_progress = [&](double share) { progress = share; };
  auto device = CreateModelDevice(TinyCheckpoint(), options);
  ASSERT_TRUE(device.ok()) << device.status();
  const DeviceInfo& info = (*device)->info();
  EXPECT_EQ(progress, 1.0);
  EXPECT_EQ(info.backend, "cpu");
  EXPECT_EQ(info.num_layers, 3);
  EXPECT_EQ(info.page_bytes, 2 * 2 * 64 * 32 * 4);
  EXPECT_EQ(info.num_pages, (8 << 20) / info.page_bytes);
  EXPECT_EQ(info.num_slots, 3);
  EXPECT_EQ(info.max_pages_per_layer, 512 / 64);
  EXPECT_EQ(info.max_step_tokens, 200);
  EXPECT_EQ(info.max_steps_in_flight, 1);
  EXPECT_GT(info.weight_bytes, 3 * (80 * 320 + 192 * 80 + 3 * 80 * 112) * 4);
  const kernels::MemoryUse memory = (*device)->Memory(0);
  EXPECT_EQ(memory.weights, info.weight_bytes);
  EXPECT_EQ(memory.kv, info.num_pages * info.page_bytes);
  // The page table and the residual stream alone.
  EXPECT_GE(memory.workspace, 3 * 3 * 8 * 4 + 200 * 80 * 4);
  EXPECT_LT(memory.workspace, 64 << 20);
  EXPECT_GT(memory.free, 0);
}

TEST(ModelDeviceTest, GreedyTokenIsTheReferencesAndChunksDrawTheSame) {
  const Checkpoint checkpoint = TinyCheckpoint();
  auto device = CreateModelDevice(checkpoint, SmallOptions());
  ASSERT_TRUE(device.ok()) << device.status();
  const auto tokens = Tokens(150);
  const auto logits =
      ReferenceLogits(checkpoint.config, static_cast<const RandomWeights&>(*checkpoint.weights),
                      tokens, std::vector<kernels::KeySpan>(tokens.size() * 3));
  const auto last = logits.end() - checkpoint.config.vocab_size;
  const auto expected = static_cast<int32_t>(std::max_element(last, logits.end()) - last);

  const StepResult whole = Compute(**device, StepOf(tokens, 0, 0, true));
  ASSERT_TRUE(whole.status.ok()) << whole.status;
  EXPECT_EQ(whole.id, 42u);
  EXPECT_GT(whole.seconds, 0);
  ASSERT_EQ(whole.tokens.size(), 1u);
  EXPECT_EQ(whole.tokens[0].token, expected);
  EXPECT_LT(whole.tokens[0].logprob, 0);
  ASSERT_EQ(whole.tokens[0].top.size(), 2u);
  EXPECT_EQ(whole.tokens[0].top[0].first, expected);

  // Another slot, in two chunks: the page table of the first step is still there in the second.
  Step first = StepOf({tokens.begin(), tokens.begin() + 70}, 2, 0, true);
  first.logits.clear();
  EXPECT_TRUE(Compute(**device, first).tokens.empty());
  const StepResult second =
      Compute(**device, StepOf({tokens.begin() + 70, tokens.end()}, 2, 70, false));
  ASSERT_TRUE(second.status.ok()) << second.status;
  EXPECT_EQ(second.tokens[0].token, expected);
  EXPECT_NEAR(second.tokens[0].logprob, whole.tokens[0].logprob, 1e-4);
}

TEST(ModelDeviceTest, ManyWantedRowsAreScoredInOrder) {
  auto device = CreateModelDevice(TinyCheckpoint(), SmallOptions());
  ASSERT_TRUE(device.ok()) << device.status();
  const auto tokens = Tokens(150);
  Step step = StepOf(tokens, 1, 0, true);
  step.logits.clear();
  for (int32_t row = 0; row + 1 < 150; ++row) {
    step.logits.push_back(
        {.row = row, .slot = 1, .known_token = tokens[row + 1], .alternatives = 0});
  }
  const StepResult result = Compute(**device, step);
  ASSERT_TRUE(result.status.ok()) << result.status;
  ASSERT_EQ(result.tokens.size(), 149u);
  const Checkpoint checkpoint = TinyCheckpoint();
  const auto logits =
      ReferenceLogits(checkpoint.config, static_cast<const RandomWeights&>(*checkpoint.weights),
                      tokens, std::vector<kernels::KeySpan>(tokens.size() * 3));
  const int64_t vocab = checkpoint.config.vocab_size;
  for (int32_t row = 0; row + 1 < 150; ++row) {
    const auto begin = logits.begin() + row * vocab;
    const double sum = std::accumulate(begin, begin + vocab, 0.0,
                                       [](double s, double x) { return s + std::exp(x); });
    EXPECT_EQ(result.tokens[row].token, tokens[row + 1]);
    EXPECT_NEAR(result.tokens[row].logprob, begin[tokens[row + 1]] - std::log(sum), 1e-3) << row;
  }
}

TEST(ModelDeviceTest, WrongStepsFailWithTheirReasonAndTheDeviceGoesOn) {
  auto device = CreateModelDevice(TinyCheckpoint(), SmallOptions());
  ASSERT_TRUE(device.ok()) << device.status();
  struct Case {
    void (*spoil)(Step&);
    const char* message;
  };
  const Case cases[] = {
      {[](Step& s) { s.tokens[3] = 131; }, "step.tokens[3]: 131 is not in 0 .. 130"},
      {[](Step& s) { s.sequences[0].slot = 3; }, "step.sequences.slot[0]: 3"},
      {[](Step& s) { s.sequences[0].query_count = 9; }, "cover 9 rows of 10"},
      {[](Step& s) { s.sequences[0].first_position = 505; }, "last_position[0]: 514"},
      {[](Step& s) { s.spans.pop_back(); }, "step.spans: 0 for 1 sequences and 1 classes"},
      {[](Step& s) { s.layer_class.pop_back(); }, "step.layer_class: 2 classes for 3 layers"},
      {[](Step& s) { s.layer_class[2] = 1; }, "step.spans: 1 for 1 sequences and 2 classes"},
      {[](Step& s) { s.spans[0].window = 0; }, "step.spans[0]: window 0"},
      {[](Step& s) { s.page_table_updates[0].page = 1 << 20; }, "page_table_updates.page[0]"},
      {[](Step& s) { s.logits[0].row = 10; }, "step.logits.row[0]: 10"},
      {[](Step& s) { s.logits[0].slot = 3; }, "step.logits.slot[0]: 3"},
      {[](Step& s) { s.logits[0].known_token = 131; }, "step.logits.known_token[0]: 131"},
      {[](Step& s) { s.setups[0].sampling = nullptr; }, "step.setups[0]: no sampling"},
      {[](Step& s) { s.setups[0].slot = -1; }, "step.setups.slot[0]: -1"},
      {[](Step& s) { s.tokens.resize(201); }, "step.tokens: 201 rows; the device takes 200"},
  };
  for (const Case& c : cases) {
    Step step = StepOf(Tokens(10), 0, 0, true);
    c.spoil(step);
    const StepResult result = Compute(**device, step);
    EXPECT_EQ(result.status.code(), absl::StatusCode::kInternal) << c.message;
    EXPECT_THAT(std::string(result.status.message()), HasSubstr(c.message));
    EXPECT_TRUE(result.tokens.empty());
  }
  EXPECT_TRUE(Compute(**device, StepOf(Tokens(10), 0, 0, true)).status.ok());
}

TEST(ModelDeviceTest, PoolsTooSmallAndTooLargeAreRefused) {
  ModelDeviceOptions options = SmallOptions();
  const int64_t page_bytes = 2 * 2 * 64 * 32 * 4;
  options.kv_cache_bytes = 4 * page_bytes - 1;
  auto small = CreateModelDevice(TinyCheckpoint(), options);
  EXPECT_EQ(small.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(small.status().message()), HasSubstr("kv_cache_bytes: 131071"));
  options.kv_cache_bytes = 4 * page_bytes;
  EXPECT_TRUE(CreateModelDevice(TinyCheckpoint(), options).ok());
  options.kv_cache_bytes = int64_t{1} << 44;
  auto large = CreateModelDevice(TinyCheckpoint(), options);
  EXPECT_EQ(large.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(large.status().message()), HasSubstr("lower kv_cache_bytes to"));
}

TEST(ModelDeviceTest, BadOptionsAndBrokenCheckpointsAreRefused) {
  ModelDeviceOptions options = SmallOptions();
  options.max_step_tokens = -1;
  EXPECT_EQ(CreateModelDevice(TinyCheckpoint(), options).status().code(),
            absl::StatusCode::kInvalidArgument);
  options = SmallOptions();
  options.operators.dtype = "f8";
  EXPECT_EQ(CreateModelDevice(TinyCheckpoint(), options).status().code(),
            absl::StatusCode::kInvalidArgument);
  Checkpoint checkpoint = TinyCheckpoint();
  auto weights = std::make_shared<RandomWeights>(checkpoint.config, 7);
  weights->Remove(WeightRole::kOutputNorm, 0);
  checkpoint.weights = weights;
  EXPECT_EQ(CreateModelDevice(checkpoint, SmallOptions()).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace swaa
