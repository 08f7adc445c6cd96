// GGUF files: headers, metadata, tokenizer and weights.

#include "engine/checkpoint/gguf.h"

#include <cstring>
#include <functional>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/checkpoint/checkpoint.h"
#include "tests/unit/checkpoint/gguf_builder.h"
#include "tests/unit/checkpoint/test_files.h"
#include "tests/unit/testing/seed.h"

namespace swaa {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class GgufTest : public ::testing::Test {
 protected:
  absl::StatusOr<Checkpoint> Load(const std::string& bytes, LoadFormat format = LoadFormat::kAuto) {
    return LoadCheckpoint(folder_.Write("tiny.gguf", bytes), format);
  }
  TempFolder folder_;
};

TEST_F(GgufTest, ReadsConfigurationAndTokenizer) {
  for (const uint32_t version : {2u, 3u}) {
    GgufSpec spec = TinyGguf();
    spec.version = version;
    const auto checkpoint = Load(spec.Build());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    const ModelConfig& config = checkpoint->config;
    EXPECT_EQ(config.architecture, "llama");
    EXPECT_EQ(config.name, "tiny");
    EXPECT_EQ(config.num_layers, 1);
    EXPECT_EQ(config.hidden, 8);
    EXPECT_EQ(config.ffn_width, 8);
    EXPECT_EQ(config.heads, 2);
    EXPECT_EQ(config.kv_heads, 1);
    EXPECT_EQ(config.head_dim, 4);
    EXPECT_EQ(config.vocab_size, 4);
    EXPECT_EQ(config.max_context_tokens, 128);
    EXPECT_EQ(config.norm_epsilon, 1e-5f);
    EXPECT_EQ(config.rope_theta, 50000);
    EXPECT_TRUE(config.tied_embeddings);
    EXPECT_FALSE(config.qkv_bias);
    EXPECT_TRUE(config.rope_frequency_factors.empty());
    const TokenizerData& tokenizer = checkpoint->tokenizer;
    EXPECT_THAT(tokenizer.tokens, ElementsAre("<|end|>", "a", "b", "ab"));
    EXPECT_THAT(tokenizer.kinds, ElementsAre(TokenKind::kSpecial, TokenKind::kNormal,
                                             TokenKind::kNormal, TokenKind::kNormal));
    EXPECT_THAT(tokenizer.merges, ElementsAre(::testing::Pair("a", "b")));
    EXPECT_THAT(tokenizer.eos_ids, ElementsAre(0));
    EXPECT_FALSE(tokenizer.bos_id.has_value());
    EXPECT_FALSE(tokenizer.add_bos);
    EXPECT_EQ(tokenizer.chat_template, "{{ messages }}");
    EXPECT_EQ(ReadEverything(*checkpoint), 32 + 3 * 8 + 5 * 64 + 2 * 32);
  }
}

TEST_F(GgufTest, PutsRotaryRowsIntoRotateHalfOrder) {
  const auto checkpoint = Load(TinyGguf().Build());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  // Head of four rows: the file's 0 1 2 3 are (0, half), (1, half + 1), that is 0 2 1 3.
  const std::vector<int> order = {0, 2, 1, 3, 4, 6, 5, 7};
  const std::vector<float> q = ReadAll(*checkpoint, WeightRole::kQuery, 0);
  for (int row = 0; row < 8; ++row) EXPECT_EQ(q[row * 8], 3000 + 8 * order[row]) << row;
  const std::vector<float> k = ReadAll(*checkpoint, WeightRole::kKey, 0);
  for (int row = 0; row < 4; ++row) EXPECT_EQ(k[row * 8 + 7], 4000 + 8 * order[row] + 7) << row;
  // Rows in the middle of a head, asked for by themselves.
  const auto view = checkpoint->weights->Find({WeightRole::kQuery, 0});
  std::vector<float> rows(16);
  view->read_rows(5, 2, rows.data());
  EXPECT_EQ(rows[0], 3000 + 8 * 6);
  EXPECT_EQ(rows[8], 3000 + 8 * 5);
  const std::vector<float> v = ReadAll(*checkpoint, WeightRole::kValue, 0);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(v[i], 5000 + i);
}

TEST_F(GgufTest, TellsWhereRowsLieAsTheyAreAsked) {
  GgufSpec spec = TinyGguf();
  GgufTensorSpec* value = spec.Tensor("blk.0.attn_v.weight");
  value->type = 30;  // BF16
  value->data.clear();
  for (uint16_t i = 0; i < 32; ++i) value->data += Raw<uint16_t>(0x3F80 + i);
  const auto checkpoint = Load(spec.Build());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto bf16 = checkpoint->weights->Find({WeightRole::kValue, 0});
  ASSERT_NE(bf16->stored_bf16(), nullptr);
  EXPECT_EQ(std::memcmp(bf16->stored_bf16(), value->data.data(), value->data.size()), 0);
  const auto f32 = checkpoint->weights->Find({WeightRole::kFfnUp, 0});
  EXPECT_EQ(f32->stored_bf16(), nullptr);
  ASSERT_NE(f32->stored, nullptr);
  EXPECT_EQ(f32->stored_type, TensorType::kF32);
  EXPECT_EQ(std::memcmp(f32->stored, spec.Tensor("blk.0.ffn_up.weight")->data.data(), 64 * 4), 0);
  // Rows that are not in the order of the file.
  EXPECT_EQ(checkpoint->weights->Find({WeightRole::kQuery, 0})->stored, nullptr);
}

struct BadCase {
  const char* name;
  std::function<void(GgufSpec*)> spoil;
  absl::StatusCode code;
  const char* message;
};

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

// The key's value replaced.
std::function<void(GgufSpec*)> With(const std::string& key, const std::string& value) {
  return [key, value](GgufSpec* spec) { *spec->Key(key) = value; };
}

const std::vector<BadCase>& BadCases() {
  static const auto* const kCases = new std::vector<BadCase>{
      {"magic", [](GgufSpec* s) { s->magic = "GGML"; }, kInvalid, "offset 0: not a GGUF file"},
      {"version 1", [](GgufSpec* s) { s->version = 1; }, kUnimplemented, "version 1 is not supported"},
      {"big-endian", [](GgufSpec* s) { s->version = 0x03000000; }, kUnimplemented, "big-endian"},
      {"tensor count", [](GgufSpec* s) { s->num_tensors = ~uint64_t{0}; }, kInvalid,
       "offset 8: 18446744073709551615 tensors cannot fit"},
      {"key count", [](GgufSpec* s) { s->num_keys = uint64_t{1} << 40; }, kInvalid,
       "offset 16: 1099511627776 metadata keys cannot fit"},
      {"key twice",
       [](GgufSpec* s) { s->keys.emplace_back("general.name", GgufString("again")); }, kInvalid,
       "'general.name' appears twice"},
      {"key not UTF-8", [](GgufSpec* s) { s->keys.emplace_back("a\xff", GgufU32(1)); }, kInvalid,
       "is not UTF-8"},
      {"empty key", [](GgufSpec* s) { s->keys.emplace_back("", GgufU32(1)); }, kInvalid,
       "a metadata key of 0 bytes"},
      {"value type", With("x", Raw<uint32_t>(13) + Raw<uint64_t>(0)), kInvalid, "unknown type 13"},
      {"array of arrays",
       With("x", Raw<uint32_t>(9) + Raw<uint32_t>(9) + Raw<uint64_t>(0)), kInvalid,
       "is an array of arrays"},
      {"array element type",
       With("x", Raw<uint32_t>(9) + Raw<uint32_t>(77) + Raw<uint64_t>(0)), kInvalid,
       "unknown type 77"},
      {"array count",
       With("x", Raw<uint32_t>(9) + Raw<uint32_t>(0) + Raw<uint64_t>(~uint64_t{0})), kInvalid,
       "has 18446744073709551615 elements, but only"},
      {"count of strings",
       With("x", Raw<uint32_t>(9) + Raw<uint32_t>(8) + Raw<uint64_t>(uint64_t{1} << 61)), kInvalid,
       "elements, but only"},
      {"string length", With("x", Raw<uint32_t>(8) + Raw<uint64_t>(~uint64_t{0} - 7)), kInvalid,
       "bytes are left in the file"},
      {"alignment 0", With("general.alignment", GgufU32(0)), kInvalid, "not a power of two"},
      {"alignment 24", With("general.alignment", GgufU32(24)), kInvalid, "not a power of two"},
      {"tensor twice",
       [](GgufSpec* s) { s->tensors[1].name = s->tensors[0].name; }, kInvalid, "appears twice"},
      {"tensor name not UTF-8", [](GgufSpec* s) { s->tensors[1].name = "\xc3"; }, kInvalid,
       "not UTF-8"},
      {"no dimension", [](GgufSpec* s) { s->tensors[0].dimensions = {}; }, kInvalid,
       "has 0 dimensions"},
      {"five dimensions", [](GgufSpec* s) { s->tensors[0].dimensions = {8, 1, 1, 1, 4}; }, kInvalid,
       "has 5 dimensions"},
      {"size 0", [](GgufSpec* s) { s->tensors[0].dimensions = {8, 0}; }, kInvalid,
       "impossible size 0"},
      {"overflowing sizes",
       [](GgufSpec* s) { s->tensors[0].dimensions = {uint64_t{1} << 32, uint64_t{1} << 32}; },
       kInvalid, "impossible size 4294967296 in dimension 1"},
      {"tensor type", [](GgufSpec* s) { s->tensors[0].type = 99; }, kInvalid, "unknown type 99"},
      {"foreign tensor type", [](GgufSpec* s) { s->tensors[0].type = 10; }, kUnimplemented,
       "type Q2_K, which is not supported; F32, F16"},
      {"partial blocks", [](GgufSpec* s) { s->tensors[0].type = 8; }, kInvalid,
       "rows of 8 elements, no multiple of the 32 in a block of Q8_0"},
      {"unaligned tensor", [](GgufSpec* s) { s->tensors[1].offset = 129; }, kInvalid,
       "not a multiple of the alignment 32"},
      {"tensor beyond the file", [](GgufSpec* s) { s->tensors[3].offset = 1 << 20; }, kInvalid,
       "reach beyond the"},
      {"tensor offset overflow",
       [](GgufSpec* s) { s->tensors[3].offset = ~uint64_t{0} - 31; }, kInvalid, "reach beyond the"},
      {"overlap", [](GgufSpec* s) { s->tensors[1].offset = 0; }, kInvalid, "overlaps the tensor before"},
      {"no architecture", [](GgufSpec* s) { s->Drop("general.architecture"); }, kInvalid,
       "general.architecture: is missing"},
      {"other architecture", With("general.architecture", GgufString("gemma3")), kUnimplemented,
       "'gemma3' is not supported; supported: llama"},
      {"architecture no string", With("general.architecture", GgufU32(1)), kInvalid,
       "is not a string"},
      {"missing layers", [](GgufSpec* s) { s->Drop("llama.block_count"); }, kInvalid,
       "llama.block_count: is missing"},
      {"no layers", With("llama.block_count", GgufU32(0)), kInvalid, "0 is not between 1 and"},
      {"too many layers", With("llama.block_count", GgufU32(2)), kInvalid,
       "tensor 'blk.1.attn_norm.weight' of shape [8] is missing"},
      {"absurd layers", With("llama.block_count", GgufU32(~0u)), kInvalid, "is not between 1 and"},
      {"hidden no integer", With("llama.embedding_length", GgufF32(8)), kInvalid,
       "is not an integer"},
      {"hidden differs", With("llama.embedding_length", GgufU32(16)), kInvalid, "has shape [4, 8]"},
      {"heads do not divide", With("llama.attention.head_count", GgufU32(3)), kInvalid,
       "3 does not divide the embedding length 8"},
      {"KV heads do not divide", With("llama.attention.head_count_kv", GgufU32(3)), kInvalid,
       "2 heads do not divide among 3 KV heads"},
      {"head sizes differ", With("llama.attention.value_length", GgufU32(8)), kUnimplemented,
       "8 differs from the head dimension 4"},
      {"partial rotation", With("llama.rope.dimension_count", GgufU32(2)), kUnimplemented,
       "2 differs from the head dimension 4"},
      {"odd head dimension", With("llama.attention.key_length", GgufU32(3)), kInvalid,
       "head dimension 3 is odd"},
      {"no epsilon",
       [](GgufSpec* s) { s->Drop("llama.attention.layer_norm_rms_epsilon"); }, kInvalid,
       "layer_norm_rms_epsilon: is missing"},
      {"epsilon zero", With("llama.attention.layer_norm_rms_epsilon", GgufF32(0)), kInvalid,
       "norm epsilon 0"},
      {"rope base", With("llama.rope.freq_base", GgufF32(-1)), kInvalid, "rope base -1"},
      {"experts", With("llama.expert_count", GgufU32(8)), kUnimplemented,
       "llama.expert_count: 8 is not supported"},
      {"vocabulary size", With("llama.vocab_size", GgufU32(5)), kInvalid,
       "5 differs from the 4 rows of token_embd.weight"},
      {"missing tensor", [](GgufSpec* s) { s->tensors.pop_back(); }, kInvalid,
       "'blk.0.ffn_down.weight' of shape [8, 8] is missing"},
      {"scaling of another kind",
       [](GgufSpec* s) { *s->Key("llama.rope.scaling.type") = GgufString("longrope"); },
       kUnimplemented, "llama.rope.scaling.type: 'longrope' is not supported; none, linear"},
      {"negative scaling", [](GgufSpec* s) { *s->Key("llama.rope.scaling.factor") = GgufF32(-2); },
       kInvalid, "llama.rope.scaling.factor: -2 is not above zero"},
      {"a key that nobody knows",
       [](GgufSpec* s) { *s->Key("llama.attention.sinks") = GgufU32(4); }, kUnimplemented,
       "llama.attention.sinks: is not understood"},
      {"layers that differ",
       [](GgufSpec* s) {
         *s->Key("llama.block_count") = GgufU32(2);
         *s->Key("llama.feed_forward_length") = GgufInts({8, 16});
       },
       kUnimplemented, "llama.feed_forward_length: 8 in layer 0 and 16 in layer 1"},
      {"a list of another length",
       [](GgufSpec* s) { *s->Key("llama.attention.head_count") = GgufInts({2, 2}); }, kInvalid,
       "has 2 elements for 1 layers"},
      {"left-over tensor",
       [](GgufSpec* s) { s->tensors.push_back({"blk.0.post_attention_norm.weight", {1}, 0, "1234", {}}); },
       kUnimplemented, "'blk.0.post_attention_norm.weight' is no part of architecture llama"},
      {"shape", [](GgufSpec* s) { s->tensors[3].dimensions = {4, 16}; }, kInvalid,
       "'blk.0.attn_q.weight' has shape [16, 4], but the configuration asks for [8, 8]"},
      {"rope factors' shape",
       [](GgufSpec* s) { s->tensors.push_back({"rope_freqs.weight", {1}, 0, "1234", {}}); },
       kInvalid, "'rope_freqs.weight' has shape [1]"},
      {"rope factor zero",
       [](GgufSpec* s) {
         s->tensors.push_back({"rope_freqs.weight", {2}, 0, std::string(8, '\0'), {}});
       },
       kInvalid, "rope frequency factor 0"},
      {"no tokenizer", [](GgufSpec* s) { s->Drop("tokenizer.ggml.model"); }, kInvalid,
       "tokenizer.ggml.model: is missing"},
      {"other tokenizer", With("tokenizer.ggml.model", GgufString("llama")), kUnimplemented,
       "'llama' is not supported; gpt2"},
      {"other pre-tokenizer", With("tokenizer.ggml.pre", GgufString("tekken")), kUnimplemented,
       "'tekken' is not supported; supported: default, gpt-2, smollm"},
      {"no tokens", [](GgufSpec* s) { s->Drop("tokenizer.ggml.tokens"); }, kInvalid,
       "is missing or empty"},
      {"tokens are numbers", With("tokenizer.ggml.tokens", GgufInts({1, 2})), kInvalid,
       "is not an array of strings"},
      {"token not UTF-8",
       With("tokenizer.ggml.tokens", GgufStrings({"<|end|>", "a", "b", "\xf0\x9f"})), kInvalid,
       "element 3, '\\xf0\\x9f', is not UTF-8"},
      {"too many tokens",
       [](GgufSpec* s) {
         *s->Key("tokenizer.ggml.tokens") = GgufStrings({"<|end|>", "a", "b", "ab", "c"});
         *s->Key("tokenizer.ggml.token_type") = GgufInts({3, 1, 1, 1, 1});
       },
       kInvalid, "the tokenizer has 5 tokens, but the embedding only 4 rows"},
      {"token types' count", With("tokenizer.ggml.token_type", GgufInts({3})), kInvalid,
       "has 1 elements for 4 tokens"},
      {"token type", With("tokenizer.ggml.token_type", GgufInts({3, 1, 1, 9})), kInvalid,
       "element 3: unknown type 9"},
      {"merge of one", With("tokenizer.ggml.merges", GgufStrings({"ab"})), kInvalid,
       "element 0, 'ab', is not two tokens"},
      {"merge of three", With("tokenizer.ggml.merges", GgufStrings({"a b ab"})), kInvalid,
       "is not two tokens"},
      {"no merges", [](GgufSpec* s) { s->Drop("tokenizer.ggml.merges"); }, kInvalid, "is missing"},
      {"end token", With("tokenizer.ggml.eos_token_id", GgufU32(4)), kInvalid,
       "4 is no token; there are 4"},
      {"first token without id", With("tokenizer.ggml.add_bos_token", GgufBool(1)), kInvalid,
       "is true without tokenizer.ggml.bos_token_id"},
      {"bool of 2", With("tokenizer.ggml.add_bos_token", GgufBool(2)), kInvalid, "2 is not a bool"},
      {"end token after prompts", With("tokenizer.ggml.add_eos_token", GgufBool(1)), kUnimplemented,
       "not supported"},
  };
  return *kCases;
}

TEST_F(GgufTest, RefusesMalformedFilesByName) {
  for (const BadCase& bad : BadCases()) {
    SCOPED_TRACE(bad.name);
    GgufSpec spec = TinyGguf();
    bad.spoil(&spec);
    const auto checkpoint = Load(spec.Build());
    ASSERT_FALSE(checkpoint.ok());
    EXPECT_EQ(checkpoint.status().code(), bad.code) << checkpoint.status();
    EXPECT_THAT(std::string(checkpoint.status().message()), HasSubstr(bad.message));
    EXPECT_THAT(std::string(checkpoint.status().message()), HasSubstr(folder_.File("tiny.gguf")));
  }
}

TEST_F(GgufTest, RefusesEveryTruncation) {
  const std::string whole = TinyGguf().Build();
  ASSERT_TRUE(Load(whole).ok());
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto checkpoint = Load(whole.substr(0, size));
    ASSERT_FALSE(checkpoint.ok()) << size;
    ASSERT_TRUE(absl::IsInvalidArgument(checkpoint.status())) << size << checkpoint.status();
  }
}

