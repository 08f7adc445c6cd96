// Reading the header.

#include "engine/checkpoint/gguf.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/checkpoint/byte_reader.h"
#include "engine/checkpoint/text_checks.h"

namespace swaa {
namespace {

constexpr size_t kMaxKeyBytes = 65535;   // the specification's limit
constexpr size_t kMaxNameBytes = 65535;  // of a tensor; ggml itself takes 64
constexpr uint32_t kMaxDimensions = 4;
constexpr uint64_t kDefaultAlignment = 32;

// Types that GGUF names and this build does not read, for messages.
struct ForeignType {
  uint32_t id;
  std::string_view name;
};
constexpr ForeignType kForeignTypes[] = {
    {9, "Q8_1"},     {10, "Q2_K"},  {11, "Q3_K"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"},
    {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"}, {22, "IQ2_S"},   {23, "IQ4_XS"},
    {24, "I8"},      {25, "I16"},   {26, "I32"},    {27, "I64"},   {28, "F64"},     {29, "IQ1_M"},
    {34, "TQ1_0"},   {35, "TQ2_0"}, {39, "MXFP4"},
};

}  // namespace

// One pass over the header. Offsets of tensors are relative to the aligned end of it, so tensors
// are placed when all have been read.
class GgufFile::Parser {
 public:
  explicit Parser(std::shared_ptr<const MappedFile> file)
      : reader_(file->bytes(), file->path()), result_() {
    result_.file_ = std::move(file);
  }

  absl::StatusOr<GgufFile> Run() && {
    SWAA_RETURN_IF_ERROR(ReadHeader());
    for (uint64_t i = 0; i < num_keys_ && reader_.ok(); ++i) ReadKey();
    SWAA_RETURN_IF_ERROR(reader_.status());
    SWAA_RETURN_IF_ERROR(ReadAlignment());
    for (uint64_t i = 0; i < num_tensors_; ++i) SWAA_RETURN_IF_ERROR(ReadTensor());
    SWAA_RETURN_IF_ERROR(PlaceTensors());
    return std::move(result_);
  }

 private:
  struct Entry {
    uint64_t start;        // in the data, relative
    size_t header_offset;  // of its entry in the header
    const std::string* name;
    StoredTensor* tensor;
  };

  absl::Status ReadHeader() {
    const auto magic = reader_.Read<uint32_t>("the magic number");
    if (reader_.ok() && magic != 0x46554747) reader_.Fail(0, "not a GGUF file: no magic 'GGUF'");
    const auto version = reader_.Read<uint32_t>("the version");
    SWAA_RETURN_IF_ERROR(reader_.status());
    if (version != 2 && version != 3) {
      const bool big_endian = version == 0x02000000 || version == 0x03000000;
      return absl::UnimplementedError(absl::StrCat(
          result_.file_->path(), ": offset 4: GGUF version ", version,
          big_endian ? " (a big-endian file)" : "", " is not supported; versions 2 and 3 are"));
    }
    num_tensors_ = reader_.Read<uint64_t>("the number of tensors");
    num_keys_ = reader_.Read<uint64_t>("the number of metadata keys");
    // The smallest entries: empty name, no dimension; one-letter key, one byte.
    CheckCount(num_tensors_, 24, 8, "tensors");
    CheckCount(num_keys_, 13, 16, "metadata keys");
    return reader_.status();
  }

  void CheckCount(uint64_t count, size_t min_bytes, size_t offset, std::string_view what) {
    if (count > reader_.remaining() / min_bytes) {
      reader_.Fail(offset, absl::StrCat(count, " ", std::string(what), " cannot fit in the ",
                                        reader_.remaining(), " bytes that are left"));
    }
  }

  void ReadKey() {
    const size_t start = reader_.offset();
    const std::string_view key = reader_.ReadString("a metadata key");
    if (!reader_.ok()) return;
    if (key.empty() || key.size() > kMaxKeyBytes) {
      return reader_.Fail(start, absl::StrCat("a metadata key of ", key.size(), " bytes"));
    }
    if (!IsValidUtf8(key)) {
      return reader_.Fail(start, absl::StrCat("metadata key ", Quoted(key), " is not UTF-8"));
    }
    const std::string what = absl::StrCat("the value of ", Quoted(key));
    Value value;
    value.type = static_cast<GgufType>(reader_.Read<uint32_t>(what));
    value.offset = reader_.offset();
    ReadValue(&value, what);
    if (!reader_.ok()) return;
    if (!result_.metadata_.emplace(std::string(key), value).second) {
      reader_.Fail(start, absl::StrCat("metadata key ", Quoted(key), " appears twice"));
    }
  }

  void ReadValue(Value* value, const std::string& what) {
    if (value->type == GgufType::kString) {
      reader_.ReadString(what);
    } else if (value->type == GgufType::kArray) {
      ReadArray(value, what);
    } else if (const size_t size = GgufTypeBytes(value->type); size != 0) {
      reader_.Skip(size, what);
    } else {
      FailType(value->type, what);
    }
  }

  void ReadArray(Value* value, const std::string& what) {
    const size_t start = reader_.offset();
    value->element_type = static_cast<GgufType>(reader_.Read<uint32_t>(what));
    value->count = reader_.Read<uint64_t>(what);
    value->offset = reader_.offset();
    if (!reader_.ok()) return;
    const size_t size = GgufTypeBytes(value->element_type);
    if (value->element_type == GgufType::kArray) {
      return reader_.Fail(start, absl::StrCat(what, " is an array of arrays"));
    }
    if (size == 0 && value->element_type != GgufType::kString) {
      return FailType(value->element_type, what);
    }
    const size_t least = size == 0 ? sizeof(uint64_t) : size;  // a string has at least its length
    if (value->count > reader_.remaining() / least) {
      return reader_.Fail(start, absl::StrCat(what, " has ", value->count, " elements, but only ",
                                              reader_.remaining(), " bytes are left in the file"));
    }
    if (size != 0) return reader_.Skip(static_cast<size_t>(value->count) * size, what);
    for (uint64_t i = 0; i < value->count && reader_.ok(); ++i) reader_.ReadString(what);
  }

  void FailType(GgufType type, const std::string& what) {
    reader_.Fail(reader_.offset(),
                 absl::StrCat(what, " has the unknown type ", static_cast<uint32_t>(type)));
  }

  absl::Status ReadAlignment() {
    constexpr std::string_view kKey = "general.alignment";
    SWAA_ASSIGN_OR_RETURN(const std::optional<int64_t> alignment, result_.Int(kKey));
    if (!alignment.has_value()) return absl::OkStatus();
    if (*alignment < 8 || *alignment > (1 << 20) ||
        !std::has_single_bit(static_cast<uint64_t>(*alignment))) {
      return result_.KeyError(kKey,
                              absl::StrCat(*alignment, " is not a power of two from 8 to 2^20"));
    }
    alignment_ = static_cast<uint64_t>(*alignment);
    return absl::OkStatus();
  }

  absl::Status ReadTensor() {
    const size_t start = reader_.offset();
    const std::string_view name = reader_.ReadString("a tensor's name");
    if (reader_.ok() && (name.empty() || name.size() > kMaxNameBytes || !IsValidUtf8(name))) {
      reader_.Fail(start,
                   absl::StrCat("tensor name ", Quoted(name), " is empty, too long or not UTF-8"));
    }
    const std::string what = absl::StrCat("the entry of tensor ", Quoted(name));
    const auto num_dimensions = reader_.Read<uint32_t>(what);
    if (reader_.ok() && (num_dimensions == 0 || num_dimensions > kMaxDimensions)) {
      reader_.Fail(start, absl::StrCat(what, " has ", num_dimensions, " dimensions; 1 to ",
                                       kMaxDimensions, " are possible"));
    }
    StoredTensor tensor;
    uint64_t elements = 1;
    for (uint32_t i = 0; i < num_dimensions && reader_.ok(); ++i) {
      const auto size = reader_.Read<uint64_t>(what);
      // An element takes at least a quarter of a byte in every format, so more than this is in no
      // file; it also keeps all products below from overflowing.
      constexpr uint64_t kMaxElements = uint64_t{1} << 56;
      if (reader_.ok() && (size == 0 || size > kMaxElements / elements)) {
        reader_.Fail(start,
                     absl::StrCat(what, " has an impossible size ", size, " in dimension ", i));
      }
      if (reader_.ok()) elements *= size;
      tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
    }
    const auto type_id = reader_.Read<uint32_t>(what);
    const auto offset = reader_.Read<uint64_t>(what);
    SWAA_RETURN_IF_ERROR(reader_.status());
    SWAA_RETURN_IF_ERROR(SetType(type_id, elements, start, what, &tensor));
    if (offset % alignment_ != 0) {
      reader_.Fail(start,
                   absl::StrCat(what, " has offset ", offset, ", which is not a multiple of the",
                                " alignment ", alignment_));
      return reader_.status();
    }
    const auto [at, inserted] = result_.tensors_.emplace(std::string(name), std::move(tensor));
    if (!inserted) reader_.Fail(start, absl::StrCat("tensor ", Quoted(name), " appears twice"));
    entries_.push_back({offset, start, &at->first, &at->second});
    return reader_.status();
  }

  absl::Status SetType(uint32_t id, uint64_t elements, size_t start, const std::string& what,
                       StoredTensor* tensor) {
    const auto types = AllTensorTypes();
    const auto known = std::find_if(types.begin(), types.end(), [id](const TensorTypeInfo& info) {
      return info.gguf_id == id;
    });
    if (known == types.end()) return UnknownType(id, start, what);
    tensor->type = known->type;
    const int64_t columns = tensor->shape.back();
    if (columns % known->block_elements != 0) {
      reader_.Fail(
          start, absl::StrCat(what, " has rows of ", columns, " elements, no multiple of the ",
                              known->block_elements, " in a block of ", std::string(known->name)));
      return reader_.status();
    }
    tensor->bytes = static_cast<int64_t>(elements / known->block_elements * known->block_bytes);
    return absl::OkStatus();
  }

  absl::Status UnknownType(uint32_t id, size_t start, const std::string& what) {
    for (const ForeignType& foreign : kForeignTypes) {
      if (foreign.id != id) continue;
      return absl::UnimplementedError(absl::StrCat(
          result_.file_->path(), ": offset ", start, ": ", what, " has type ",
          std::string(foreign.name), ", which is not supported; ", TensorTypeNames(), " are"));
    }
    reader_.Fail(start, absl::StrCat(what, " has the unknown type ", id));
    return reader_.status();
  }

  // Checks that the tensors lie inside the file, one behind the other.
  absl::Status PlaceTensors() {
    const auto bytes = result_.file_->bytes();
    const uint64_t header = reader_.offset();
    const uint64_t data_start = header + (alignment_ - header % alignment_) % alignment_;
    const uint64_t data_bytes = bytes.size() > data_start ? bytes.size() - data_start : 0;
    std::sort(entries_.begin(), entries_.end(),
              [](const Entry& a, const Entry& b) { return a.start < b.start; });
    uint64_t end = 0;
    for (const Entry& entry : entries_) {
      const auto size = static_cast<uint64_t>(entry.tensor->bytes);
      if (entry.start > data_bytes || size > data_bytes - entry.start) {
        reader_.Fail(entry.header_offset,
                     absl::StrCat("tensor ", Quoted(*entry.name), ": ", size,
                                  " bytes at data offset ", entry.start, " reach beyond the ",
                                  data_bytes, " bytes of tensor data in the file"));
        return reader_.status();
      }
      if (entry.start < end) {
        reader_.Fail(entry.header_offset,
                     absl::StrCat("tensor ", Quoted(*entry.name), " at data offset ", entry.start,
                                  " overlaps the tensor before it, which ends at ", end));
        return reader_.status();
      }
      end = entry.start + size;
      entry.tensor->data = bytes.data() + data_start + entry.start;
      entry.tensor->file = result_.file_;
    }
    return absl::OkStatus();
  }

  ByteReader reader_;
  GgufFile result_;
  uint64_t num_tensors_ = 0;
  uint64_t num_keys_ = 0;
  uint64_t alignment_ = kDefaultAlignment;
  std::vector<Entry> entries_;
};

absl::Status GgufFile::AddTensors(const GgufFile& part) {
  for (const auto& [name, tensor] : part.tensors_) {
    if (tensors_.contains(name)) {
      return absl::InvalidArgumentError(absl::StrCat(part.file_->path(), ": offset ",
                                                     FileOffset(tensor), ": tensor ", Quoted(name),
                                                     " is in another part already"));
    }
    tensors_.emplace(name, tensor);
  }
  return absl::OkStatus();
}

absl::StatusOr<GgufFile> GgufFile::Parse(std::shared_ptr<const MappedFile> file) {
  return Parser(std::move(file)).Run();
}

}  // namespace swaa
