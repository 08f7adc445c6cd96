// Tools: `swaa serve`.

#include "tools/serve_command.h"

#include <cstdio>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "base/status_macros.h"
#include "engine/model/model_device.h"
#include "kernels/cpu/threads.h"
#include "server/lifecycle/server.h"
#include "server/settings/config.h"
#include "server/settings/setting_table.h"
#include "tools/commands.h"

ABSL_FLAG(
    std::string, config, "",
    "a YAML file with settings and recipes, see docs/configuration.md; flags override it, and "
    "its recipes are read again when it changes and on SIGHUP");
ABSL_FLAG(std::string, port_file, "",
          "a file to write the gRPC port to once the server is ready; the metrics port goes to the "
          "same name with .metrics");
ABSL_FLAG(bool, check_config, false,
          "say whether flags and configuration are in order for the model, and end");

namespace swaa::tools {
namespace {

// What the command line sets.
v1::ServerConfig& FromFlags() {
  static auto* const kConfig = new v1::ServerConfig;
  return *kConfig;
}

int Refuse(const absl::Status& status) {
  std::fprintf(stderr, "swaa serve: %s\n", std::string(status.message()).c_str());
  return 2;
}

int ServeOnModelDevice(const std::vector<std::string>& arguments) {
  return Serve(arguments, &CreateModelDevice);
}

}  // namespace

std::vector<MadeFlag> SettingFlags() {
  std::vector<MadeFlag> flags;
  for (const server::SettingEntry& entry : server::AllSettings()) {
    if (entry.setting.flag().empty()) continue;
    flags.push_back({entry.setting.flag(), entry.setting.help(), entry.setting.default_value(),
                     [&entry](const std::string& text) {
                       return server::SetByFlag(entry, text, &FromFlags());
                     }});
  }
  return flags;
}

absl::StatusOr<server::ServerOptions> OptionsFromFlags() {
  const std::string path = absl::GetFlag(FLAGS_config);
  v1::ServerConfig file;
  if (!path.empty()) {
    SWAA_ASSIGN_OR_RETURN(file, server::ReadConfigFile(path));
  }
  SWAA_ASSIGN_OR_RETURN(server::ServerOptions options,
                        server::MakeServerOptions(path, file, FromFlags()));
  return options;
}

int Serve(const std::vector<std::string>& arguments, const server::MakeDevice& make_device) {
  if (!arguments.empty()) {
    return Refuse(absl::InvalidArgumentError("\"" + arguments[0] +
                                             "\" is no flag; the model is given by --model"));
  }
  absl::StatusOr<server::ServerOptions> options = OptionsFromFlags();
  if (!options.ok()) return Refuse(options.status());
  options->port_file = absl::GetFlag(FLAGS_port_file);
  if (absl::GetFlag(FLAGS_check_config)) {
    if (absl::Status status = server::CheckServerOptions(*options); !status.ok()) {
      return Refuse(status);
    }
    std::printf("the configuration is in order: %zu recipes, the default is %s\n",
                options->recipes.size(), options->config.default_recipe().c_str());
    return 0;
  }
  // Before the first thread: it may execute the program again.
  kernels::cpu::ConfigureOpenMp(static_cast<int>(options->config.device().threads()));
  const v1::LoggingConfig& logging = options->config.logging();
  if (absl::Status status =
          server::ConfigureLogging(server::LogFormatOf(logging.format()), logging.level());
      !status.ok()) {
    return Refuse(status);
  }
  options->processors = kernels::cpu::AvailableProcessors();
  return server::RunServer(*options, make_device);
}

Command ServeCommand() {
  return {"serve",
          {.usage = "swaa serve --model FILE.gguf|FOLDER [flags]",
           .summary = "Serves a model over gRPC; every request chooses its own attention recipe.",
           .flag_names = {kConfigFlag, "port_file", "check_config"},
           .made_flags = SettingFlags()},
          &ServeOnModelDevice};
}

}  // namespace swaa::tools
