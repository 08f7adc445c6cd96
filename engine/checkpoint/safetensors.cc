// A 64-bit length, a JSON header of that length, and the tensors' bytes, without
// holes.

#include "engine/checkpoint/safetensors.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/checkpoint/byte_reader.h"
#include "engine/checkpoint/text_checks.h"
#include "engine/tokenizer/utf8.h"

namespace swaa {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr size_t kMaxDimensions = 8;
constexpr uint64_t kMaxDimension = uint64_t{1} << 56;  // of a tensor without elements, too

struct Element {
  std::string_view name;
  std::optional<TensorType> type;  // absent: the format has it, this build has not
};
constexpr Element kElements[] = {
    {"F32", TensorType::kF32},
    {"F16", TensorType::kF16},
    {"BF16", TensorType::kBf16},
    {"F64", {}},
    {"F8_E4M3", {}},
    {"F8_E5M2", {}},
    {"I64", {}},
    {"I32", {}},
    {"I16", {}},
    {"I8", {}},
    {"U64", {}},
    {"U32", {}},
    {"U16", {}},
    {"U8", {}},
    {"BOOL", {}},
};

// A tensor as the header tells it.
struct Entry {
  std::string name;
  std::optional<std::string> dtype;
  std::optional<std::vector<uint64_t>> shape;
  std::optional<std::vector<uint64_t>> offsets;
};

// Reads the header token by token, so that nothing is built that is not wanted, whatever the header
// holds. Stops at the first problem.
class HeaderReader : public nlohmann::json_sax<Json> {
 public:
  std::vector<Entry>& entries() { return entries_; }
  const std::string& problem() const { return problem_; }
  // Of a syntax error, in bytes of the header; 0 otherwise.
  size_t position() const { return position_; }

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a bool"); }
  bool number_integer(number_integer_t) override { return Unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { return Unexpected("a fraction"); }
  bool binary(binary_t&) override { return Unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (where_ != Where::kShape && where_ != Where::kOffsets) return Unexpected("a number");
    std::vector<uint64_t>& list = where_ == Where::kShape ? *entry().shape : *entry().offsets;
    if (list.size() == kMaxDimensions) return Unexpected("a ninth number");
    list.push_back(value);
    return true;
  }

  bool string(string_t& value) override {
    if (where_ == Where::kMetadata) return true;
    if (where_ != Where::kTensor || field_ != "dtype") return Unexpected("a string");
    entry().dtype = value;
    return true;
  }

  bool start_object(size_t) override {
    if (where_ == Where::kOutside) {
      where_ = Where::kTop;
    } else if (where_ == Where::kTop && key_ == "__metadata__") {
      where_ = Where::kMetadata;
    } else if (where_ == Where::kTop) {
      entries_.push_back({.name = key_, .dtype = {}, .shape = {}, .offsets = {}});
      where_ = Where::kTensor;
      field_.clear();
    } else {
      return Unexpected("an object");
    }
    return true;
  }

  bool key(string_t& value) override {
    if (where_ == Where::kTop) {
      key_ = value;
      if (!names_.insert(value).second) return Problem(absl::StrCat(Quoted(value), " twice"));
    } else if (where_ == Where::kTensor) {
      field_ = value;
      const bool twice = (value == "dtype" && entry().dtype.has_value()) ||
                         (value == "shape" && entry().shape.has_value()) ||
                         (value == "data_offsets" && entry().offsets.has_value());
      if (twice) return Problem(absl::StrCat("tensor ", Quoted(key_), ": ", value, " twice"));
    }
    return true;
  }

  bool end_object() override {
    where_ = where_ == Where::kTop ? Where::kOutside : Where::kTop;
    return true;
  }

  bool start_array(size_t) override {
    if (where_ == Where::kTensor && field_ == "shape") {
      entry().shape.emplace();
      where_ = Where::kShape;
    } else if (where_ == Where::kTensor && field_ == "data_offsets") {
      entry().offsets.emplace();
      where_ = Where::kOffsets;
    } else {
      return Unexpected("an array");
    }
    return true;
  }

  bool end_array() override {
    where_ = Where::kTensor;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const Json::exception& error) override {
    position_ = position == 0 ? 0 : position - 1;  // the library counts from one
    return Problem(AsValidUtf8(error.what()));
  }

 private:
  enum class Where { kOutside, kTop, kMetadata, kTensor, kShape, kOffsets };

  Entry& entry() { return entries_.back(); }

  bool Unexpected(std::string_view what) {
    if (where_ == Where::kOutside) return Problem(absl::StrCat("the header is no object"));
    if (where_ == Where::kMetadata) return Problem(absl::StrCat(std::string(what), " in metadata"));
    const std::string field = field_.empty() ? "" : absl::StrCat(", ", Quoted(field_));
    return Problem(
        absl::StrCat(std::string(what), " is out of place in tensor ", Quoted(key_), field));
  }

  bool Problem(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }

  std::vector<Entry> entries_;
  std::set<std::string, std::less<>> names_;
  std::string key_;
  std::string field_;
  Where where_ = Where::kOutside;
  std::string problem_;
  size_t position_ = 0;
};

struct Extent {
  uint64_t begin;
  uint64_t end;
  std::string name;
};

// Turns the header's entries into tensors.
class Builder {
 public:
  Builder(std::shared_ptr<const MappedFile> file, size_t data_start)
      : file_(std::move(file)),
        data_start_(data_start),
        data_bytes_(file_->bytes().size() - data_start) {}

