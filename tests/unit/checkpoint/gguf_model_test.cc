// What a GGUF file's metadata make of a model: families, scaling, parts, tokenizer.

#include <cmath>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/rope_frequencies.h"
#include "tests/unit/checkpoint/gguf_builder.h"
#include "tests/unit/checkpoint/test_files.h"

namespace swaa {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class GgufModelTest : public testing::Test {
 protected:
  absl::StatusOr<Checkpoint> Load(const std::string& bytes, LoadFormat format = LoadFormat::kAuto) {
    return LoadCheckpoint(folder_.Write("tiny.gguf", bytes), format);
  }
  TempFolder folder_;
};

TEST_F(GgufModelTest, ReadsScalingOfRotaryFrequencies) {
  using Keys = std::vector<std::pair<std::string, std::string>>;
  const auto config = [this](const Keys& keys) {
    GgufSpec spec = TinyGguf();
    for (const auto& [key, value] : keys) *spec.Key("llama.rope." + key) = value;
    auto checkpoint = Load(spec.Build());
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    return checkpoint->config;
  };
  const std::vector<float> plain = RopeInverseFrequencies(config({}));
  const std::string four = GgufF32(4);
  const struct {
    Keys keys;
    float divisor;
  } cases[] = {
      // A factor without a type is linear, and so is the old key.
      {{{"scaling.factor", four}}, 4},
      {{{"scale_linear", four}}, 4},
      {{{"scaling.type", GgufString("linear")}, {"scaling.factor", four}}, 4},
      {{{"scaling.factor", GgufF32(2)}, {"scale_linear", four}}, 2},
      {{{"scaling.type", GgufString("none")}, {"scaling.factor", four}}, 1},
      {{{"scaling.type", GgufString("linear")}}, 1},
      {{{"scaling.factor", GgufF32(0)}}, 1},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.keys.front().first);
    const ModelConfig got = config(c.keys);
    const std::vector<float> frequencies = RopeInverseFrequencies(got);
    for (size_t i = 0; i < plain.size(); ++i) {
      EXPECT_FLOAT_EQ(frequencies[i], plain[i] / c.divisor);
    }
    EXPECT_EQ(RopeAttentionFactor(got), 1);
  }
  const ModelConfig yarn = config({{"scaling.type", GgufString("yarn")},
                                   {"scaling.factor", four},
                                   {"scaling.original_context_length", GgufU32(32)},
                                   {"scaling.attn_factor", GgufF32(0.5)}});
  EXPECT_EQ(std::get<YarnRopeScaling>(yarn.rope_scaling).original_context, 32);
  EXPECT_FLOAT_EQ(RopeAttentionFactor(yarn), 0.5f * (1 + 0.1f * std::log(4.0f)));
}

// Tensors of the tiny model in parts, the metadata in the first.
class GgufSplitTest : public GgufModelTest {
 protected:
  static constexpr int kParts = 3;

  GgufSplitTest() {
    const GgufSpec whole = TinyGguf();
    for (int i = 0; i < kParts; ++i) {
      GgufSpec& part = parts_.emplace_back();
      if (i == 0) part.keys = whole.keys;
      for (size_t t = i; t < whole.tensors.size(); t += kParts) {
        part.tensors.push_back(whole.tensors[t]);
      }
      *part.Key("split.no") = Raw<uint32_t>(2) + Raw<uint16_t>(i);
      *part.Key("split.count") = Raw<uint32_t>(2) + Raw<uint16_t>(kParts);
      *part.Key("split.tensors.count") = GgufU32(whole.tensors.size());
    }
  }
  static std::string Name(int i) { return "tiny-0000" + std::to_string(i + 1) + "-of-00003.gguf"; }
  absl::StatusOr<Checkpoint> LoadParts() {
    for (int i = 0; i < kParts; ++i) folder_.Write(Name(i), parts_[i].Build());
    return LoadCheckpoint(folder_.File(Name(0)), LoadFormat::kAuto);
  }
  void ExpectRefusal(const absl::Status& status, absl::StatusCode code, const char* message) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }

  std::vector<GgufSpec> parts_;
};

