// Tools: `swaa info`, `swaa recipes` and `swaa abort`.

#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "swaa/v1/control_service.grpc.pb.h"
#include "tools/client.h"
#include "tools/commands.h"
#include "tools/unary_call.h"

ABSL_FLAG(bool, all, false, "every request instead of one");

namespace swaa::tools {
namespace {

int WrongArguments(const std::string& command, const std::string& wanted) {
  Fail(command, absl::InvalidArgumentError(wanted));
  return 2;
}

absl::Status PrintInfo() {
  v1::GetServerInfoResponse server;
  SWAA_RETURN_IF_ERROR(
      Ask(&v1::ControlService::Stub::GetServerInfo, v1::GetServerInfoRequest(), &server));
  v1::GetModelInfoResponse model;
  SWAA_RETURN_IF_ERROR(
      Ask(&v1::ControlService::Stub::GetModelInfo, v1::GetModelInfoRequest(), &model));
  v1::GetLoadResponse load;
  SWAA_RETURN_IF_ERROR(Ask(&v1::ControlService::Stub::GetLoad, v1::GetLoadRequest(), &load));
  std::printf("server   %s on %s (%s)\n", server.version().c_str(), server.device().c_str(),
              server.backend().c_str());
  std::printf("model    %s: %s, %u layers, context %u tokens, vocabulary %u%s%s\n",
              model.served_model_name().c_str(), model.architecture().c_str(), model.num_layers(),
              model.max_context_tokens(), model.vocab_size(),
              model.supports_chat() ? ", chat" : ", no chat",
              model.supports_thinking() ? ", thinking" : "");
  std::printf("limits   %u requests run, %u wait, %u tokens a step\n",
              server.max_running_requests(), server.max_queued_requests(),
              server.max_batch_tokens());
  std::printf("load     %u run, %u wait; %.0f of %.0f MB of keys and values\n",
              load.running_requests(), load.queued_requests(),
              static_cast<double>(load.used_kv_pages() * server.kv_page_bytes()) / 1e6,
              static_cast<double>(load.total_kv_pages() * server.kv_page_bytes()) / 1e6);
  return absl::OkStatus();
}

std::string LayersText(const v1::LayerSet& layers, uint32_t num_layers) {
  const auto& indices = layers.layers().indices();
  if (indices.empty()) return "-";
  if (static_cast<uint32_t>(indices.size()) == num_layers) return "all";
  return absl::StrJoin(indices, ",");
}

absl::Status PrintRecipes() {
  v1::ListRecipesResponse listed;
  SWAA_RETURN_IF_ERROR(
      Ask(&v1::ControlService::Stub::ListRecipes, v1::ListRecipesRequest(), &listed));
  v1::GetModelInfoResponse model;
  SWAA_RETURN_IF_ERROR(
      Ask(&v1::ControlService::Stub::GetModelInfo, v1::GetModelInfoRequest(), &model));
  for (const v1::NamedRecipe& named : listed.named_recipes()) {
    const bool is_default = named.name() == listed.default_recipe_name();
    std::printf("%s%s\n", named.name().c_str(), is_default ? " (the default)" : "");
    if (!named.description().empty()) std::printf("    %s\n", named.description().c_str());
    const v1::Recipe& recipe = named.recipe();
    if (!recipe.has_sliding_window_tokens()) {
      std::printf("    full attention\n");
      continue;
    }
    std::printf("    window %u, sinks %u, full layers %s, full while decoding %s\n",
                recipe.sliding_window_tokens(), recipe.sink_tokens(),
                LayersText(recipe.full_attention_layers(), model.num_layers()).c_str(),
                LayersText(recipe.full_attention_decode(), model.num_layers()).c_str());
  }
  return absl::OkStatus();
}

int Info(const std::vector<std::string>& arguments) {
  if (!arguments.empty()) return WrongArguments("info", "takes flags alone");
  const absl::Status status = PrintInfo();
  return status.ok() ? 0 : Fail("info", status);
}

int Recipes(const std::vector<std::string>& arguments) {
  if (!arguments.empty()) return WrongArguments("recipes", "takes flags alone");
  const absl::Status status = PrintRecipes();
  return status.ok() ? 0 : Fail("recipes", status);
}

int Abort(const std::vector<std::string>& arguments) {
  const bool all = absl::GetFlag(FLAGS_all);
  if (arguments.size() != (all ? 0 : 1)) {
    return WrongArguments("abort", "give one request's id, or --all");
  }
  v1::AbortRequest request;
  if (all) {
    request.set_all_requests(true);
  } else {
    request.set_request_id(arguments[0]);
  }
  v1::AbortResponse response;
  const absl::Status status = Ask(&v1::ControlService::Stub::Abort, request, &response);
  if (!status.ok()) return Fail("abort", status);
  std::printf("aborted %u\n", response.aborted_requests());
  return 0;
}

}  // namespace

Command InfoCommand() {
  return {"info",
          {.usage = "swaa info [flags]",
           .summary = "Says what a server serves, its limits and its load.",
           .flag_names = ConnectionFlagNames()},
          &Info};
}

Command RecipesCommand() {
  return {"recipes",
          {.usage = "swaa recipes [flags]",
           .summary = "Lists the recipes that a server knows by name.",
           .flag_names = ConnectionFlagNames()},
          &Recipes};
}

Command AbortCommand() {
  std::vector<std::string> flags = ConnectionFlagNames();
  flags.push_back("all");
  return {"abort",
          {.usage = "swaa abort REQUEST-ID | --all [flags]",
           .summary = "Ends a live request, or all of them.",
           .flag_names = std::move(flags)},
          &Abort};
}

}  // namespace swaa::tools
