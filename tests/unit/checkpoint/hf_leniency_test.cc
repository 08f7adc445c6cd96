// Folders that are not what they should be, and are read as transformers reads them; and what is
// said of those that are not.

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/checkpoint/checkpoint.h"
#include "tests/unit/checkpoint/hf_folder_fixture.h"
#include "tests/unit/checkpoint/test_files.h"

namespace swaa {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Json = nlohmann::json;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
using HfLeniencyTest = HfFolderTest;

TEST_F(HfLeniencyTest, DropsWhatNothingNeeds) {
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

TEST_F(HfLeniencyTest, AnOutputMatrixOfItsOwnIsUsedWhateverTheConfigurationTies) {
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

TEST_F(HfLeniencyTest, TiedWeightsMayBearTheOutputsName) {
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

TEST_F(HfLeniencyTest, ShardsMayHoldMoreThanTheIndexNames) {
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

TEST_F(HfLeniencyTest, NamesWhatADownloadLeft) {
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

TEST_F(HfLeniencyTest, DoSampleFalseIsGreedy) {
  Copy(kTiny);
  folder_.Write("generation_config.json", R"({"do_sample":false,"temperature":0.6,"top_p":0.9})");
  EXPECT_EQ(Load()->generation.temperature, 0.0f);
  folder_.Write("generation_config.json", R"({"do_sample":true,"temperature":0.6})");
  EXPECT_EQ(Load()->generation.temperature, 0.6f);
}

TEST_F(HfLeniencyTest, WarnsOfSettingsThatItDoesNotHeed) {
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

}  // namespace
}  // namespace swaa
