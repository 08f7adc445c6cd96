// Tests: what is written is read as the same tokenizer.

#include "engine/tokenizer/tokenizer_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/unit/tokenizer/test_tokenizers.h"

namespace swaa {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;

constexpr char kText[] =
    " The  sea\n\n<|im_start|>user 12345 na\xc3\xafve e\xcc\x81 'RE <|im_end|><|begin_of_text|>\t"
    "\xe6\x97\xa5\xe6\x9c\xac <think> <tool_call>x</think>";

TokenizerData Read(const std::string& name) {
  const std::string folder = "tests/data/tokenizers/" + name + "/";
  absl::StatusOr<TokenizerData> data =
      ParseTokenizerJson(ReadFile(folder + "tokenizer.json"),
                         ReadFile(folder + "tokenizer_config.json"), folder + "tokenizer.json");
  EXPECT_TRUE(data.ok()) << data.status();
  return *std::move(data);
}

class WrittenTokenizerTest : public ::testing::TestWithParam<const char*> {};

TEST_P(WrittenTokenizerTest, IsReadAsItWas) {
  const TokenizerData data = Read(GetParam());
  const absl::StatusOr<TokenizerFiles> files = WriteTokenizerFiles(data, {});
  ASSERT_TRUE(files.ok()) << files.status();
  const absl::StatusOr<TokenizerData> again =
      ParseTokenizerJson(files->tokenizer_json, files->tokenizer_config_json, "written");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->pre_tokenizer, data.pre_tokenizer);
  EXPECT_EQ(again->normalize_nfc, data.normalize_nfc);
  EXPECT_EQ(again->ignore_merges, data.ignore_merges);
  EXPECT_EQ(again->tokens, data.tokens);
  EXPECT_EQ(again->kinds, data.kinds);
  EXPECT_EQ(again->literal_options, data.literal_options);
  EXPECT_EQ(again->merges, data.merges);
  EXPECT_EQ(again->bos_id, data.bos_id);
  EXPECT_EQ(again->add_bos, data.add_bos);
  EXPECT_EQ(again->named_tokens, data.named_tokens);
  const auto kParse = Tokenizer::SpecialTokens::kParse;
  EXPECT_EQ(MakeTokenizer(*again)->Encode(kText, kParse),
            MakeTokenizer(data)->Encode(kText, kParse));
}

INSTANTIATE_TEST_SUITE_P(All, WrittenTokenizerTest,
                         ::testing::Values("gpt2_tiny", "literals_tiny", "llama3_tiny",
                                           "qwen2_tiny", "qwen3_tiny"));

TEST(TokenizerWriterTest, AdditionsComeBehindTheVocabularyAndTheTemplate) {
  TokenizerData data = ByteData({}, {"<|end|>"});
  data.chat_template = "chat\n";
  absl::StatusOr<TokenizerFiles> files = WriteTokenizerFiles(
      data, {.special_tokens = {"<a>", "<b>"}, .chat_template_end = "<a><b>", .max_tokens = 512});
  ASSERT_TRUE(files.ok()) << files.status();
  const Json root = Json::parse(files->tokenizer_json);
  EXPECT_EQ(root["model"]["vocab"]["<b>"], 258);
  EXPECT_EQ(root["added_tokens"].back()["id"], 258);
  const Json config = Json::parse(files->tokenizer_config_json);
  EXPECT_EQ(config["chat_template"], "chat<a><b>");
  EXPECT_EQ(config["model_max_length"], 512);
  data.tool_chat_template = "with tools\n";
  files = WriteTokenizerFiles(data, {.chat_template_end = "<a>"});
  EXPECT_EQ(Json::parse(files->tokenizer_config_json)["chat_template"],
            "{% if tools %}with tools{% else %}chat{% endif %}<a>");
}

TEST(TokenizerWriterTest, RefusesWhatTheFormCannotHold) {
  TokenizerData twice = ByteData({}, {"<|end|>", "<|end|>"});
  EXPECT_EQ(WriteTokenizerFiles(twice, {}).status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(WriteTokenizerFiles(twice, {}).status().message()),
              HasSubstr("\"<|end|>\", 256 and 257"));
  TokenizerData raw = ByteData({}, {"\xff"});
  EXPECT_EQ(WriteTokenizerFiles(raw, {}).status().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace swaa
