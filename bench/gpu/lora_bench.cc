// Adapters on the GPU: the products of Qwen3-4B's layers for 16 rows under 0, 1, 4 and 16 adapters
// of rank 16 of all seven modules, as a chain in one graph.

#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "bench/gpu/gpu_bench.h"
#include "bench/gpu/linear_operands.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/linear/products.h"
#include "kernels/cuda/lora/lora.h"
#include "kernels/cuda/lora/lora_weight.h"

namespace swaa::bench {
namespace {

using kernels::Bf16;
using kernels::LoraPart;
using kernels::LoraSpec;
using kernels::LoraWeight;
using kernels::cuda::AdapterMemory;
using kernels::cuda::AddLora;
using kernels::cuda::CudaLoraWeight;
using kernels::cuda::kLoraSplits;
using kernels::cuda::kLoraTileRows;
using kernels::cuda::LinearArguments;
using kernels::cuda::LoraArguments;
using kernels::cuda::LoraDeviceWeight;
using kernels::cuda::LoraRows;
using kernels::cuda::LoraSums;
using kernels::cuda::LoraTile;
using kernels::cuda::Products;
using linear_bench::DeviceMemory;
using linear_bench::FillUniform;

constexpr int32_t kRows = 16;
constexpr int64_t kRank = 16;
// With distinct weights, so that L2 does not answer.
constexpr int kLayers = 6;

struct Product {
  int64_t out_features;
  int64_t in_features;
  std::vector<int64_t> parts;  // outputs
  bool gated = false;
};
const std::vector<Product>& LayerProducts() {
  static const std::vector<Product> products = {{6144, 2560, {4096, 1024, 1024}},
                                                {2560, 4096, {2560}},
                                                {19456, 2560, {9728, 9728}, true},
                                                {2560, 9728, {2560}}};
  return products;
}

template <typename T>
T OrThrow(absl::StatusOr<T> value) {
  if (!value.ok()) throw std::runtime_error(std::string(value.status().message()));
  return *std::move(value);
}

template <typename T>
std::unique_ptr<DeviceMemory> Upload(const std::vector<T>& values) {
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
  auto memory = std::make_unique<DeviceMemory>(bytes);
  SWAA_CUDA_CHECK(cudaMemcpy(memory->as<void>(), values.data(), bytes, cudaMemcpyHostToDevice));
  return memory;
}

// One adapter of all products of all layers.
std::vector<std::unique_ptr<LoraWeight>> MakeAdapter(AdapterMemory* memory) {
  std::vector<LoraSpec> specs;
  const auto fill = [](int64_t columns) {
    return [columns](int64_t first_row, int64_t count, float* out) {
      for (int64_t i = 0; i < count * columns; ++i) {
        out[i] = 1e-3f * static_cast<float>((first_row * columns + i) * 7919 % 201 - 100);
      }
    };
  };
  for (int layer = 0; layer < kLayers; ++layer) {
    for (const Product& product : LayerProducts()) {
      LoraSpec spec{.in_features = product.in_features};
      int64_t first = 0;
      for (const int64_t outputs : product.parts) {
        spec.parts.push_back({.first_output = first,
                              .outputs = outputs,
                              .rank = kRank,
                              .down = fill(product.in_features),
                              .up = fill(kRank)});
        first += outputs;
      }
      specs.push_back(std::move(spec));
    }
  }
  return OrThrow(PackCudaLora(specs, memory));
}

// Rows that have the adapters in turn.
struct Rows {
  explicit Rows(int32_t adapters) {
    std::vector<LoraTile> tile_list;
    std::vector<int32_t> row_list;
    for (int32_t adapter = 0; adapter < adapters; ++adapter) {
      const auto first = static_cast<int32_t>(row_list.size());
      for (int32_t row = adapter; row < kRows; row += adapters) row_list.push_back(row);
      tile_list.push_back({adapter, first, static_cast<int32_t>(row_list.size()) - first, 0});
    }
    static_assert(kRows <= kLoraTileRows);
    const auto count = static_cast<int32_t>(tile_list.size());
    tiles = Upload(tile_list);
    rows = Upload(row_list);
    counts = Upload(std::vector<int32_t>{count, count});
  }
  std::unique_ptr<DeviceMemory> tiles, rows, counts;
};

class Chain {
 public:
  Chain() : products_(OrThrow(Products::Create(workspace_.as<void>(), Products::kWorkspaceBytes))) {
    int device = 0;
    SWAA_CUDA_CHECK(cudaGetDevice(&device));
    SWAA_CUDA_CHECK(
        cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device));
    for (int layer = 0; layer < kLayers; ++layer) {
      for (const Product& product : LayerProducts()) {
        const int64_t count = product.out_features * product.in_features;
        weights_.push_back(std::make_unique<DeviceMemory>(2 * count));
        FillUniform(weights_.back()->as<Bf16>(), count, 0.03f);
      }
    }
    FillUniform(x_.as<Bf16>(), kRows * kWide, 1.0f);
  }

