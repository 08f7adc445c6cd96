// Matrix products on the GPU: skinny ones by our own kernel beside cuBLASLt and the time that
// reading the weights takes, alone and as the chain of a Qwen3-4B decode step; rates of prefill.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cuda_runtime_api.h>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/gpu/gpu_bench.h"
#include "bench/gpu/linear_operands.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/linear/products.h"

namespace swaa::bench {
namespace {

using kernels::Bf16;
using kernels::DataType;
using kernels::cuda::CublasLtProducts;
using kernels::cuda::LinearArguments;
using kernels::cuda::Products;
using kernels::cuda::SkinnyTuning;
using linear_bench::DeviceMemory;
using linear_bench::FillUniform;
using linear_bench::NormalizeRows;

struct Shape {
  const char* name;
  int64_t out_features;
  int64_t in_features;
  DataType out_type = DataType::kBf16;
};
constexpr Shape kShapes[] = {{"qkv 2560->6144", 6144, 2560},
                             {"attn-out 4096->2560", 2560, 4096},
                             {"gate_up 2560->19456", 19456, 2560},
                             {"down 9728->2560", 2560, 9728},
                             {"head 2560->151936", 151936, 2560, DataType::kF32},
                             {"135M qkv 576->960", 960, 576},
                             {"135M attn-out 576->576", 576, 576},
                             {"135M gate_up 576->3072", 3072, 576},
                             {"135M down 1536->576", 576, 1536},
                             {"135M head 576->49152", 49152, 576, DataType::kF32}};

struct Variant {
  const char* name;
  SkinnyTuning tuning;
};
// All serve as many rows as a kernel can.
const Variant kVariants[] = {
    {"ours", {.max_rows = 64}},
    {"ours, no clusters", {.max_rows = 64, .max_cluster = 1}},
    {"ours, clusters of 2", {.max_rows = 64, .max_cluster = 2}},
    {"ours, 3 stages", {.max_rows = 64, .stages = 3}},
    {"cp.async", {.max_rows = 64, .hopper = false}},
    {"cp.async, tiles of 128", {.max_rows = 64, .k_tile = 128, .hopper = false}},
};

template <typename T>
T OrThrow(absl::StatusOr<T> value) {
  if (!value.ok()) throw std::runtime_error(std::string(value.status().message()));
  return *std::move(value);
}

class Workspace {
 public:
  Workspace() : memory_(Products::kWorkspaceBytes) {}
  std::unique_ptr<Products> MakeProducts(const SkinnyTuning& tuning) {
    return OrThrow(Products::Create(memory_.as<void>(), Products::kWorkspaceBytes, tuning));
  }
  // In a workspace of its own: the other's counters must stay zero.
  std::unique_ptr<CublasLtProducts> MakeCublasLt() {
    return OrThrow(CublasLtProducts::Create(cublaslt_memory_.as<void>(), kCublasLtBytes));
  }

 private:
  static constexpr int64_t kCublasLtBytes = int64_t{64} << 20;
  DeviceMemory memory_;
  DeviceMemory cublaslt_memory_{kCublasLtBytes};
};

// Copies of a weight, together far larger than L2, to be read in turn.
class Weights {
 public:
  explicit Weights(const Shape& shape)
      : bytes_(shape.out_features * shape.in_features * 2),
        count_(static_cast<int>(std::max<int64_t>(2, (int64_t{640} << 20) / bytes_))),
        memory_(bytes_ * count_) {
    FillUniform(memory_.as<Bf16>(), bytes_ / 2 * count_,
                std::sqrt(3.0f / static_cast<float>(shape.in_features)));
  }
  int count() const { return count_; }
  int64_t bytes() const { return bytes_; }
  const Bf16* at(int i) const { return memory_.as<Bf16>() + bytes_ / 2 * (i % count_); }

