// Fuzz target: a configuration file, from YAML text to the server's options.

#include "server/settings/config.h"
#include "server/settings/yaml_message.h"
#include "tests/fuzz/fuzz_input.h"

namespace swaa::fuzz {

void FuzzConfig(std::string_view input) {
  v1::ServerConfig config;
  const absl::Status read = server::ReadYamlMessage(std::string(input), "swaa.yaml", &config);
  if (!read.ok()) return CheckRefusal(read);
  const absl::StatusOr<server::ServerOptions> options =
      server::MakeServerOptions("swaa.yaml", config, v1::ServerConfig());
  if (!options.ok()) CheckRefusal(options.status());
}

}  // namespace swaa::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  swaa::fuzz::FuzzConfig(swaa::fuzz::AsText(data, size));
  return 0;
}
