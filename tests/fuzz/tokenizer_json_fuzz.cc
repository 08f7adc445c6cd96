// Fuzz target: tokenizer.json, a zero byte, tokenizer_config.json, a zero byte, and text to encode
// with the result.

#include "base/check.h"
#include "engine/tokenizer/detokenizer.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/tokenizer_json.h"
#include "engine/tokenizer/utf8.h"
#include "tests/fuzz/fuzz_input.h"

namespace swaa::fuzz {
namespace {

void Encode(const Tokenizer& tokenizer, std::string_view text) {
  for (const auto mode : {Tokenizer::SpecialTokens::kParse, Tokenizer::SpecialTokens::kAsText}) {
    Detokenizer detokenizer(&tokenizer);
    std::string decoded;
    for (const int32_t id : tokenizer.Encode(text, mode)) {
      SWAA_CHECK(id >= 0 && id < tokenizer.vocab_size()) << id;
      decoded += detokenizer.Append(id, /*show_special=*/true);
    }
    decoded += detokenizer.Flush();
    SWAA_CHECK_EQ(ValidUtf8Prefix(decoded), decoded.size());
  }
}

}  // namespace

void FuzzTokenizerJson(std::string_view input) {
  const std::vector<std::string_view> parts = SplitAtZeros(input, 3);
  absl::StatusOr<TokenizerData> data = ParseTokenizerJson(parts[0], parts[1], "tokenizer.json");
  if (!data.ok()) return CheckRefusal(data.status());
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Create(*std::move(data));
  if (!tokenizer.ok()) return CheckRefusal(tokenizer.status());
  Encode(**tokenizer, parts[2]);
}

}  // namespace swaa::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  swaa::fuzz::FuzzTokenizerJson(swaa::fuzz::AsText(data, size));
  return 0;
}
