// Fuzz target: a safetensors file. The input is taken as a file, and as the header's JSON and the
// tensors' bytes behind a zero byte, in front of which the target writes the length that is right:
// few changes of a file keep it so.

#include <cstring>

#include "base/check.h"
#include "engine/checkpoint/safetensors.h"
#include "tests/fuzz/fuzz_input.h"

namespace swaa::fuzz {
namespace {

void ParseFile(std::string_view content) {
  if (content.empty()) return;
  const MemoryFile memory(content);
  const auto file = MappedFile::Open(memory.path());
  if (!file.ok()) return CheckRefusal(file.status());  // a git-lfs pointer
  const absl::StatusOr<StoredTensors> tensors = ParseSafetensors(*file);
  if (!tensors.ok()) return CheckRefusal(tensors.status());
  int64_t total = 0;
  for (const auto& [name, tensor] : *tensors) {
    const int64_t begin = FileOffset(tensor);
    const int64_t size = static_cast<int64_t>((*file)->bytes().size());
    SWAA_CHECK(begin >= 0 && tensor.bytes >= 0 && begin + tensor.bytes <= size) << name;
    total += tensor.bytes;
  }
  SWAA_CHECK_LE(total, static_cast<int64_t>(content.size()));
}

}  // namespace

void FuzzSafetensors(std::string_view input) {
  ParseFile(input);
  const std::vector<std::string_view> parts = SplitAtZeros(input, 2);
  const uint64_t length = parts[0].size();
  std::string framed(sizeof(length), '\0');
  std::memcpy(framed.data(), &length, sizeof(length));
  framed.append(parts[0]).append(parts[1]);
  ParseFile(framed);
}

}  // namespace swaa::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  swaa::fuzz::FuzzSafetensors(swaa::fuzz::AsText(data, size));
  return 0;
}
