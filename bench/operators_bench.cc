// Products and row-wise operators of the CPU backend at the shapes of SmolLM2-135M: every layer has
// its own weights, as in the model, so that caches do not answer. Counters: GFLOP/s, and GB/s of
// weights, beside a plain read loop over as many bytes.
//
//   build/bin/operators_bench [--benchmark_filter=...]      SWAA_BENCH_DTYPE=f32 for f32

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <memory>
#include <omp.h>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "kernels/cpu/threads.h"
#include "kernels/operators.h"

namespace swaa::kernels {
namespace {

constexpr int64_t kLayers = 30;
constexpr int64_t kMaxRows = 512;

struct Product {
  const char* name;
  int64_t in;
  int64_t out;
  int64_t copies;
  bool accumulate;
};

constexpr Product kProducts[] = {
    {"qkv", 576, 960, kLayers, false},      {"attention_output", 576, 576, kLayers, true},
    {"gate_up", 576, 3072, kLayers, false}, {"ffn_down", 1536, 576, kLayers, true},
    {"logits", 576, 49152, 1, false},
};

Operators& Cpu() {
  static const auto* operators = [] {
    const char* dtype = std::getenv("SWAA_BENCH_DTYPE");
    auto created = CreateOperators({.dtype = dtype == nullptr ? "auto" : dtype});
    if (!created.ok()) {
      std::cerr << created.status() << std::endl;
      std::exit(1);
    }
    return new std::unique_ptr<Operators>(std::move(*created));
  }();
  return **operators;
}

// Uniform numbers in [-1, 1): zeros and denormals would be faster or slower than real ones.
float Noise(uint64_t i) {
  i = (i + 1) * 0x9e3779b97f4a7c15u;
  i ^= i >> 29;
  i *= 0xbf58476d1ce4e5b9u;
  return static_cast<float>(static_cast<int64_t>(i) >> 32) * 4.6566e-10f;
}

const std::vector<std::unique_ptr<Weight>>& WeightsOf(const Product& product) {
  static auto* all = new std::map<std::string, std::vector<std::unique_ptr<Weight>>>;
  auto& weights = (*all)[product.name];
  while (static_cast<int64_t>(weights.size()) < product.copies) {
    weights.push_back(std::move(*Cpu().PackWeight(
        product.out, product.in, [&](int64_t first_row, int64_t count, float* out) {
          for (int64_t i = 0; i < count * product.in; ++i) {
            out[i] = Noise(first_row * product.in + i);
          }
        })));
  }
  return weights;
}

std::unique_ptr<Buffer> RandomBuffer(int64_t elements, DataType type) {
  auto buffer = std::move(*Cpu().Allocate(elements * SizeOf(type)));
  for (int64_t i = 0; i < elements; ++i) {
    if (type == DataType::kF32) {
      reinterpret_cast<float*>(buffer->data())[i] = Noise(i);
    } else {
      reinterpret_cast<Bf16*>(buffer->data())[i] = ToBf16(Noise(i));
    }
  }
  return buffer;
}

void Multiply(const Product& product, int64_t rows, const Buffer& x, const Buffer& out) {
  for (const auto& weight : WeightsOf(product)) {
    Cpu().Linear({.weight = weight.get(),
                  .x = x.data(),
                  .out = out.data(),
                  .rows = rows,
                  .accumulate = product.accumulate});
  }
  Cpu().Finish();
}

void Report(benchmark::State& state, double flops, double bytes) {
  const auto rate = benchmark::Counter::kIsIterationInvariantRate;
  if (flops > 0) state.counters["GFLOP/s"] = benchmark::Counter(flops / 1e9, rate);
  state.counters["GB/s"] = benchmark::Counter(bytes / 1e9, rate);
}

// One product of all layers.
void BM_Product(benchmark::State& state, const Product& product) {
  const int64_t rows = state.range(0), padded = Cpu().PaddedRows(rows);
  auto x = RandomBuffer(padded * product.in, Cpu().precision().activations);
  auto out = RandomBuffer(padded * product.out, DataType::kF32);
  Multiply(product, rows, *x, *out);
  for (auto _ : state) Multiply(product, rows, *x, *out);
  const double bytes = static_cast<double>(WeightsOf(product)[0]->bytes() * product.copies);
  Report(state, 2.0 * rows * product.in * product.out * product.copies, bytes);
}

// All products of a step, the logits for at most 64 rows.
void BM_Step(benchmark::State& state) {
  const int64_t rows = state.range(0), padded = Cpu().PaddedRows(kMaxRows);
  auto x = RandomBuffer(padded * 1536, Cpu().precision().activations);
  auto out = RandomBuffer(std::max<int64_t>(padded * 3072, 64 * 49152), DataType::kF32);
  double flops = 0, bytes = 0;
  for (const Product& product : kProducts) {
    const int64_t count = product.copies == 1 ? std::min<int64_t>(rows, 64) : rows;
    flops += 2.0 * count * product.in * product.out * product.copies;
    bytes += static_cast<double>(WeightsOf(product)[0]->bytes() * product.copies);
  }
  for (auto _ : state) {
    for (const Product& product : kProducts) {
      Multiply(product, product.copies == 1 ? std::min<int64_t>(rows, 64) : rows, *x, *out);
    }
  }
  Report(state, flops, bytes);
}

// What the memory gives: a sum over a buffer as large as all weights.
void BM_ReadLoop(benchmark::State& state) {
  int64_t bytes = 0;
  for (const Product& product : kProducts) {
    bytes += WeightsOf(product)[0]->bytes() * product.copies;
  }
  auto buffer = RandomBuffer(bytes / 4, DataType::kF32);
  const auto* words = reinterpret_cast<const uint64_t*>(buffer->data());
  for (auto _ : state) {
    uint64_t sum = 0;
#pragma omp parallel for reduction(+ : sum) schedule(static)
    for (int64_t i = 0; i < bytes / 64; ++i) {
      const uint64_t* line = words + i * 8;
      sum += line[0] + line[1] + line[2] + line[3] + line[4] + line[5] + line[6] + line[7];
    }
    benchmark::DoNotOptimize(sum);
  }
  Report(state, 0, static_cast<double>(bytes));
}

void BM_RmsNorm(benchmark::State& state) {
  const int64_t rows = state.range(0), hidden = 576;
  auto x = RandomBuffer(rows * hidden, DataType::kF32);
  auto weight = RandomBuffer(hidden, DataType::kF32);
  auto out = RandomBuffer(rows * hidden, Cpu().precision().activations);
  for (auto _ : state) {
    Cpu().RmsNorm({reinterpret_cast<float*>(x->data()), reinterpret_cast<float*>(weight->data()),
                   out->data(), rows, hidden, 1e-5f});
  }
  Report(state, 0, static_cast<double>(x->bytes() + out->bytes()));
}

void BM_SiluMul(benchmark::State& state) {
  const int64_t rows = state.range(0), width = 1536;
  auto gate_up = RandomBuffer(rows * 2 * width, Cpu().precision().activations);
  auto out = RandomBuffer(rows * width, Cpu().precision().activations);
  for (auto _ : state) Cpu().SiluMul(gate_up->data(), rows, width, out->data());
  Report(state, 0, static_cast<double>(gate_up->bytes() + out->bytes()));
}

void RegisterAll() {
  benchmark::RegisterBenchmark("ReadLoop", BM_ReadLoop)->UseRealTime();
  for (const Product& product : kProducts) {
    auto* registered = benchmark::RegisterBenchmark(
        (std::string("Product/") + product.name).c_str(),
        [&product](benchmark::State& state) { BM_Product(state, product); });
    registered->UseRealTime()->Unit(benchmark::kMillisecond);
    for (int64_t rows : {1, 2, 4, 8, 16, 32, 64}) registered->Arg(rows);
    if (product.copies > 1) registered->Arg(512);
  }
  auto* step = benchmark::RegisterBenchmark("Step", BM_Step);
  step->UseRealTime()->Unit(benchmark::kMillisecond);
  for (int64_t rows : {1, 4, 16, 64, 512}) step->Arg(rows);
  for (int64_t rows : {1, 512}) {
    benchmark::RegisterBenchmark("RmsNorm", BM_RmsNorm)->UseRealTime()->Arg(rows);
    benchmark::RegisterBenchmark("SiluMul", BM_SiluMul)->UseRealTime()->Arg(rows);
  }
}

}  // namespace
}  // namespace swaa::kernels

int main(int argc, char** argv) {
  swaa::kernels::cpu::ConfigureOpenMp(0);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  swaa::kernels::RegisterAll();
  benchmark::AddCustomContext("device", swaa::kernels::Cpu().device_name());
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
