// The tokenizer's files as one zip archive.

#include "server/vllm_engine/tokenizer_archive.h"

#include <memory>
#include <zip.h>

#include <openssl/evp.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "engine/tokenizer/tokenizer_writer.h"
#include "server/vllm_engine/recipe_tail.h"

namespace swaa::server {
namespace {

// 1 January 1980, the first day that the form knows.
constexpr time_t kTime = 315532800;

struct FreeSource {
  void operator()(zip_source_t* source) const { zip_source_free(source); }
};
using Source = std::unique_ptr<zip_source_t, FreeSource>;

absl::Status ZipError(const std::string& what, zip_error_t* error) {
  return absl::InternalError(
      absl::StrCat("zip archive of the tokenizer: ", what, ": ", zip_error_strerror(error)));
}

absl::Status AddFiles(const std::vector<std::pair<std::string, std::string>>& files, zip_t* zip) {
  for (const auto& [name, content] : files) {
    zip_source_t* source = zip_source_buffer(zip, content.data(), content.size(), /*freep=*/0);
    if (source == nullptr) return ZipError(name, zip_get_error(zip));
    const zip_int64_t index = zip_file_add(zip, name.c_str(), source, ZIP_FL_ENC_UTF_8);
    if (index < 0) {
      zip_source_free(source);
      return ZipError(name, zip_get_error(zip));
    }
    if (zip_file_set_mtime(zip, static_cast<zip_uint64_t>(index), kTime, 0) != 0) {
      return ZipError(name, zip_get_error(zip));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadAll(zip_source_t* source) {
  zip_stat_t stat;
  if (zip_source_stat(source, &stat) != 0 || zip_source_open(source) != 0) {
    return ZipError("reading it", zip_source_error(source));
  }
  std::string bytes(stat.size, '\0');
  const zip_int64_t read = zip_source_read(source, bytes.data(), bytes.size());
  zip_source_close(source);
  if (read != static_cast<zip_int64_t>(bytes.size())) {
    return ZipError("reading it", zip_source_error(source));
  }
  return bytes;
}

std::string Sha256(const std::string& bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  SWAA_CHECK(EVP_Digest(bytes.data(), bytes.size(), digest, &size, EVP_sha256(), nullptr) == 1);
  return absl::BytesToHexString(std::string(reinterpret_cast<const char*>(digest), size));
}

}  // namespace

absl::StatusOr<std::string> MakeZip(const std::vector<std::pair<std::string, std::string>>& files) {
  zip_error_t error;
  zip_error_init(&error);
  const Source source(zip_source_buffer_create(nullptr, 0, 0, &error));
  if (source == nullptr) return ZipError("memory", &error);
  zip_t* zip = zip_open_from_source(source.get(), ZIP_TRUNCATE, &error);
  if (zip == nullptr) return ZipError("opening it", &error);
  zip_source_keep(source.get());  // closing the archive lets go of it
  if (absl::Status status = AddFiles(files, zip); !status.ok()) {
    zip_discard(zip);
    return status;
  }
  if (zip_close(zip) != 0) {
    const absl::Status status = ZipError("writing it", zip_get_error(zip));
    zip_discard(zip);
    return status;
  }
  return ReadAll(source.get());
}

const absl::StatusOr<TokenizerArchive::Archive>& TokenizerArchive::Get() {
  std::call_once(once_, [this] { archive_ = Make(); });
  return archive_;
}

absl::StatusOr<TokenizerArchive::Archive> TokenizerArchive::Make() const {
  SWAA_ASSIGN_OR_RETURN(const TokenizerFiles files,
                        WriteTokenizerFiles(*data_, {.special_tokens = {kRecipeBegin, kRecipeEnd},
                                                     .chat_template_end = RecipeTail::TemplateEnd(),
                                                     .max_tokens = max_tokens_}));
  Archive archive;
  SWAA_ASSIGN_OR_RETURN(archive.bytes,
                        MakeZip({{"tokenizer.json", files.tokenizer_json},
                                 {"tokenizer_config.json", files.tokenizer_config_json}}));
  archive.sha256 = Sha256(archive.bytes);
  return archive;
}

}  // namespace swaa::server
