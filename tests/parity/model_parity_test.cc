// The model as the engine drives it, checkpoint to log-probabilities, against
// float32 by Hugging Face transformers and by a plain PyTorch forward under recipes.

#include <algorithm>
#include <cmath>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/peft_adapter.h"
#include "engine/model/model_device.h"
#include "tests/parity/devices_under_test.h"
#include "tests/parity/golden_cases.h"
#include "tests/parity/test_model.h"

namespace swaa {
namespace {

constexpr int32_t kChunk =
    100;  // rows of a step; no multiple of a page, so that pages are written in parts

// Differences over a case.
class Differences {
 public:
  void Add(double got, double want) {
    const double difference = std::isfinite(got) ? std::fabs(got - want) : INFINITY;
    sum_ += difference;
    worst_ = std::max(worst_, difference);
    ++count_;
  }
  void Check(const DeviceUnderTest& device, const std::string& case_name) const {
    const std::string name = case_name + ", " + device.name;
    ASSERT_GT(count_, 0) << name;
    std::cout << name << ": " << count_ << " log-probabilities, mean difference " << sum_ / count_
              << ", worst " << worst_ << std::endl;
    EXPECT_LE(sum_ / count_, device.mean_tolerance) << name;
    EXPECT_LE(worst_, device.worst_tolerance) << name;
  }

