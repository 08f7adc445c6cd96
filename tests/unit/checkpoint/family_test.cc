// Families against transformers: tests/data/configs holds configurations of well-known models'
// shapes, and expected.json what transformers makes of them
// (tests/parity/goldens/make_config_goldens.py).

#include "engine/checkpoint/family.h"

#include <map>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/checkpoint/hf_config.h"
#include "engine/checkpoint/json_file.h"
#include "engine/checkpoint/rope_frequencies.h"
#include "engine/checkpoint/tensor_weights.h"
#include "engine/checkpoint/weight_table.h"
#include "tests/unit/checkpoint/test_files.h"

namespace swaa {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Json = nlohmann::json;

constexpr const char* kConfigs = "tests/data/configs/";

Json ReadConfig(const std::string& name) {
  return Json::parse(ReadWhole(kConfigs + name + ".json"));
}

absl::StatusOr<ModelConfig> Read(const Json& json) { return ReadHfConfig(json, "config.json"); }

// Every weight of a configuration by its name in Hugging Face's files, "{}" for layer and expert.
std::map<std::string, std::vector<int64_t>> Tensors(const ModelConfig& config) {
  std::map<std::string, std::vector<int64_t>> tensors;
  for (const WeightSpec& spec : WeightSpecs()) {
    if (!WeightKeys(spec, config).empty()) {
      tensors[std::string(spec.hugging_face)] = WeightShape(spec, config);
    }
  }
  return tensors;
}

// The weights of a model of that size can be asked for, though there is no memory for them.
void CheckWeightViews(const ModelConfig& config) {
  const auto weights = MakeDummyWeights(config);
  for (const WeightSpec& spec : WeightSpecs()) {
    const std::vector<WeightKey> keys = WeightKeys(spec, config);
    if (keys.empty()) continue;
    const auto view = weights->Find(keys.back());
    ASSERT_TRUE(view.ok()) << view.status();
    const std::vector<int64_t> shape = WeightShape(spec, config);
    EXPECT_EQ(view->columns, shape.back());
    EXPECT_EQ(view->rows, shape.size() == 1 ? 1 : shape.front());
    std::vector<float> row(view->columns);
    view->read_rows(view->rows - 1, 1, row.data());
  }
}

TEST(FamilyTest, TensorsAndRotationsAreTransformers) {
  const Json expected = ReadConfig("expected").at("models");
  ASSERT_GE(expected.size(), 20u);
  for (const auto& [name, want] : expected.items()) {
    SCOPED_TRACE(name);
    const auto config = Read(ReadConfig(name));
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->num_layers, want.at("layers"));
    const auto tensors = want.at("tensors").get<std::map<std::string, std::vector<int64_t>>>();
    EXPECT_EQ(Tensors(*config), tensors);
    const auto frequencies = want.at("inverse_frequencies").get<std::vector<float>>();
    const std::vector<float> got = RopeInverseFrequencies(*config);
    ASSERT_EQ(got.size(), frequencies.size());
    for (size_t i = 0; i < got.size(); ++i) {
      // transformers computes in f32.
      EXPECT_NEAR(got[i], frequencies[i], 3e-6 * frequencies[i]) << i;
    }
    EXPECT_NEAR(RopeAttentionFactor(*config), want.at("attention_factor").get<double>(), 1e-6);
    CheckWeightViews(*config);
  }
}

TEST(FamilyTest, TablesNameEachFamilyOnce) {
  for (const Family& family : AllFamilies()) {
    EXPECT_EQ(FindHfFamily(family.hf_name), &family);
    EXPECT_EQ(FindGgufFamily(family.gguf_arch), &family);
    EXPECT_THAT(HfFamilyNames(), HasSubstr(std::string(family.hf_name)));
    EXPECT_THAT(GgufFamilyNames(), HasSubstr(std::string(family.gguf_arch)));
  }
  EXPECT_EQ(FindHfFamily("gemma3"), nullptr);
}

TEST(FamilyTest, YarnReachesFurtherThanTheConfigurationSays) {
  EXPECT_EQ(Read(ReadConfig("qwen3-4b-yarn"))->max_context_tokens, 131072);
  EXPECT_EQ(Read(ReadConfig("qwen2.5-7b-yarn"))->max_context_tokens, 131072);
  EXPECT_EQ(Read(ReadConfig("qwen3-4b"))->max_context_tokens, 40960);
  EXPECT_EQ(Read(ReadConfig("llama-3.2-1b"))->max_context_tokens, 131072);
}

