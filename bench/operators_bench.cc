// Products and row-wise operators of the CPU backend at the shapes of SmolLM2-135M: every layer has
// its own weights, as in the model, so that caches do not answer. Every product of
// affine-quantised weights as quantised checkpoints have them (4 bits, the logits' 8) and of any
// bf16 weights, by the form that was measured to be the fastest, and by oneDNN alone; and the
// mixture of experts of one layer of Qwen3-30B-A3B's shape, whose rows go to random experts.
// Counters: GFLOP/s, and GB/s of weights (a mixture's: of the experts that some row goes to),
// beside a plain read loop over as many bytes as bf16 weights have.
//
//   build/bin/operators_bench [--benchmark_filter=...]      SWAA_BENCH_DTYPE=f32 for f32

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <memory>
#include <omp.h>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include "kernels/cpu/experts.h"
#include "kernels/cpu/onednn_matmul.h"
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
  int levels;  // of an affine-quantised weight
};

constexpr Product kProducts[] = {
    {"qkv", 576, 960, kLayers, 16},      {"attention_output", 576, 576, kLayers, 16},
    {"gate_up", 576, 3072, kLayers, 16}, {"ffn_down", 1536, 576, kLayers, 16},
    {"logits", 576, 49152, 1, 255},
};

// 8 of 128 experts of width 768 a row.
constexpr ExpertsShape kMixture = {
    .hidden = 2048, .width = 768, .count = 128, .experts_per_row = 8};
constexpr Product kExpertGateUp = {"expert_gate_up", 2048, 2 * 768, 128, 16};
constexpr Product kExpertDown = {"expert_down", 768, 2048, 128, 16};
constexpr int64_t kRoutings = 16;  // other experts each time

enum class Form { kAffine, kBf16, kOneDnn };
constexpr std::pair<Form, const char*> kForms[] = {
    {Form::kAffine, "affine"}, {Form::kBf16, "bf16"}, {Form::kOneDnn, "onednn"}};

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

// The library alone. After Cpu has set up the threads.
cpu::OneDnnMatmul& OneDnn() {
  static auto* matmul =
      new std::unique_ptr<cpu::OneDnnMatmul>(cpu::OneDnnMatmul::Create(Cpu().precision().weights));
  return **matmul;
}

RowReader ReaderOf(const Product& product, Form form) {
  return [&product, form](int64_t first_row, int64_t count, float* out) {
    for (int64_t i = 0; i < count * product.in; ++i) {
      const float noise = Noise(first_row * product.in + i);
      const auto levels = static_cast<float>(product.levels);
      out[i] = form == Form::kAffine ? std::floor(noise * levels / 2) / 256 : noise;
    }
  };
}

const std::vector<std::unique_ptr<Weight>>& WeightsOf(const Product& product, Form form) {
  static auto* all =
      new std::map<std::pair<std::string, Form>, std::vector<std::unique_ptr<Weight>>>;
  auto& weights = (*all)[{product.name, form}];
  const RowReader reader = ReaderOf(product, form);
  while (static_cast<int64_t>(weights.size()) < product.copies) {
    if (form == Form::kOneDnn) {
      weights.push_back(std::move(*OneDnn().Pack(product.out, product.in, reader)));
    } else {
      const HostRows rows[] = {{product.out, reader}};
      weights.push_back(std::move(*Cpu().PackWeight(rows, product.in)));
    }
  }
  return weights;
}

// Bytes of weights that a product of so many rows reads; 0 where that is as measured.
double BytesRead(const Product& product, Form form, int64_t rows) {
  const int64_t packed =
      product.in * product.out * SizeOf(Cpu().precision().weights);  // no shape is padded
  const int64_t all = WeightsOf(product, form)[0]->bytes();
  if (all > packed && rows > 1) return 0;
  return static_cast<double>((all > packed ? all - packed : packed) * product.copies);
}

