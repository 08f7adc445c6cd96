// Tools: flags of subcommands, over abseil's flags.
//
// abseil's own parser takes every flag of the program in every place, wants underscores, and ends
// the process where it finds a fault; a program of subcommands wants its flags apart, with dashes,
// and a status. Flags that stand in a table elsewhere (MadeFlag) are not declared to it.

#ifndef SWAA_TOOLS_COMMAND_LINE_H_
#define SWAA_TOOLS_COMMAND_LINE_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace swaa::tools {

// A flag that is made when the program runs.
struct MadeFlag {
  std::string name;  // with dashes: drain-grace-seconds
  std::string help;
  std::string default_value;  // empty: help shows none
  // Takes the flag's text. Its error names the flag.
  std::function<absl::Status(const std::string& text)> set;
};

// A subcommand as help shows it.
struct CommandHelp {
  std::string usage;                      // "swaa serve --model FILE [flags]"
  std::string summary;                    // one sentence
  std::vector<std::string> flag_names;    // as ABSL_FLAG declares them, less the prefix
  std::vector<MadeFlag> made_flags = {};  // before those in help
  // Flags are one namespace in a program: a command's own --json that another has as well is
  // declared with this prefix, such as bench_json. A flag without it is found too.
  std::string flag_prefix = {};
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