  absl::Status Add(const Entry& entry) {
    const std::string what = absl::StrCat("tensor ", Quoted(entry.name));
    if (!entry.dtype.has_value() || !entry.shape.has_value() || !entry.offsets.has_value()) {
      return Wrong(absl::StrCat(what, " lacks dtype, shape or data_offsets"));
    }
    if (entry.offsets->size() != 2) {
      return Wrong(absl::StrCat(what, " has ", entry.offsets->size(), " data_offsets, not 2"));
    }
    const uint64_t begin = entry.offsets->front();
    const uint64_t end = entry.offsets->back();
    if (begin > end || end > data_bytes_) {
      return Wrong(absl::StrCat(what, ": data_offsets [", begin, ", ", end, "] are not inside the ",
                                data_bytes_, " bytes of data"));
    }
    StoredTensor tensor;
    SWAA_ASSIGN_OR_RETURN(tensor.type, TypeOf(*entry.dtype, what));
    uint64_t bytes = InfoOf(tensor.type).block_bytes;
    for (const uint64_t size : *entry.shape) {
      // What is larger than the file cannot be right, and everything below it cannot overflow.
      if (size > kMaxDimension || (bytes != 0 && size > data_bytes_ / bytes)) {
        return Wrong(absl::StrCat(what, " has an impossible dimension ", size));
      }
      bytes *= size;
      tensor.shape.push_back(static_cast<int64_t>(size));
    }
    if (bytes != end - begin) {
      return Wrong(absl::StrCat(what, " of shape ", ShapeText(tensor.shape), " takes ", bytes,
                                " bytes, but its data_offsets hold ", end - begin));
    }
    tensor.bytes = static_cast<int64_t>(bytes);
    tensor.data = file_->bytes().data() + data_start_ + begin;
    tensor.file = file_;
    tensors_.emplace(entry.name, std::move(tensor));
    extents_.push_back({begin, end, entry.name});
    return absl::OkStatus();
  }

  // The format has neither overlaps nor holes.
  absl::StatusOr<StoredTensors> Finish() && {
    std::sort(extents_.begin(), extents_.end(), [](const Extent& a, const Extent& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    uint64_t end = 0;
    for (const Extent& extent : extents_) {
      if (extent.begin != end) {
        return Wrong(absl::StrCat("tensor ", Quoted(extent.name), " begins at data offset ",
                                  extent.begin, ", but the one before it ends at ", end));
      }
      end = extent.end;
    }
    if (end != data_bytes_) {
      return Wrong(absl::StrCat("tensors end at data offset ", end, ", but there are ", data_bytes_,
                                " bytes of data"));
    }
    return std::move(tensors_);
  }

 private:
  absl::Status Wrong(std::string_view problem) const {
    return absl::InvalidArgumentError(
        absl::StrCat(file_->path(), ": offset 8: header: ", std::string(problem)));
  }

  absl::StatusOr<TensorType> TypeOf(const std::string& dtype, const std::string& what) const {
    for (const Element& element : kElements) {
      if (element.name != dtype) continue;
      if (element.type.has_value()) return *element.type;
      return absl::UnimplementedError(
          absl::StrCat(file_->path(), ": offset 8: header: ", what, " has dtype ", dtype,
                       ", which is not supported; F32, F16 and BF16 are"));
    }
    return Wrong(absl::StrCat(what, " has the unknown dtype ", Quoted(dtype)));
  }

  std::shared_ptr<const MappedFile> file_;
  size_t data_start_;
  uint64_t data_bytes_;
  StoredTensors tensors_;
  std::vector<Extent> extents_;
};

}  // namespace

absl::StatusOr<StoredTensors> ParseSafetensors(const std::shared_ptr<const MappedFile>& file) {
  ByteReader reader(file->bytes(), file->path());
  const auto header_bytes = reader.Read<uint64_t>("the header's length");
  SWAA_RETURN_IF_ERROR(reader.status());
  if (header_bytes > kMaxHeaderBytes || header_bytes > reader.remaining()) {
    reader.Fail(0, absl::StrCat("a header of ", header_bytes, " bytes does not fit in the ",
                                reader.remaining(), " bytes that are left, or in the format's ",
                                kMaxHeaderBytes));
    return reader.status();
  }
  const std::string_view header = file->text().substr(8, static_cast<size_t>(header_bytes));
  HeaderReader sax;
  if (!Json::sax_parse(header.begin(), header.end(), &sax)) {
    reader.Fail(8 + sax.position(), absl::StrCat("header: ", sax.problem()));
    return reader.status();
  }
  Builder builder(file, 8 + header.size());
  for (const Entry& entry : sax.entries()) SWAA_RETURN_IF_ERROR(builder.Add(entry));
  return std::move(builder).Finish();
}

}  // namespace swaa
