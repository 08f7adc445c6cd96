// Configuration files: what is read, what is refused and with what words, and what flags override.

#include "server/settings/config.h"

#include <fstream>
#include <set>

#include <gmock/gmock.h>
#include <google/protobuf/duration.pb.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "server/settings/field_text.h"
#include "server/settings/setting_table.h"
#include "server/settings/yaml_message.h"

namespace swaa::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<ServerOptions> Options(const std::string& yaml, const v1::ServerConfig& flags = {}) {
  v1::ServerConfig file;
  if (absl::Status status = ReadYamlMessage(yaml, "f.yaml", &file); !status.ok()) return status;
  if (!file.model().has_path()) file.mutable_model()->set_path("m.gguf");
  return MakeServerOptions("f.yaml", file, flags);
}

// The value as text; empty: it is not there.
std::string ValueOf(const SettingEntry& entry, const v1::ServerConfig& config) {
  const google::protobuf::Message* section = &config;
  if (entry.section != nullptr) {
    section = &config.GetReflection()->GetMessage(config, entry.section);
  }
  const google::protobuf::Reflection& reflection = *section->GetReflection();
  if (!reflection.HasField(*section, entry.field)) return "";
  if (IsDuration(*entry.field)) {
    google::protobuf::Duration duration;
    duration.CopyFrom(reflection.GetMessage(*section, entry.field));
    return absl::FormatDuration(ToDuration(duration));
  }
  switch (entry.field->cpp_type()) {
    case google::protobuf::FieldDescriptor::CPPTYPE_STRING:
      return reflection.GetString(*section, entry.field);
    case google::protobuf::FieldDescriptor::CPPTYPE_BOOL:
      return absl::StrCat(static_cast<int>(reflection.GetBool(*section, entry.field)));
    case google::protobuf::FieldDescriptor::CPPTYPE_DOUBLE:
      return absl::StrCat(MagnitudeOf(*entry.field, *section));
    default:
      return absl::StrCat(static_cast<int64_t>(MagnitudeOf(*entry.field, *section)));
  }
}

const NamedRecipeSpec* Find(const ServerOptions& options, const std::string& name) {
  for (const NamedRecipeSpec& named : options.recipes) {
    if (named.name == name) return &named;
  }
  return nullptr;
}

constexpr char kWhole[] = R"(
model: {path: /models/x.gguf, served_name: x, load_format: dummy}
device:
  kv_cache_bytes: 3GiB
  threads: 5
  dtype: f32
  instruction_set: avx2
  device: cpu
  gpu_memory_utilization: 0.25
  tensor_parallel_size: 2
scheduling: {max_batch_tokens: 256, max_running_requests: 7, max_queued_requests: 9,
             prefix_cache: off, max_unread_bytes: 1MiB, max_priority: 3, priority_aging: 2500ms}
network:
  listen_address: "[::]:1"
  metrics_address: 0.0.0.0:0
  drain_grace: 1m30s
  max_connection_age: 2h
  keepalive_interval: 5s
  keepalive_timeout: 2500ms
  min_client_ping_interval: 0s
  max_connection_idle: 1m
  handshake_timeout: 1s
  max_connections: 99
  grpc_memory_bytes: 64MiB
  self_check_interval: 1s
  self_check_dead_after: 9s
streaming: {buffer_bytes: 65536, slow_reader_timeout: 3s}
retry: {initial_pushback: 2s, min_pushback: 50ms, max_pushback: 1m}
metrics:
  seconds_edges: [0.5, 1, 2e1]
logging: {format: json, level: debug}
experiments:
  - id: chat
    arms: [{name: control, recipe_name: full}, {name: mine, recipe_name: mine, weight: 3}]
    coverage: 0.25
    design: unit
    start_time: 2026-01-31T09:15:00.5+01:00
    metrics: [{name: thumbs_up, role: goal, scale: rate, higher_is_better: true,
               minimum_detectable_effect: 0.02}]
