// Tests: tokenizers that the tests of this folder share.

#ifndef SWAA_TESTS_UNIT_TOKENIZER_TEST_TOKENIZERS_H_
#define SWAA_TESTS_UNIT_TOKENIZER_TEST_TOKENIZERS_H_

#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "engine/tokenizer/byte_alphabet.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/tokenizer_json.h"

namespace swaa {

// Ids 0 to 255 are the bytes; then come the results of `merges` (texts in GPT-2's alphabet), by
// rank; then `special`.
inline TokenizerData ByteData(std::vector<std::pair<std::string, std::string>> merges,
                              const std::vector<std::string>& special) {
  TokenizerData data;
  for (int byte = 0; byte < 256; ++byte) {
    data.tokens.emplace_back(ByteToAlphabet(static_cast<uint8_t>(byte)));
  }
  for (const auto& [left, right] : merges) data.tokens.push_back(left + right);
  data.kinds.assign(data.tokens.size(), TokenKind::kNormal);
  for (const std::string& text : special) {
    data.tokens.push_back(text);
    data.kinds.push_back(TokenKind::kSpecial);
  }
  data.merges = std::move(merges);
  return data;
}

inline std::unique_ptr<Tokenizer> MakeTokenizer(TokenizerData data) {
  auto tokenizer = Tokenizer::Create(std::move(data));
  if (!tokenizer.ok()) {
    ADD_FAILURE() << tokenizer.status();
    return nullptr;
  }
  return *std::move(tokenizer);
}

inline std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path << " cannot be read";
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// Data of tests/data/tokenizers/<name>.
inline TokenizerData TinyData(const std::string& name) {
  const std::string folder = "tests/data/tokenizers/" + name + "/";
  auto data =
      ParseTokenizerJson(ReadFile(folder + "tokenizer.json"),
                         ReadFile(folder + "tokenizer_config.json"), folder + "tokenizer.json");
  EXPECT_TRUE(data.ok()) << data.status();
  return data.ok() ? *std::move(data) : TokenizerData{};
}

}  // namespace swaa

#endif  // SWAA_TESTS_UNIT_TOKENIZER_TEST_TOKENIZERS_H_
