// Tools: `swaa plan`.

#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "engine/checkpoint/read_model_config.h"
#include "engine/model/model_device.h"
#include "kernels/cpu/threads.h"
#include "server/lifecycle/capacity_plan.h"
#include "server/lifecycle/server.h"
#include "tools/client.h"
#include "tools/commands.h"
#include "tools/serve_command.h"

ABSL_FLAG(uint32_t, plan_prompt_tokens, 4000, "tokens of a request's prompt");
ABSL_FLAG(uint32_t, plan_output_tokens, 500, "tokens of its answer");
ABSL_FLAG(double, plan_request_rate, 0, "requests a second to plan servers for; needs --measured");
ABSL_FLAG(
    std::string, plan_measured, "",
    "the file that `swaa bench --json` wrote of one server with such requests, at the load at "
    "which it still keeps your promise");
ABSL_FLAG(bool, plan_json, false, "print JSON, in bytes and pages");

namespace swaa::tools {
namespace {

using Json = nlohmann::ordered_json;
using server::Measured;
using server::RecipeCapacity;

struct PlannedRecipe {
  std::string name;
  RecipeCapacity capacity;
  std::optional<int64_t> servers;
};

struct Plan {
  std::string model;
  ModelMemory memory;
  int64_t clients_bytes = 0;  // that gRPC and requests that wait to be read may hold
  std::vector<PlannedRecipe> recipes;
  bool fits() const {
    return memory.weight_bytes + memory.pool_bytes + memory.besides_bytes <= memory.available_bytes;
  }
};

double MiB(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

absl::Status BadFlag(const std::string& flag, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("--", flag, ": ", what));
}

std::optional<Measured> MeasuredOf(const Json& json) {
  const auto number = [&json](const char* key) {
    const auto found = json.find(key);
    return found == json.end() || !found->is_number() ? 0 : found->get<double>();
  };
  const Measured measured{.requests_per_second = number("request_throughput"),
                          .seconds_per_request = number("mean_e2el_ms") / 1e3};
  if (measured.requests_per_second > 0 && measured.seconds_per_request > 0) return measured;
  return std::nullopt;
}

// By recipe, where they took turns or there was one; what ran mixed says nothing of one alone.
absl::StatusOr<std::map<std::string, Measured>> ReadMeasured(const std::string& path) {
  std::ifstream file(path);
  const Json json = Json::parse(file, nullptr, /*allow_exceptions=*/false);
  const auto recipes = json.is_object() ? json.find("recipes") : json.end();
  if (recipes == json.end() || !recipes->is_object()) {
    return BadFlag("measured",
                   absl::StrCat("\"", path, "\" is not what `swaa bench --json FILE` writes"));
  }
  if (recipes->size() > 1 && !json.value("in_turns", false)) {
    return BadFlag("measured",
                   absl::StrCat("\"", path,
                                "\" measured several recipes in one batch; measure them "
                                "in turns, without --mixed, or one alone"));
  }
  std::map<std::string, Measured> by_recipe;
  for (const auto& [name, figures] : recipes->items()) {
    if (const auto measured = MeasuredOf(figures)) by_recipe[name] = *measured;
  }
  return by_recipe;
}

absl::StatusOr<std::vector<PlannedRecipe>> PlanRecipes(const server::ServerOptions& options,
                                                       const DeviceInfo& device) {
  const server::RequestShape shape{.prompt_tokens = absl::GetFlag(FLAGS_plan_prompt_tokens),
                                   .output_tokens = absl::GetFlag(FLAGS_plan_output_tokens)};
  const double rate = absl::GetFlag(FLAGS_plan_request_rate);
  const std::string path = absl::GetFlag(FLAGS_plan_measured);
  if ((rate > 0) == path.empty()) {
    return BadFlag("request-rate", "goes together with --measured; set both or none");
  }
  std::map<std::string, Measured> measured;
  if (!path.empty()) {
    SWAA_ASSIGN_OR_RETURN(measured, ReadMeasured(path));
  }
  std::vector<PlannedRecipe> planned;
  for (const NamedRecipeSpec& named : options.recipes) {
    const absl::StatusOr<Recipe> recipe =
        ResolveRecipe(named.spec, device.num_layers, absl::StrCat("recipes[", named.name, "]"));
    if (!recipe.ok() && named.built_in) continue;  // as the server leaves it out
    SWAA_RETURN_IF_ERROR(recipe.status());
    PlannedRecipe& out = planned.emplace_back();
    out.name = named.name;
    out.capacity =
        CapacityOf(*recipe, shape, device, options.config.scheduling().max_running_requests());
    const auto found = measured.find(named.name);
    if (found != measured.end()) out.servers = ServersFor(rate, found->second, out.capacity);
  }
  return planned;
}

absl::StatusOr<Plan> MakePlan() {
  SWAA_ASSIGN_OR_RETURN(const server::ServerOptions options, OptionsFromFlags());
  const int64_t prompt = absl::GetFlag(FLAGS_plan_prompt_tokens);
  const int64_t output = absl::GetFlag(FLAGS_plan_output_tokens);
  if (prompt < 1) return BadFlag("prompt-tokens", "a request has at least one");
  if (output < 1) return BadFlag("output-tokens", "a request has at least one");
  SWAA_ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(options.config.model().path()));
  if (prompt + output > config.max_context_tokens) {
    return BadFlag("prompt-tokens",
                   absl::StrCat(prompt, " and --output-tokens ", output,
                                " are beyond the model's context of ", config.max_context_tokens));
  }
  Plan plan;
  plan.model =
      absl::StrCat(config.architecture, ", ", config.num_layers, " layers, ", config.kv_heads,
                   " KV heads of ", config.head_dim, ", context ", config.max_context_tokens);
  SWAA_ASSIGN_OR_RETURN(plan.memory,
                        MeasureModelMemory(config, server::DeviceOptionsOf(options.config)));
  plan.clients_bytes = static_cast<int64_t>(options.config.network().grpc_memory_bytes() +
                                            options.config.scheduling().max_unread_bytes());
  SWAA_ASSIGN_OR_RETURN(plan.recipes, PlanRecipes(options, plan.memory.device));
  return plan;
}

void PrintTable(const Plan& plan) {
  const ModelMemory& memory = plan.memory;
  const int64_t together = memory.weight_bytes + memory.pool_bytes + memory.besides_bytes;
  std::printf("model     %s\n", plan.model.c_str());
  std::printf("device    %s\n", memory.device.name.c_str());
  std::printf("weights   %8.0f MiB at most\n", MiB(memory.weight_bytes));
  std::printf("pool      %8.0f MiB: %d pages of %.0f KiB, 64 positions of a layer each\n",
              MiB(memory.pool_bytes), memory.device.num_pages - 1,
              static_cast<double>(memory.device.page_bytes) / 1024);
  std::printf("besides   %8.0f MiB: activations, tables, the process\n", MiB(memory.besides_bytes));
  std::printf("together  %8.0f MiB of %.0f MiB%s; clients may hold %.0f MiB of main memory more\n",
              MiB(together), MiB(memory.available_bytes),
              plan.fits() ? "" : ", which is TOO LITTLE", MiB(plan.clients_bytes));
  std::printf("\na request of %u and %u tokens, in MiB of the pool\n",
              absl::GetFlag(FLAGS_plan_prompt_tokens), absl::GetFlag(FLAGS_plan_output_tokens));
  std::printf("%-16s %10s %10s %10s %10s %10s\n", "recipe", "decoding", "at most", "of full",
              "at once", "servers");
  for (const PlannedRecipe& recipe : plan.recipes) {
    const RecipeCapacity& capacity = recipe.capacity;
    const auto pages = [&](int64_t count) { return MiB(count * memory.device.page_bytes); };
    std::printf("%-16s %10.1f %10.1f %9.0f%% %10s %10s\n", recipe.name.c_str(),
                pages(capacity.decode_pages), pages(capacity.peak_pages),
                100.0 * static_cast<double>(capacity.decode_pages) /
                    static_cast<double>(capacity.full_attention_pages),
                capacity.at_once == 0 ? "never" : absl::StrCat(capacity.at_once).c_str(),
                recipe.servers.has_value() ? absl::StrCat(*recipe.servers).c_str() : "-");
  }
  if (absl::GetFlag(FLAGS_plan_request_rate) > 0) {
    std::printf(
        "servers for %g requests a second, where measured; one more for updates and losses\n",
        absl::GetFlag(FLAGS_plan_request_rate));
  }
}

void PrintJson(const Plan& plan) {
  Json json;
  json["weight_bytes"] = plan.memory.weight_bytes;
  json["pool_bytes"] = plan.memory.pool_bytes;
  json["besides_bytes"] = plan.memory.besides_bytes;
  json["available_bytes"] = plan.memory.available_bytes;
  json["clients_bytes"] = plan.clients_bytes;
  json["fits"] = plan.fits();
  json["pool_pages"] = plan.memory.device.num_pages - 1;
  json["page_bytes"] = plan.memory.device.page_bytes;
  for (const PlannedRecipe& recipe : plan.recipes) {
    json["recipes"][recipe.name] = {
        {"decode_pages", recipe.capacity.decode_pages},
        {"peak_pages", recipe.capacity.peak_pages},
        {"full_attention_pages", recipe.capacity.full_attention_pages},
        {"requests_at_once", recipe.capacity.at_once},
        {"servers", recipe.servers.has_value() ? Json(*recipe.servers) : Json(nullptr)}};
  }
  std::printf("%s\n", json.dump(1).c_str());
}

int RunPlan(const std::vector<std::string>& arguments) {
  if (!arguments.empty()) {
    Fail("plan", absl::InvalidArgumentError("takes flags alone; the model is given by --model"));
    return 2;
  }
  const absl::StatusOr<Plan> plan = MakePlan();
  if (!plan.ok()) return Fail("plan", plan.status());
  absl::GetFlag(FLAGS_plan_json) ? PrintJson(*plan) : PrintTable(*plan);
  return plan->fits() ? 0 : 1;
}

}  // namespace

Command PlanCommand() {
  return {"plan",
          {.usage = "swaa plan --model FILE.gguf|FOLDER|config.json [flags of swaa serve] [flags]",
           .summary = "Says what memory a server takes, and what load it carries by recipe.",
           .flag_names = {kConfigFlag, "prompt_tokens", "output_tokens", "request_rate", "measured",
                          "json"},
           .made_flags = SettingFlags(),
           .flag_prefix = "plan_"},
          &RunPlan};
}

}  // namespace swaa::tools