experiment_storage: {path: /x/e.db, key_file: /x/key, outcome_window: 1h, exposure_log: /x/log}
experiment_guardrail: {max_time_to_first_token_p95: 2s, check_interval: 5s}
shadow: {share: 0.125, baseline_recipe: mine, max_waiting: 7}
lora: {max_resident: 3, roots: [/adapters, /more], adapters: [{name: tuned, path: /adapters/tuned}]}
tls: {certificate_file: /x/c, key_file: /x/k, client_ca_file: /x/a}
access: {token_file: /x/t, reflection: off, metrics: token, shared_prefix_cache: on}
default_recipe: mine
recipes:
  - name: mine
    description: My own.
    recipe:
      sliding_window_tokens: 512
      sink_tokens: 16
      full_attention_layers: {stride: {first: 1, step: 2}}
      full_attention_decode: {layers: {indices: [0, 3]}}
      thinking_mode: disabled
  - name: window
    recipe: {sliding_window_tokens: 64, full_attention_decode: {all: true},
             thinking_mode: THINKING_MODE_ENABLED}
)";

// Every setting that the table knows, as text of the whole file above, away from its default.
TEST(ConfigTest, EverySettingArrives) {
  const absl::StatusOr<ServerOptions> options = Options(kWhole);
  ASSERT_TRUE(options.ok()) << options.status();
  const v1::ServerConfig& config = options->config;
  EXPECT_EQ(config.model().path(), "/models/x.gguf");
  EXPECT_EQ(config.model().load_format(), "dummy");
  EXPECT_EQ(config.device().kv_cache_bytes(), uint64_t{3} << 30);
  EXPECT_EQ(config.device().threads(), 5u);
  EXPECT_EQ(config.scheduling().max_batch_tokens(), 256u);
  EXPECT_FALSE(config.scheduling().prefix_cache());
  EXPECT_EQ(ToDuration(config.scheduling().priority_aging()), absl::Milliseconds(2500));
  EXPECT_EQ(config.network().listen_address(), "[::]:1");
  EXPECT_EQ(ToDuration(config.network().drain_grace()), absl::Seconds(90));
  EXPECT_EQ(ToDuration(config.network().keepalive_timeout()), absl::Milliseconds(2500));
  EXPECT_EQ(ToDuration(config.network().min_client_ping_interval()), absl::ZeroDuration());
  EXPECT_THAT(config.metrics().seconds_edges(), ElementsAre(0.5, 1, 20));
  EXPECT_EQ(config.logging().format(), "json");
  ASSERT_EQ(config.experiments_size(), 1);
  EXPECT_EQ(config.experiments(0).coverage(), 2500u);
  EXPECT_EQ(config.experiments(0).start_time().seconds(), 1769847300);
  EXPECT_EQ(config.experiments(0).start_time().nanos(), 500'000'000);
  EXPECT_EQ(config.experiments(0).design(), v1::EXPERIMENT_DESIGN_UNIT);
  EXPECT_THAT(config.lora().roots(), ElementsAre("/adapters", "/more"));
  EXPECT_EQ(config.lora().adapters(0).path(), "/adapters/tuned");
  v1::ServerConfig defaults;
  FillDefaults(&defaults);
  for (const SettingEntry& entry : AllSettings()) {
    EXPECT_NE(ValueOf(entry, config), "") << entry.key;
    EXPECT_NE(ValueOf(entry, config), ValueOf(entry, defaults)) << entry.key;
  }
}

TEST(ConfigTest, TheTableIsInOrder) {
  std::set<std::string> flags;
  v1::ServerConfig defaults;
  defaults.mutable_model()->set_path("m.gguf");
  FillDefaults(&defaults);
  EXPECT_EQ(CheckSettings(defaults, [](const std::string& key) { return key; }), absl::OkStatus());
  for (const SettingEntry& entry : AllSettings()) {
    EXPECT_FALSE(entry.setting.help().empty()) << entry.key;
    if (const std::string& flag = entry.setting.flag(); !flag.empty()) {
      EXPECT_TRUE(flags.insert(flag).second) << flag;
      EXPECT_EQ(FlagOfKey(entry.key), flag);
    }
    // Bounds are what the field takes; a default is within them.
    for (const std::string& bound : {entry.setting.least(), entry.setting.most()}) {
      v1::ServerConfig config;
      if (bound.empty()) continue;
      EXPECT_EQ(SetByFlag(entry, bound, &config), absl::OkStatus());
    }
  }
  EXPECT_TRUE(flags.contains("max-batch-tokens"));
  EXPECT_EQ(FlagOfKey("scheduling.max_priority"), "");
}

