// Tools: `swaa`, the one binary.

#include <cstdio>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tools/command_line.h"
#include "tools/commands.h"

namespace {

using swaa::tools::Command;

std::vector<Command> AllCommands() {
  return {swaa::tools::ServeCommand(), swaa::tools::GenerateCommand(),
          swaa::tools::ChatCommand(),  swaa::tools::BenchCommand(),
          swaa::tools::InfoCommand(),  swaa::tools::RecipesCommand(),
          swaa::tools::AbortCommand(), swaa::tools::HealthCommand(),
          swaa::tools::PlanCommand(),  swaa::tools::ExperimentCommand()};
}

void PrintUsage(std::FILE* out) {
  std::fprintf(out, "usage: swaa COMMAND [flags]; `swaa COMMAND --help` lists the flags\n\n");
  for (const Command& command : AllCommands()) {
    std::fprintf(out, "  %-10s %s\n", command.name.c_str(), command.help.summary.c_str());
  }
}

int Run(const Command& command, const std::vector<std::string>& arguments) {
  if (swaa::tools::WantsHelp(arguments)) {
    std::fputs(swaa::tools::HelpText(command.help).c_str(), stdout);
    return 0;
  }
  absl::StatusOr<std::vector<std::string>> rest = swaa::tools::ParseFlags(arguments, command.help);
  if (!rest.ok()) {
    std::fprintf(stderr, "swaa %s: %s\n", command.name.c_str(),
                 std::string(rest.status().message()).c_str());
    return 2;
  }
  return command.run(*rest);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.empty()) {
    PrintUsage(stderr);
    return 2;
  }
  if (arguments[0] == "--help" || arguments[0] == "-h" || arguments[0] == "help") {
    PrintUsage(stdout);
    return 0;
  }
  if (arguments[0] == "--version" || arguments[0] == "version") {
    std::printf("swaa %s\n", SWAA_VERSION);
    return 0;
  }
  for (const Command& command : AllCommands()) {
    if (command.name == arguments[0]) {
      return Run(command, {arguments.begin() + 1, arguments.end()});
    }
  }
  std::fprintf(stderr, "swaa: there is no command \"%s\"\n\n", arguments[0].c_str());
  PrintUsage(stderr);
  return 2;
}
