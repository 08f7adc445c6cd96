// Tools: `swaa serve`.

#include <cstdio>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "kernels/cpu/threads.h"
#include "server/lifecycle/server.h"
#include "server/settings/flags.h"
#include "tools/commands.h"

ABSL_FLAG(bool, check_config, false,
          "say whether flags and configuration are in order for the model, and end");

namespace swaa::tools {
namespace {

std::vector<std::string> FlagNames() {
  std::vector<std::string> names = server::ServeFlagNames();
  names.push_back("check_config");
  return names;
}

int Refuse(const absl::Status& status) {
  std::fprintf(stderr, "swaa serve: %s\n", std::string(status.message()).c_str());
  return 2;
}

int Serve(const std::vector<std::string>& arguments) {
  if (!arguments.empty()) {
    return Refuse(absl::InvalidArgumentError("\"" + arguments[0] +
                                             "\" is no flag; the model is given by --model"));
  }
  absl::StatusOr<server::ServerOptions> options = server::ServerOptionsFromFlags();
  if (!options.ok()) return Refuse(options.status());
  if (absl::GetFlag(FLAGS_check_config)) {
    if (absl::Status status = server::CheckServerOptions(*options); !status.ok()) {
      return Refuse(status);
    }
    std::printf("the configuration is in order: %zu recipes, the default is %s\n",
                options->recipes.size(), options->default_recipe.c_str());
    return 0;
  }
  // Before the first thread: it may execute the program again.
  kernels::cpu::ConfigureOpenMp(options->threads);
  if (absl::Status status = server::ConfigureLogging(options->log_format, options->log_level);
      !status.ok()) {
    return Refuse(status);
  }
  options->processors = kernels::cpu::AvailableProcessors();
  return server::RunServer(*options);
}

}  // namespace

Command ServeCommand() {
  return {"serve",
          {.usage = "swaa serve --model FILE.gguf|FOLDER [flags]",
           .summary = "Serves a model over gRPC; every request chooses its own attention recipe.",
           .flag_names = FlagNames()},
          &Serve};
}

}  // namespace swaa::tools
