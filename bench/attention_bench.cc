// Benchmark of CPU attention. Every measurement stands beside a yardstick that runs in turns with
// it, in the same process: a oneDNN product (bf16 where the processor has it) for prefill, a plain
// read loop over the same pages for decode (the machine may be shared; only ratios mean something).
// Reported time, rates and `ratio` are medians.
//
//   attention_bench [--threads=N] [--benchmark_filter=amx]
//
// GFLOP/s count visible pairs only: 4 * head_dim * heads * pairs.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <immintrin.h>
#include <memory>
#include <numeric>
#include <omp.h>
#include <random>
#include <string>
#include <string_view>
#include <time.h>
#include <vector>

#include <benchmark/benchmark.h>
#include <dnnl.hpp>
#include <sys/mman.h>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/attention_plan.h"
#include "kernels/types.h"

namespace swaa::kernels {
namespace {

using cpu::InstructionSet;

int32_t g_threads = 0;

// One thread is timed by its own clock, which stands still while others have its core.
double Now() {
  timespec now;
  clock_gettime(g_threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + now.tv_nsec * 1e-9;
}

template <class Function>
double Seconds(const Function& function) {
  const double begin = Now();
  function();
  return Now() - begin;
}

// Times of the same pieces of work, again and again.
class Timings {
 public:
  void Add(size_t piece, double seconds) {
    if (pieces_.size() <= piece) pieces_.resize(piece + 1);
    pieces_[piece].push_back(seconds);
  }
  // Of all pieces once: with the median of each, and with the least of each.
  double Typical() const { return Sum(0.5); }
  double Best() const { return Sum(0); }

 private:
  double Sum(double quantile) const {
    double sum = 0;
    for (std::vector<double> times : pieces_) {
      const auto nth = times.begin() + static_cast<int64_t>((times.size() - 1) * quantile);
      std::nth_element(times.begin(), nth, times.end());
      sum += *nth;
    }
    return sum;
  }
  std::vector<std::vector<double>> pieces_;
};

struct Shape {
  const char* name;
  int32_t heads;
  int32_t kv_heads;
  int32_t head_dim;
  KeySpan span;
  int32_t keys;
  int32_t layers;
};

// Random keys and values in pages of random order, with a query for every position.
class Model {
 public:
  Model(const Shape& shape, DataType kv) : shape_(shape), kv_(kv) {
    pages_of_layer_ = (shape.keys + kPageTokens - 1) / kPageTokens;
    const int64_t pages = int64_t{pages_of_layer_} * shape.layers + 1;
    page_bytes_ = cpu::KvPageBytes(kv, shape.kv_heads, shape.head_dim);
    // In huge pages, as a server's pool.
    const int64_t bytes = (pages * page_bytes_ + kHugePage - 1) / kHugePage * kHugePage;
    pool_.reset(static_cast<std::byte*>(std::aligned_alloc(kHugePage, bytes)));
    madvise(pool_.get(), bytes, MADV_HUGEPAGE);
    table_.resize(pages - 1);
    std::iota(table_.begin(), table_.end(), 1);
    std::mt19937 random(1);
    std::shuffle(table_.begin(), table_.end(), random);
    const std::vector<float> normal = Normal(1 << 20);
    Fill(normal);
    q_.resize(int64_t{shape.keys} * shape.heads * shape.head_dim);
    for (size_t i = 0; i < q_.size(); ++i) q_[i] = 1.7f * normal[i * 2654435761u % normal.size()];
    out_.resize(q_.size());
  }

  // Queries first .. first + count - 1 of a layer.
  void Attend(const cpu::AttentionVariant& variant, int32_t layer, int32_t first, int32_t count) {
    const SequenceRows rows = {0, 0, count, first};
    const int64_t begin = int64_t{first} * shape_.heads * shape_.head_dim;
    cpu::AttentionParams params;
    params.q = q_.data() + begin;
    params.out = out_.data() + begin;
    params.page_table = {table_.data(), shape_.layers, pages_of_layer_};
    params.pages = {pool_.get(), page_bytes_};
    params.layer = layer;
    const cpu::CpuAttentionOptions options = {
        .kv = kv_, .out = DataType::kBf16, .threads = g_threads, .kernels = {&variant, &variant}};
    cpu::PlanAttention({.heads = shape_.heads,
                        .kv_heads = shape_.kv_heads,
                        .head_dim = shape_.head_dim,
                        .q_stride = int64_t{shape_.heads} * shape_.head_dim,
                        .scale = 1 / std::sqrt(static_cast<float>(shape_.head_dim))},
                       {&rows, 1}, {&shape_.span, 1}, options, &plan_);
    cpu::Attention(plan_, params, options);
  }

  // Reads all pages of a layer, as many bytes as decode does.
  void ReadPages(int32_t layer) const;

  int64_t PageBytesOfLayer() const { return pages_of_layer_ * page_bytes_; }

  double FloatingPointOperations() const {
    double pairs = 0;
    for (int64_t i = 0; i < shape_.keys; ++i) {
      const int64_t window = std::min<int64_t>(i + 1, shape_.span.window);
      pairs += window + std::min<int64_t>(shape_.span.sinks, i + 1 - window);
    }
    return 4.0 * shape_.head_dim * shape_.heads * pairs;
  }

 private:
  static std::vector<float> Normal(int64_t count) {
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    std::vector<float> values(count);
    for (float& value : values) value = normal(random);
    return values;
  }

  void Fill(const std::vector<float>& normal) {
    const int64_t width = int64_t{shape_.kv_heads} * shape_.head_dim;
#pragma omp parallel for num_threads(g_threads)
    for (size_t page = 0; page < table_.size(); ++page) {
      std::vector<cpu::KeyValueRow> rows;
      for (int32_t i = 0; i < kPageTokens; ++i) {
        const size_t at = (page * kPageTokens + i) * 7919 % (normal.size() - 2 * width);
        rows.push_back(
            {&normal[at], &normal[at + width], pool_.get() + (page + 1) * page_bytes_, i});
      }
      cpu::StoreKeyValue(rows.data(), rows.size(), shape_.kv_heads, shape_.head_dim, {.kv = kv_});
    }
  }

  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  static constexpr int64_t kHugePage = int64_t{2} << 20;
  const Shape shape_;
  const DataType kv_;
  int32_t pages_of_layer_ = 0;
  int64_t page_bytes_ = 0;
  std::unique_ptr<std::byte, Free> pool_;
  std::vector<int32_t> table_;
  std::vector<float> q_;
  std::vector<Bf16> out_;
  cpu::AttentionPlan plan_;
};

// Bytes that the read loop fetches ahead; of several distances none was faster.
constexpr int64_t kReadAhead = 2048;

// Sums up a page.
__attribute__((target("avx2"))) int64_t ReadAvx2(const std::byte* memory, int64_t bytes) {
  const std::byte* next = memory + kReadAhead;
  __m256i sums[4] = {};
  for (int64_t i = 0; i < bytes; i += 128) {
    _mm_prefetch(reinterpret_cast<const char*>(next + i), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(next + i + 64), _MM_HINT_T0);
    for (int j = 0; j < 4; ++j) {
      const auto* p = reinterpret_cast<const __m256i*>(memory + i + j * 32);
      sums[j] = _mm256_add_epi64(sums[j], _mm256_loadu_si256(p));
    }
  }
  const __m256i sum =
      _mm256_add_epi64(_mm256_add_epi64(sums[0], sums[1]), _mm256_add_epi64(sums[2], sums[3]));
  return _mm256_extract_epi64(sum, 0) + _mm256_extract_epi64(sum, 1) +
         _mm256_extract_epi64(sum, 2) + _mm256_extract_epi64(sum, 3);
}

int64_t ReadPlain(const std::byte* memory, int64_t bytes) {
  const std::byte* next = memory + kReadAhead;
  __m128i sums[4] = {};
  for (int64_t i = 0; i < bytes; i += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(next + i), _MM_HINT_T0);
    for (int j = 0; j < 4; ++j) {
      const auto* p = reinterpret_cast<const __m128i*>(memory + i + j * 16);
      sums[j] = _mm_add_epi64(sums[j], _mm_loadu_si128(p));
    }
  }
  const __m128i sum =
      _mm_add_epi64(_mm_add_epi64(sums[0], sums[1]), _mm_add_epi64(sums[2], sums[3]));
  return _mm_extract_epi64(sum, 0) + _mm_extract_epi64(sum, 1);
}

void Model::ReadPages(int32_t layer) const {
  const auto read = __builtin_cpu_supports("avx2") ? ReadAvx2 : ReadPlain;
  const int32_t* pages = table_.data() + int64_t{layer} * pages_of_layer_;
  int64_t sum = 0;
#pragma omp parallel for num_threads(g_threads) reduction(+ : sum) schedule(dynamic, 8)
  for (int32_t i = 0; i < pages_of_layer_; ++i) {
    sum += read(pool_.get() + pages[i] * page_bytes_, page_bytes_);
  }
  benchmark::DoNotOptimize(sum);
}

// oneDNN, rows x inner by inner x columns, in bf16 or f32.
class Product {
 public:
  Product(int64_t rows, int64_t inner, int64_t columns, dnnl::memory::data_type type)
      : operations_(2.0 * rows * inner * columns) {
    using Tag = dnnl::memory::format_tag;
    const dnnl::memory::desc a({rows, inner}, type, Tag::ab);
    const dnnl::memory::desc b({inner, columns}, type, Tag::any);
    const dnnl::memory::desc c({rows, columns}, type, Tag::ab);
#if DNNL_VERSION_MAJOR >= 3
    const dnnl::matmul::primitive_desc description(engine_, a, b, c);
#else
    const dnnl::matmul::primitive_desc description({a, b, c}, engine_);
#endif
    matmul_ = dnnl::matmul(description);
    a_ = Random(description.src_desc(), type);
    b_ = Random(description.weights_desc(), type);
    c_ = dnnl::memory(description.dst_desc(), engine_);
  }

