// Values of a GGUF file's metadata.

#include <algorithm>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "engine/checkpoint/byte_reader.h"
#include "engine/checkpoint/gguf.h"
#include "engine/checkpoint/text_checks.h"

namespace swaa {
namespace {

bool IsInteger(GgufType type) {
  return GgufTypeBytes(type) != 0 && type != GgufType::kBool && type != GgufType::kFloat32 &&
         type != GgufType::kFloat64;
}

template <typename T>
T LoadAs(const MappedFile& file, size_t offset) {
  SWAA_CHECK(offset <= file.bytes().size() && file.bytes().size() - offset >= sizeof(T)) << offset;
  T value;
  std::memcpy(&value, file.bytes().data() + offset, sizeof(T));
  return value;
}

}  // namespace

size_t GgufTypeBytes(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool:
      return 1;
    case GgufType::kUint16:
    case GgufType::kInt16:
      return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32:
      return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      return 0;
  }
  return 0;
}

const GgufFile::Value* GgufFile::FindValue(std::string_view key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? nullptr : &found->second;
}

bool GgufFile::IsArray(std::string_view key) const {
  const Value* value = FindValue(key);
  return value != nullptr && value->type == GgufType::kArray;
}

std::vector<std::string_view> GgufFile::KeysWithPrefix(std::string_view prefix) const {
  std::vector<std::string_view> keys;
  for (auto at = metadata_.lower_bound(prefix);
       at != metadata_.end() && at->first.starts_with(prefix); ++at) {
    keys.push_back(at->first);
  }
  return keys;
}

absl::Status GgufFile::KeyError(std::string_view key, std::string_view problem) const {
  const Value* value = FindValue(key);
  const std::string place = value == nullptr ? "" : absl::StrCat("offset ", value->offset, ": ");
  return absl::InvalidArgumentError(
      absl::StrCat(file_->path(), ": ", place, std::string(key), ": ", std::string(problem)));
}

// 64-bit unsigned values beyond int64 become its maximum, which no caller's range check lets pass.
int64_t GgufFile::IntAt(GgufType type, size_t offset) const {
  switch (type) {
    case GgufType::kUint8:
      return LoadAs<uint8_t>(*file_, offset);
    case GgufType::kInt8:
      return LoadAs<int8_t>(*file_, offset);
    case GgufType::kUint16:
      return LoadAs<uint16_t>(*file_, offset);
    case GgufType::kInt16:
      return LoadAs<int16_t>(*file_, offset);
    case GgufType::kUint32:
      return LoadAs<uint32_t>(*file_, offset);
    case GgufType::kInt32:
      return LoadAs<int32_t>(*file_, offset);
    case GgufType::kInt64:
      return LoadAs<int64_t>(*file_, offset);
    case GgufType::kUint64:
      return static_cast<int64_t>(std::min<uint64_t>(LoadAs<uint64_t>(*file_, offset),
                                                     std::numeric_limits<int64_t>::max()));
    default:
      break;
  }
  SWAA_CHECK(false) << "not an integer type: " << static_cast<uint32_t>(type);
  return 0;
}

absl::StatusOr<std::optional<int64_t>> GgufFile::Int(std::string_view key) const {
  const Value* value = FindValue(key);
  if (value == nullptr) return std::nullopt;
  if (!IsInteger(value->type)) return KeyError(key, "is not an integer");
  return IntAt(value->type, value->offset);
}

absl::StatusOr<std::optional<double>> GgufFile::Number(std::string_view key) const {
  const Value* value = FindValue(key);
  if (value == nullptr) return std::nullopt;
  if (value->type == GgufType::kFloat32) return LoadAs<float>(*file_, value->offset);
  if (value->type == GgufType::kFloat64) return LoadAs<double>(*file_, value->offset);
  if (!IsInteger(value->type)) return KeyError(key, "is not a number");
  return static_cast<double>(IntAt(value->type, value->offset));
}

absl::StatusOr<std::optional<bool>> GgufFile::Bool(std::string_view key) const {
  const Value* value = FindValue(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::kBool) return KeyError(key, "is not a bool");
  const auto byte = LoadAs<uint8_t>(*file_, value->offset);
  if (byte > 1) return KeyError(key, absl::StrCat(byte, " is not a bool (0 or 1)"));
  return byte == 1;
}

absl::StatusOr<std::optional<std::string_view>> GgufFile::String(std::string_view key) const {
  const Value* value = FindValue(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::kString) return KeyError(key, "is not a string");
  const std::string_view text =
      ByteReader(file_->bytes(), file_->path(), value->offset).ReadString("a checked value");
  if (!IsValidUtf8(text)) return KeyError(key, absl::StrCat(Quoted(text), " is not UTF-8"));
  return text;
}

absl::StatusOr<std::optional<std::vector<std::string_view>>> GgufFile::StringArray(
    std::string_view key) const {
  const Value* value = FindValue(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::kArray || value->element_type != GgufType::kString) {
    return KeyError(key, "is not an array of strings");
  }
  ByteReader reader(file_->bytes(), file_->path(), value->offset);
  std::vector<std::string_view> strings;
  strings.reserve(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    strings.push_back(reader.ReadString("a checked value"));
    if (!IsValidUtf8(strings.back())) {
      return KeyError(key,
                      absl::StrCat("element ", i, ", ", Quoted(strings.back()), ", is not UTF-8"));
    }
  }
  return strings;
}

absl::StatusOr<std::optional<std::vector<int64_t>>> GgufFile::IntArray(std::string_view key) const {
  const Value* value = FindValue(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::kArray || !IsInteger(value->element_type)) {
    return KeyError(key, "is not an array of integers");
  }
  const size_t size = GgufTypeBytes(value->element_type);
  std::vector<int64_t> numbers;
  numbers.reserve(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    numbers.push_back(IntAt(value->element_type, value->offset + i * size));
  }
  return numbers;
}

}  // namespace swaa
