// Everything that `swaa serve` can be told.

#ifndef SWAA_SERVER_SETTINGS_OPTIONS_H_
#define SWAA_SERVER_SETTINGS_OPTIONS_H_

#include <string>
#include <vector>

#include "engine/recipe/recipe.h"
#include "swaa/v1/config.pb.h"

namespace swaa::server {

struct ServerOptions {
  // Checked, flags over the file, and complete: what has a default is there.
  v1::ServerConfig config;
  std::vector<NamedRecipeSpec> recipes;  // built-in ones and the file's
  std::string port_file;                 // empty: none
  int processors = 1;                    // that the process may use

  // Where they came from, to read the file again.
  std::string config_path;      // empty: no file
  v1::ServerConfig from_file;   // as the file was at the start
  v1::ServerConfig from_flags;  // what the command line sets; it overrides the file
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_SETTINGS_OPTIONS_H_