TEST(FamilyTest, BothVersionsOfTransformersSayTheSame) {
  const auto four = Read(ReadConfig("qwen3-8b"));
  const auto five = Read(ReadConfig("qwen3-8b-saved-by-5"));
  ASSERT_TRUE(four.ok() && five.ok()) << four.status() << five.status();
  EXPECT_EQ(Tensors(*four), Tensors(*five));
  EXPECT_EQ(four->rope_theta, 1000000);
  EXPECT_EQ(five->rope_theta, 1000000);
  // rope_scaling wins where a file has both.
  Json both = ReadConfig("llama-3.1-8b");
  both["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 2}, {"rope_theta", 7}};
  const auto config = Read(both);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(std::holds_alternative<Llama3RopeScaling>(config->rope_scaling));
  EXPECT_EQ(config->rope_theta, 500000);
}

TEST(FamilyTest, HeadDimensionsThatNobodyNames) {
  Json qwen3 = ReadConfig("qwen3-0.6b");
  qwen3.erase("head_dim");
  EXPECT_EQ(Read(qwen3)->head_dim, 128);  // the family's, not 1024 / 16
  EXPECT_EQ(Read(ReadConfig("qwen2.5-0.5b"))->head_dim, 64);
}

TEST(FamilyTest, WindowsOfTheMakersAreRefusedWhereTheyHaveAnEffect) {
  const Json plain = ReadConfig("qwen2.5-0.5b");  // 24 layers, the window's first 21
  const struct {
    const char* what;
    Json changes;
    bool served;
  } cases[] = {
      {"off", {{"use_sliding_window", false}, {"sliding_window", 16}}, true},
      {"on", {{"use_sliding_window", true}, {"sliding_window", 4096}}, false},
      {"no window", {{"use_sliding_window", true}, {"sliding_window", nullptr}}, true},
      {"as wide as the context", {{"use_sliding_window", true}, {"sliding_window", 32768}}, true},
      {"no layer of it",
       {{"use_sliding_window", true}, {"max_window_layers", 24}, {"sliding_window", 64}},
       true},
      {"from the first layer",
       {{"use_sliding_window", true}, {"max_window_layers", 0}, {"sliding_window", 64}},
       false},
      {"layer types say no",
       {{"use_sliding_window", true},
        {"sliding_window", 64},
        {"layer_types", std::vector<std::string>(24, "full_attention")}},
       true},
      {"layer types say yes",
       {{"use_sliding_window", true},
        {"sliding_window", 64},
        {"max_window_layers", 24},
        {"layer_types", std::vector<std::string>(24, "sliding_attention")}},
       false},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.what);
    Json changed = plain;
    changed.update(c.changes);
    const auto config = Read(changed);
    EXPECT_EQ(config.ok(), c.served) << config.status();
    if (c.served) continue;
    EXPECT_TRUE(absl::IsUnimplemented(config.status()));
    EXPECT_THAT(std::string(config.status().message()), HasSubstr("use_sliding_window: true"));
    EXPECT_THAT(std::string(config.status().message()), HasSubstr("set it to false"));
  }
}

TEST(FamilyTest, ReadsMixturesOfExperts) {
  Json json = ReadConfig("qwen3-30b-a3b");
  const auto config = Read(json);
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_TRUE(config->experts.has_value());
  EXPECT_EQ(config->experts->count, 128);
  EXPECT_EQ(config->experts->per_token, 8);
  EXPECT_EQ(config->experts->ffn_width, 768);
  EXPECT_TRUE(config->experts->normalize);
  EXPECT_THAT(config->experts->dense_layers, ElementsAre());
  json["num_hidden_layers"] = 6;
  json["decoder_sparse_step"] = 2;
  json["mlp_only_layers"] = {5};
  json["num_local_experts"] = json["num_experts"];  // as transformers 5 writes it
  json.erase("num_experts");
  EXPECT_THAT(Read(json)->experts->dense_layers, ElementsAre(0, 2, 4, 5));
  json["mlp_only_layers"] = {0, 1, 2, 3, 4, 5};
  EXPECT_FALSE(Read(json)->experts.has_value());
  json["num_experts_per_tok"] = 129;
  EXPECT_THAT(std::string(Read(json).status().message()), HasSubstr("num_experts_per_tok: '129'"));
}

TEST(FamilyTest, MixturesOfPublishedSizeNeedNoFileOfWeights) {
  TempFolder folder;
  Json json = ReadConfig("qwen3-30b-a3b");
  json["vocab_size"] = 320;
  json["eos_token_id"] = 2;
  folder.Write("config.json", json.dump());
  folder.Write("tokenizer.json", ReadWhole("tests/data/tiny-llama/tokenizer.json"));
  const auto checkpoint = LoadCheckpoint(folder.path(), LoadFormat::kDummy);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  size_t matrices = 0;
  for (const WeightSpec& spec : WeightSpecs()) {
    const std::vector<WeightKey> keys = WeightKeys(spec, checkpoint->config);
    if (spec.per == WeightPer::kExpert) matrices += keys.size();
  }
  EXPECT_EQ(matrices, 48u * 128 * 3);
  std::vector<float> row(2048), other(2048);
  checkpoint->weights->Find({WeightRole::kExpertUp, 47, 127})->read_rows(767, 1, row.data());
  checkpoint->weights->Find({WeightRole::kExpertUp, 47, 126})->read_rows(767, 1, other.data());
  EXPECT_NE(row, other);
  for (const WeightKey key :
       {WeightKey{WeightRole::kExpertUp, 47, 128}, WeightKey{WeightRole::kExpertUp, 48, 0},
        WeightKey{WeightRole::kFfnUp, 0, 0}}) {
    EXPECT_TRUE(absl::IsNotFound(checkpoint->weights->Find(key).status()));
  }
}

TEST(FamilyTest, MixturesOfImpossibleSizeAreRefused) {
  const struct {
    Json changes;
    const char* message;
  } cases[] = {
      {{{"num_experts", 0}}, "num_experts"},
      {{{"num_experts", 5000}}, "num_experts"},
      {{{"num_experts_per_tok", 0}}, "num_experts_per_tok"},
      {{{"moe_intermediate_size", 40000}}, "feed-forward width of 128 experts: 40000"},
      {{{"mlp_only_layers", 3}}, "mlp_only_layers: is not a list"},
      {{{"decoder_sparse_step", 0}}, "decoder_sparse_step"},
  };
  for (const auto& c : cases) {
    Json changed = ReadConfig("qwen3-30b-a3b");
    changed.update(c.changes);
    const auto config = Read(changed);
    EXPECT_TRUE(absl::IsInvalidArgument(config.status())) << config.status();
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(c.message));
  }
}

}  // namespace
}  // namespace swaa
