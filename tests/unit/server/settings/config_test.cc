// Configuration files: what is read, what is refused and with what words, and what flags override.

#include "server/settings/config.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
scheduling: {max_batch_tokens: 256, max_running_requests: 7, max_queued_requests: 9,
             prefix_cache: off}
network:
  listen_address: "[::]:1"
  metrics_address: 0.0.0.0:0
  drain_grace: 1m30s
  max_connection_age: 2h
  keepalive_interval: 5s
  keepalive_timeout: 2500ms
  min_client_ping_interval: 0s
streaming: {buffer_bytes: 65536, slow_reader_timeout: 3s}
retry: {initial_pushback: 2s, min_pushback: 50ms, max_pushback: 1m}
metrics:
  seconds_edges: [0.5, 1, 2e1]
logging: {format: json, level: debug}
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

TEST(ConfigTest, EverySettingArrives) {
  const absl::StatusOr<ServerOptions> options = Options(kWhole);
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->model_path, "/models/x.gguf");
  EXPECT_EQ(options->served_model_name, "x");
  EXPECT_EQ(options->load_format, LoadFormat::kDummy);
  EXPECT_EQ(options->kv_cache_bytes, int64_t{3} << 30);
  EXPECT_EQ(options->threads, 5);
  EXPECT_EQ(options->dtype, "f32");
  EXPECT_EQ(options->instruction_set, "avx2");
  EXPECT_EQ(options->max_batch_tokens, 256);
  EXPECT_EQ(options->max_running_requests, 7);
  EXPECT_EQ(options->max_queued_requests, 9);
  EXPECT_FALSE(options->prefix_cache);
  EXPECT_EQ(options->listen_address, "[::]:1");
  EXPECT_EQ(options->metrics_address, "0.0.0.0:0");
  EXPECT_EQ(options->drain_grace, absl::Seconds(90));
  EXPECT_EQ(options->max_connection_age, absl::Hours(2));
  EXPECT_EQ(options->keepalive_interval, absl::Seconds(5));
  EXPECT_EQ(options->keepalive_timeout, absl::Milliseconds(2500));
  EXPECT_EQ(options->min_client_ping_interval, absl::ZeroDuration());
  EXPECT_EQ(options->stream_buffer_bytes, 65536);
  EXPECT_EQ(options->slow_reader_timeout, absl::Seconds(3));
  EXPECT_EQ(options->retry.initial, absl::Seconds(2));
  EXPECT_EQ(options->retry.shortest, absl::Milliseconds(50));
  EXPECT_EQ(options->retry.longest, absl::Minutes(1));
  EXPECT_THAT(options->metrics_edges.seconds, ElementsAre(0.5, 1, 20));
  EXPECT_EQ(options->metrics_edges.ratio, MetricsEdges().ratio);
  EXPECT_EQ(options->log_format, LogFormat::kJson);
  EXPECT_EQ(options->log_level, "debug");
}

TEST(ConfigTest, RecipesAreAddedToTheBuiltInOnesAndReplaceThem) {
  const ServerOptions options = *Options(kWhole);
  EXPECT_EQ(options.default_recipe, "mine");
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
    EXPECT_EQ(options->kv_cache_bytes, 0);  // as suits the device
    EXPECT_EQ(options->device, "auto");
    EXPECT_TRUE(options->prefix_cache);
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
  EXPECT_EQ(options.max_batch_tokens, 33);
  EXPECT_EQ(options.max_running_requests, 7);
  EXPECT_TRUE(options.prefix_cache);
  EXPECT_EQ(options.drain_grace, absl::Seconds(4));
  EXPECT_EQ(options.default_recipe, "fast");
  flags.mutable_scheduling()->set_max_batch_tokens(0);
  EXPECT_THAT(std::string(Options(kWhole, flags).status().message()),
              HasSubstr("--max-batch-tokens: \"0\" is too small; at least 1"));
  // Whole seconds of a flag keep no fraction of the file's.
  v1::ServerConfig zero;
  zero.mutable_network()->mutable_drain_grace();
  EXPECT_EQ(Options("network: {drain_grace: 1500ms}", zero)->drain_grace, absl::ZeroDuration());
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
      {"zzz: 1", {"f.yaml:1: zzz: no such key; There are model, device"}},
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
      {"network: {max_connection_age: 9000h}", {"network.max_connection_age", "out of range"}},
      {"network: {keepalive_interval: 1ms}", {"network.keepalive_interval: 1ms is out of range"}},
      {"network: {listen_address: nowhere}", {"network.listen_address: \"nowhere\"", "HOST:PORT"}},
      {"streaming: {buffer_bytes: 10}", {"streaming.buffer_bytes", "at least 1024"}},
      {"streaming: {slow_reader_timeout: 0s}", {"streaming.slow_reader_timeout: 0 is out of"}},
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

TEST(ConfigTest, DocumentedExampleIsInOrder) {
  std::ifstream file("docs/configuration.md");
  const std::string page((std::istreambuf_iterator<char>(file)), {});
  const size_t begin = page.find("```yaml\n");
  ASSERT_NE(begin, std::string::npos);
  const size_t end = page.find("```", begin + 8);
  const absl::StatusOr<ServerOptions> options = Options(page.substr(begin + 8, end - begin - 8));
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->default_recipe, "support");
  // What it shows as defaults are the defaults.
  const ServerOptions defaults;
  EXPECT_EQ(options->slow_reader_timeout, defaults.slow_reader_timeout);
  EXPECT_EQ(options->stream_buffer_bytes, defaults.stream_buffer_bytes);
  EXPECT_EQ(options->max_queued_requests, defaults.max_queued_requests);
  EXPECT_EQ(options->drain_grace, defaults.drain_grace);
  EXPECT_EQ(options->keepalive_interval, defaults.keepalive_interval);
  EXPECT_EQ(options->retry.initial, defaults.retry.initial);
  EXPECT_EQ(options->retry.longest, defaults.retry.longest);
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
