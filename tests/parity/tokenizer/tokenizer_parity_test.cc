// Tests: tokens, pieces, texts and rendered chats equal those of Hugging Face's libraries
// (make_tokenizer_goldens.py beside this file made them).

#include <algorithm>
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
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

// A message list of the goldens.
template <typename AnyJson>
std::vector<ChatMessage> MessagesOf(const AnyJson& golden) {
  std::vector<ChatMessage> messages;
  for (const auto& message : golden) {
    const std::string role = message[0];
    messages.push_back({role == "system" ? ChatRole::kSystem
                        : role == "user" ? ChatRole::kUser
                                         : ChatRole::kAssistant,
                        message[1], ""});
  }
  return messages;
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

// compare_tokenizers.py --goldens made them.
TEST(TokenizerAdversarialTest, TextsOfEveryKind) {
  const Json goldens = Goldens("adversarial");
  ASSERT_GE(goldens.size(), 5u);
  for (const auto& [name, cases] : goldens.items()) {
    SCOPED_TRACE(name);
    const auto tokenizer = Tokenizer::Create(LoadData(name));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    ASSERT_GT(cases.size(), 100u);
    for (const Json& golden : cases) {
      EXPECT_EQ(
          (*tokenizer)->Encode(golden[0].get<std::string>(), Tokenizer::SpecialTokens::kParse),
          golden[1].get<std::vector<int32_t>>())
          << golden[0].dump();
    }
  }
}

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
    conversation.messages = MessagesOf(golden["messages"]);
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

// One template with its conversations: the ids, or the template's own words.
void CheckChats(const nlohmann::ordered_json& golden) {
  const std::string folder = "tests/data/" + golden["folder"].get<std::string>() + "/";
  auto data = ParseTokenizerJson(ReadFile(folder + "tokenizer.json"),
                                 ReadFile(folder + "tokenizer_config.json"), folder);
  ASSERT_TRUE(data.ok()) << data.status();
  data->chat_template = golden["template"];
  auto tokenizer = Tokenizer::Create(*std::move(data));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  auto format = ChatFormat::Create(**tokenizer);
  ASSERT_TRUE(format.ok()) << format.status();
  for (const nlohmann::ordered_json& chat : golden["cases"]) {
    SCOPED_TRACE(chat["messages"].dump());
    Conversation conversation;
    conversation.messages = MessagesOf(chat["messages"]);
    if (!chat["tools"].is_null()) conversation.tools_json = chat["tools"].dump();
    const auto ids = (*format)->Render(conversation);
    if (chat.contains("refused")) {
      EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(std::string(ids.status().message()),
                  testing::HasSubstr(chat["refused"].get<std::string>()));
      continue;
    }
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, chat["ids"].get<std::vector<int32_t>>());
    if (!chat.contains("continued")) continue;
    conversation.messages.push_back({ChatRole::kAssistant, "I think that ", ""});
    conversation.continue_final_message = true;
    const auto continued = (*format)->Render(conversation);
    ASSERT_TRUE(continued.ok()) << continued.status();
    EXPECT_EQ(*continued, chat["continued"].get<std::vector<int32_t>>());
  }
}

// make_chat_goldens.py made them.
TEST(ChatParityTest, TemplatesOfManyKinds) {
  using OrderedJson = nlohmann::ordered_json;
  const OrderedJson goldens =
      OrderedJson::parse(ReadFile("tests/parity/tokenizer/goldens/chats.json"));
  ASSERT_GT(goldens.size(), 15u);
  for (const OrderedJson& golden : goldens) {
    SCOPED_TRACE(golden["name"].get<std::string>());
    CheckChats(golden);
  }
}

// Two models of a few kilobytes, made for what their files say wrongly.
struct ModelFile {
  explicit ModelFile(const std::string& name) {
    auto loaded = LoadCheckpoint("tests/data/chat/" + name, LoadFormat::kDummy);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    auto created = Tokenizer::Create(loaded->tokenizer);
    EXPECT_TRUE(created.ok()) << created.status();
    tokenizer = *std::move(created);
  }
  std::unique_ptr<Tokenizer> tokenizer;
};

TEST(ChatModelFileTest, MarksTypedAsPlainTextRefuseChat) {
  const ModelFile model("turn-tokens-normal.gguf");
  const absl::Status status = ChatFormat::Create(*model.tokenizer).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("<|im_"));
}

TEST(ChatModelFileTest, ChatEndsAtItsTurnsEnd) {
  const ModelFile model("eos-endoftext.gguf");
  const std::optional<int32_t> end = model.tokenizer->SpecialTokenId("<|im_end|>");
  ASSERT_TRUE(end.has_value());
  auto format = ChatFormat::Create(*model.tokenizer);
  ASSERT_TRUE(format.ok()) << format.status();
  // An end of the whole model's, or one of its chats alone.
  std::vector<int32_t> ends = model.tokenizer->eos_ids();
  ends.insert(ends.end(), (*format)->turn_end_ids().begin(), (*format)->turn_end_ids().end());
  EXPECT_THAT(ends, testing::Contains(*end));
}

TEST(TokenizerDataTest, DefaultModelSaysWhatItsFileSays) {
  const TokenizerData data = LoadData("smollm2");
  EXPECT_EQ(data.tokens.size(), 49152u);
  EXPECT_EQ(data.merges.size(), 48900u);
  EXPECT_EQ(data.pre_tokenizer, PreTokenizer::kSmolLm);
  EXPECT_EQ(data.bos_id, 1);
  EXPECT_FALSE(data.add_bos);
  EXPECT_EQ(data.eos_ids, (std::vector<int32_t>{2, 0}));
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
