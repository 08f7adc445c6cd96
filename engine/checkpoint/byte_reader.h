// Reads little-endian values one after the other and never past the end.

#ifndef SWAA_ENGINE_CHECKPOINT_BYTE_READER_H_
#define SWAA_ENGINE_CHECKPOINT_BYTE_READER_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace swaa {

// The first error sticks: from then on every read gives zeros, and status() tells what was wrong,
// where, and in which file. Not thread-safe.
class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, std::string file, size_t offset = 0)
      : bytes_(bytes), file_(std::move(file)), offset_(offset) {}

  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }
  size_t offset() const { return offset_; }
  size_t remaining() const { return bytes_.size() - offset_; }

  // `what` is what the message calls the value.
  template <typename T>
  T Read(std::string_view what) {
    T value{};
    if (const std::byte* at = Take(sizeof(T), what)) std::memcpy(&value, at, sizeof(T));
    return value;
  }

  // A 64-bit length and as many bytes.
  std::string_view ReadString(std::string_view what) {
    const size_t start = offset_;
    const auto length = Read<uint64_t>(what);
    if (!ok()) return {};
    if (length > remaining()) {
      Fail(start, absl::StrCat(std::string(what), " is ", length, " bytes long, but only ",
                               remaining(), " bytes are left in the file"));
      return {};
    }
    const auto size = static_cast<size_t>(length);
    return {reinterpret_cast<const char*>(Take(size, what)), size};
  }

  void Skip(size_t count, std::string_view what) { Take(count, what); }

  // Records an error at `offset`, unless there is one already.
  void Fail(size_t offset, std::string_view problem) {
    if (!ok()) return;
    status_ = absl::InvalidArgumentError(
        absl::StrCat(file_, ": offset ", offset, ": ", std::string(problem)));
  }

 private:
  const std::byte* Take(size_t count, std::string_view what) {
    if (!ok()) return nullptr;
    if (count > remaining()) {
      Fail(offset_, absl::StrCat("the file ends inside ", std::string(what), " (", count,
                                 " bytes wanted, ", remaining(), " left)"));
      return nullptr;
    }
    const std::byte* at = bytes_.data() + offset_;
    offset_ += count;
    return at;
  }

  std::span<const std::byte> bytes_;
  std::string file_;
  size_t offset_;
  absl::Status status_;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_BYTE_READER_H_
