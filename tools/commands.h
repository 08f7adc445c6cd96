// Tools: the subcommands of the one binary.

#ifndef SWAA_TOOLS_COMMANDS_H_
#define SWAA_TOOLS_COMMANDS_H_

#include <string>
#include <vector>

#include "tools/command_line.h"

namespace swaa::tools {

// A subcommand: its help, and what runs once its flags are parsed, given what was no flag. Its
// return value is the process's exit code: 0 well, 1 a failure, 2 a wrong command line.
struct Command {
  std::string name;
  CommandHelp help;
  int (*run)(const std::vector<std::string>& arguments);
};

Command ServeCommand();
Command GenerateCommand();
Command ChatCommand();
Command BenchCommand();
Command InfoCommand();
Command RecipesCommand();
Command AbortCommand();
Command HealthCommand();
Command PlanCommand();
Command ExperimentCommand();

}  // namespace swaa::tools

#endif  // SWAA_TOOLS_COMMANDS_H_
