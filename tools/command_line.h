// Tools: flags of subcommands, over abseil's flags.
//
// abseil's own parser takes every flag of the program in every place, wants underscores, and ends
// the process where it finds a fault; a program of subcommands wants its flags apart, with dashes,
// and a status.

#ifndef SWAA_TOOLS_COMMAND_LINE_H_
#define SWAA_TOOLS_COMMAND_LINE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace swaa::tools {

// A subcommand as help shows it.
struct CommandHelp {
  std::string usage;                    // "swaa serve --model FILE [flags]"
  std::string summary;                  // one sentence
  std::vector<std::string> flag_names;  // as ABSL_FLAG declares them, less the prefix
  // Flags are one namespace in a program: a command's own --json that another has as well is
  // declared with this prefix, such as bench_json. A flag without it is found too.
  std::string flag_prefix;
};

// Sets the flags that `arguments` name, as --name=value, --name value, or --name and --noname for a
// bool, with dashes or underscores; after `--` nothing is a flag. What remains, in order.
// INVALID_ARGUMENT for a flag that the command does not have or a value that it does not take.
absl::StatusOr<std::vector<std::string>> ParseFlags(const std::vector<std::string>& arguments,
                                                    const CommandHelp& command);

// Whether `arguments` ask for help.
bool WantsHelp(const std::vector<std::string>& arguments);

// The command's usage and flags with their defaults.
std::string HelpText(const CommandHelp& command);

}  // namespace swaa::tools

#endif  // SWAA_TOOLS_COMMAND_LINE_H_
