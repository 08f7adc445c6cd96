// Hugging Face folders: configurations, defaults, shards, and what is refused.

#include "engine/checkpoint/hf_folder.h"

#include <bit>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/checkpoint/checkpoint.h"
#include "tests/unit/checkpoint/hf_folder_fixture.h"
#include "tests/unit/testing/seed.h"

namespace swaa {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

TEST_F(HfFolderTest, ReadsASingleFile) {
  const auto checkpoint = LoadCheckpoint(kTiny, LoadFormat::kAuto);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const ModelConfig& config = checkpoint->config;
  EXPECT_EQ(config.architecture, "llama");
  EXPECT_EQ(config.num_layers, 2);
  EXPECT_EQ(config.hidden, 32);
  EXPECT_EQ(config.ffn_width, 64);
  EXPECT_EQ(config.heads, 4);
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.head_dim, 32);
  EXPECT_EQ(config.vocab_size, 320);
  EXPECT_EQ(config.max_context_tokens, 512);
  EXPECT_EQ(config.norm_epsilon, 1e-5f);
  EXPECT_EQ(config.rope_theta, 10000);
  EXPECT_TRUE(config.tied_embeddings);
  EXPECT_EQ(config.rope_scaling.index(), 0u);
  EXPECT_FLOAT_EQ(checkpoint->generation.temperature.value(), 0.6f);
  EXPECT_FLOAT_EQ(checkpoint->generation.top_p.value(), 0.9f);
  EXPECT_FALSE(checkpoint->generation.min_p.has_value());
  EXPECT_EQ(checkpoint->tokenizer.tokens.size(), 320u);
  EXPECT_EQ(checkpoint->tokenizer.pre_tokenizer, PreTokenizer::kSmolLm);
  EXPECT_THAT(checkpoint->tokenizer.eos_ids, ::testing::UnorderedElementsAre(2, 0));
  EXPECT_THAT(checkpoint->tokenizer.chat_template, HasSubstr("<|im_start|>"));
  EXPECT_EQ(ReadEverything(*checkpoint),
            320 * 32 + 32 + 2 * (2 * 32 + 2 * 128 * 32 + 2 * 64 * 32 + 3 * 64 * 32));
  EXPECT_GT(checkpoint->weights->mapped_bytes(), 190000);
}

TEST_F(HfFolderTest, ReadsShards) {
  const auto checkpoint = LoadCheckpoint(kSharded, LoadFormat::kAuto);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_FALSE(checkpoint->config.tied_embeddings);
  const auto* scaling = std::get_if<Llama3RopeScaling>(&checkpoint->config.rope_scaling);
  ASSERT_NE(scaling, nullptr);
  EXPECT_EQ(scaling->factor, 8);
  EXPECT_EQ(scaling->low_freq_factor, 1);
  EXPECT_EQ(scaling->high_freq_factor, 4);
  EXPECT_EQ(scaling->original_context, 64);
  EXPECT_EQ(ReadEverything(*checkpoint),
            2 * 320 * 32 + 32 + 2 * (2 * 32 + 2 * 128 * 32 + 2 * 64 * 32 + 3 * 64 * 32));
}

TEST_F(HfFolderTest, TellsWhereMatricesLieInBf16) {
  const auto checkpoint = LoadCheckpoint(kSharded, LoadFormat::kAuto);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  for (const WeightRole role : {WeightRole::kQuery, WeightRole::kFfnDown, WeightRole::kFfnNorm}) {
    const auto view = checkpoint->weights->Find({role, 1});
    ASSERT_TRUE(view.ok()) << view.status();
    ASSERT_NE(view->stored_bf16(), nullptr);
    const std::vector<float> values = ReadAll(*checkpoint, role, 1);
    for (size_t i = 0; i < values.size(); ++i) {
      uint16_t bits;
      std::memcpy(&bits, view->stored_bf16() + 2 * i, sizeof(bits));
      ASSERT_EQ(std::bit_cast<float>(uint32_t{bits} << 16), values[i]) << i;
    }
  }
}

