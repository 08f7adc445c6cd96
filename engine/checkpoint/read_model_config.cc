// A model's numbers alone.

#include "engine/checkpoint/read_model_config.h"

#include <filesystem>
#include <system_error>

#include "base/status_macros.h"
#include "engine/checkpoint/gguf_model.h"
#include "engine/checkpoint/gguf_split.h"
#include "engine/checkpoint/hf_config.h"
#include "engine/checkpoint/json_file.h"
#include "engine/checkpoint/mapped_file.h"

namespace swaa {

absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& path) {
  std::filesystem::path file = path;
  std::error_code error;
  if (std::filesystem::is_directory(file, error)) file /= "config.json";
  if (file.extension() != ".json") {
    SWAA_ASSIGN_OR_RETURN(const GgufModel model, OpenGguf(path));
    return ReadGgufConfig(model.gguf);
  }
  SWAA_ASSIGN_OR_RETURN(const auto mapped, MappedFile::Open(file.string()));
  SWAA_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJsonObject(mapped->text(), file.string()));
  return ReadHfConfig(json, file.string());
}

}  // namespace swaa