 private:
  int64_t bytes_;
  int count_;
  DeviceMemory memory_;
};

LinearArguments MakeArguments(const Shape& shape, int64_t rows, const Bf16* x, void* out) {
  LinearArguments product;
  product.out_features = shape.out_features;
  product.in_features = shape.in_features;
  product.x = x;
  product.out = out;
  product.out_type = shape.out_type;
  product.rows = rows;
  return product;
}

double FloorSeconds(double bytes) { return bytes / DeviceCeilings().read_bytes_per_second; }

std::string Rate(double bytes, double seconds) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.2f TB/s", bytes / seconds / 1e12);
  return text;
}

void CompareShape(const Shape& shape, Workspace& workspace, cudaStream_t stream) {
  const Weights weights(shape);
  const auto products = workspace.MakeProducts({.max_rows = 64});
  const auto portable = workspace.MakeProducts({.max_rows = 64, .hopper = false});
  const auto cublaslt = workspace.MakeCublasLt();
  const DeviceMemory x(256 * shape.in_features * 2);
  const DeviceMemory out(256 * shape.out_features * 4);
  FillUniform(x.as<Bf16>(), 256 * shape.in_features, 1.7f);
  for (const int64_t rows : {1, 8, 16, 32, 64, 128, 256}) {
    LinearArguments product = MakeArguments(shape, rows, x.as<Bf16>(), out.as<void>());
    product.weight = weights.at(0);
    const int64_t prepared[] = {rows};
    if (const absl::Status status = cublaslt->Prepare(product, prepared); !status.ok()) {
      throw std::runtime_error(std::string(status.message()));
    }
    const double floor = FloorSeconds(static_cast<double>(weights.bytes()));
    const auto time = [&](const char* name, const std::function<void(int)>& run) {
      const double seconds = MedianSeconds(stream, run, 20, std::max(weights.count(), 16));
      char label[96];
      std::snprintf(label, sizeof(label), "%s, %d rows, %s", shape.name, static_cast<int>(rows),
                    name);
      ReportRow("linear", label, seconds, floor,
                Rate(static_cast<double>(weights.bytes()), seconds));
    };
    time("cuBLASLt", [&](int run) {
      product.weight = weights.at(run);
      cublaslt->Run(product, stream);
    });
    if (!products->IsSkinny(product)) continue;
    time("ours", [&](int run) {
      product.weight = weights.at(run);
      products->Run(product, stream, /*dependent=*/run > 0);
    });
    time("ours, cp.async", [&](int run) {
      product.weight = weights.at(run);
      portable->Run(product, stream, /*dependent=*/run > 0);
    });
  }
}

// A model by the sizes of its products, and how many GPUs share it.
struct Model {
  const char* name;
  int layers;
  int64_t hidden;
  int64_t query;      // heads * head_dim
  int64_t key_value;  // kv_heads * head_dim
  int64_t ffn;
  int64_t vocabulary;
  int ranks = 1;
};
constexpr Model kQwen3With4B = {"Qwen3-4B", 36, 2560, 4096, 1024, 9728, 151936};
constexpr Model kQwen3With32B = {"Qwen3-32B", 64, 5120, 8192, 1024, 25600, 151936};

// The products of a rank's decode step: all layers, of distinct weights, and the output layer, each
// reading what the one before wrote.
class DecodeChain {
 public:
  using Run = std::function<void(const LinearArguments&)>;

  explicit DecodeChain(const Model& model)
      : layer_{{"qkv", (model.query + 2 * model.key_value) / model.ranks, model.hidden},
               {"attention output", model.hidden, model.query / model.ranks},
               {"gate_up", 2 * model.ffn / model.ranks, model.hidden},
               {"down", model.hidden, model.ffn / model.ranks}},
        head_{"head", model.vocabulary / model.ranks, model.hidden, DataType::kF32},
        products_(model.layers * 4 + 1) {
    for (int i = 0; i < products_; ++i) {
      const Shape& shape = ShapeOf(i);
      const int64_t count = shape.out_features * shape.in_features;
      weights_.push_back(std::make_unique<DeviceMemory>(count * 2));
      FillUniform(weights_.back()->as<Bf16>(), count,
                  std::sqrt(3.0f / static_cast<float>(shape.in_features)));
      bytes_ += static_cast<double>(count) * 2;
    }
    FillUniform(hidden_.as<Bf16>(), kMaxRows * kWide, 1.7f);
    FillUniform(wide_.as<Bf16>(), kMaxRows * kWide, 1.7f);
  }

