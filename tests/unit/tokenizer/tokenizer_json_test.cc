// Tests: what tokenizer.json may say, and how what it may not say is refused.

#include "engine/tokenizer/tokenizer_json.h"

#include <functional>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/tokenizer/utf8.h"
#include "tests/unit/tokenizer/test_tokenizers.h"

namespace swaa {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;
constexpr char kFile[] = "model/tokenizer.json";

const Json& Llama() {
  static const Json& json =
      *new Json(Json::parse(ReadFile("tests/data/tokenizers/llama3_tiny/tokenizer.json")));
  return json;
}

const Json& LlamaConfig() {
  static const Json& json =
      *new Json(Json::parse(ReadFile("tests/data/tokenizers/llama3_tiny/tokenizer_config.json")));
  return json;
}

struct Refusal {
  std::function<void(Json&)> change;
  absl::StatusCode code;
  std::string message;
};
constexpr auto kMalformed = absl::StatusCode::kInvalidArgument;
constexpr auto kUnsupported = absl::StatusCode::kUnimplemented;

TEST(TokenizerJsonTest, RefusesWhatItDoesNotKnow) {
  const std::vector<Refusal> cases = {
      {[](Json& j) { j.erase("model"); }, kMalformed, "no object \"model\""},
      {[](Json& j) { j["model"]["type"] = "Unigram"; }, kUnsupported, "model.type is \"Unigram\""},
      {[](Json& j) { j["model"].erase("type"); }, kUnsupported, "model.type is null"},
      {[](Json& j) {
         j["model"]["byte_fallback"] = true;
         j["model"]["vocab"]["ZZ"] = j["model"]["vocab"]["A"];
         j["model"]["vocab"].erase("A");
       },
       kUnsupported, "byte_fallback true, and byte 65 is no token"},
      {[](Json& j) { j["model"]["dropout"] = 0.1; }, kUnsupported, "model.dropout is 0.1"},
      {[](Json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }, kUnsupported,
       "end_of_word_suffix"},
      {[](Json& j) { j["model"].erase("vocab"); }, kMalformed, "model.vocab"},
      {[](Json& j) { j["model"]["vocab"] = Json::array(); }, kMalformed, "model.vocab"},
      {[](Json& j) { j["model"]["vocab"]["zz"] = "7"; }, kMalformed,
       "model.vocab[\"zz\"] is \"7\""},
      {[](Json& j) { j["model"]["vocab"]["zz"] = -1; }, kMalformed, "has id -1"},
      {[](Json& j) { j["model"]["vocab"]["zz"] = 1e15; }, kMalformed, "no id"},
      {[](Json& j) { j["model"]["vocab"]["zz"] = 9000000000; }, kMalformed, "has id 9000000000"},
      {[](Json& j) { j["model"]["vocab"]["zz"] = 18446744073709551615u; }, kMalformed, "has id -1"},
      {[](Json& j) { j["model"]["vocab"]["zz"] = 3; }, kMalformed, "both have id 3"},
      {[](Json& j) { j["model"].erase("merges"); }, kMalformed, "model.merges is no array"},
      {[](Json& j) { j["model"]["merges"][3] = "abc"; }, kMalformed, "model.merges[3] is \"abc\""},
      {[](Json& j) {
         j["model"]["merges"][3] = {"a", "b", "c"};
       },
       kMalformed, "model.merges[3]"},
      {[](Json& j) { j["model"]["merges"][3] = 5; }, kMalformed, "model.merges[3] is 5"},
      {[](Json& j) {
         j["model"]["unk_token"] = "<unk>";
         j["model"]["vocab"]["ZZ"] = j["model"]["vocab"]["A"];
         j["model"]["vocab"].erase("A");
       },
       kUnsupported, "model.unk_token is \"<unk>\", byte_fallback false, and byte 65 is no token"},
      {[](Json& j) { j["added_tokens"] = 1; }, kMalformed, "added_tokens is no array"},
      {[](Json& j) { j["added_tokens"][1].erase("id"); }, kMalformed, "added_tokens[1] has no id"},
      {[](Json& j) { j["added_tokens"][1]["content"] = ""; }, kMalformed,
       "added_tokens[1] has no id"},
      {[](Json& j) {
         j["normalizer"] = {{"type", "Lowercase"}};
       },
       kUnsupported, "normalizer is {\"type\":\"Lowercase\"}"},
      {[](Json& j) { j["pre_tokenizer"] = nullptr; }, kUnsupported, "pre_tokenizer is null"},
      {[](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "\\w+"; },
       kUnsupported, "pre_tokenizer is {"},
      {[](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"; },
       kUnsupported, "pre_tokenizer is {"},
      {[](Json& j) { j["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = true; },
       kUnsupported, "pre_tokenizer is {"},
      {[](Json& j) {
         j["post_processor"] = {{"type", "RobertaProcessing"}};
       },
       kUnsupported, "post_processor is {\"type\":\"RobertaProcessing\"}"},
      {[](Json& j) {
         j["post_processor"]["processors"][1]["single"][0]["SpecialToken"]["id"] = "<x>";
       },
       kMalformed, "\"<x>\" is no token"},
      {[](Json& j) {
         Json& single = j["post_processor"]["processors"][1]["single"];
         single.push_back(single[0]);
       },
       kUnsupported, "post_processor.single is ["},
  };
  for (const Refusal& c : cases) {
    Json json = Llama();
    c.change(json);
    const auto data = ParseTokenizerJson(json.dump(), "", kFile);
    ASSERT_FALSE(data.ok()) << c.message;
    EXPECT_EQ(data.status().code(), c.code) << data.status();
    EXPECT_THAT(std::string(data.status().message()), HasSubstr(c.message));
    EXPECT_THAT(std::string(data.status().message()), HasSubstr(kFile));
  }
}

TEST(TokenizerJsonTest, RefusesConfigurationsThatContradict) {
  const std::vector<Refusal> cases = {
      {[](Json& j) { j["eos_token"] = "<nowhere>"; }, kMalformed,
       "eos_token \"<nowhere>\" is no token"},
      {[](Json& j) { j["bos_token"] = 5; }, kMalformed, "bos_token is 5"},
      {[](Json& j) {
         j["bos_token"] = {{"text", "x"}};
       },
       kMalformed, "bos_token is {"},
      {[](Json& j) { j["chat_template"] = 5; }, kMalformed, "chat_template is 5"},
      {[](Json& j) { j = Json::array(); }, kMalformed, "tokenizer_config.json is no object"},
  };
  for (const Refusal& c : cases) {
    Json config = LlamaConfig();
    c.change(config);
    const auto data = ParseTokenizerJson(Llama().dump(), config.dump(), kFile);
    ASSERT_FALSE(data.ok()) << c.message;
    EXPECT_EQ(data.status().code(), c.code) << data.status();
    EXPECT_THAT(std::string(data.status().message()), HasSubstr(c.message));
  }
}

TEST(TokenizerJsonTest, ReadsTheFormsThatExist) {
  Json json = Llama();
  json["added_tokens"].push_back(
      {{"id", json["model"]["vocab"].size() + 9}, {"content", "<tool>"}, {"special", false}});
  Json config = LlamaConfig();
  config["add_bos_token"] = false;  // the post-processor says otherwise
  json["model"]["byte_fallback"] = true;
  json["normalizer"] = {{"type", "Sequence"}, {"normalizers", Json::array()}};
  config["chat_template"] = {{{"name", "rag"}, {"template", "r"}},
                             {{"name", "tool_use"}, {"template", "t"}},
                             {{"name", "default"}, {"template", "d"}}};
  auto data = ParseTokenizerJson(json.dump(), config.dump(), kFile);
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(data->kinds.back(), TokenKind::kAdded);
  EXPECT_EQ(data->kinds[data->kinds.size() - 2], TokenKind::kUnused);
  EXPECT_TRUE(data->add_bos);
  EXPECT_TRUE(data->bos_id.has_value());
  EXPECT_FALSE(data->normalize_nfc);
  EXPECT_EQ(data->chat_template, "d");
  EXPECT_EQ(data->tool_chat_template, "t");

  json["post_processor"] = nullptr;
  json["pre_tokenizer"]["pretokenizers"] = {{{"type", "Digits"}, {"individual_digits", true}},
                                            {{"type", "ByteLevel"}, {"add_prefix_space", false}}};
  config = {{"bos_token", {{"content", "<|begin_of_text|>"}}}, {"add_bos_token", true}};
  data = ParseTokenizerJson(json.dump(), config.dump(), kFile);
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(data->pre_tokenizer, PreTokenizer::kSmolLm);
  EXPECT_FALSE(data->add_bos);  // likewise
  EXPECT_TRUE(data->eos_ids.empty());
  json["normalizer"] = {
      {"type", "Sequence"},
      {"normalizers", {{{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}}}}}}};
  data = ParseTokenizerJson(json.dump(), "", kFile);
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_FALSE(data->add_bos);
  EXPECT_TRUE(data->normalize_nfc);
  const Json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  for (const Json& pre :
       {byte_level, Json{{"type", "Sequence"}, {"pretokenizers", {byte_level}}}}) {
    json["pre_tokenizer"] = pre;
    data = ParseTokenizerJson(json.dump(), "", kFile);
    ASSERT_TRUE(data.ok()) << data.status();
    EXPECT_EQ(data->pre_tokenizer, PreTokenizer::kGpt2);
  }
}

// What is refused is shown in the message, and showing goes as deep as the value.
TEST(TokenizerJsonTest, DeepNestingIsRefused) {
  const std::string deep = std::string(1 << 20, '[') + std::string(1 << 20, ']');
  for (const std::string& text : {"{\"model\":{\"type\":" + deep + "}}", deep}) {
    const absl::Status status = ParseTokenizerJson(text, "", kFile).status();
    EXPECT_EQ(status.code(), kMalformed);
    EXPECT_THAT(std::string(status.message()), HasSubstr("nested deeper than 64"));
  }
  EXPECT_EQ(ParseTokenizerJson(Llama().dump(), "{\"eos_token\":" + deep + "}", kFile).status(),
            absl::InvalidArgumentError(std::string(kFile) +
                                       " (tokenizer_config.json): nested deeper than 64"));
}

TEST(TokenizerJsonTest, MessagesAreTextWhateverTheFile) {
  Json json = Llama();
  json["normalizer"] = {{"type", std::string(189, 'x') + "éé"}};
  for (const std::string& text : {json.dump(), std::string("{\"model\": 1\xFF}")}) {
    const absl::Status status = ParseTokenizerJson(text, "", kFile).status();
    EXPECT_FALSE(status.ok());
    EXPECT_EQ(ValidUtf8Prefix(std::string(status.message())), status.message().size()) << status;
  }
}

// Whatever is wrong with the text, a status says so: nothing throws, nothing crashes.
TEST(TokenizerJsonTest, DamagedTextIsRefusedOrRead) {
  const std::string text = ReadFile("tests/data/tokenizers/qwen2_tiny/tokenizer.json");
  const std::string config = ReadFile("tests/data/tokenizers/qwen2_tiny/tokenizer_config.json");
  EXPECT_EQ(ParseTokenizerJson("", "", kFile).status().code(), kMalformed);
  EXPECT_EQ(ParseTokenizerJson(std::string(100000, '['), "", kFile).status().code(), kMalformed);
  EXPECT_EQ(ParseTokenizerJson(text, "{", kFile).status().code(), kMalformed);
  EXPECT_EQ(ParseTokenizerJson("[1]", "", kFile).status().code(), kMalformed);
  int refused = 0;
  for (uint32_t seed = 0; seed < 300; ++seed) {
    std::mt19937 random(seed);
    std::string damaged = text;
    const size_t at = random() % damaged.size();
    switch (random() % 3) {
      case 0:
        damaged.resize(at);
        break;
      case 1:
        damaged[at] = static_cast<char>(random());
        break;
      default:
        damaged.erase(at, 1 + random() % 50);
    }
    const auto data = ParseTokenizerJson(damaged, config, kFile);
    refused += !data.ok();
    if (data.ok()) (void)Tokenizer::Create(*data);
  }
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace swaa
