// Weights of mixtures of experts: in GGUF files one tensor for all experts of a layer, of any type;
// in Hugging Face's folders one for each, or stacked.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/dequantize.h"
#include "tests/unit/checkpoint/gguf_builder.h"
#include "tests/unit/checkpoint/hf_folder_fixture.h"
#include "tests/unit/checkpoint/test_files.h"

namespace swaa {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr int64_t kExperts = 3, kWidth = 2;

std::string Floats(int64_t count, float first) {
  std::string data;
  for (int64_t i = 0; i < count; ++i) data += Raw(first + static_cast<float>(i));
  return data;
}

// The tiny model as a mixture: its feed-forward is three experts of width 2, two of them a token.
GgufSpec TinyMixture() {
  GgufSpec spec = TinyGguf();
  for (auto& [key, value] : spec.keys) {
    if (key.starts_with("llama.")) key = "qwen3moe" + key.substr(5);
  }
  *spec.Key("general.architecture") = GgufString("qwen3moe");
  *spec.Key("qwen3moe.expert_count") = GgufU32(kExperts);
  *spec.Key("qwen3moe.expert_used_count") = GgufU32(2);
  *spec.Key("qwen3moe.expert_feed_forward_length") = GgufU32(kWidth);
  std::erase_if(spec.tensors, [](const GgufTensorSpec& tensor) {
    return tensor.name.starts_with("blk.0.ffn_") && tensor.name != "blk.0.ffn_norm.weight";
  });
  const uint64_t width = kWidth, experts = kExperts;
  spec.tensors.push_back({"blk.0.attn_q_norm.weight", {4}, 0, Floats(4, 1), {}});
  spec.tensors.push_back({"blk.0.attn_k_norm.weight", {4}, 0, Floats(4, 1), {}});
  spec.tensors.push_back({"blk.0.ffn_gate_inp.weight", {8, experts}, 0, Floats(24, 0), {}});
  spec.tensors.push_back({"blk.0.ffn_gate_exps.weight", {8, width, experts}, 0, Floats(48, 0), {}});
  spec.tensors.push_back({"blk.0.ffn_up_exps.weight", {8, width, experts}, 0, Floats(48, 100), {}});
  spec.tensors.push_back(
      {"blk.0.ffn_down_exps.weight", {width, 8, experts}, 0, Floats(48, 200), {}});
  return spec;
}

class GgufExpertsTest : public testing::Test {
 protected:
  absl::StatusOr<Checkpoint> Load(const GgufSpec& spec) {
    return LoadCheckpoint(folder_.Write("tiny.gguf", spec.Build()), LoadFormat::kAuto);
  }
  void ExpectRefusal(const GgufSpec& spec, absl::StatusCode code, const std::string& message) {
    const absl::Status status = Load(spec).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
  TempFolder folder_;
};

TEST_F(GgufExpertsTest, EachExpertHasItsPartOfTheTensor) {
  const auto checkpoint = Load(TinyMixture());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto& experts = checkpoint->config.experts;
  ASSERT_TRUE(experts.has_value());
  EXPECT_EQ(experts->count, 3);
  EXPECT_EQ(experts->per_token, 2);
  EXPECT_EQ(experts->ffn_width, 2);
  EXPECT_TRUE(experts->normalize);
  EXPECT_THAT(experts->dense_layers, ElementsAre());
  EXPECT_EQ(ReadAll(*checkpoint, WeightRole::kRouter, 0)[23], 23);
  for (int32_t e = 0; e < kExperts; ++e) {
    const std::vector<float> gate = ReadAll(*checkpoint, WeightRole::kExpertGate, 0, e);
    const std::vector<float> up = ReadAll(*checkpoint, WeightRole::kExpertUp, 0, e);
    const std::vector<float> down = ReadAll(*checkpoint, WeightRole::kExpertDown, 0, e);
    ASSERT_EQ(gate.size(), 16u);
    ASSERT_EQ(down.size(), 16u);
    for (int i = 0; i < 16; ++i) {
      const auto place = static_cast<float>(16 * e + i);
      EXPECT_EQ(gate[i], place);
      EXPECT_EQ(up[i], 100 + place);
      EXPECT_EQ(down[i], 200 + place);
    }
  }
  EXPECT_EQ(checkpoint->weights->Find({WeightRole::kExpertDown, 0, 1})->rows, 8);
  EXPECT_TRUE(absl::IsNotFound(checkpoint->weights->Find({WeightRole::kExpertUp, 0, 3}).status()));
  EXPECT_TRUE(absl::IsNotFound(checkpoint->weights->Find({WeightRole::kFfnUp, 0}).status()));
}

TEST_F(GgufExpertsTest, ExpertsMayHaveAnyTensorType) {
  for (const TensorTypeInfo& type : AllTensorTypes()) {
    SCOPED_TRACE(type.name);
    GgufSpec spec = TinyMixture();
    // Rows of a whole block.
    const auto hidden = static_cast<uint64_t>(std::max<int64_t>(type.block_elements, 8));
    *spec.Key("qwen3moe.embedding_length") = GgufU32(static_cast<uint32_t>(hidden));
    *spec.Key("qwen3moe.attention.key_length") = GgufU32(4);
    for (GgufTensorSpec& tensor : spec.tensors) {
      for (uint64_t& size : tensor.dimensions) {
        if (size == 8 && hidden != 8) size = hidden;
      }
    }
    // Queries stay 8 rows of hidden, attention's output hidden rows of 8.
    spec.Tensor("blk.0.attn_q.weight")->dimensions = {hidden, 8};
    spec.Tensor("blk.0.attn_output.weight")->dimensions = {8, hidden};
    for (GgufTensorSpec& tensor : spec.tensors) {
      uint64_t count = 1;
      for (const uint64_t size : tensor.dimensions) count *= size;
      tensor.data = Floats(static_cast<int64_t>(count), 0);
    }
    GgufTensorSpec* up = spec.Tensor("blk.0.ffn_up_exps.weight");
    up->type = type.gguf_id;
    const int64_t row_bytes = static_cast<int64_t>(hidden) / type.block_elements * type.block_bytes;
    up->data.clear();
    // Any bytes: what they mean is DequantizeRow's matter. 0x30 keeps scales from being infinite.
    for (int64_t i = 0; i < kExperts * kWidth * row_bytes; ++i) {
      up->data += static_cast<char>(0x30 + i * 7 % 11);
    }
    const auto checkpoint = Load(spec);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    std::vector<float> row(hidden);
    for (int32_t e = 0; e < kExperts; ++e) {
      const std::vector<float> got = ReadAll(*checkpoint, WeightRole::kExpertUp, 0, e);
      for (int64_t r = 0; r < kWidth; ++r) {
        const char* bytes = up->data.data() + (e * kWidth + r) * row_bytes;
        DequantizeRow(type.type, reinterpret_cast<const std::byte*>(bytes),
                      static_cast<int64_t>(hidden), row.data());
        EXPECT_TRUE(std::equal(row.begin(), row.end(), got.begin() + r * hidden))
            << "expert " << e << ", row " << r;
      }
    }
  }
}

TEST_F(GgufExpertsTest, WhatKeysLeaveUnsaidIsAsInLlamaCpp) {
  GgufSpec spec = TinyMixture();
  spec.Drop("qwen3moe.expert_feed_forward_length");  // then feed_forward_length / experts used
  *spec.Key("qwen3moe.feed_forward_length") = GgufU32(2 * kWidth);
  *spec.Key("qwen3moe.expert_weights_norm") = GgufBool(0);
  *spec.Key("qwen3moe.expert_gating_func") = GgufU32(1);
  const auto checkpoint = Load(spec);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->config.experts->ffn_width, kWidth);
  EXPECT_FALSE(checkpoint->config.experts->normalize);
}

TEST_F(GgufExpertsTest, RefusesWhatIsNoWholeMixture) {
  using absl::StatusCode;
  GgufSpec spec = TinyMixture();
  spec.Drop("qwen3moe.expert_count");
  ExpectRefusal(spec, StatusCode::kInvalidArgument, "qwen3moe.expert_count: is missing");
  spec = TinyMixture();
  *spec.Key("qwen3moe.expert_used_count") = GgufU32(4);
  ExpectRefusal(spec, StatusCode::kInvalidArgument, "qwen3moe.expert_used_count: 4");
  spec = TinyMixture();
  *spec.Key("qwen3moe.expert_count") = GgufU32(4);
  ExpectRefusal(spec, StatusCode::kInvalidArgument,
                "'blk.0.ffn_gate_exps.weight' has shape [3, 2, 8], but the configuration asks for "
                "[4, 2, 8]");
  spec = TinyMixture();
  std::erase_if(spec.tensors, [](const auto& t) { return t.name == "blk.0.ffn_up_exps.weight"; });
  ExpectRefusal(spec, StatusCode::kInvalidArgument,
                "'blk.0.ffn_up_exps.weight[0]' of shape [2, 8] is missing");
  spec = TinyMixture();
  *spec.Key("qwen3moe.expert_shared_count") = GgufU32(1);
  ExpectRefusal(spec, StatusCode::kUnimplemented, "expert_shared_count: 1 is not supported");
  spec = TinyMixture();
  *spec.Key("qwen3moe.expert_gating_func") = GgufU32(2);
  ExpectRefusal(spec, StatusCode::kUnimplemented, "expert_gating_func: 2 is not supported");
  spec = TinyMixture();
  spec.tensors.push_back({"blk.0.ffn_up_exps.weight[1]", {8, kWidth}, 0, Floats(16, 0), {}});
  ExpectRefusal(spec, StatusCode::kInvalidArgument, "both a tensor of its own and part of one");
  spec = TinyMixture();
  spec.tensors.push_back({"blk.0.ffn_gate_shexp.weight", {8, kWidth}, 0, Floats(16, 0), {}});
  ExpectRefusal(spec, StatusCode::kUnimplemented, "ffn_gate_shexp.weight' is no part of");
}

// A folder of stacked experts, and the same weights one by one.
TEST_F(HfFolderTest, ExpertsMayBeStackedOrOneByOne) {
  constexpr const char* kStacked = "tests/data/tiny-qwen3moe-stacked";
  Copy(kStacked);
  const auto stacked =
      LoadCheckpoint(kStacked, LoadFormat::kAuto);  // mapped: no copy to be changed
  ASSERT_TRUE(stacked.ok()) << stacked.status();
  const ExpertsConfig& experts = *stacked->config.experts;
  EXPECT_THAT(experts.dense_layers, ElementsAre(0));
  EXPECT_FALSE(experts.normalize);
  SafetensorsText file(ReadWhole(folder_.File("model.safetensors")));
  const std::string prefix = "model.layers.1.mlp.experts.";
  const std::string gate_up = file.Data(prefix + "gate_up_proj");
  const std::string down = file.Data(prefix + "down_proj");
  file.Remove(prefix + "gate_up_proj");
  const int64_t width = experts.ffn_width, hidden = stacked->config.hidden;
  const size_t bytes = width * hidden * 2;
  for (int32_t e = 0; e < experts.count; ++e) {
    const std::string own = prefix + std::to_string(e);
    file.Add(own + ".gate_proj.weight", {width, hidden}, gate_up.substr(2 * e * bytes, bytes),
             "BF16");
    file.Add(own + ".up_proj.weight", {width, hidden}, gate_up.substr((2 * e + 1) * bytes, bytes),
             "BF16");
  }
  folder_.Write("model.safetensors", file.Build());
  auto single = Load();
  ASSERT_TRUE(single.ok()) << single.status();
  file.Remove(prefix + "down_proj");
  folder_.Write("model.safetensors", file.Build());
  ExpectRefusal(absl::StatusCode::kInvalidArgument,
                "'model.layers.1.mlp.experts.0.down_proj.weight' of shape [32, 24] is missing");
  for (int32_t e = 0; e < experts.count; ++e) {
    file.Add(prefix + std::to_string(e) + ".down_proj.weight", {hidden, width},
             down.substr(e * bytes, bytes), "BF16");
  }
  folder_.Write("model.safetensors", file.Build());
  single = Load();
  ASSERT_TRUE(single.ok()) << single.status();
  for (const WeightRole role :
       {WeightRole::kExpertGate, WeightRole::kExpertUp, WeightRole::kExpertDown}) {
    for (int32_t e = 0; e < experts.count; ++e) {
      EXPECT_EQ(ReadAll(*single, role, 1, e), ReadAll(*stacked, role, 1, e)) << e;
    }
  }
  EXPECT_NE(ReadAll(*single, WeightRole::kExpertUp, 1, 0),
            ReadAll(*single, WeightRole::kExpertUp, 1, 1));
}

// Both kinds of file hold the same numbers.
TEST(TinyMixtureTest, GgufAndSafetensorsAreTheSame) {
  const auto folder = LoadCheckpoint("tests/data/tiny-qwen3moe", LoadFormat::kAuto);
  const auto gguf = LoadCheckpoint("tests/data/tiny-qwen3moe.gguf", LoadFormat::kAuto);
  ASSERT_TRUE(folder.ok() && gguf.ok()) << folder.status() << gguf.status();
  ASSERT_TRUE(folder->config.experts.has_value());
  EXPECT_GT(ReadEverything(*folder), 0);
  for (const WeightSpec& spec : WeightSpecs()) {
    const auto keys = WeightKeys(spec, folder->config);
    EXPECT_EQ(keys.size(), WeightKeys(spec, gguf->config).size());
    for (const auto& [role, layer, expert] : keys) {
      EXPECT_EQ(ReadAll(*folder, role, layer, expert), ReadAll(*gguf, role, layer, expert))
          << spec.gguf << " " << layer << " " << expert;
    }
  }
}

}  // namespace
}  // namespace swaa
