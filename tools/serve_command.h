// Tools: what `swaa serve` does, on a device of the caller's making.

#ifndef SWAA_TOOLS_SERVE_COMMAND_H_
#define SWAA_TOOLS_SERVE_COMMAND_H_

#include <string>
#include <vector>

#include "server/lifecycle/server.h"

namespace swaa::tools {

// Serves as the parsed flags say until a signal, given what was no flag. The process's exit code.
int Serve(const std::vector<std::string>& arguments, const server::MakeDevice& make_device);

}  // namespace swaa::tools

#endif  // SWAA_TOOLS_SERVE_COMMAND_H_