const SettingEntry& Entry(const std::string& key) {
  for (const SettingEntry& entry : AllSettings()) {
    if (entry.key == key) return entry;
  }
  ADD_FAILURE() << key;
  return AllSettings().front();
}

TEST(ConfigTest, FlagsTakeWhatTheFileTakes) {
  const struct {
    const char* key;
    const char* text;
    const char* becomes;  // or what the refusal says
    bool good;
  } cases[] = {
      {"device.kv_cache_bytes", "2GiB", "2147483648", true},
      {"device.kv_cache_bytes", "2GB", "--kv-cache-bytes: expected a whole number of bytes", false},
      {"device.threads", "-1", "--threads: expected a whole number from 0", false},
      {"device.gpu_memory_utilization", "0.5", "0.5", true},
      {"device.gpu_memory_utilization", "nan", "expected a number", false},
      {"scheduling.prefix_cache", "off", "0", true},
      {"scheduling.prefix_cache", "maybe", "--prefix-cache: expected true or false, on or", false},
      {"network.drain_grace", "30", "30s", true},
      {"network.drain_grace", "500ms", "500ms", true},
      {"network.drain_grace", "-3", "--drain-grace-seconds: expected a duration", false},
      {"network.drain_grace", "", "--drain-grace-seconds: expected a duration", false},
      {"model.path", "a: [b", "a: [b", true},
      {"model.path", "\xff", "--model: expected UTF-8 text", false},
  };
  for (const auto& c : cases) {
    v1::ServerConfig config;
    const absl::Status status = SetByFlag(Entry(c.key), c.text, &config);
    EXPECT_EQ(status.ok(), c.good) << c.key << " " << c.text;
    EXPECT_THAT(status.ok() ? ValueOf(Entry(c.key), config) : std::string(status.message()),
                HasSubstr(c.becomes));
  }
}

TEST(ConfigTest, RecipesAreAddedToTheBuiltInOnesAndReplaceThem) {
  const ServerOptions options = *Options(kWhole);
  EXPECT_EQ(options.config.default_recipe(), "mine");
  EXPECT_EQ(options.recipes.size(), BuiltInRecipes().size() + 1);
  const NamedRecipeSpec* mine = Find(options, "mine");
  ASSERT_NE(mine, nullptr);
  EXPECT_EQ(mine->description, "My own.");
  EXPECT_EQ(mine->spec.sliding_window_tokens, 512u);
  EXPECT_EQ(mine->spec.full_attention_layers->step, 2u);
  EXPECT_THAT(mine->spec.full_attention_decode->indices, ElementsAre(0, 3));
  EXPECT_EQ(mine->spec.thinking_mode, ThinkingMode::kDisabled);
  EXPECT_EQ(Find(options, "window")->spec.sliding_window_tokens, 64u);
  EXPECT_EQ(Find(options, "window")->spec.thinking_mode, ThinkingMode::kEnabled);
  EXPECT_TRUE(Find(options, "balanced")->spec.full_attention_decode.has_value());
}

TEST(ConfigTest, NothingIsTheDefaults) {
  for (const char* yaml : {"", "# a remark\n", "---\n", "device:\nrecipes:\n"}) {
    const absl::StatusOr<ServerOptions> options = Options(yaml);
    ASSERT_TRUE(options.ok()) << options.status();
    EXPECT_FALSE(options->config.device().has_kv_cache_bytes());  // as suits the device
    EXPECT_EQ(options->config.device().device(), "auto");
    EXPECT_TRUE(options->config.scheduling().prefix_cache());
    EXPECT_EQ(options->recipes.size(), BuiltInRecipes().size());
  }
}

