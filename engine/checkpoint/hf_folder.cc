// Reads the files of a Hugging Face folder.

#include "engine/checkpoint/hf_folder.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/checkpoint/hf_config.h"
#include "engine/checkpoint/json_file.h"
#include "engine/checkpoint/mapped_file.h"
#include "engine/checkpoint/safetensors.h"
#include "engine/checkpoint/tensor_weights.h"
#include "engine/checkpoint/text_checks.h"
#include "engine/tokenizer/tokenizer_json.h"

namespace swaa {
namespace {

using Json = nlohmann::json;
using FilePtr = std::shared_ptr<const MappedFile>;

std::string InFolder(const std::string& folder, std::string_view name) {
  return (std::filesystem::path(folder) / name).string();
}

// Null if there is no such file.
absl::StatusOr<FilePtr> OpenOptional(const std::string& path) {
  absl::StatusOr<FilePtr> file = MappedFile::Open(path);
  if (!file.ok() && absl::IsNotFound(file.status())) return FilePtr();
  return file;
}

absl::StatusOr<std::optional<Json>> ReadOptionalJson(const std::string& path) {
  SWAA_ASSIGN_OR_RETURN(const FilePtr file, OpenOptional(path));
  if (file == nullptr) return std::nullopt;
  return ParseJsonObject(file->text(), path);
}

absl::StatusOr<std::string> ReadOptionalText(const std::string& path) {
  SWAA_ASSIGN_OR_RETURN(const FilePtr file, OpenOptional(path));
  if (file == nullptr) return std::string();
  if (!IsValidUtf8(file->text())) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not UTF-8"));
  }
  return std::string(file->text());
}

absl::Status CheckTokenIds(const TokenizerData& data, int32_t vocab_size, const std::string& file) {
  for (const int32_t id : data.eos_ids) {
    if (id >= 0 && id < vocab_size) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": end token ", id, " is no token; there are ", vocab_size));
  }
  return absl::OkStatus();
}

absl::StatusOr<TokenizerData> ReadTokenizer(const std::string& folder, int32_t vocab_size) {
  const std::string path = InFolder(folder, "tokenizer.json");
  SWAA_ASSIGN_OR_RETURN(const FilePtr file, MappedFile::Open(path));
  SWAA_ASSIGN_OR_RETURN(const std::string config,
                        ReadOptionalText(InFolder(folder, "tokenizer_config.json")));
  SWAA_ASSIGN_OR_RETURN(TokenizerData data, ParseTokenizerJson(file->text(), config, path));
  SWAA_ASSIGN_OR_RETURN(std::string chat_template,
                        ReadOptionalText(InFolder(folder, "chat_template.jinja")));
  if (!chat_template.empty()) data.chat_template = std::move(chat_template);
  SWAA_RETURN_IF_ERROR(CheckTokenIds(data, vocab_size, path));
  return data;
}

void AddEosIds(const std::vector<int32_t>& ids, TokenizerData* tokenizer) {
  for (const int32_t id : ids) {
    auto& known = tokenizer->eos_ids;
    if (std::find(known.begin(), known.end(), id) == known.end()) known.push_back(id);
  }
}

// The names of tensors that each shard must hold, from the index; a single file's are not known
// before.
using Shards = std::map<std::string, std::set<std::string>>;

absl::StatusOr<Shards> ReadIndex(const std::string& path) {
  SWAA_ASSIGN_OR_RETURN(const FilePtr file, MappedFile::Open(path));
  SWAA_ASSIGN_OR_RETURN(const Json json, ParseJsonObject(file->text(), path));
  const auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": weight_map: is missing or no object"));
  }
  Shards shards;
  for (const auto& [tensor, shard] : map->items()) {
    const std::string name = shard.is_string() ? shard.get<std::string>() : "";
    // A shard lies beside its index: nothing may lead out of the folder.
    if (name.empty() || name == "." || name == ".." ||
        name.find_first_of(std::string_view("/\0", 2)) != std::string::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": weight_map: ", Quoted(tensor), " names no file of the folder"));
    }
    shards[name].insert(tensor);
  }
  return shards;
}

struct FolderTensors {
  StoredTensors tensors;
  int64_t mapped_bytes = 0;
};

// Of a shard, `shards` and `name` say what the index says of it; tensors that the index gives to no
// shard are read as well, as transformers does.
absl::Status AddShard(const std::string& path, const Shards& shards, const std::string& name,
                      FolderTensors* result) {
  SWAA_ASSIGN_OR_RETURN(const FilePtr file, MappedFile::Open(path));
  SWAA_ASSIGN_OR_RETURN(StoredTensors tensors, ParseSafetensors(file));
  result->mapped_bytes += static_cast<int64_t>(file->bytes().size());
  for (const auto& [shard, wanted] : shards) {
    for (const std::string& tensor : wanted) {
      if (shard != name) {
        tensors.erase(tensor);
      } else if (!tensors.contains(tensor)) {
        return absl::InvalidArgumentError(
            absl::StrCat(path, ": tensor ", Quoted(tensor), " is missing, but the index names it"));
      }
    }
  }
  result->tensors.merge(tensors);
  return absl::OkStatus();
}