  double bytes() const { return bytes_; }

  void Enqueue(int64_t rows, bool silu_mul, const Run& run) const {
    for (int i = 0; i < products_; ++i) {
      const Shape& shape = ShapeOf(i);
      const bool head = i + 1 == products_;
      const bool reads_hidden = i % 4 == 0 || i % 4 == 2;
      LinearArguments product =
          MakeArguments(shape, rows, (reads_hidden ? hidden_ : wide_).as<Bf16>(),
                        head ? logits_.as<void>() : (reads_hidden ? wide_ : hidden_).as<void>());
      product.weight = weights_[i]->as<Bf16>();
      product.silu_mul = silu_mul && i % 4 == 2;
      // Attention and silu * mul, were they there, would leave the columns that are read here.
      if (i % 4 == 1) product.x_stride = layer_[0].out_features;
      if (i % 4 == 3 && !silu_mul) product.x_stride = layer_[2].out_features;
      run(product);
    }
  }

 private:
  static constexpr int64_t kMaxRows = 64;
  static constexpr int64_t kWide = 25600;  // the widest of both models that one GPU or two have

  const Shape& ShapeOf(int product) const {
    return product + 1 == products_ ? head_ : layer_[product % 4];
  }

  const Shape layer_[4];
  const Shape head_;
  const int products_;
  double bytes_ = 0;
  std::vector<std::unique_ptr<DeviceMemory>> weights_;
  DeviceMemory hidden_{kMaxRows * kWide * 2};
  DeviceMemory wide_{kMaxRows * kWide * 2};
  DeviceMemory logits_{kMaxRows * 151936 * 4};
};

// A small kernel after each product, as norms and the like are in a model, or none.
enum class Between { kNothing, kSmallKernels };

void TimeChain(const DecodeChain& chain, int64_t rows, Between between, const std::string& name,
               bool silu_mul, cudaStream_t stream, const DecodeChain::Run& run) {
  const auto step = [&](const LinearArguments& product) {
    run(product);
    if (between == Between::kNothing || product.out_type == DataType::kF32) return;
    const int64_t width = product.silu_mul ? product.out_features / 2 : product.out_features;
    NormalizeRows(static_cast<Bf16*>(product.out), rows, width, stream, /*dependent=*/true);
  };
  chain.Enqueue(rows, silu_mul, step);  // as a server warms up before it captures
  const double seconds = MedianSeconds(
      stream, [&](int) { chain.Enqueue(rows, silu_mul, step); }, 20, /*graph_runs=*/1);
  ReportRow("decode chain",
            std::to_string(rows) + " rows, " + name +
                (between == Between::kSmallKernels ? ", small kernels between" : ""),
            seconds, FloorSeconds(chain.bytes()), Rate(chain.bytes(), seconds));
}

void CompareChain(const DecodeChain& chain, int64_t rows, Between between, Workspace& workspace,
                  cudaStream_t stream) {
  const auto time = [&](const std::string& name, bool silu_mul, const DecodeChain::Run& run) {
    TimeChain(chain, rows, between, name, silu_mul, stream, run);
  };
  const auto cublaslt = workspace.MakeCublasLt();
  chain.Enqueue(rows, false, [&](const LinearArguments& product) {
    const int64_t prepared[] = {rows};
    if (!cublaslt->Prepare(product, prepared).ok()) throw std::runtime_error("Prepare");
  });
  time("cuBLASLt", false, [&](const LinearArguments& product) { cublaslt->Run(product, stream); });
  for (const Variant& variant : kVariants) {
    const auto products = workspace.MakeProducts(variant.tuning);
    time(variant.name, false,
         [&](const LinearArguments& product) { products->Run(product, stream, true); });
  }
  const auto products = workspace.MakeProducts({.max_rows = 64});
  time("ours, silu*mul", true,
       [&](const LinearArguments& product) { products->Run(product, stream, true); });
}

void MeasurePrefill(Workspace& workspace, cudaStream_t stream) {
  const auto products = workspace.MakeProducts({});
  for (const Shape& shape : kShapes) {
    if (shape.out_type == DataType::kF32) continue;
    const Weights weights(shape);
    for (const int64_t rows : {8192, 2048, 512}) {
      const DeviceMemory x(rows * shape.in_features * 2);
      const DeviceMemory out(rows * shape.out_features * 2);
      FillUniform(x.as<Bf16>(), rows * shape.in_features, 1.7f);
      LinearArguments product = MakeArguments(shape, rows, x.as<Bf16>(), out.as<void>());
      const double operations = 2.0 * static_cast<double>(rows) *
                                static_cast<double>(shape.out_features * shape.in_features);
      for (const bool timed : {false, true}) {
        product.weight = weights.at(0);
        const int64_t prepared[] = {rows};
        if (timed && !products->Prepare(product, prepared).ok())
          throw std::runtime_error("Prepare");
        const auto guessing = workspace.MakeCublasLt();
        const auto run_product = [&](int run) {
          product.weight = weights.at(run);
          if (timed) {
            products->Run(product, stream, false);
          } else {
            guessing->Run(product, stream);
          }
        };
        run_product(0);  // loads the kernel, which a captured stream cannot
        SWAA_CUDA_CHECK(cudaStreamSynchronize(stream));
        const double seconds = MedianSeconds(stream, run_product, 20, 8);
        char note[32];
        std::snprintf(note, sizeof(note), "%.0f TFLOP/s", operations / seconds / 1e12);
        ReportRow("prefill",
                  std::string(shape.name) + ", " + std::to_string(rows) + " rows" +
                      (timed ? ", fastest of 8" : ", first guess"),
                  seconds, 0, note);
      }
    }
  }
}

template <typename Work>
bool Measure(const Work& work) {
  cudaStream_t stream;
  SWAA_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  Workspace workspace;
  work(workspace, stream);
  SWAA_CUDA_CHECK(cudaStreamDestroy(stream));
  return true;
}

}  // namespace