 private:
  double sum_ = 0;
  double worst_ = 0;
  int64_t count_ = 0;
};

bool Contains(const std::vector<int32_t>& list, int32_t value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

// One sequence at a time in slot 0, its pages in order from 1.
class ModelUnderTest {
 public:
  // `adapter`: the folder of one that every row has; empty: none.
  ModelUnderTest(const std::string& path, const DeviceUnderTest& under_test,
                 const std::string& adapter = "") {
    absl::StatusOr<Checkpoint> checkpoint = LoadCheckpoint(path, LoadFormat::kAuto);
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    if (!checkpoint.ok()) return;
    ModelDeviceOptions options;
    options.operators = under_test.operators;
    options.kv_cache_bytes = int64_t{512} << 20;
    options.max_step_tokens = kChunk;
    options.num_slots = 1;
    absl::StatusOr<std::unique_ptr<Device>> device = CreateModelDevice(*checkpoint, options);
    EXPECT_TRUE(device.ok()) << device.status();
    if (!device.ok()) return;
    if (!adapter.empty()) {
      const auto read = ReadPeftFolder(adapter, checkpoint->config,
                                       [](const std::string&) { return absl::OkStatus(); });
      EXPECT_TRUE(read.ok()) << read.status();
      if (!read.ok()) return;
      const auto loaded = (*device)->LoadAdapter(*read);
      EXPECT_TRUE(loaded.ok()) << loaded.status();
      if (!loaded.ok()) return;
      adapter_ = *loaded;
    }
    device_ = *std::move(device);
  }

  bool ok() const { return device_ != nullptr; }

  // The token after each of `tokens`, which begin at `position`: known ones scored with the two
  // most likely beside them; the last, where nothing is known, drawn.
  std::vector<ScoredToken> Run(const GoldenCase& c, int32_t position,
                               const std::vector<int32_t>& tokens,
                               const std::vector<int32_t>& following) {
    const DeviceInfo& info = device_->info();
    Step step;
    step.id = ++steps_;
    step.tokens = tokens;
    step.sequences = {{.slot = 0,
                       .first_row = 0,
                       .query_count = static_cast<int32_t>(tokens.size()),
                       .first_position = position}};
    if (adapter_ != nullptr) {
      step.adapters = {adapter_};
      step.sequence_adapters = {0};
    }
    const int32_t end = position + static_cast<int32_t>(tokens.size());
    for (int32_t layer = 0; layer < info.num_layers; ++layer) {
      step.layer_class.push_back(static_cast<uint8_t>(layer));
      step.spans.push_back(Span(c, layer, position >= c.prompt_tokens));
      for (int32_t block = position / kernels::kPageTokens; block * kernels::kPageTokens < end;
           ++block) {
        step.page_table_updates.push_back({.slot = 0,
                                           .layer = layer,
                                           .block = block,
                                           .page = 1 + block * info.num_layers + layer});
      }
    }
    if (position == 0) {
      step.setups.push_back({.slot = 0,
                             .sampling = std::make_shared<kernels::SamplingParams>(
                                 kernels::SamplingParams{.temperature = 0})});
    }
    for (size_t row = 0; row < tokens.size(); ++row) {
      LogitsRow& logits = step.logits.emplace_back();
      logits.row = static_cast<int32_t>(row);
      logits.alternatives = 2;
      if (row < following.size()) logits.known_token = following[row];
    }
    device_->Submit(std::move(step));
    StepResult result = device_->Collect();
    EXPECT_TRUE(result.status.ok()) << result.status;
    EXPECT_EQ(result.tokens.size(), tokens.size());
    return std::move(result.tokens);
  }

  // All of the case's tokens in chunks that do not cross from the prompt into what is decoded.
  std::vector<ScoredToken> RunAll(const GoldenCase& c) {
    std::vector<ScoredToken> scored;
    const auto count = static_cast<int32_t>(c.tokens.size());
    for (int32_t first = 0; first < count;) {
      int32_t last = std::min(first + kChunk, count);
      if (first < c.prompt_tokens) last = std::min(last, c.prompt_tokens);
      // Decoded rows in steps of three: one by one is what generation does, more is what forcing
      // does.
      if (first >= c.prompt_tokens) last = std::min(last, first + 3);
      const std::vector<int32_t> tokens(c.tokens.begin() + first, c.tokens.begin() + last);
      const std::vector<int32_t> following(c.tokens.begin() + first + 1,
                                           c.tokens.begin() + std::min(last + 1, count));
      for (ScoredToken& token : Run(c, first, tokens, following))
        scored.push_back(std::move(token));
      first = last;
    }
    return scored;
  }

 private:
  // Which keys a row sees: by layer, and by whether its position is decoded.
  static kernels::KeySpan Span(const GoldenCase& c, int32_t layer, bool decoding) {
    if (c.window == 0 || Contains(c.full_layers, layer)) return {};
    if (decoding && Contains(c.full_decode_layers, layer)) return {};
    return {.window = c.window, .sinks = c.sinks};
  }

  std::unique_ptr<Device> device_;
  std::shared_ptr<const DeviceAdapter> adapter_;
  uint64_t steps_ = 0;
};

// Feeds the golden's own tokens, so that one near tie does not end the comparison.
void CheckGreedy(ModelUnderTest* model, const GoldenCase& c, ScoredToken drawn,
                 const DeviceUnderTest& device, Differences* differences) {
  auto position = static_cast<int32_t>(c.tokens.size());
  for (size_t t = 0; t < c.greedy.tokens.size(); ++t) {
    ASSERT_EQ(drawn.top.size(), 2u);
    differences->Add(drawn.top[0].second, c.greedy.best[t]);
    differences->Add(drawn.top[1].second, c.greedy.second[t]);
    if (c.greedy.best[t] - c.greedy.second[t] > device.worst_tolerance) {
      EXPECT_EQ(drawn.token, c.greedy.tokens[t]) << c.name << ": continuation, token " << t;
    }
    drawn = model->Run(c, position++, {c.greedy.tokens[t]}, {}).front();
  }
}

void CheckFullCase(ModelUnderTest* model, const GoldenCase& c, const DeviceUnderTest& device) {
  const std::vector<ScoredToken> scored = model->RunAll(c);
  ASSERT_EQ(scored.size(), c.tokens.size());
  Differences differences;
  for (size_t i = 0; i < scored.size(); ++i) {
    ASSERT_EQ(scored[i].top.size(), 2u);
    if (i + 1 < scored.size()) differences.Add(scored[i].logprob, c.logprobs[i]);
    differences.Add(scored[i].top[0].second, c.best[i]);
    differences.Add(scored[i].top[1].second, c.second[i]);
  }
  CheckGreedy(model, c, scored.back(), device, &differences);
  differences.Check(device, c.name);
}

class ModelParityTest : public testing::TestWithParam<DeviceUnderTest> {};

TEST_P(ModelParityTest, DefaultModelUnderFullAttention) {
  ModelUnderTest model(TestModelPath(), GetParam());
  ASSERT_TRUE(model.ok());
  const std::vector<GoldenCase> cases = ReadFullCases("full_attention.json");
  ASSERT_GE(cases.size(), 6u);
  for (const GoldenCase& c : cases) CheckFullCase(&model, c, GetParam());
}

TEST_P(ModelParityTest, DefaultModelUnderRecipes) {
  ModelUnderTest model(TestModelPath(), GetParam());
  ASSERT_TRUE(model.ok());
  const std::vector<GoldenCase> cases = ReadRecipeCases();
  ASSERT_GE(cases.size(), 8u);
  for (const GoldenCase& c : cases) {
    const std::vector<ScoredToken> scored = model.RunAll(c);
    ASSERT_EQ(scored.size(), c.tokens.size());
    Differences prompt;
    Differences forced;
    for (int32_t i = 0; i + 1 < static_cast<int32_t>(scored.size()); ++i) {
      // Row i scores token i + 1; the first decoded row is that of the first token after the
      // prompt.
      (i < c.prompt_tokens ? prompt : forced).Add(scored[i].logprob, c.logprobs[i]);
    }
    prompt.Check(GetParam(), c.name + ", prompt");
    forced.Check(GetParam(), c.name + ", forced");
  }
}

TEST_P(ModelParityTest, TinyModelsFromFolders) {
  if (!GetParam().small_heads) GTEST_SKIP() << "no attention for heads of 32 dimensions";
  const std::vector<GoldenCase> cases = ReadFullCases("tiny.json");
  ASSERT_EQ(cases.size(), 2u);
  for (const GoldenCase& c : cases) {
    ModelUnderTest model("tests/data/" + c.model, GetParam());
    ASSERT_TRUE(model.ok());
    CheckFullCase(&model, c, GetParam());
  }
}

TEST_P(ModelParityTest, TinyModelsOfEachFamily) {
  if (!GetParam().small_heads) GTEST_SKIP() << "no attention for heads of 32 dimensions";
  const std::vector<GoldenCase> cases = ReadFullCases("families.json");
  ASSERT_EQ(cases.size(), 10u);
  for (const GoldenCase& c : cases) {
    ModelUnderTest model("tests/data/" + c.model, GetParam());
    ASSERT_TRUE(model.ok());
    CheckFullCase(&model, c, GetParam());
  }
}

TEST_P(ModelParityTest, AdaptersAsPeftComputesThem) {
  if (!GetParam().small_heads) GTEST_SKIP() << "no attention for heads of 32 dimensions";
  const std::vector<GoldenCase> cases = ReadFullCases("lora.json");
  ASSERT_EQ(cases.size(), 3u);
  for (const GoldenCase& c : cases) {
    ModelUnderTest model("tests/data/" + c.model, GetParam(), "tests/data/" + c.adapter);
    ASSERT_TRUE(model.ok());
    CheckFullCase(&model, c, GetParam());
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, ModelParityTest, testing::ValuesIn(DevicesUnderTest()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace swaa