TEST(ConfigTest, FlagsOverrideTheFile) {
  v1::ServerConfig flags;
  flags.mutable_scheduling()->set_max_batch_tokens(33);
  flags.mutable_scheduling()->set_prefix_cache(true);
  flags.mutable_network()->mutable_drain_grace()->set_seconds(4);
  flags.set_default_recipe("fast");
  const ServerOptions options = *Options(std::string(kWhole) + "# \n", flags);
  EXPECT_EQ(options.config.scheduling().max_batch_tokens(), 33u);
  EXPECT_EQ(options.config.scheduling().max_running_requests(), 7u);
  EXPECT_TRUE(options.config.scheduling().prefix_cache());
  EXPECT_EQ(ToDuration(options.config.network().drain_grace()), absl::Seconds(4));
  EXPECT_EQ(options.config.default_recipe(), "fast");
  flags.mutable_scheduling()->set_max_batch_tokens(0);
  EXPECT_THAT(std::string(Options(kWhole, flags).status().message()),
              HasSubstr("--max-batch-tokens: \"0\" is too small; at least 1"));
  // Whole seconds of a flag keep no fraction of the file's.
  v1::ServerConfig zero;
  zero.mutable_network()->mutable_drain_grace();
  EXPECT_EQ(
      ToDuration(Options("network: {drain_grace: 1500ms}", zero)->config.network().drain_grace()),
      absl::ZeroDuration());
}

struct Bad {
  const char* yaml;
  std::vector<std::string> says;
};