TEST_F(HfFolderTest, OldFormsOfTheRotaryKeysMeanTheSame) {
  Copy(kSharded);
  Json config = ReadJson("config.json");
  Json scaling = config["rope_parameters"];
  scaling.erase("rope_theta");
  scaling["type"] = scaling["rope_type"];
  scaling.erase("rope_type");
  config.erase("rope_parameters");
  config["rope_theta"] = 5000;
  config["rope_scaling"] = scaling;
  folder_.Write("config.json", config.dump());
  const auto checkpoint = Load();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->config.rope_theta, 5000);
  EXPECT_EQ(std::get<Llama3RopeScaling>(checkpoint->config.rope_scaling).original_context, 64);
}

TEST_F(HfFolderTest, TheTemplateMayLieInAFileOfItsOwn) {
  Copy(kTiny);
  folder_.Write("chat_template.jinja", "{{ other }}");
  const auto checkpoint = Load();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->tokenizer.chat_template, "{{ other }}");
}

TEST_F(HfFolderTest, EndTokensComeFromTheConfigurationWithoutGenerationConfig) {
  Copy(kTiny);
  std::filesystem::remove(folder_.File("generation_config.json"));
  Json config = ReadJson("config.json");
  config["eos_token_id"] = {7, 2};
  folder_.Write("config.json", config.dump());
  const auto checkpoint = Load();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT(checkpoint->tokenizer.eos_ids, ::testing::UnorderedElementsAre(2, 7));
  EXPECT_FALSE(checkpoint->generation.temperature.has_value());
}

TEST_F(HfFolderTest, RefusesConfigurations) {
  const struct {
    const char* key;
    Json value;
    absl::StatusCode code;
    const char* message;
  } cases[] = {
      {"model_type", "gemma3", kUnimplemented, "model_type: '\\\"gemma3\\\"' is not supported"},
      {"model_type", nullptr, kInvalid, "model_type: is missing"},
      {"hidden_act", "gelu", kUnimplemented, "hidden_act"},
      {"mlp_bias", true, kUnimplemented, "mlp_bias"},
      {"quantization_config", {{"bits", 4}}, kUnimplemented, "quantization_config"},
      {"partial_rotary_factor", 0.5, kUnimplemented, "partial_rotary_factor"},
      {"rope_parameters", {{"rope_type", "longrope"}}, kUnimplemented, "rope_type"},
      {"rope_parameters", {{"rope_type", "linear"}}, kInvalid, "factor: is missing"},
      {"rope_parameters", {{"rope_type", "linear"}, {"factor", 0}}, kInvalid, "factor 0"},
      {"rope_parameters", {{"rope_type", "yarn"}, {"factor", -1}}, kInvalid, "YaRN"},
      {"rope_parameters", {{"partial_rotary_factor", 0.5}}, kUnimplemented, "partial_rotary"},
      {"rope_parameters", {{"rope_type", "llama3"}}, kInvalid, "factor: is missing"},
      {"rope_parameters", 3, kInvalid, "rope_parameters: is not an object"},
      {"rope_scaling", {{"type", "dynamic"}}, kUnimplemented, "dynamic"},
      {"rope_theta", "x", kInvalid, "rope_theta: '\\\"x\\\"' is not a number"},
      {"hidden_size", nullptr, kInvalid, "hidden_size: is missing"},
      {"hidden_size", -1, kInvalid, "hidden_size: '-1' is not an integer between 1"},
      {"hidden_size", 32.0, kInvalid, "is not an integer"},
      {"hidden_size", ~uint64_t{0}, kInvalid, "is not an integer between 1"},
      {"hidden_size", 64, kInvalid,
       "has shape [320, 32], but the configuration asks for [320, 64]"},
      {"num_hidden_layers", 3, kInvalid, "'model.layers.2.input_layernorm.weight'"},
      {"num_hidden_layers", 1, kUnimplemented,
       "'model.layers.1.input_layernorm.weight' is no part"},
      {"num_key_value_heads", 3, kInvalid, "do not divide among 3 KV heads"},
      {"head_dim", 31, kInvalid, "head dimension 31 is odd"},
      {"rms_norm_eps", 0, kInvalid, "norm epsilon 0"},
      {"tie_word_embeddings", 1, kInvalid, "tie_word_embeddings: '1' is not a bool"},
      {"tie_word_embeddings", false, kInvalid, "'lm_head.weight' of shape [320, 32] is missing"},
      {"attention_bias", true, kInvalid, "'model.layers.0.self_attn.q_proj.bias'"},
      {"vocab_size", 319, kInvalid, "320"},
  };
  for (const auto& bad : cases) {
    SCOPED_TRACE(std::string(bad.key) + " " + bad.value.dump());
    Copy(kTiny);
    Json config = ReadJson("config.json");
    config[bad.key] = bad.value;
    folder_.Write("config.json", config.dump());
    ExpectRefusal(bad.code, bad.message);
  }
}