TEST_F(GgufSplitTest, PartsAreOneModel) {
  const auto checkpoint = LoadParts();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto whole = Load(TinyGguf().Build());
  ASSERT_TRUE(whole.ok()) << whole.status();
  for (const WeightSpec& spec : WeightSpecs()) {
    if (!spec.present(whole->config, 0)) continue;
    EXPECT_EQ(ReadAll(*checkpoint, spec.role, 0), ReadAll(*whole, spec.role, 0)) << spec.gguf;
  }
  EXPECT_GT(checkpoint->weights->mapped_bytes(), whole->weights->mapped_bytes());
}

TEST_F(GgufSplitTest, RefusesWhatIsNoWholeModel) {
  using absl::StatusCode;
  ASSERT_TRUE(LoadParts().ok());
  ExpectRefusal(LoadCheckpoint(folder_.File(Name(1)), LoadFormat::kAuto).status(),
                StatusCode::kInvalidArgument, "part 2 of 3; name part 1");
  std::filesystem::remove(folder_.File(Name(2)));
  ExpectRefusal(LoadCheckpoint(folder_.File(Name(0)), LoadFormat::kAuto).status(),
                StatusCode::kNotFound, "part 1 of 3; part 3 is missing");
  ExpectRefusal(Load(parts_[0].Build()).status(), StatusCode::kInvalidArgument,
                "its name does not end with -00001-of-00003.gguf");
  *parts_[1].Key("split.no") = Raw<uint32_t>(2) + Raw<uint16_t>(2);
  ExpectRefusal(LoadParts().status(), StatusCode::kInvalidArgument,
                "split.no: says part 3 of 3, its name part 2 of 3");
  *parts_[1].Key("split.no") = Raw<uint32_t>(2) + Raw<uint16_t>(1);
  parts_[1].tensors.push_back(parts_[0].tensors[0]);
  ExpectRefusal(LoadParts().status(), StatusCode::kInvalidArgument, "is in another part already");
  parts_[1].tensors.pop_back();
  *parts_[0].Key("split.tensors.count") = GgufU32(12);
  ExpectRefusal(LoadParts().status(), StatusCode::kInvalidArgument,
                "split.tensors.count: 12, but the parts hold 11");
  *parts_[0].Key("split.no") = Raw<uint32_t>(2) + Raw<uint16_t>(7);
  ExpectRefusal(LoadParts().status(), StatusCode::kInvalidArgument, "7 of 3 parts is no part");
}

TEST_F(GgufSplitTest, OfTwoTheOtherIsMissingForDummyWeightsToo) {
  GgufSpec spec = TinyGguf();
  *spec.Key("split.no") = Raw<uint32_t>(2) + Raw<uint16_t>(0);
  *spec.Key("split.count") = Raw<uint32_t>(2) + Raw<uint16_t>(2);
  const std::string path = folder_.Write("split-00001-of-00002.gguf", spec.Build());
  ExpectRefusal(LoadCheckpoint(path, LoadFormat::kDummy).status(), absl::StatusCode::kNotFound,
                "part 1 of 2; the other part is missing");
}

TEST_F(GgufModelTest, FilesWithoutAPreTokeniserHaveLlamaCppsDefault) {
  GgufSpec spec = TinyGguf();
  *spec.Key("tokenizer.ggml.pre") = GgufString("default");
  auto checkpoint = Load(spec.Build());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->tokenizer.pre_tokenizer, PreTokenizer::kLlamaCppDefault);
  EXPECT_THAT(checkpoint->warnings, ElementsAre());
  spec.Drop("tokenizer.ggml.pre");
  checkpoint = Load(spec.Build());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->tokenizer.pre_tokenizer, PreTokenizer::kLlamaCppDefault);
  EXPECT_THAT(checkpoint->warnings, ElementsAre(HasSubstr("tokenizer.ggml.pre: is missing")));
}

TEST_F(GgufModelTest, MinusOneIsNoToken) {
  GgufSpec spec = TinyGguf();
  *spec.Key("tokenizer.ggml.bos_token_id") = GgufU32(0xffffffff);
  *spec.Key("tokenizer.ggml.eot_token_id") = Raw<uint32_t>(5) + Raw<int32_t>(-1);
  const auto checkpoint = Load(spec.Build());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_FALSE(checkpoint->tokenizer.bos_id.has_value());
  EXPECT_THAT(checkpoint->tokenizer.eos_ids, ElementsAre(0));
}

