// Element types of stored tensors, and how a row of each becomes f32.

#ifndef SWAA_ENGINE_CHECKPOINT_DEQUANTIZE_H_
#define SWAA_ENGINE_CHECKPOINT_DEQUANTIZE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace swaa {

enum class TensorType : uint8_t {
  kF32,
  kF16,
  kBf16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ4_K,
  kQ5_K,
  kQ6_K,
};

// A row is a sequence of blocks; a block holds block_elements values in block_bytes bytes. Blocks
// are little-endian and need no alignment.
struct TensorTypeInfo {
  TensorType type;
  std::string_view name;  // as GGUF names it
  uint32_t gguf_id;       // in GGUF's enumeration
  int32_t block_elements;
  int32_t block_bytes;
  void (*dequantize)(const std::byte* blocks, int64_t num_blocks, float* out);
};

const TensorTypeInfo& InfoOf(TensorType type);
// All types, in the order of the enumeration.
std::span<const TensorTypeInfo> AllTensorTypes();
// Their names, separated by commas, for messages.
std::string TensorTypeNames();

// Writes `count` values of the row at `row` to out. CHECKs that count is a multiple of the block's
// size.
void DequantizeRow(TensorType type, const std::byte* row, int64_t count, float* out);

// An IEEE binary16's value; subnormals, infinities and NaN included.
float HalfToFloat(uint16_t bits);

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_DEQUANTIZE_H_