TEST_F(HfFolderTest, RefusesGenerationConfigurations) {
  const struct {
    const char* json;
    const char* message;
  } cases[] = {
      {R"({"temperature":-1})", "temperature: -1"},
      {R"({"top_p":0})", "top_p: 0"},
      {R"({"top_p":1.5})", "top_p: 1.5"},
      {R"({"top_k":-1})", "top_k"},
      {R"({"min_p":2})", "min_p: 2"},
      {R"({"eos_token_id":320})", "'320' is no token"},
      {R"({"eos_token_id":[1,"x"]})", "is no token"},
      {R"({"repetition_penalty":0})", "repetition_penalty: 0 is outside (0, 2]"},
      {R"({"repetition_penalty":2.5})", "repetition_penalty: 2.5 is outside (0, 2]"},
      {R"({"top_k":1,"top_k":2})", "'top_k' twice"},
      {R"([])", "not an object"},
      {R"({"a":)", "offset"},
      {"{\"\xFF\":1}", "last read: '\"\xEF\xBF\xBD'"},
  };
  Copy(kTiny);
  for (const auto& bad : cases) {
    SCOPED_TRACE(bad.json);
    folder_.Write("generation_config.json", bad.json);
    ExpectRefusal(kInvalid, bad.message);
  }
}

TEST_F(HfFolderTest, RefusesMissingFiles) {
  for (const char* name : {"config.json", "tokenizer.json", "model.safetensors"}) {
    Copy(kTiny);
    std::filesystem::remove(folder_.File(name));
    ExpectRefusal(absl::StatusCode::kNotFound, name);
  }
  Copy(kSharded);
  std::filesystem::remove(folder_.File("model.safetensors"));
  std::filesystem::remove(folder_.File("model-00002-of-00003.safetensors"));
  ExpectRefusal(absl::StatusCode::kNotFound, "model-00002-of-00003.safetensors");
}

TEST_F(HfFolderTest, RefusesIndicesThatDoNotFit) {
  Copy(kSharded);
  const Json index = ReadJson("model.safetensors.index.json");
  const std::string norm = "model.norm.weight";
  const auto with = [&](const std::string& tensor, const Json& shard) {
    Json changed = index;
    changed["weight_map"][tensor] = shard;
    folder_.Write("model.safetensors.index.json", changed.dump());
  };
  with(norm, "../model-00001-of-00003.safetensors");
  ExpectRefusal(kInvalid, "'model.norm.weight' names no file of the folder");
  with(norm, 7);
  ExpectRefusal(kInvalid, "names no file of the folder");
  with(norm, "..");
  ExpectRefusal(kInvalid, "names no file of the folder");
  with("other", index["weight_map"][norm]);
  ExpectRefusal(kInvalid, "tensor 'other' is missing, but the index names it");
  folder_.Write("model.safetensors.index.json", "{}");
  ExpectRefusal(kInvalid, "weight_map: is missing");
}

TEST_F(HfFolderTest, SurvivesFlippedBytes) {
  Copy(kTiny);
  const uint32_t seed = testing::Seed();
  std::mt19937 random(seed);
  for (const char* name :
       {"config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"}) {
    const std::string whole = ReadWhole(folder_.File(name));
    for (int round = 0; round < 150; ++round) {
      std::string bytes = whole;
      bytes[random() % bytes.size()] = static_cast<char>(random() % 256);
      if (round % 3 == 0) bytes.resize(random() % bytes.size());
      folder_.Write(name, bytes);
      const auto checkpoint = Load();
      if (!checkpoint.ok()) continue;
      ASSERT_GT(ReadEverything(*checkpoint), 0) << "seed " << seed << " round " << round;
      for (const int32_t id : checkpoint->tokenizer.eos_ids) ASSERT_LT(id, 320);
    }
    folder_.Write(name, whole);
  }
}

}  // namespace
}  // namespace swaa
