// The process of a server: from its start over signals to its exit code.

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/lifecycle/server.h"
#include "server/lifecycle/shutdown_signals.h"
#include "server/observation/last_words.h"

namespace swaa::server {
namespace {

// Whole or not at all, so that a reader never sees half a number.
absl::Status WritePort(const std::string& path, int port) {
  const std::string temporary = absl::StrCat(path, ".tmp");
  {
    std::ofstream file(temporary);
    file << port << "\n";
    if (!file.flush()) {
      return absl::InvalidArgumentError(absl::StrCat("--port-file: cannot write ", temporary,
                                                     "; name a file in a writable folder"));
    }
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("--port-file: cannot rename to ", path));
  }
  return absl::OkStatus();
}

absl::Status AnnounceReady(const ServerOptions& options, const Server& server) {
  if (!options.port_file.empty()) {
    if (server.metrics_port() != 0) {
      SWAA_RETURN_IF_ERROR(
          WritePort(absl::StrCat(options.port_file, ".metrics"), server.metrics_port()));
    }
    SWAA_RETURN_IF_ERROR(WritePort(options.port_file, server.port()));
  }
  LogInfo(absl::StrCat("ready: gRPC on port ", server.port(),
                       server.metrics_port() == 0
                           ? std::string()
                           : absl::StrCat(", metrics on port ", server.metrics_port())));
  return absl::OkStatus();
}

// Yesterday's port is nobody's.
void RemovePortFiles(const std::string& port_file) {
  if (port_file.empty()) return;
  std::error_code error;
  std::filesystem::remove(port_file, error);
  std::filesystem::remove(absl::StrCat(port_file, ".metrics"), error);
}

}  // namespace

int RunServer(const ServerOptions& options, const MakeDevice& make_device) {
  InstallLastWords();
  ShutdownSignals signals;
  RemovePortFiles(options.port_file);
  absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(options, make_device);
  absl::Status status = server.status();
  if (status.ok()) status = AnnounceReady(options, **server);
  if (!status.ok()) {
    LogError(std::string(status.message()));
    return 1;
  }
  signals.OnHangup([&server] { (*server)->Reload(); });
  (*server)->OnFailure([&signals] { signals.End(); });
  const int signal = signals.Await();
  signals.OnHangup([] { LogInfo("SIGHUP while draining: the configuration is not read again"); });
  const std::string cause =
      signal == 0 ? std::string("the server cannot go on") : absl::StrCat("signal ", signal);
  LogInfo(absl::StrCat(cause, ": draining; a second one ends at once"));
  (*server)->Drain();
  RemovePortFiles(options.port_file);
  const bool failed = (*server)->failed();
  (*server)->OnFailure(nullptr);
  server->reset();
  LogInfo("stopped");
  return failed ? 1 : 0;
}

}  // namespace swaa::server