absl::StatusOr<FolderTensors> ReadTensors(const std::string& folder) {
  FolderTensors result;
  const std::string single = InFolder(folder, "model.safetensors");
  std::error_code error;
  if (std::filesystem::exists(single, error)) {
    SWAA_RETURN_IF_ERROR(AddShard(single, {}, "", &result));
    return result;
  }
  const std::string index = InFolder(folder, "model.safetensors.index.json");
  if (!std::filesystem::exists(index, error)) {
    return absl::NotFoundError(absl::StrCat(
        folder, ": neither model.safetensors nor model.safetensors.index.json is there"));
  }
  SWAA_ASSIGN_OR_RETURN(const Shards shards, ReadIndex(index));
  for (const auto& [name, wanted] : shards) {
    SWAA_RETURN_IF_ERROR(AddShard(InFolder(folder, name), shards, name, &result));
  }
  return result;
}

// The rotary frequencies of early conversions, which nothing needs.
void DropFrequencies(StoredTensors* tensors) {
  std::erase_if(*tensors,
                [](const auto& item) { return item.first.ends_with(".rotary_emb.inv_freq"); });
}

bool AreEqual(const StoredTensor& a, const StoredTensor& b) {
  return a.type == b.type && a.shape == b.shape && std::memcmp(a.data, b.data, a.bytes) == 0;
}

// What the configuration ties may be in the files twice, or under the other's name. As transformers
// 5, the files have the last word.
void SettleOutput(const std::string& folder, StoredTensors* tensors, Checkpoint* checkpoint) {
  constexpr std::string_view kEmbedding = "model.embed_tokens.weight";
  constexpr std::string_view kOutput = "lm_head.weight";
  const auto output = tensors->find(kOutput);
  if (!checkpoint->config.tied_embeddings || output == tensors->end()) return;
  const auto embedding = tensors->find(kEmbedding);
  if (embedding == tensors->end()) {
    tensors->emplace(kEmbedding, output->second);
    tensors->erase(output);
  } else if (AreEqual(embedding->second, output->second)) {
    tensors->erase(output);
  } else {
    checkpoint->config.tied_embeddings = false;
    checkpoint->warnings.push_back(absl::StrCat(
        folder, ": config.json ties the output to the embedding, but ", std::string(kOutput),
        " is there and differs: it is used; set ", "tie_word_embeddings to false to say so"));
  }
}

}  // namespace

absl::StatusOr<Checkpoint> LoadHfFolder(const std::string& folder, LoadFormat format) {
  Checkpoint checkpoint;
  const std::string config_path = InFolder(folder, "config.json");
  SWAA_ASSIGN_OR_RETURN(const FilePtr config_file, MappedFile::Open(config_path));
  SWAA_ASSIGN_OR_RETURN(const Json config, ParseJsonObject(config_file->text(), config_path));
  SWAA_ASSIGN_OR_RETURN(checkpoint.config, ReadHfConfig(config, config_path));
  const int32_t vocab_size = checkpoint.config.vocab_size;
  SWAA_ASSIGN_OR_RETURN(checkpoint.tokenizer, ReadTokenizer(folder, vocab_size));
  SWAA_ASSIGN_OR_RETURN(const std::vector<int32_t> model_ends,
                        ReadEosIds(config, vocab_size, config_path));
  const std::string generation_path = InFolder(folder, "generation_config.json");
  SWAA_ASSIGN_OR_RETURN(const std::optional<Json> generation, ReadOptionalJson(generation_path));
  std::vector<int32_t> ends;
  if (generation.has_value()) {
    SWAA_ASSIGN_OR_RETURN(checkpoint.generation,
                          ReadGenerationDefaults(*generation, vocab_size, generation_path));
    for (std::string& warning : UnheededGenerationKeys(*generation, generation_path)) {
      checkpoint.warnings.push_back(std::move(warning));
    }
    SWAA_ASSIGN_OR_RETURN(ends, ReadEosIds(*generation, vocab_size, generation_path));
  }
  // generation_config.json is the later word; config.json speaks where it is silent.
  AddEosIds(ends.empty() ? model_ends : ends, &checkpoint.tokenizer);
  if (format == LoadFormat::kDummy) {
    checkpoint.weights = MakeDummyWeights(checkpoint.config);
    return checkpoint;
  }
  SWAA_ASSIGN_OR_RETURN(FolderTensors tensors, ReadTensors(folder));
  DropFrequencies(&tensors.tensors);
  SettleOutput(folder, &tensors.tensors, &checkpoint);
  SWAA_ASSIGN_OR_RETURN(
      checkpoint.weights,
      MakeTensorWeights(checkpoint.config, WeightNaming::kHuggingFace, RopeRows::kHalves,
                        std::move(tensors.tensors), tensors.mapped_bytes, folder));
  return checkpoint;
}

}  // namespace swaa
