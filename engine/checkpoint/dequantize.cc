// The block formats are those of the GGUF specification and of ggml's reference:
// a "half" scale d (and minimum m) for a block of 32 small integers, or for a super-block of 256
// whose sub-blocks have scales of their own (the K types). Nibbles lie in halves: byte j of a run
// of n bytes holds value j in its low and value j + n in its high four bits.

#include "engine/checkpoint/dequantize.h"

#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace swaa {
namespace {

template <typename T>
T Load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

float LoadHalf(const std::byte* at) { return HalfToFloat(Load<uint16_t>(at)); }

int Low(std::byte b) { return std::to_integer<int>(b) & 15; }
int High(std::byte b) { return std::to_integer<int>(b) >> 4; }

void FromF32(const std::byte* in, int64_t n, float* out) { std::memcpy(out, in, n * 4); }

void FromF16(const std::byte* in, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = LoadHalf(in + 2 * i);
}

void FromBf16(const std::byte* in, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) {
    out[i] = std::bit_cast<float>(static_cast<uint32_t>(Load<uint16_t>(in + 2 * i)) << 16);
  }
}

// half d; int8 q[32].
void FromQ8_0(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 34, out += 32) {
    const float d = LoadHalf(in);
    for (int j = 0; j < 32; ++j) out[j] = d * static_cast<float>(Load<int8_t>(in + 2 + j));
  }
}

// half d; nibbles[16].
void FromQ4_0(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 18, out += 32) {
    const float d = LoadHalf(in);
    for (int j = 0; j < 16; ++j) {
      out[j] = d * static_cast<float>(Low(in[2 + j]) - 8);
      out[j + 16] = d * static_cast<float>(High(in[2 + j]) - 8);
    }
  }
}

// half d, m; nibbles[16].
void FromQ4_1(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 20, out += 32) {
    const float d = LoadHalf(in);
    const float m = LoadHalf(in + 2);
    for (int j = 0; j < 16; ++j) {
      out[j] = d * static_cast<float>(Low(in[4 + j])) + m;
      out[j + 16] = d * static_cast<float>(High(in[4 + j])) + m;
    }
  }
}

// half d; fifth bits[4], bit j for value j; nibbles[16].
void FromQ5_0(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 22, out += 32) {
    const float d = LoadHalf(in);
    const uint32_t fifth = Load<uint32_t>(in + 2);
    for (int j = 0; j < 16; ++j) {
      const int low = Low(in[6 + j]) + static_cast<int>((fifth >> j & 1) << 4);
      const int high = High(in[6 + j]) + static_cast<int>((fifth >> (j + 16) & 1) << 4);
      out[j] = d * static_cast<float>(low - 16);
      out[j + 16] = d * static_cast<float>(high - 16);
    }
  }
}

// half d, m; fifth bits[4]; nibbles[16].
void FromQ5_1(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 24, out += 32) {
    const float d = LoadHalf(in);
    const float m = LoadHalf(in + 2);
    const uint32_t fifth = Load<uint32_t>(in + 4);
    for (int j = 0; j < 16; ++j) {
      const int low = Low(in[8 + j]) + static_cast<int>((fifth >> j & 1) << 4);
      const int high = High(in[8 + j]) + static_cast<int>((fifth >> (j + 16) & 1) << 4);
      out[j] = d * static_cast<float>(low) + m;
      out[j + 16] = d * static_cast<float>(high) + m;
    }
  }
}

struct ScaleAndMin {
  int scale;
  int min;
};

// Sub-block `i` of eight: six-bit scales and minima in twelve bytes. The first four of each lie in
// the low six bits of bytes 0-3 and 4-7; the last four have their low nibbles in bytes 8-11 and
// their two high bits in the top of the bytes before.
ScaleAndMin KScale(const std::byte* packed, int i) {
  const auto at = [packed](int index) { return std::to_integer<int>(packed[index]); };
  if (i < 4) return {at(i) & 63, at(i + 4) & 63};
  return {(at(i + 4) & 15) | (at(i - 4) >> 6 << 4), (at(i + 4) >> 4) | (at(i) >> 6 << 4)};
}

// half d, dmin; scales[12]; nibbles[4][32]: run r holds sub-blocks 2r (low) and 2r + 1 (high).
void FromQ4_K(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 144, out += 256) {
    const float d = LoadHalf(in);
    const float dmin = LoadHalf(in + 2);
    for (int s = 0; s < 8; ++s) {
      const ScaleAndMin k = KScale(in + 4, s);
      const float scale = d * static_cast<float>(k.scale);
      const float min = dmin * static_cast<float>(k.min);
      const std::byte* run = in + 16 + 32 * (s / 2);
      for (int j = 0; j < 32; ++j) {
        const int q = s % 2 == 0 ? Low(run[j]) : High(run[j]);
        out[32 * s + j] = scale * static_cast<float>(q) - min;
      }
    }
  }
}

