// Adapters as PEFT saves them: what is read, and what is refused by name.

#include "engine/checkpoint/peft_adapter.h"

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "tests/unit/checkpoint/test_files.h"

namespace swaa {
namespace {

using testing::HasSubstr;
using Json = nlohmann::json;

constexpr char kQuery[] = "base_model.model.model.layers.1.self_attn.q_proj";
constexpr char kDown[] = "base_model.model.model.layers.0.mlp.down_proj";

ModelConfig SmallModel() {
  ModelConfig config;
  config.architecture = "llama";
  config.num_layers = 2;
  config.hidden = 8;
  config.ffn_width = 12;
  config.heads = 2;
  config.kv_heads = 1;
  config.head_dim = 6;
  config.vocab_size = 10;
  return config;
}

// What PEFT 0.18 writes for a plain adapter.
Json PlainConfig() {
  return Json::parse(R"({
    "alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null,
    "auto_mapping": null, "base_model_name_or_path": "model", "bias": "none",
    "corda_config": null, "ensure_weight_tying": false, "eva_config": null,
    "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": true,
    "init_lora_weights": true, "layer_replication": null, "layers_pattern": null,
    "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 6, "lora_bias": false,
    "lora_dropout": 0.05, "megatron_config": null, "megatron_core": "megatron.core",
    "modules_to_save": null, "peft_type": "LORA", "peft_version": "0.18.0",
    "qalora_group_size": 16, "r": 3, "rank_pattern": {}, "revision": null,
    "target_modules": ["q_proj", "down_proj"], "target_parameters": null,
    "task_type": "CAUSAL_LM", "trainable_token_indices": null, "use_dora": false,
    "use_qalora": false, "use_rslora": false})");
}

std::string Floats(int64_t count, float first = 0.5f) {
  std::vector<float> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = first + static_cast<float>(i) * 0.25f;
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

SafetensorsText NoTensors() {
  const uint64_t length = 2;
  return SafetensorsText(std::string(reinterpret_cast<const char*>(&length), 8) + "{}");
}

// Both matrices of a module.
void AddModule(SafetensorsText* tensors, const std::string& module, int64_t in, int64_t out,
               int64_t rank) {
  tensors->Add(module + ".lora_A.weight", {rank, in}, Floats(rank * in));
  tensors->Add(module + ".lora_B.weight", {out, rank}, Floats(out * rank, -1));
}

SafetensorsText PlainTensors() {
  SafetensorsText tensors = NoTensors();
  AddModule(&tensors, kQuery, 8, 12, 3);
  AddModule(&tensors, kDown, 12, 8, 3);
  return tensors;
}

absl::StatusOr<LoraCheckpoint> Read(const Json& config, SafetensorsText tensors) {
  const TempFolder folder;
  folder.Write("adapter_config.json", config.dump());
  folder.Write("adapter_model.safetensors", tensors.Build());
  return ReadPeftFolder(folder.path(), SmallModel(),
                        [](const std::string&) { return absl::OkStatus(); });
}

TEST(PeftAdapter, PlainOnesAreRead) {
  const auto adapter = Read(PlainConfig(), PlainTensors());
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  EXPECT_EQ(adapter->rank, 3);
  ASSERT_EQ(adapter->matrices.size(), 2u);
  const LoraMatrices& query = adapter->matrices.at({WeightRole::kQuery, 1});
  EXPECT_EQ(query.rank, 3);
  EXPECT_DOUBLE_EQ(query.scale, 2);
  EXPECT_THAT(query.down.shape, testing::ElementsAre(3, 8));
  EXPECT_THAT(query.up.shape, testing::ElementsAre(12, 3));
  float first = 0;
  DequantizeRow(query.down.type, query.down.data, 1, &first);
  EXPECT_EQ(first, 0.5f);
  EXPECT_TRUE(adapter->matrices.contains({WeightRole::kFfnDown, 0}));
}

TEST(PeftAdapter, ScalesFollowRanksPatternsAndRsLora) {
  Json config = PlainConfig();
  config["use_rslora"] = true;
  config["rank_pattern"] = {{"q_proj", 5}};
  config["alpha_pattern"] = {{"layers\\.0\\..*", 40}, {"proj", 99}};
  SafetensorsText tensors = NoTensors();
  AddModule(&tensors, kQuery, 8, 12, 5);
  AddModule(&tensors, kDown, 12, 8, 3);
  const auto adapter = Read(config, tensors);
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  EXPECT_EQ(adapter->rank, 5);
  // "proj" is no end of a name from a dot on.
  EXPECT_DOUBLE_EQ(adapter->matrices.at({WeightRole::kQuery, 1}).scale, 6 / std::sqrt(5));
  EXPECT_DOUBLE_EQ(adapter->matrices.at({WeightRole::kFfnDown, 0}).scale, 40 / std::sqrt(3));
}

TEST(PeftAdapter, DefaultsArePefts) {
  Json config = PlainConfig();
  config.erase("r");
  config.erase("lora_alpha");
  SafetensorsText tensors = NoTensors();
  AddModule(&tensors, kQuery, 8, 12, 8);
  const auto adapter = Read(config, tensors);
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  EXPECT_DOUBLE_EQ(adapter->matrices.begin()->second.scale, 1);
}

TEST(PeftAdapter, OptionsThatAreNotComputedAreRefusedByName) {
  const std::vector<std::pair<std::string, Json>> refused = {
      {"use_dora", true},
      {"lora_bias", true},
      {"bias", "all"},
      {"bias", "lora_only"},
      {"modules_to_save", {"lm_head"}},
      {"fan_in_fan_out", true},
      {"layer_replication", {{0, 1}, {0, 1}}},
      {"megatron_config", {{"a", 1}}},
      {"target_parameters", {"mlp.experts.gate_up_proj"}},
      {"trainable_token_indices", {1}},
      {"use_qalora", true},
      {"alora_invocation_tokens", {1, 2}},
      {"arrow_config", {{"top_k", 2}}},
      {"peft_type", "IA3"},
      {"task_type", "SEQ_CLS"},
      {"init_lora_weights", "pissa"},
      {"init_lora_weights", "olora"},
      {"init_lora_weights", "loftq"},
      {"target_modules", {"q_proj", "embed_tokens"}},
      {"target_modules", {"model.lm_head"}},
      {"an_option_of_tomorrow", 1},
  };
  for (const auto& [key, value] : refused) {
    Json config = PlainConfig();
    config[key] = value;
    const absl::Status status = Read(config, PlainTensors()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << key << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(key));
    EXPECT_THAT(std::string(status.message()), HasSubstr("adapter_config.json"));
  }
  // What changes nothing is no reason to refuse.
  for (const auto& [key, value] : std::vector<std::pair<std::string, Json>>{
           {"modules_to_save", Json::array()},
           {"an_option_of_tomorrow", nullptr},
           {"init_lora_weights", "gaussian"},
           {"target_modules", "all-linear"},
           {"target_modules", {"model.layers.1.self_attn.q_proj"}}}) {
    Json config = PlainConfig();
    config[key] = value;
    EXPECT_TRUE(Read(config, PlainTensors()).ok()) << key;
  }
}

TEST(PeftAdapter, WrongValuesAreRefused) {
  const std::vector<std::pair<std::string, Json>> wrong = {
      {"r", 0},
      {"r", 100000},
      {"r", "three"},
      {"lora_alpha", -1},
      {"lora_alpha", 1e9},
      {"peft_type", nullptr},
      {"rank_pattern", {{"q_proj", 2.5}}},
      {"rank_pattern", {{"q_proj", 0}}},
      {"rank_pattern", {{"(", 3}}},
      {"alpha_pattern", {{std::string(600, 'a'), 3}}},
      {"alpha_pattern", 3},
      {"use_rslora", 1},
      {"target_modules", 3},
      // Takes for ever to match.
      {"alpha_pattern", {{"(([a-z._0-9]|[a-z._0-9])+)+[A-Z]", 3}}},
  };
  for (const auto& [key, value] : wrong) {
    Json config = PlainConfig();
    config[key] = value;
    const absl::Status status = Read(config, PlainTensors()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << key << " " << value << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(key));
  }
}

TEST(PeftAdapter, TensorsThatDoNotFitAreNamed) {
  struct Case {
    std::string name;
    std::vector<int64_t> shape;
    std::string data;
    absl::StatusCode code;
    std::string says;
  };
  const std::string up = absl::StrCat(kQuery, ".lora_B.weight");
  const std::string nan = Floats(12 * 3 - 1) + std::string("\0\0\xc0\x7f", 4);
  const std::string large = Floats(12 * 3 - 1) + std::string("\0\0\x80\x47", 4);  // 65536
  const auto kWrong = absl::StatusCode::kInvalidArgument;
  const auto kUnknown = absl::StatusCode::kUnimplemented;
  const std::vector<Case> cases = {
      {up, {12, 2}, Floats(24), kWrong, "[12, 3]"},
      {up, {36}, Floats(36), kWrong, "[36]"},
      {up, {12, 3}, nan, kWrong, "nan"},
      {up, {12, 3}, large, kWrong, "65536"},
      {"base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight",
       {3, 8},
       Floats(24),
       kWrong,
       "lora_B"},
      {"base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight",
       {3, 8},
       Floats(24),
       kUnknown,
       "layers.2"},
      {"base_model.model.lm_head.lora_A.weight", {3, 8}, Floats(24), kUnknown, "lm_head"},
      {"base_model.model.model.embed_tokens.lora_embedding_A",
       {3, 8},
       Floats(24),
       kUnknown,
       "lora_embedding_A"},
      {"base_model.model.model.layers.0.mlp.down_proj.lora_magnitude_vector",
       {8},
       Floats(8),
       kUnknown,
       "lora_magnitude_vector"},
      {"base_model.model.model.layers.0.mlp.down_proj.lora_B.bias",
       {8},
       Floats(8),
       kUnknown,
       "lora_B.bias"},
  };
  for (const Case& c : cases) {
    SafetensorsText tensors = PlainTensors();
    tensors.Add(c.name, c.shape, c.data);
    const absl::Status status = Read(PlainConfig(), tensors).status();
    EXPECT_EQ(status.code(), c.code) << c.name << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.says)) << c.name;
  }
  EXPECT_EQ(Read(PlainConfig(), NoTensors()).status().code(), kWrong);
}

TEST(PeftAdapter, MissingFilesAreNamedAndPathsAreAskedFor) {
  const TempFolder folder;
  const auto any = [](const std::string&) { return absl::OkStatus(); };
  absl::Status status = ReadPeftFolder(folder.path(), SmallModel(), any).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("adapter_config.json"));
  folder.Write("adapter_config.json", PlainConfig().dump());
  status = ReadPeftFolder(folder.path(), SmallModel(), any).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("adapter_model.safetensors"));
  for (const char* file : {"adapter_config.json", "adapter_model.safetensors"}) {
    status =
        ReadPeftFolder(folder.path(), SmallModel(), [&](const std::string& path) {
          return path == folder.File(file) ? absl::PermissionDeniedError("no") : absl::OkStatus();
        }).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << file;
  }
}

}  // namespace
}  // namespace swaa
