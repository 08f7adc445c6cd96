// Tools: `swaa serve`.

#include <cstdio>

#include "kernels/cpu/threads.h"
#include "server/lifecycle/server.h"
#include "server/settings/flags.h"
#include "tools/commands.h"

namespace swaa::tools {
namespace {

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
           .flag_names = server::ServeFlagNames()},
          &Serve};
}

}  // namespace swaa::tools