TEST(ConfigTest, BadFilesAreRefusedWithPathValueAndWayOut) {
  const std::vector<Bad> cases = {
      {"schedulling: {}", {"f.yaml:1: schedulling: no such key", "did you mean scheduling?"}},
      {"device:\n  threads: 2\n  kv_cache_byte: 3\n",
       {"f.yaml:3: device.kv_cache_byte: no such key", "did you mean kv_cache_bytes?"}},
      {"zzz: 1", {"f.yaml:1: zzz: no such key; there are model, device"}},
      {"recipes:\n- name: a\n  recipe:\n    sink_tokns: 3",
       {"f.yaml:4: recipes[0].recipe.sink_tokns: no such key", "did you mean sink_tokens?"}},
      {"device: 5", {"f.yaml:1: device: expected keys (kv_cache_bytes, ", "got \"5\""}},
      {"device: [1]", {"device: expected keys", "got a list"}},
      {"- a", {"expected keys (model", "got a list"}},
      {"device: {threads: many}", {"device.threads: expected a whole number", "got \"many\""}},
      {"device: {threads: -1}", {"device.threads: expected a whole number", "\"-1\""}},
      {"device: {threads: 4294967296}", {"device.threads: expected a whole number"}},
      {"device: {threads: 1.5}", {"device.threads: expected a whole number", "\"1.5\""}},
      {"device: {threads: }", {"device.threads: expected a whole number", "got nothing"}},
      {"device: {kv_cache_bytes: 2GB}", {"device.kv_cache_bytes: expected", "\"2GB\"", "2GiB"}},
      {"device: {kv_cache_bytes: 99999999TiB}", {"device.kv_cache_bytes: expected"}},
      {"device: {kv_cache_bytes: 0}", {"f.yaml: device.kv_cache_bytes: \"0\" is too small"}},
      {"device: {threads: 1, threads: 2}", {"device.threads: written twice"}},
      {"scheduling: {prefix_cache: maybe}", {"prefix_cache: expected true or false", "\"maybe\""}},
      {"scheduling: {max_batch_tokens: 0}", {"scheduling.max_batch_tokens", "at least 1"}},
      {"network: {drain_grace: 30}", {"network.drain_grace: expected a duration", "\"30\"", "30s"}},
      {"network: {drain_grace: -3s}", {"network.drain_grace: expected a duration"}},
      {"network: {drain_grace: inf}", {"network.drain_grace: expected a duration"}},
      {"network: {max_connection_age: 9000h}",
       {"network.max_connection_age: \"9000h\" is too large; at most 576h"}},
      {"network: {keepalive_interval: 1ms}",
       {"network.keepalive_interval: \"1ms\" is too small; at least 1s"}},
      {"network: {listen_address: nowhere}", {"network.listen_address: \"nowhere\"", "HOST:PORT"}},
      {"streaming: {buffer_bytes: 10}", {"streaming.buffer_bytes", "at least 1024"}},
      {"streaming: {slow_reader_timeout: 0s}",
       {"streaming.slow_reader_timeout: \"0\" is too small; at least 100ms"}},
      {"retry: {min_pushback: 2m}", {"retry.min_pushback: 2m is above retry.max_pushback, 30s"}},
      {"metrics: {seconds_edges: 5}", {"metrics.seconds_edges: expected a list"}},
      {"metrics: {seconds_edges: [1, x]}", {"metrics.seconds_edges[1]: expected a number"}},
      {"metrics: {seconds_edges: [.nan]}", {"metrics.seconds_edges[0]: expected a number"}},
      {"metrics: {ratio_edges: [1, 1]}", {"metrics.ratio_edges[1]: 1 is not above 1"}},
      {"metrics: {batch_tokens_edges: [0]}", {"metrics.batch_tokens_edges[0]: 0 is not above 0"}},
      {"logging: {format: xml}", {"logging.format: \"xml\"", "text, json"}},
      {"logging: {level: loud}", {"logging.level: \"loud\"", "debug"}},
      {"model: {load_format: fast}", {"model.load_format: \"fast\"", "auto, dummy"}},
      {"model: {path: [a]}", {"model.path: expected UTF-8 text, got a list"}},
      {"default_recipe: balancd", {"default_recipe: \"balancd\"", "did you mean balanced?"}},
      {"recipes: [{recipe: {}}]", {"recipes[0].name: \"\" is no name"}},
      {"recipes: [{name: a b}]", {"recipes[0].name: \"a b\" is no name"}},
      {"recipes: [{name: custom}]", {"recipes[0].name: \"custom\"", "metrics"}},
      {"recipes: [{name: a}, {name: a}]", {"recipes[1].name: \"a\" is there twice"}},
      {"recipes: [{name: a, recipe: {thinking_mode: on}}]",
       {"recipes[0].recipe.thinking_mode: expected one of unspecified, enabled, disabled"}},
      {"recipes: [{name: a, recipe: {full_attention_layers: {all: true, stride: {step: 2}}}}]",
       {"recipes[0].recipe.full_attention_layers.stride: excludes all"}},
      {"a: [", {"f.yaml:", "no YAML"}},
      {"\t- x", {"f.yaml:", "no YAML"}},
      {"model: *nobody", {"f.yaml:", "no YAML"}},
      {"device: {}\n---\ndevice: {}", {"more than one document"}},
      {",", {"more than one document"}},
      {"# one\nmodel: \xff", {"f.yaml:2:", "UTF-8"}},
      {"\"\\\xd6\x92", {"f.yaml:1: no YAML", "\xef\xbf\xbd"}},
      {R"("\0\N0")",
       {"f.yaml:1: expected keys", R"("\x00)"
                                   "\xef\xbf\xbd"
                                   "0\""}},
      {R"(default_recipe: "\_")", {"f.yaml:1: default_recipe: expected UTF-8 text"}},
      {"? [a]\n: 1", {"a key must be a plain word"}},
  };
  for (const Bad& bad : cases) {
    const absl::Status status = Options(bad.yaml).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.yaml;
    for (const std::string& word : bad.says) {
      EXPECT_THAT(std::string(status.message()), HasSubstr(word)) << bad.yaml;
    }
  }
  EXPECT_THAT(
      std::string(Options("recipes: [{name: a, description: " + std::string(1025, 'x') + "}]")
                      .status()
                      .message()),
      HasSubstr("f.yaml: recipes[0].description: 1025 bytes; at most 1024"));
  std::string many = "recipes:\n";
  for (int i = 0; i < 201; ++i) many += "- name: r" + std::to_string(i) + "\n";
  EXPECT_THAT(std::string(Options(many).status().message()),
              HasSubstr("f.yaml: recipes: 201 recipes; at most 200"));
  // Nothing is thrown, however deep.
  EXPECT_FALSE(Options(std::string(100000, '[')).ok());
  EXPECT_FALSE(Options(std::string(3, '\xff')).ok());
}

