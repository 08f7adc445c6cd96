// Fuzz target: the two files of an adapter. The input is adapter_config.json and, behind a zero
// byte, the JSON header of adapter_model.safetensors; behind another, the tensors' bytes. The
// target writes the header's length in front of it.

#include <cmath>
#include <cstring>

#include "base/check.h"
#include "engine/checkpoint/peft_adapter.h"
#include "engine/checkpoint/safetensors.h"
#include "tests/fuzz/fuzz_input.h"

namespace swaa::fuzz {
namespace {

ModelConfig SmallModel() {
  ModelConfig config;
  config.architecture = "llama";
  config.num_layers = 2;
  config.hidden = 4;
  config.ffn_width = 6;
  config.heads = 2;
  config.kv_heads = 1;
  config.head_dim = 2;
  config.vocab_size = 8;
  return config;
}

absl::StatusOr<StoredTensors> ParseTensors(std::string_view header, std::string_view data) {
  const uint64_t length = header.size();
  std::string framed(sizeof(length), '\0');
  std::memcpy(framed.data(), &length, sizeof(length));
  framed.append(header).append(data);
  const MemoryFile memory(framed);
  const auto file = MappedFile::Open(memory.path());
  if (!file.ok()) return file.status();
  return ParseSafetensors(*file);
}

// What is taken can be computed: every value is there and finite.
void CheckMatrix(const StoredTensor& tensor, int64_t rows, int64_t columns) {
  SWAA_CHECK_EQ(tensor.shape.size(), size_t{2});
  SWAA_CHECK_EQ(tensor.shape[0], rows);
  SWAA_CHECK_EQ(tensor.shape[1], columns);
  std::vector<float> row(columns);
  for (int64_t r = 0; r < rows; ++r) {
    DequantizeRow(tensor.type, tensor.data + r * (tensor.bytes / rows), columns, row.data());
    for (const float value : row) SWAA_CHECK(std::isfinite(value));
  }
}

}  // namespace

void FuzzPeftAdapter(std::string_view input) {
  const std::vector<std::string_view> parts = SplitAtZeros(input, 3);
  const auto config = ParsePeftConfig(parts[0], "adapter_config.json");
  if (!config.ok()) return CheckRefusal(config.status());
  absl::StatusOr<StoredTensors> tensors = ParseTensors(parts[1], parts[2]);
  if (!tensors.ok()) return CheckRefusal(tensors.status());
  const auto adapter =
      MakeLoraCheckpoint(**config, *std::move(tensors), SmallModel(), "adapter_model.safetensors");
  if (!adapter.ok()) return CheckRefusal(adapter.status());
  SWAA_CHECK(!adapter->matrices.empty());
  for (const auto& [key, matrices] : adapter->matrices) {
    SWAA_CHECK(matrices.rank >= 1 && matrices.rank <= adapter->rank);
    SWAA_CHECK(std::isfinite(matrices.scale) && matrices.scale > 0);
    CheckMatrix(matrices.down, matrices.rank, matrices.down.shape[1]);
    CheckMatrix(matrices.up, matrices.up.shape[0], matrices.rank);
  }
}

}  // namespace swaa::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  swaa::fuzz::FuzzPeftAdapter(swaa::fuzz::AsText(data, size));
  return 0;
}