std::unique_ptr<Buffer> RandomBuffer(int64_t elements, DataType type) {
  auto buffer = std::move(*Cpu().Allocate(elements * SizeOf(type), MemoryKind::kWorkspace));
  for (int64_t i = 0; i < elements; ++i) {
    if (type == DataType::kF32) {
      reinterpret_cast<float*>(buffer->data())[i] = Noise(i);
    } else {
      reinterpret_cast<Bf16*>(buffer->data())[i] = ToBf16(Noise(i));
    }
  }
  return buffer;
}

void Multiply(const Product& product, Form form, int64_t rows, const Buffer& x, const Buffer& out) {
  for (const auto& weight : WeightsOf(product, form)) {
    const LinearParams params{
        .weight = weight.get(), .x = x.data(), .out = out.data(), .rows = rows};
    if (form == Form::kOneDnn) {
      OneDnn().Run(params, Cpu().PaddedRows(rows));
    } else {
      Cpu().Linear(params);
    }
  }
}

void Report(benchmark::State& state, double flops, double bytes) {
  const auto rate = benchmark::Counter::kIsIterationInvariantRate;
  if (flops > 0) state.counters["GFLOP/s"] = benchmark::Counter(flops / 1e9, rate);
  if (bytes > 0) state.counters["GB/s"] = benchmark::Counter(bytes / 1e9, rate);
}

// One product of all layers.
void BM_Product(benchmark::State& state, const Product& product, Form form) {
  const int64_t rows = state.range(0), padded = Cpu().PaddedRows(rows);
  auto x = RandomBuffer(padded * product.in, Cpu().precision().activations);
  auto out = RandomBuffer(padded * product.out, DataType::kF32);
  Multiply(product, form, rows, *x, *out);
  for (auto _ : state) Multiply(product, form, rows, *x, *out);
  Report(state, 2.0 * rows * product.in * product.out * product.copies,
         BytesRead(product, form, rows));
}

// All products of a step, the logits for at most 64 rows.
void BM_Step(benchmark::State& state, Form form) {
  const int64_t rows = state.range(0), padded = Cpu().PaddedRows(kMaxRows);
  auto x = RandomBuffer(padded * 1536, Cpu().precision().activations);
  auto out = RandomBuffer(std::max<int64_t>(padded * 3072, 64 * 49152), DataType::kF32);
  double flops = 0, bytes = 0;
  for (const Product& product : kProducts) {
    const int64_t count = product.copies == 1 ? std::min<int64_t>(rows, 64) : rows;
    flops += 2.0 * count * product.in * product.out * product.copies;
    bytes += BytesRead(product, form, count);
  }
  for (auto _ : state) {
    for (const Product& product : kProducts) {
      const int64_t count = product.copies == 1 ? std::min<int64_t>(rows, 64) : rows;
      Multiply(product, form, count, *x, *out);
    }
  }
  Report(state, flops, bytes);
}