SWAA_GPU_BENCHMARK(linear) {
  return Measure([](Workspace& workspace, cudaStream_t stream) {
    for (const Shape& shape : kShapes) CompareShape(shape, workspace, stream);
  });
}

SWAA_GPU_BENCHMARK(linear_chain) {
  return Measure([](Workspace& workspace, cudaStream_t stream) {
    const DecodeChain chain(kQwen3With4B);
    for (const int64_t rows : {1, 8, 16, 32, 64}) {
      for (const Between between : {Between::kNothing, Between::kSmallKernels}) {
        CompareChain(chain, rows, between, workspace, stream);
      }
    }
  });
}

// What a step of GPUs that share a model spends on products, small kernels where sums would be.
SWAA_GPU_BENCHMARK(linear_chain_ranks) {
  return Measure([](Workspace& workspace, cudaStream_t stream) {
    for (Model model : {kQwen3With4B, kQwen3With32B}) {
      for (const int ranks : {1, 2, 4}) {
        model.ranks = ranks;
        if (model.layers * model.hidden * 6 * model.ffn / ranks > int64_t{40} << 30) continue;
        const DecodeChain chain(model);
        const auto products = workspace.MakeProducts({});
        for (const Between between : {Between::kNothing, Between::kSmallKernels}) {
          TimeChain(chain, 1, between, std::string(model.name) + " on " + std::to_string(ranks),
                    /*silu_mul=*/true, stream,
                    [&](const LinearArguments& product) { products->Run(product, stream, true); });
        }
      }
    }
  });
}

SWAA_GPU_BENCHMARK(linear_prefill) { return Measure(MeasurePrefill); }

}  // namespace swaa::bench
