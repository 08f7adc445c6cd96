// Tools: `swaa serve` for other programs and commands: its flags, and what it does on a device of
// the caller's making.

#ifndef SWAA_TOOLS_SERVE_COMMAND_H_
#define SWAA_TOOLS_SERVE_COMMAND_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/lifecycle/server.h"
#include "tools/command_line.h"

namespace swaa::tools {

// The flags that set the server's configuration: --config, and one for each setting that has one.
inline constexpr char kConfigFlag[] = "config";
std::vector<MadeFlag> SettingFlags();

// What those flags say, once they are parsed. The status names the flag or the file's line.
absl::StatusOr<server::ServerOptions> OptionsFromFlags();

// Serves as the parsed flags say until a signal, given what was no flag. The process's exit code.
int Serve(const std::vector<std::string>& arguments, const server::MakeDevice& make_device);

}  // namespace swaa::tools

#endif  // SWAA_TOOLS_SERVE_COMMAND_H_