// What the memory gives: a sum over a buffer as large as all weights unpacked.
void BM_ReadLoop(benchmark::State& state) {
  int64_t bytes = 0;
  for (const Product& product : kProducts) {
    bytes += product.in * product.out * product.copies * SizeOf(Cpu().precision().weights);
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

// A mixture's rows; every iteration goes to other experts than the one before.
void BM_Experts(benchmark::State& state, Form form) {
  const int64_t rows = state.range(0), line = rows * kMixture.count;
  std::vector<ExpertWeights> experts;
  for (int32_t e = 0; e < kMixture.count; ++e) {
    experts.push_back(
        {WeightsOf(kExpertGateUp, form)[e].get(), WeightsOf(kExpertDown, form)[e].get()});
  }
  auto x = RandomBuffer(rows * kMixture.hidden, Cpu().precision().activations);
  auto logits = RandomBuffer(kRoutings * line, DataType::kF32);
  auto scratch = RandomBuffer(Cpu().ExpertScratchBytes(kMixture, rows) / 4, DataType::kF32);
  auto out = RandomBuffer(rows * kMixture.hidden, DataType::kF32);
  const auto logits_of = [&](int64_t i) {
    return reinterpret_cast<const float*>(logits->data()) + i % kRoutings * line;
  };
  std::vector<double> touched;  // by routing
  for (int64_t i = 0; i < kRoutings; ++i) {
    cpu::ExpertRoutes routes;
    cpu::RouteRows({logits_of(i), static_cast<size_t>(line)}, kMixture.count,
                   kMixture.experts_per_row, true, 1, &routes);
    touched.push_back(static_cast<double>(routes.groups.size()));
  }
  int64_t iteration = 0;
  double experts_read = 0;
  for (auto _ : state) {
    Cpu().Experts({.experts = experts,
                   .experts_per_row = kMixture.experts_per_row,
                   .normalize = true,
                   .logits = logits_of(iteration),
                   .x = x->data(),
                   .scratch = scratch->data(),
                   .out = out->data(),
                   .rows = rows});
    experts_read += touched[iteration++ % kRoutings];
  }
  const double bytes =
      (BytesRead(kExpertGateUp, form, 1) + BytesRead(kExpertDown, form, 1)) / kMixture.count;
  const double flops = 2.0 * rows * kMixture.experts_per_row * 3 * kMixture.hidden * kMixture.width;
  state.counters["experts"] = benchmark::Counter(experts_read, benchmark::Counter::kAvgIterations);
  state.counters["GB/s"] =
      benchmark::Counter(experts_read * bytes / 1e9, benchmark::Counter::kIsRate);
  Report(state, flops, 0);
}

void BM_AddNorm(benchmark::State& state) {
  const int64_t rows = state.range(0), hidden = 576;
  auto residual = RandomBuffer(rows * hidden, DataType::kF32);
  auto delta = RandomBuffer(rows * hidden, DataType::kF32);
  auto weight = RandomBuffer(hidden, DataType::kF32);
  auto out = RandomBuffer(rows * hidden, Cpu().precision().activations);
  for (auto _ : state) {
    Cpu().AddNorm({residual->data(), delta->data(), reinterpret_cast<const float*>(weight->data()),
                   out->data(), rows, hidden, 1e-5f});
  }
  Report(state, 0, static_cast<double>(2 * residual->bytes() + delta->bytes() + out->bytes()));
}

void RegisterAll() {
  benchmark::RegisterBenchmark("ReadLoop", BM_ReadLoop)->UseRealTime();
  for (const Product& product : kProducts) {
    for (const auto& [form, name] : kForms) {
      auto* registered = benchmark::RegisterBenchmark(
          (std::string("Product/") + product.name + "/" + name).c_str(),
          [&product, form = form](benchmark::State& state) { BM_Product(state, product, form); });
      registered->UseRealTime()->Unit(benchmark::kMillisecond);
      for (int64_t rows : {1, 2, 4, 8, 16, 32, 64}) registered->Arg(rows);
      if (product.copies > 1) registered->Arg(512);
    }
  }
  for (const auto& [form, name] : kForms) {
    auto* step = benchmark::RegisterBenchmark(
        (std::string("Step/") + name).c_str(),
        [form = form](benchmark::State& state) { BM_Step(state, form); });
    step->UseRealTime()->Unit(benchmark::kMillisecond);
    for (int64_t rows : {1, 2, 3, 4, 6, 8, 9, 12, 13, 16, 17, 20, 24, 32, 64, 512}) step->Arg(rows);
  }
  for (const Form form : {Form::kAffine, Form::kBf16}) {
    auto* experts =
        benchmark::RegisterBenchmark(form == Form::kAffine ? "Experts/affine" : "Experts/bf16",
                                     [form](benchmark::State& state) { BM_Experts(state, form); });
    experts->UseRealTime()->Unit(benchmark::kMillisecond);
    for (int64_t rows : {1, 2, 4, 8, 16, 64, 512}) experts->Arg(rows);
  }
  for (int64_t rows : {1, 512}) {
    benchmark::RegisterBenchmark("AddNorm", BM_AddNorm)->UseRealTime()->Arg(rows);
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