  void Run() {
    matmul_.execute(stream_, {{DNNL_ARG_SRC, a_}, {DNNL_ARG_WEIGHTS, b_}, {DNNL_ARG_DST, c_}});
    stream_.wait();
  }
  double operations() const { return operations_; }

 private:
  dnnl::memory Random(const dnnl::memory::desc& description, dnnl::memory::data_type type) {
    dnnl::memory memory(description, engine_);
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    const int64_t bytes = description.get_size();
    if (type == dnnl::memory::data_type::f32) {
      auto* values = static_cast<float*>(memory.get_data_handle());
      for (int64_t i = 0; i < bytes / 4; ++i) values[i] = normal(random);
    } else {
      auto* values = static_cast<Bf16*>(memory.get_data_handle());
      for (int64_t i = 0; i < bytes / 2; ++i) values[i] = ToBf16(normal(random));
    }
    return memory;
  }

  double operations_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  dnnl::matmul matmul_;
  dnnl::memory a_, b_, c_;
};

// Whole prompts in chunks of 512, after a run of products.
void Prefill(benchmark::State& state, const Shape& shape, const cpu::AttentionVariant& variant) {
  constexpr int32_t kChunk = 512;
  constexpr int kProducts = 20;
  Model model(shape, DataType::kBf16);
  const auto type =
      cpu::HasBf16Products() ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
  Product product(512, 576, 3072, type);
  product.Run();
  model.Attend(variant, 0, 0, std::min(kChunk, shape.keys));
  Timings attention, products;
  for (auto _ : state) {
    const double begin = Now();
    products.Add(0, Seconds([&] {
                   for (int i = 0; i < kProducts; ++i) product.Run();
                 }));
    for (int32_t first = 0; first < shape.keys; first += kChunk) {
      attention.Add(first / kChunk, Seconds([&] {
                      model.Attend(variant, 0, first, std::min(kChunk, shape.keys - first));
                    }));
    }
    state.SetIterationTime(Now() - begin);
  }
  const double operations = model.FloatingPointOperations();
  const double rate = operations / attention.Typical() * 1e-9;
  const double product_rate = kProducts * product.operations() / products.Typical() * 1e-9;
  const double best_rate = operations / attention.Best() * 1e-9;
  const double best_product_rate = kProducts * product.operations() / products.Best() * 1e-9;
  state.counters["GFLOPs"] = rate;
  state.counters["oneDNN_GFLOPs"] = product_rate;
  state.counters["ratio"] = rate / product_rate;
  state.counters["best_GFLOPs"] = best_rate;
  state.counters["best_ratio"] = best_rate / best_product_rate;
}

// One query after all keys, layer after layer; the pages of another layer are read in between.
void Decode(benchmark::State& state, const Shape& shape, const cpu::AttentionVariant& variant) {
  Model model(shape, DataType::kBf16);
  Timings attention, reads;
  for (auto _ : state) {
    const double begin = Now();
    for (int32_t layer = 0; layer < shape.layers; ++layer) {
      const int32_t other = (layer + shape.layers / 2) % shape.layers;
      reads.Add(other, Seconds([&] { model.ReadPages(other); }));
      attention.Add(layer, Seconds([&] { model.Attend(variant, layer, shape.keys - 1, 1); }));
    }
    state.SetIterationTime(Now() - begin);
  }
  const double bytes = static_cast<double>(model.PageBytesOfLayer()) * shape.layers;
  state.counters["GB/s"] = bytes / attention.Typical() * 1e-9;
  state.counters["read_GB/s"] = bytes / reads.Typical() * 1e-9;
  state.counters["ratio"] = reads.Typical() / attention.Typical();
  state.counters["best_ratio"] = reads.Best() / attention.Best();
  state.counters["us_per_layer"] = attention.Typical() / shape.layers * 1e6;
}

// Keys and values of 512 rows, one thread.
void Store(benchmark::State& state, const Shape& shape, DataType kv) {
  Model model(shape, kv);
  const int64_t width = int64_t{shape.kv_heads} * shape.head_dim;
  std::vector<float> values(512 * width, 0.37f);
  std::vector<std::byte> pages(8 * cpu::KvPageBytes(kv, shape.kv_heads, shape.head_dim));
  std::vector<cpu::KeyValueRow> rows;
  for (int32_t i = 0; i < 512; ++i) {
    std::byte* page = pages.data() + i / kPageTokens * pages.size() / 8;
    rows.push_back({&values[i * width], &values[i * width], page, i % kPageTokens});
  }
  for (auto _ : state) {
    cpu::StoreKeyValue(rows.data(), rows.size(), shape.kv_heads, shape.head_dim, {.kv = kv});
    benchmark::ClobberMemory();
  }
}

const Shape kPrefill[] = {
    {"9/3x64/causal/8192", 9, 3, 64, {}, 8192, 1},
    {"9/3x64/W512_K16/8192", 9, 3, 64, {512, 16}, 8192, 1},
    {"32/8x128/causal/4096", 32, 8, 128, {}, 4096, 1},
};
const Shape kDecode[] = {
    {"9/3x64/8000", 9, 3, 64, {}, 8000, 30},
    {"32/8x128/8000", 32, 8, 128, {}, 8000, 6},
};

void RegisterAll() {
  std::vector<const cpu::AttentionVariant*> variants;
  for (InstructionSet set : cpu::SupportedInstructionSets()) {
    const auto of_set = cpu::AttentionVariantsOf(set, DataType::kBf16);
    variants.insert(variants.end(), of_set.begin(), of_set.end());
  }
  for (const cpu::AttentionVariant* variant : variants) {
    const std::string suffix = "/" + std::string(variant->name);
    for (const Shape& shape : kPrefill) {
      benchmark::RegisterBenchmark(("prefill/" + std::string(shape.name) + suffix).c_str(), Prefill,
                                   shape, *variant)
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond)
          ->MinTime(2);
    }
    for (const Shape& shape : kDecode) {
      benchmark::RegisterBenchmark(("decode/" + std::string(shape.name) + suffix).c_str(), Decode,
                                   shape, *variant)
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond)
          ->MinTime(1);
    }
  }
  const Shape store = {"", 9, 3, 64, {}, 512, 1};
  benchmark::RegisterBenchmark("store/512x3x64/bf16", Store, store, DataType::kBf16)
      ->Unit(benchmark::kMicrosecond);
  benchmark::RegisterBenchmark("store/512x3x64/f32", Store, store, DataType::kF32)
      ->Unit(benchmark::kMicrosecond);
}

// What a process takes here.
void AddChoice() {
  const cpu::AttentionKernels chosen =
      cpu::MeasuredAttentionKernels(cpu::BestInstructionSet(), /*named=*/false, DataType::kBf16);
  benchmark::AddCustomContext(
      "chosen", "prefill " + std::string(chosen.prefill->name) + ", decode " + chosen.decode->name);
}

// Takes --threads=N out of the arguments.
void ParseThreads(int* argc, char** argv) {
  constexpr std::string_view kFlag = "--threads=";
  g_threads = omp_get_max_threads();
  int kept = 0;
  for (int i = 0; i < *argc; ++i) {
    if (std::string_view(argv[i]).starts_with(kFlag)) {
      g_threads = std::max(1, std::atoi(argv[i] + kFlag.size()));
    } else {
      argv[kept++] = argv[i];
    }
  }
  *argc = kept;
  omp_set_num_threads(g_threads);
}

}  // namespace
}  // namespace swaa::kernels

int main(int argc, char** argv) {
  swaa::kernels::ParseThreads(&argc, argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  swaa::kernels::RegisterAll();
  swaa::kernels::AddChoice();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