TEST(ConfigTest, SharesOfUnitsAndTimesAreWrittenAsPeopleWriteThem) {
  const auto coverage = [](const std::string& text) {
    return Options("experiments: [{id: a, coverage: " + text + "}]");
  };
  EXPECT_EQ(coverage("0.25")->config.experiments(0).coverage(), 2500u);
  EXPECT_EQ(coverage("1.0")->config.experiments(0).coverage(), 10000u);
  EXPECT_EQ(coverage("1")->config.experiments(0).coverage(), 1u) << "a bucket";
  for (const char* wrong : {"0.12345", "1.5", "-0.5", "0.x"}) {
    EXPECT_THAT(std::string(coverage(wrong).status().message()),
                HasSubstr("experiments[0].coverage: expected 0 to 10000, or a share"))
        << wrong;
  }
  EXPECT_THAT(std::string(Options("experiments: [{id: a, start_time: soon}]").status().message()),
              HasSubstr("experiments[0].start_time: expected a time such as"));
}

TEST(ConfigTest, DocumentedExampleIsInOrder) {
  std::ifstream file("docs/configuration.md");
  const std::string page((std::istreambuf_iterator<char>(file)), {});
  const size_t begin = page.find("```yaml\n");
  ASSERT_NE(begin, std::string::npos);
  const size_t end = page.find("```", begin + 8);
  const absl::StatusOr<ServerOptions> options = Options(page.substr(begin + 8, end - begin - 8));
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->config.default_recipe(), "support");
  // What it shows as defaults are the defaults, and each setting is there with its flag.
  const std::set<std::string> own = {"model.path", "model.served_name", "default_recipe"};
  for (const SettingEntry& entry : AllSettings()) {
    const std::string& value = entry.setting.default_value();
    v1::ServerConfig defaults;
    if (!value.empty() && !own.contains(entry.key)) {
      EXPECT_EQ(SetByFlag(entry, value, &defaults), absl::OkStatus());
      EXPECT_EQ(ValueOf(entry, options->config), ValueOf(entry, defaults)) << entry.key;
    }
    const std::string name =
        absl::StrCat("\n", entry.section == nullptr ? "" : "  ", entry.field->name(), ": ");
    // Two sections may have a key of one name.
    const size_t section = entry.section == nullptr
                               ? begin
                               : page.find(absl::StrCat("\n", entry.section->name(), ":"), begin);
    ASSERT_LT(section, end) << entry.key;
    const size_t line = page.find(name, section);
    ASSERT_LT(line, end) << entry.key;
    const std::string text = page.substr(line + 1, page.find('\n', line + 1) - line - 1);
    if (entry.setting.flag().empty()) continue;
    EXPECT_THAT(text, HasSubstr("--" + entry.setting.flag()));
  }
}

TEST(ConfigTest, MissingModelAndMissingFile) {
  EXPECT_THAT(std::string(MakeServerOptions("", {}, {}).status().message()), HasSubstr("--model"));
  EXPECT_EQ(ReadConfigFile("/no/such.yaml").status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(ReadConfigFile("/").ok());
}

TEST(ConfigTest, NamesWhatAReloadDoesNotChange) {
  v1::ServerConfig before;
  v1::ServerConfig now;
  ASSERT_TRUE(ReadYamlMessage(kWhole, "f", &before).ok());
  now = before;
  EXPECT_TRUE(ChangedFixedSettings(before, now).empty());
  now.set_default_recipe("full");
  now.clear_recipes();
  EXPECT_TRUE(ChangedFixedSettings(before, now).empty());
  now.mutable_device()->clear_threads();
  now.mutable_network()->mutable_drain_grace()->set_seconds(1);
  now.mutable_metrics()->add_seconds_edges(99);
  EXPECT_THAT(ChangedFixedSettings(before, now),
              ElementsAre("device.threads", "metrics.seconds_edges", "network.drain_grace"));
}

}  // namespace
}  // namespace swaa::server
