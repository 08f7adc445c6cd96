// Tests: tokens, pieces, texts and rendered chats equal those of Hugging Face's libraries
// (make_tokenizer_goldens.py beside this file made them).

#include <fstream>
#include <sstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/checkpoint/checkpoint.h"
#include "engine/tokenizer/chat_format.h"
#include "engine/tokenizer/detokenizer.h"
#include "engine/tokenizer/normalize.h"
#include "engine/tokenizer/piece_splitter.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/tokenizer_json.h"
#include "tests/parity/test_model.h"

namespace swaa {
namespace {

using Json = nlohmann::json;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path << " cannot be read";
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

Json Goldens(const std::string& name) {
  return Json::parse(ReadFile("tests/parity/tokenizer/goldens/" + name + ".json"));
}

// The tokenizer data that the goldens `name` belong to: of the default model, or of a folder of
// test data.
TokenizerData LoadData(const std::string& name) {
  if (name == "smollm2") {
    auto checkpoint = LoadCheckpoint(TestModelPath(), LoadFormat::kAuto);
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    return checkpoint.ok() ? std::move(checkpoint->tokenizer) : TokenizerData{};
  }
  const std::string folder = "tests/data/tokenizers/" + name + "/";
  auto data =
      ParseTokenizerJson(ReadFile(folder + "tokenizer.json"),
                         ReadFile(folder + "tokenizer_config.json"), folder + "tokenizer.json");
  EXPECT_TRUE(data.ok()) << data.status();
  return data.ok() ? *std::move(data) : TokenizerData{};
}

class TokenizerParityTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    data_ = LoadData(GetParam());
    auto tokenizer = Tokenizer::Create(data_);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    goldens_ = Goldens(GetParam());
  }

  TokenizerData data_;
  std::unique_ptr<Tokenizer> tokenizer_;
  Json goldens_;
};

TEST_P(TokenizerParityTest, Texts) {
  ASSERT_GT(goldens_["texts"].size(), 100u);
  for (const Json& golden : goldens_["texts"]) {
    const std::string text = golden["text"];
    SCOPED_TRACE(golden["text"].dump());
    EXPECT_EQ(tokenizer_->Encode(text, Tokenizer::SpecialTokens::kParse),
              golden["parsed"].get<std::vector<int32_t>>());
    EXPECT_EQ(tokenizer_->Encode(text, Tokenizer::SpecialTokens::kAsText),
              golden["as_text"].get<std::vector<int32_t>>());
  }
}

TEST_P(TokenizerParityTest, TextsComeBack) {
  for (const Json& golden : goldens_["texts"]) {
    Detokenizer detokenizer(tokenizer_.get());
    std::string text;
    for (const int32_t token : golden["parsed"]) text += detokenizer.Append(token);
    text += detokenizer.Flush();
    EXPECT_EQ(text, golden["decoded"].get<std::string>()) << golden["text"].dump();
  }
}

TEST_P(TokenizerParityTest, Pieces) {
  if (!goldens_.contains("pieces")) return;  // its pre-tokeniser has goldens under another name
  auto splitter = PieceSplitter::Create(data_.pre_tokenizer);
  ASSERT_TRUE(splitter.ok()) << splitter.status();
  for (const Json& golden : goldens_["pieces"]) {
    const std::string text = golden["text"];
    std::vector<std::string> pieces;
    (*splitter)->Split(data_.normalize_nfc ? NormalizeNfc(text) : text,
                       [&](std::string_view piece) { pieces.emplace_back(piece); });
    EXPECT_EQ(pieces, golden["pieces"].get<std::vector<std::string>>()) << golden["text"].dump();
  }
}

TEST_P(TokenizerParityTest, Chats) {
  auto format = ChatFormat::Create(*tokenizer_);
  ASSERT_TRUE(format.ok()) << format.status();
  ASSERT_GT(goldens_["chats"].size(), 10u);
  for (const Json& golden : goldens_["chats"]) {
    Conversation conversation;
    for (const Json& message : golden["messages"]) {
      const std::string role = message[0];
      conversation.messages.push_back({role == "system" ? ChatRole::kSystem
                                       : role == "user" ? ChatRole::kUser
                                                        : ChatRole::kAssistant,
                                       message[1], ""});
    }
    if (golden.contains("thinking")) conversation.thinking = golden["thinking"].get<bool>();
    const auto ids = (*format)->Render(conversation);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, golden["ids"].get<std::vector<int32_t>>()) << golden["rendered"].dump();
  }
  EXPECT_EQ((*format)->supports_thinking(), GetParam() == "qwen3_tiny");
}

INSTANTIATE_TEST_SUITE_P(All, TokenizerParityTest,
                         testing::Values("smollm2", "llama3_tiny", "qwen2_tiny", "qwen3_tiny"),
                         [](const auto& info) { return info.param; });

TEST(TokenizerDataTest, DefaultModelSaysWhatItsFileSays) {
  const TokenizerData data = LoadData("smollm2");
  EXPECT_EQ(data.tokens.size(), 49152u);
  EXPECT_EQ(data.merges.size(), 48900u);
  EXPECT_EQ(data.pre_tokenizer, PreTokenizer::kSmolLm);
  EXPECT_EQ(data.bos_id, 1);
  EXPECT_FALSE(data.add_bos);
  EXPECT_EQ(data.eos_ids, std::vector<int32_t>{2});
}

TEST(TokenizerDataTest, TokenizerJsonSaysWhatItsFilesSay) {
  const TokenizerData llama = LoadData("llama3_tiny");
  EXPECT_EQ(llama.pre_tokenizer, PreTokenizer::kLlamaBpe);
  EXPECT_TRUE(llama.ignore_merges);
  EXPECT_TRUE(llama.add_bos);
  ASSERT_TRUE(llama.bos_id.has_value());
  EXPECT_EQ(llama.tokens[*llama.bos_id], "<|begin_of_text|>");
  ASSERT_EQ(llama.eos_ids.size(), 1u);
  EXPECT_EQ(llama.tokens[llama.eos_ids[0]], "<|eot_id|>");
  const TokenizerData qwen = LoadData("qwen3_tiny");
  EXPECT_EQ(qwen.pre_tokenizer, PreTokenizer::kQwen2);
  EXPECT_TRUE(qwen.normalize_nfc);
  EXPECT_FALSE(qwen.add_bos);
  EXPECT_FALSE(qwen.bos_id.has_value());
}

TEST(DetokenizerParityTest, BrokenBytesAsPythonReplacesThem) {
  TokenizerData data = LoadData("qwen2_tiny");
  auto tokenizer = Tokenizer::Create(data);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::vector<int32_t> byte_token(256, -1);
  for (int32_t id = 0; id < (*tokenizer)->vocab_size(); ++id) {
    const std::string_view bytes = (*tokenizer)->TokenBytes(id);
    if (bytes.size() == 1) byte_token[static_cast<uint8_t>(bytes[0])] = id;
  }
  const Json goldens = Goldens("utf8_replace");
  for (const Json& golden : goldens["cases"]) {
    const std::string hex = golden["hex"];
    Detokenizer detokenizer(tokenizer->get());
    std::string text;
    for (size_t i = 0; i < hex.size(); i += 2) {
      text += detokenizer.Append(byte_token[std::stoi(hex.substr(i, 2), nullptr, 16)]);
    }
    text += detokenizer.Flush();
    EXPECT_EQ(text, golden["text"].get<std::string>()) << hex;
  }
}

}  // namespace
}  // namespace swaa