TEST_F(GgufTest, SurvivesFlippedBytes) {
  const std::string whole = TinyGguf().Build();
  const size_t data_bytes = 4 * (32 + 3 * 8 + 5 * 64 + 2 * 32);
  const uint32_t seed = testing::Seed();
  std::cout << "seed " << seed << std::endl;
  std::mt19937 random(seed);
  int sound = 0;
  for (int round = 0; round < 1500; ++round) {
    std::string bytes = whole;
    const int flips = 1 + static_cast<int>(random() % 3);
    for (int i = 0; i < flips; ++i) {
      bytes[random() % (bytes.size() - data_bytes)] = static_cast<char>(random() % 256);
    }
    const auto checkpoint = Load(bytes);
    if (!checkpoint.ok()) continue;
    ++sound;
    ASSERT_GT(ReadEverything(*checkpoint), 0) << "seed " << seed << " round " << round;
    ASSERT_EQ(checkpoint->tokenizer.tokens.size(), checkpoint->tokenizer.kinds.size());
    ASSERT_EQ(checkpoint->tokenizer.tokens.size(),
              static_cast<size_t>(checkpoint->config.vocab_size));
  }
  // A flipped letter of a name or a number that may differ leaves the file sound.
  EXPECT_GT(sound, 0) << "seed " << seed;
}

TEST_F(GgufTest, ReportsMissingFile) {
  const auto checkpoint = LoadCheckpoint(folder_.File("none.gguf"), LoadFormat::kAuto);
  EXPECT_TRUE(absl::IsNotFound(checkpoint.status())) << checkpoint.status();
}

TEST_F(GgufTest, FindsNoWeightThatTheConfigurationLacks) {
  const auto checkpoint = Load(TinyGguf().Build());
  ASSERT_TRUE(checkpoint.ok());
  for (const WeightRole role :
       {WeightRole::kOutput, WeightRole::kQueryBias, WeightRole::kQueryNorm}) {
    EXPECT_TRUE(absl::IsNotFound(checkpoint->weights->Find({role, 0}).status()));
  }
  EXPECT_TRUE(absl::IsNotFound(checkpoint->weights->Find({WeightRole::kQuery, 1}).status()));
}

}  // namespace
}  // namespace swaa
