// Random weights in place of a checkpoint's.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/checkpoint/tensor_weights.h"
#include "tests/unit/checkpoint/gguf_builder.h"
#include "tests/unit/checkpoint/test_files.h"

namespace swaa {
namespace {

Checkpoint LoadDummy(const std::string& path) {
  absl::StatusOr<Checkpoint> checkpoint = LoadCheckpoint(path, LoadFormat::kDummy);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return checkpoint.ok() ? *std::move(checkpoint) : Checkpoint();
}

TEST(DummyWeightsTest, NeedNoFileOfWeights) {
  TempFolder folder;
  for (const char* name : {"config.json", "tokenizer.json"}) {
    std::filesystem::copy_file(std::string("tests/data/tiny-llama/") + name, folder.File(name));
  }
  const Checkpoint checkpoint = LoadDummy(folder.path());
  ASSERT_NE(checkpoint.weights, nullptr);
  EXPECT_EQ(ReadEverything(checkpoint),
            320 * 32 + 32 + 2 * (2 * 32 + 2 * 128 * 32 + 2 * 64 * 32 + 3 * 64 * 32));
  EXPECT_EQ(checkpoint.weights->mapped_bytes(), 0);
}

TEST(DummyWeightsTest, IgnoreTheTensorsOfAGguf) {
  TempFolder folder;
  const Checkpoint checkpoint = LoadDummy(folder.Write("tiny.gguf", TinyGguf().Build()));
  ASSERT_NE(checkpoint.weights, nullptr);
  for (const float value : ReadAll(checkpoint, WeightRole::kAttentionNorm, 0)) EXPECT_EQ(value, 1);
  for (const float value : ReadAll(checkpoint, WeightRole::kQuery, 0)) EXPECT_LT(value, 1);
}

TEST(DummyWeightsTest, AreTheSameHoweverTheyAreReadAndDifferBetweenWeights) {
  ModelConfig config;
  config.num_layers = 2;
  config.hidden = 64;
  config.ffn_width = 512;
  config.heads = config.kv_heads = 1;
  config.head_dim = 64;
  config.vocab_size = 100;
  const Checkpoint one{.config = config, .weights = MakeDummyWeights(config)};
  const Checkpoint other{.config = config, .weights = MakeDummyWeights(config)};
  const std::vector<float> values = ReadAll(one, WeightRole::kFfnUp, 1);
  EXPECT_EQ(values, ReadAll(other, WeightRole::kFfnUp, 1));
  EXPECT_NE(values, ReadAll(one, WeightRole::kFfnUp, 0));
  EXPECT_NE(values, ReadAll(one, WeightRole::kFfnGate, 1));
  const auto view = one.weights->Find({WeightRole::kFfnUp, 1});
  std::vector<float> rows(2 * 64);
  view->read_rows(300, 2, rows.data());
  EXPECT_TRUE(std::equal(rows.begin(), rows.end(), values.begin() + 300 * 64));

  double sum = 0;
  double squares = 0;
  for (const float value : values) {
    sum += value;
    squares += value * value;
  }
  const double count = static_cast<double>(values.size());
  EXPECT_NEAR(sum / count, 0, 0.001);
  EXPECT_NEAR(std::sqrt(squares / count), 0.02, 0.001);
}

TEST(DummyWeightsTest, HaveWhatTheConfigurationHas) {
  ModelConfig config;
  config.num_layers = 1;
  config.tied_embeddings = true;
  const auto weights = MakeDummyWeights(config);
  EXPECT_TRUE(absl::IsNotFound(weights->Find({WeightRole::kOutput, 0}).status()));
  EXPECT_TRUE(absl::IsNotFound(weights->Find({WeightRole::kQueryBias, 0}).status()));
  EXPECT_TRUE(absl::IsNotFound(weights->Find({WeightRole::kQuery, 1}).status()));
  EXPECT_TRUE(weights->Find({WeightRole::kOutputNorm, 0}).ok());
}

}  // namespace
}  // namespace swaa