TEST_F(GgufModelTest, EndsAreAlsoThoseThatTheirTextSays) {
  GgufSpec spec = TinyGguf();
  *spec.Key("tokenizer.ggml.tokens") = GgufStrings({"<|endoftext|>", "<|im_end|>", "a", "b"});
  *spec.Key("tokenizer.ggml.token_type") = GgufInts({3, 3, 1, 1});
  *spec.Key("tokenizer.ggml.merges") = GgufStrings({});
  auto checkpoint = Load(spec.Build());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT(checkpoint->tokenizer.eos_ids, ElementsAre(0, 1));
  // Text that the model may write is no end.
  *spec.Key("tokenizer.ggml.token_type") = GgufInts({3, 1, 1, 1});
  checkpoint = Load(spec.Build());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT(checkpoint->tokenizer.eos_ids, ElementsAre(0));
}

TEST_F(GgufModelTest, ListsThatAreTheSameForEveryLayerAreOneNumber) {
  GgufSpec spec = TinyGguf();
  *spec.Key("llama.attention.head_count") = GgufInts({2});
  *spec.Key("llama.attention.head_count_kv") = GgufInts({1});
  *spec.Key("llama.feed_forward_length") = GgufInts({8});
  const auto checkpoint = Load(spec.Build());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->config.heads, 2);
  EXPECT_EQ(checkpoint->config.kv_heads, 1);
  EXPECT_EQ(checkpoint->config.ffn_width, 8);
}