  // All products of all layers; the LoRA's of `rows`, unless null.
  void Run(const LoraRows* rows, cudaStream_t stream) const {
    const auto& products = LayerProducts();
    for (size_t i = 0; i < weights_.size(); ++i) {
      const Product& product = products[i % products.size()];
      const bool fused = product.gated && rows == nullptr;
      const LinearArguments linear = {.weight = weights_[i]->as<Bf16>(),
                                      .out_features = product.out_features,
                                      .in_features = product.in_features,
                                      .x = x_.as<Bf16>(),
                                      .out = out_.as<void>(),
                                      .rows = kRows,
                                      .silu_mul = fused};
      products_->Run(linear, stream, /*dependent=*/i > 0);
      if (rows == nullptr) continue;
      AddLora({.rows = *rows,
               .product = static_cast<int32_t>(i),
               .x = linear.x,
               .in_features = product.in_features,
               .out = out_.as<Bf16>(),
               .out_features = product.out_features,
               .gated = product.gated ? gated_.as<Bf16>() : nullptr,
               .sums = sums_.as<float>()},
              multiprocessors_, {.stream = stream, .programmatic = true});
    }
  }

  double bytes() const {
    double bytes = 0;
    for (const Product& p : LayerProducts()) {
      bytes += 2. * kLayers * static_cast<double>(p.out_features * p.in_features);
    }
    return bytes;
  }
  size_t products() const { return weights_.size(); }

 private:
  static constexpr int64_t kWide = 19456;
  DeviceMemory workspace_{Products::kWorkspaceBytes};
  std::unique_ptr<Products> products_;
  std::vector<std::unique_ptr<DeviceMemory>> weights_;
  DeviceMemory x_{kRows * kWide * 2}, out_{kRows * kWide * 2}, gated_{kRows * kWide * 2};
  DeviceMemory sums_{LoraSums(kRows) * 4};
  int multiprocessors_ = 0;
};

SWAA_GPU_BENCHMARK(lora) {
  cudaStream_t stream = nullptr;
  SWAA_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  int device = 0;
  SWAA_CUDA_CHECK(cudaGetDevice(&device));
  AdapterMemory memory(device);
  const Chain chain;
  const double floor = chain.bytes() / DeviceCeilings().read_bytes_per_second / kLayers;
  const auto time = [&](const LoraRows* rows) {
    return MedianSeconds(
               stream, [&](int) { chain.Run(rows, stream); }, 20, 4) /
           kLayers;
  };
  const double base = time(nullptr);
  ReportRow("lora", "Qwen3-4B layer's products, 16 rows, no adapter", base, floor, "");
  std::vector<std::vector<std::unique_ptr<LoraWeight>>> adapters;
  for (const int count : {1, 4, 16}) {
    while (static_cast<int>(adapters.size()) < count) adapters.push_back(MakeAdapter(&memory));
    std::vector<const LoraDeviceWeight*> table;
    double bytes = 0;
    for (const auto& adapter : adapters) {
      for (const auto& weight : adapter) {
        table.push_back(static_cast<const CudaLoraWeight&>(*weight).device());
        bytes += static_cast<double>(weight->bytes()) / kLayers;
      }
    }
    const auto device_table = Upload(table);
    const Rows of_adapters(count);
    const LoraRows rows = {.tile_count = of_adapters.counts->as<int32_t>(),
                           .all_tile_count = of_adapters.counts->as<int32_t>() + 1,
                           .tiles = of_adapters.tiles->as<LoraTile>(),
                           .rows = of_adapters.rows->as<int32_t>(),
                           .weights = device_table->as<const LoraDeviceWeight*>(),
                           .products = static_cast<int32_t>(chain.products()),
                           .max_tiles = count,
                           .max_all_tiles = count,
                           .splits = kLoraSplits};
    const double seconds = time(&rows);
    ReportRow("lora", absl::StrFormat("the same, %d adapters of rank 16", count), seconds,
              floor + bytes / DeviceCeilings().read_bytes_per_second,
              absl::StrFormat("%.3f of no adapter", seconds / base));
  }
  cudaStreamDestroy(stream);
  return true;
}

}  // namespace
}  // namespace swaa::bench
