// Packing of adapters for CUDA.

#include "kernels/cuda/lora/lora_weight.h"

#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace swaa::kernels::cuda {
namespace {

constexpr int64_t kAlignment = 256;

int64_t PaddedRank(int64_t rank) {
  return (rank + kLoraRankBlock - 1) / kLoraRankBlock * kLoraRankBlock;
}

absl::Status CheckSpec(const LoraSpec& spec) {
  int64_t ranks = 0;
  for (const LoraPart& part : spec.parts) {
    ranks += PaddedRank(part.rank);
    if (part.first_output % 8 != 0 || part.outputs % 8 != 0) {
      return absl::UnimplementedError(absl::StrCat(
          "adapter: outputs ", part.first_output, " to ", part.first_output + part.outputs,
          " of a product: on CUDA both must be multiples of 8; use --device cpu"));
    }
  }
  if (spec.in_features % 8 != 0) {
    return absl::UnimplementedError(
        absl::StrCat("adapter: a product of ", spec.in_features,
                     " inputs: on CUDA they must be a multiple of 8; use --device cpu"));
  }
  if (ranks > kMaxLoraRanks || spec.parts.size() > kMaxLoraParts) {
    return absl::UnimplementedError(absl::StrCat(
        "adapter: rank ", ranks, " over the ", spec.parts.size(),
        " parts of a product: CUDA kernels serve ", kMaxLoraRanks, "; use --device cpu"));
  }
  return absl::OkStatus();
}

// The bytes of an adapter, as they are written for the device. Addresses are offsets until it is
// known where the block lies.
class Packer {
 public:
  // Room for the descriptions, which come first.
  explicit Packer(size_t weights) { Reserve(weights * sizeof(LoraDeviceWeight)); }

  LoraDeviceWeight Add(const LoraSpec& spec) {
    LoraDeviceWeight weight = {};
    for (const LoraPart& part : spec.parts) {
      weight.parts[weight.num_parts++] = {.first_output = static_cast<int32_t>(part.first_output),
                                          .outputs = static_cast<int32_t>(part.outputs),
                                          .first_rank = weight.ranks,
                                          .rank = static_cast<int32_t>(PaddedRank(part.rank)),
                                          .up = nullptr};
      weight.ranks += static_cast<int32_t>(PaddedRank(part.rank));
    }
    const int64_t down = Reserve(2 * weight.ranks * spec.in_features);
    weight.down = AtOffset(down);
    for (size_t i = 0; i < spec.parts.size(); ++i) {
      const LoraPart& part = spec.parts[i];
      LoraDevicePart& packed = weight.parts[i];
      Write(part.down, part.rank, spec.in_features, spec.in_features,
            down + 2 * packed.first_rank * spec.in_features);
      const int64_t up = Reserve(2 * part.outputs * packed.rank);
      packed.up = AtOffset(up);
      Write(part.up, part.outputs, part.rank, packed.rank, up);
    }
    return weight;
  }

  std::vector<std::byte>& bytes() { return bytes_; }

 private:
  static const Bf16* AtOffset(int64_t offset) { return reinterpret_cast<const Bf16*>(offset); }

  int64_t Reserve(int64_t bytes) {
    const auto begin = static_cast<int64_t>(bytes_.size());
    bytes_.resize(begin + (bytes + kAlignment - 1) / kAlignment * kAlignment);
    return begin;
  }

  // Rows of `columns` elements, `stride` apart; what lies between stays zero.
  void Write(const RowReader& read, int64_t rows, int64_t columns, int64_t stride, int64_t at) {
    std::vector<float> row(columns);
    for (int64_t r = 0; r < rows; ++r) {
      read(r, 1, row.data());
      auto* out = reinterpret_cast<Bf16*>(bytes_.data() + at) + r * stride;
      for (int64_t c = 0; c < columns; ++c) out[c] = ToBf16(row[c]);
    }
  }

  std::vector<std::byte> bytes_;
};

const Bf16* Moved(const Bf16* offset, const std::byte* base) {
  return reinterpret_cast<const Bf16*>(base + reinterpret_cast<intptr_t>(offset));
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<LoraWeight>>> PackCudaLora(
    std::span<const LoraSpec> weights, AdapterMemory* memory) {
  for (const LoraSpec& spec : weights) SWAA_RETURN_IF_ERROR(CheckSpec(spec));
  Packer packer(weights.size());
  std::vector<LoraDeviceWeight> packed;
  std::vector<int64_t> bytes;
  int64_t before = 0;  // the descriptions count as the first's
  for (const LoraSpec& spec : weights) {
    packed.push_back(packer.Add(spec));
    const auto after = static_cast<int64_t>(packer.bytes().size());
    bytes.push_back(after - before);
    before = after;
  }
  SWAA_ASSIGN_OR_RETURN(const std::shared_ptr<std::byte> block,
                        memory->Allocate(static_cast<int64_t>(packer.bytes().size())));
  for (LoraDeviceWeight& weight : packed) {
    weight.down = Moved(weight.down, block.get());
    for (int32_t i = 0; i < weight.num_parts; ++i) {
      weight.parts[i].up = Moved(weight.parts[i].up, block.get());
    }
  }
  std::memcpy(packer.bytes().data(), packed.data(), packed.size() * sizeof(LoraDeviceWeight));
  SWAA_RETURN_IF_ERROR(memory->Upload(packer.bytes(), block.get()));
  const auto* devices = reinterpret_cast<const LoraDeviceWeight*>(block.get());
  std::vector<std::unique_ptr<LoraWeight>> result;
  for (size_t i = 0; i < packed.size(); ++i) {
    result.push_back(std::make_unique<CudaLoraWeight>(block, devices + i, bytes[i]));
  }
  return result;
}

}  // namespace swaa::kernels::cuda