TEST_F(GgufModelTest, KnowsWhatItsFamiliesDoNotSay) {
  // The tiny model as another architecture, with the tensors that it then has.
  const auto as = [](const std::string& architecture) {
    GgufSpec spec = TinyGguf();
    for (auto& [key, value] : spec.keys) {
      if (key.starts_with("llama.")) key = architecture + key.substr(5);
    }
    *spec.Key("general.architecture") = GgufString(architecture);
    return spec;
  };
  const auto add = [](const std::string& name, uint64_t size, GgufSpec* spec) {
    std::string data;
    for (uint64_t i = 0; i < size; ++i) data += Raw(static_cast<float>(i + 1));
    spec->tensors.push_back({name, {size}, 0, data, {}});
  };
  GgufSpec qwen2 = as("qwen2");
  EXPECT_THAT(std::string(Load(qwen2.Build()).status().message()), HasSubstr("attn_q.bias"));
  add("blk.0.attn_q.bias", 8, &qwen2);
  add("blk.0.attn_k.bias", 4, &qwen2);
  add("blk.0.attn_v.bias", 4, &qwen2);
  auto checkpoint = Load(qwen2.Build());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE(checkpoint->config.qkv_bias);
  EXPECT_FALSE(checkpoint->config.qk_norm);
  // Rows are those of the file, unlike llama's.
  EXPECT_THAT(ReadAll(*checkpoint, WeightRole::kQueryBias, 0), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
  const std::vector<float> q = ReadAll(*checkpoint, WeightRole::kQuery, 0);
  for (int i = 0; i < 64; ++i) EXPECT_EQ(q[i], 3000 + i);

  GgufSpec qwen3 = as("qwen3");
  EXPECT_THAT(std::string(Load(qwen3.Build()).status().message()), HasSubstr("attn_q_norm"));
  add("blk.0.attn_q_norm.weight", 4, &qwen3);
  add("blk.0.attn_k_norm.weight", 4, &qwen3);
  checkpoint = Load(qwen3.Build());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE(checkpoint->config.qk_norm);
  EXPECT_FALSE(checkpoint->config.qkv_bias);
  EXPECT_EQ(ReadAll(*checkpoint, WeightRole::kKey, 0)[8], 4008);

  GgufSpec llama = TinyGguf();
  add("blk.0.attn_output.bias", 8, &llama);
  checkpoint = Load(llama.Build());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE(checkpoint->config.output_bias);
  EXPECT_EQ(ReadAll(*checkpoint, WeightRole::kAttentionOutputBias, 0).back(), 8);
}

TEST_F(GgufModelTest, ReadsBiasesRopeFactorsAndUntiedOutput) {
  GgufSpec spec = TinyGguf();
  const auto add = [&spec](const std::string& name, std::vector<uint64_t> dimensions, int count) {
    std::string data;
    for (int i = 0; i < count; ++i) data += Raw(static_cast<float>(i + 1));
    spec.tensors.push_back({name, std::move(dimensions), 0, data, {}});
  };
  add("blk.0.attn_q.bias", {8}, 8);
  add("blk.0.attn_k.bias", {4}, 4);
  add("blk.0.attn_v.bias", {4}, 4);
  add("rope_freqs.weight", {2}, 2);
  add("output.weight", {8, 4}, 32);
  const auto checkpoint = Load(spec.Build());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE(checkpoint->config.qkv_bias);
  EXPECT_FALSE(checkpoint->config.tied_embeddings);
  EXPECT_THAT(checkpoint->config.rope_frequency_factors, ElementsAre(1, 2));
  EXPECT_THAT(ReadAll(*checkpoint, WeightRole::kQueryBias, 0), ElementsAre(1, 3, 2, 4, 5, 7, 6, 8));
  EXPECT_THAT(ReadAll(*checkpoint, WeightRole::kKeyBias, 0), ElementsAre(1, 3, 2, 4));
  EXPECT_THAT(ReadAll(*checkpoint, WeightRole::kValueBias, 0), ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(ReadAll(*checkpoint, WeightRole::kOutput, 0).back(), 32);
}

TEST_F(GgufModelTest, PadsTheVocabularyToTheEmbedding) {
  GgufSpec spec = TinyGguf();
  *spec.Key("tokenizer.ggml.tokens") = GgufStrings({"<|end|>", "a"});
  *spec.Key("tokenizer.ggml.token_type") = GgufInts({3, 1});
  *spec.Key("tokenizer.ggml.merges") = GgufStrings({});
  const auto checkpoint = Load(spec.Build());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ASSERT_EQ(checkpoint->tokenizer.tokens.size(), 4u);
  EXPECT_EQ(checkpoint->tokenizer.kinds[3], TokenKind::kUnused);
  EXPECT_NE(checkpoint->tokenizer.tokens[2], checkpoint->tokenizer.tokens[3]);
}

TEST_F(GgufModelTest, KnowsThePreTokenizers) {
  const struct {
    const char* pre;
    PreTokenizer kind;
    bool nfc;
    bool ignore_merges;
    bool add_bos;
  } cases[] = {
      {"smollm", PreTokenizer::kSmolLm, false, false, false},
      {"llama-bpe", PreTokenizer::kLlamaBpe, false, true, true},
      {"llama3", PreTokenizer::kLlamaBpe, false, true, true},
      {"qwen2", PreTokenizer::kQwen2, true, false, false},
  };
  for (const auto& expected : cases) {
    GgufSpec spec = TinyGguf();
    *spec.Key("tokenizer.ggml.pre") = GgufString(expected.pre);
    *spec.Key("tokenizer.ggml.bos_token_id") = GgufU32(1);
    *spec.Key("tokenizer.ggml.eot_token_id") = GgufU32(3);
    const auto checkpoint = Load(spec.Build());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    const TokenizerData& data = checkpoint->tokenizer;
    EXPECT_EQ(data.pre_tokenizer, expected.kind) << expected.pre;
    EXPECT_EQ(data.normalize_nfc, expected.nfc) << expected.pre;
    EXPECT_EQ(data.ignore_merges, expected.ignore_merges) << expected.pre;
    EXPECT_EQ(data.add_bos, expected.add_bos) << expected.pre;
    EXPECT_EQ(data.bos_id, 1);
    EXPECT_THAT(data.eos_ids, ElementsAre(0, 3));
    *spec.Key("tokenizer.ggml.add_bos_token") = GgufBool(!expected.add_bos);
    EXPECT_EQ(Load(spec.Build())->tokenizer.add_bos, !expected.add_bos) << expected.pre;
  }
}

}  // namespace
}  // namespace swaa
