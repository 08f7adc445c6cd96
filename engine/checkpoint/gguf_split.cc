// Parts are numbered from 1 in their names, and from 0 in their keys.

#include "engine/checkpoint/gguf_split.h"

#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"

namespace swaa {
namespace {

constexpr std::string_view kCount = "split.count";
constexpr std::string_view kNumber = "split.no";
constexpr std::string_view kTensors = "split.tensors.count";
constexpr int64_t kMaxParts = 99999;  // what a name has room for

struct Split {
  int64_t count = 1;
  int64_t number = 0;
};

absl::StatusOr<Split> ReadSplit(const GgufFile& gguf) {
  Split split;
  SWAA_ASSIGN_OR_RETURN(const std::optional<int64_t> count, gguf.Int(kCount));
  if (count.value_or(0) <= 1) return split;
  SWAA_ASSIGN_OR_RETURN(const std::optional<int64_t> number, gguf.Int(kNumber));
  if (!number.has_value()) return gguf.KeyError(kNumber, "is missing");
  if (*count > kMaxParts || *number < 0 || *number >= *count) {
    return gguf.KeyError(kNumber, absl::StrCat(*number, " of ", *count, " parts is no part"));
  }
  return Split{.count = *count, .number = *number};
}

std::string PartSuffix(int64_t number, int64_t count) {
  return absl::StrFormat("-%05d-of-%05d.gguf", number + 1, count);
}

// The other parts, whose names follow from the first's.
absl::Status AddParts(const std::string& path, const Split& split, GgufModel* model) {
  std::string stem = path;
  const std::string suffix = PartSuffix(0, split.count);
  if (!stem.ends_with(suffix)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": part 1 of ", split.count,
                                                   ", but its name does not end with ", suffix,
                                                   ", from which the others' names follow; give "
                                                   "the parts the names that they were made with"));
  }
  stem.resize(stem.size() - suffix.size());
  for (int64_t number = 1; number < split.count; ++number) {
    const std::string part = stem + PartSuffix(number, split.count);
    absl::StatusOr<std::shared_ptr<const MappedFile>> file = MappedFile::Open(part);
    if (!file.ok() && absl::IsNotFound(file.status())) {
      return absl::NotFoundError(
          absl::StrCat(path, ": part 1 of ", split.count, "; ",
                       split.count == 2 ? "the other part is missing"
                                        : absl::StrCat("part ", number + 1, " is missing"),
                       ": ", part, "; all parts lie in one folder"));
    }
    if (!file.ok()) return file.status();
    SWAA_ASSIGN_OR_RETURN(GgufFile gguf, GgufFile::Parse(*file));
    SWAA_ASSIGN_OR_RETURN(const Split found, ReadSplit(gguf));
    if (found.number != number || found.count != split.count) {
      return gguf.KeyError(kNumber,
                           absl::StrCat("says part ", found.number + 1, " of ", found.count,
                                        ", its name part ", number + 1, " of ", split.count));
    }
    model->mapped_bytes += static_cast<int64_t>((*file)->bytes().size());
    SWAA_RETURN_IF_ERROR(model->gguf.AddTensors(gguf));
  }
  return absl::OkStatus();
}

absl::Status CheckTensorCount(const GgufFile& gguf) {
  SWAA_ASSIGN_OR_RETURN(const std::optional<int64_t> wanted, gguf.Int(kTensors));
  const auto found = static_cast<int64_t>(gguf.tensors().size());
  if (wanted.value_or(found) == found) return absl::OkStatus();
  return gguf.KeyError(kTensors, absl::StrCat(*wanted, ", but the parts hold ", found));
}

}  // namespace

absl::StatusOr<GgufModel> OpenGguf(const std::string& path) {
  SWAA_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
  SWAA_ASSIGN_OR_RETURN(GgufFile gguf, GgufFile::Parse(file));
  SWAA_ASSIGN_OR_RETURN(const Split split, ReadSplit(gguf));
  GgufModel model{std::move(gguf), static_cast<int64_t>(file->bytes().size())};
  if (split.count == 1) return model;
  if (split.number != 0) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": part ", split.number + 1, " of ",
                                                   split.count,
                                                   "; name part 1, which leads to the "
                                                   "others"));
  }
  SWAA_RETURN_IF_ERROR(AddParts(path, split, &model));
  SWAA_RETURN_IF_ERROR(CheckTensorCount(model.gguf));
  return model;
}

}  // namespace swaa
