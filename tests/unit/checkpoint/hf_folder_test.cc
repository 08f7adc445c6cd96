// tests/data/tiny-llama is a single file of F32, tiny-llama-sharded
// three of BF16 with an output matrix of its own and Llama 3's rope scaling.

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
#include "tests/unit/checkpoint/gguf_builder.h"
#include "tests/unit/checkpoint/test_files.h"

namespace swaa {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Json = nlohmann::json;

constexpr const char* kTiny = "tests/data/tiny-llama";
constexpr const char* kSharded = "tests/data/tiny-llama-sharded";
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

// A copy of a model's folder, to be spoiled.
class HfFolderTest : public testing::Test {
 protected:
  void Copy(const std::string& from) {
    for (const auto& entry : std::filesystem::directory_iterator(from)) {
      std::filesystem::copy_file(entry.path(), folder_.File(entry.path().filename().string()),
                                 std::filesystem::copy_options::overwrite_existing);
    }
  }
  absl::StatusOr<Checkpoint> Load(LoadFormat format = LoadFormat::kAuto) {
    return LoadCheckpoint(folder_.path(), format);
  }
  Json ReadJson(const std::string& name) { return Json::parse(ReadWhole(folder_.File(name))); }
  void ExpectRefusal(absl::StatusCode code, const std::string& message) {
    const auto checkpoint = Load();
    ASSERT_FALSE(checkpoint.ok());
    EXPECT_EQ(checkpoint.status().code(), code) << checkpoint.status();
    EXPECT_THAT(std::string(checkpoint.status().message()), HasSubstr(message));
    EXPECT_THAT(std::string(checkpoint.status().message()), HasSubstr(folder_.path()));
  }
  TempFolder folder_;
};

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
  EXPECT_THAT(checkpoint->tokenizer.eos_ids, testing::UnorderedElementsAre(2, 0));
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
  EXPECT_THAT(checkpoint->tokenizer.eos_ids, testing::UnorderedElementsAre(2, 7));
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

TEST_F(HfFolderTest, DropsWhatNothingNeeds) {
  Copy(kTiny);
  SafetensorsText file(ReadWhole(folder_.File("model.safetensors")));
  // A frequency tensor of early conversions, a tensor without elements, and an output matrix that
  // is the embedding.
  file.Add("model.layers.0.self_attn.rotary_emb.inv_freq", {1}, std::string(4, '\0'));
  file.Add("model.layers.0.self_attn.nothing", {0, 7}, "");
  file.Add("lm_head.weight", {320, 32}, file.Data("model.embed_tokens.weight"));
  folder_.Write("model.safetensors", file.Build());
  const auto checkpoint = Load();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE(checkpoint->config.tied_embeddings);
  EXPECT_THAT(checkpoint->warnings, ElementsAre());
}

TEST_F(HfFolderTest, AnOutputMatrixOfItsOwnIsUsedWhateverTheConfigurationTies) {
  Copy(kTiny);
  SafetensorsText file(ReadWhole(folder_.File("model.safetensors")));
  const std::string embedding = file.Data("model.embed_tokens.weight");
  file.Add("lm_head.weight", {320, 32}, std::string(embedding.rbegin(), embedding.rend()));
  folder_.Write("model.safetensors", file.Build());
  auto checkpoint = Load();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_FALSE(checkpoint->config.tied_embeddings);
  EXPECT_THAT(checkpoint->warnings, ElementsAre(HasSubstr("lm_head.weight is there and differs")));
  EXPECT_NE(ReadAll(*checkpoint, WeightRole::kOutput, 0),
            ReadAll(*checkpoint, WeightRole::kTokenEmbedding, 0));
  // Of another shape it is no output matrix.
  SafetensorsText other(ReadWhole(folder_.File("model.safetensors")));
  other.Add("lm_head.weight", {1}, std::string(4, '\0'));
  folder_.Write("model.safetensors", other.Build());
  ExpectRefusal(kInvalid, "'lm_head.weight' has shape [1]");
}

TEST_F(HfFolderTest, TiedWeightsMayBearTheOutputsName) {
  Copy(kTiny);
  SafetensorsText file(ReadWhole(folder_.File("model.safetensors")));
  const std::string embedding = file.Data("model.embed_tokens.weight");
  file.Remove("model.embed_tokens.weight");
  file.Add("lm_head.weight", {320, 32}, embedding);
  folder_.Write("model.safetensors", file.Build());
  const auto checkpoint = Load();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE(checkpoint->config.tied_embeddings);
  EXPECT_EQ(ReadAll(*checkpoint, WeightRole::kTokenEmbedding, 0),
            ReadAll(*LoadCheckpoint(kTiny, LoadFormat::kAuto), WeightRole::kTokenEmbedding, 0));
}

TEST_F(HfFolderTest, ShardsMayHoldMoreThanTheIndexNames) {
  Copy(kSharded);
  Json index = ReadJson("model.safetensors.index.json");
  const std::string norm = "model.norm.weight";
  const std::string shard = index["weight_map"][norm];
  index["weight_map"].erase(norm);
  folder_.Write("model.safetensors.index.json", index.dump());
  auto checkpoint = Load();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(ReadAll(*checkpoint, WeightRole::kOutputNorm, 0),
            ReadAll(*LoadCheckpoint(kSharded, LoadFormat::kAuto), WeightRole::kOutputNorm, 0));
  // A tensor that two shards hold is the one that the index means.
  const std::string elsewhere = "model-00001-of-00003.safetensors";
  ASSERT_NE(shard, elsewhere);
  SafetensorsText file(ReadWhole(folder_.File(elsewhere)));
  file.Add(norm, {32}, std::string(32 * 2, '\0'), "BF16");
  folder_.Write(elsewhere, file.Build());
  index["weight_map"][norm] = shard;
  folder_.Write("model.safetensors.index.json", index.dump());
  checkpoint = Load();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_NE(ReadAll(*checkpoint, WeightRole::kOutputNorm, 0)[0], 0);
  index["weight_map"][norm] = elsewhere;
  folder_.Write("model.safetensors.index.json", index.dump());
  checkpoint = Load();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(ReadAll(*checkpoint, WeightRole::kOutputNorm, 0)[0], 0);
}

TEST_F(HfFolderTest, NamesWhatADownloadLeft) {
  const struct {
    const char* content;
    const char* message;
  } cases[] = {
      {"version https://git-lfs.example/spec/v1\noid sha256:0\nsize 12\n", "a git-lfs pointer"},
      {"<!DOCTYPE html>\n<html><body>Not found", "an HTML page"},
      {"\n <HTML lang=\"en\">", "an HTML page"},
  };
  for (const char* name : {"config.json", "tokenizer.json", "model.safetensors"}) {
    for (const auto& c : cases) {
      Copy(kTiny);
      folder_.Write(name, c.content);
      ExpectRefusal(kInvalid, c.message);
      ExpectRefusal(kInvalid, name);
    }
  }
}

TEST_F(HfFolderTest, DoSampleFalseIsGreedy) {
  Copy(kTiny);
  folder_.Write("generation_config.json", R"({"do_sample":false,"temperature":0.6,"top_p":0.9})");
  EXPECT_EQ(Load()->generation.temperature, 0.0f);
  folder_.Write("generation_config.json", R"({"do_sample":true,"temperature":0.6})");
  EXPECT_EQ(Load()->generation.temperature, 0.6f);
}

TEST_F(HfFolderTest, WarnsOfSettingsThatItDoesNotHeed) {
  Copy(kTiny);
  folder_.Write("generation_config.json",
                R"({"suppress_tokens":[1],"bad_words_ids":[[2,3]],"stop_strings":["x"],)"
                R"("max_new_tokens":7,"num_beams":1,"no_repeat_ngram_size":0,"typical_p":1.0,)"
                R"("forced_bos_token_id":null,"begin_suppress_tokens":[],"use_cache":true})");
  const auto checkpoint = Load();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT(checkpoint->warnings,
              ElementsAre(HasSubstr("suppress_tokens: '[1]' is not heeded; forbid"),
                          HasSubstr("bad_words_ids: '[[2,3]]' is not heeded"),
                          HasSubstr("stop_strings: '[\\\"x\\\"]' is not heeded"),
                          HasSubstr("max_new_tokens: '7' is not heeded; set a request's")));
}

TEST_F(HfFolderTest, SurvivesFlippedBytes) {
  Copy(kTiny);
  const uint32_t seed = std::random_device()();
  std::cout << "seed " << seed << std::endl;
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