// half d, dmin; scales[12]; fifth[32]: bit s of byte j for value j of sub-block s; nibbles as Q4_K.
void FromQ5_K(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 176, out += 256) {
    const float d = LoadHalf(in);
    const float dmin = LoadHalf(in + 2);
    for (int s = 0; s < 8; ++s) {
      const ScaleAndMin k = KScale(in + 4, s);
      const float scale = d * static_cast<float>(k.scale);
      const float min = dmin * static_cast<float>(k.min);
      const std::byte* fifth = in + 16;
      const std::byte* run = in + 48 + 32 * (s / 2);
      for (int j = 0; j < 32; ++j) {
        const int low = s % 2 == 0 ? Low(run[j]) : High(run[j]);
        const int q = low + ((std::to_integer<int>(fifth[j]) >> s & 1) << 4);
        out[32 * s + j] = scale * static_cast<float>(q) - min;
      }
    }
  }
}

// low nibbles[2][64]; high pairs of bits[2][32]; int8 scales[16], one for 16 values; half d. In
// each half of 128 values, value 32 t + j has its low bits in byte 32 (t % 2) + j, low nibble for t
// < 2, and its high bits in bits 2t, 2t + 1 of byte j.
void FromQ6_K(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 210, out += 256) {
    const float d = LoadHalf(in + 208);
    for (int i = 0; i < 256; ++i) {
      const int half = i / 128;
      const int t = i % 128 / 32;
      const int j = i % 32;
      const std::byte low = in[64 * half + 32 * (t % 2) + j];
      const int high = std::to_integer<int>(in[128 + 32 * half + j]) >> (2 * t) & 3;
      const int q = (t < 2 ? Low(low) : High(low)) + (high << 4) - 32;
      const float scale = d * static_cast<float>(Load<int8_t>(in + 192 + i / 16));
      out[i] = scale * static_cast<float>(q);
    }
  }
}

constexpr TensorTypeInfo kTypes[] = {
    {TensorType::kF32, "F32", 0, 1, 4, FromF32},
    {TensorType::kF16, "F16", 1, 1, 2, FromF16},
    {TensorType::kBf16, "BF16", 30, 1, 2, FromBf16},
    {TensorType::kQ8_0, "Q8_0", 8, 32, 34, FromQ8_0},
    {TensorType::kQ4_0, "Q4_0", 2, 32, 18, FromQ4_0},
    {TensorType::kQ4_1, "Q4_1", 3, 32, 20, FromQ4_1},
    {TensorType::kQ5_0, "Q5_0", 6, 32, 22, FromQ5_0},
    {TensorType::kQ5_1, "Q5_1", 7, 32, 24, FromQ5_1},
    {TensorType::kQ4_K, "Q4_K", 12, 256, 144, FromQ4_K},
    {TensorType::kQ5_K, "Q5_K", 13, 256, 176, FromQ5_K},
    {TensorType::kQ6_K, "Q6_K", 14, 256, 210, FromQ6_K},
};

}  // namespace

static_assert(std::endian::native == std::endian::little, "blocks are read as they lie in memory");

const TensorTypeInfo& InfoOf(TensorType type) {
  const TensorTypeInfo& info = kTypes[static_cast<int>(type)];
  SWAA_CHECK(info.type == type) << "the table is not in the order of the enumeration";
  return info;
}

std::span<const TensorTypeInfo> AllTensorTypes() { return kTypes; }

std::string TensorTypeNames() {
  std::string names;
  for (const TensorTypeInfo& info : kTypes) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", std::string(info.name));
  }
  return names;
}

void DequantizeRow(TensorType type, const std::byte* row, int64_t count, float* out) {
  const TensorTypeInfo& info = InfoOf(type);
  SWAA_CHECK_EQ(count % info.block_elements, 0) << info.name;
  info.dequantize(row, count / info.block_elements, out);
}

float HalfToFloat(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t rest = bits & 0x7fff;
  float magnitude = 0;
  if (rest < 0x400) {  // zero and subnormals: multiples of 2^-24
    magnitude = static_cast<float>(rest) * 0x1p-24f;
  } else if (rest < 0x7c00) {  // the exponent's bias is 15 there and 127 here
    magnitude = std::bit_cast<float>((rest << 13) + (uint32_t{127 - 15} << 23));
  } else {  // infinity and NaN
    magnitude = std::bit_cast<float>(0x7f800000u | (rest & 0x3ff) << 13);
  }
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

}  // namespace swaa
