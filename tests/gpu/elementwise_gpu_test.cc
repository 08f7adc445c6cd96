// Tests: the memory-bound operators of the CUDA backend against the double-precision reference,
// with random inputs and poisoned outputs.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cuda/elementwise/elementwise.h"
#include "kernels/reference/operators.h"
#include "tests/gpu/device_array.h"

namespace swaa::kernels::cuda {
namespace {

using testing::DeviceArray;
using testing::TestStream;

// One unit in the last place of bf16, and a little for f32 before it.
constexpr double kBf16Error = 1.02 / 256;

std::vector<Bf16> RandomBf16(std::mt19937& random, size_t count, float spread = 1) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<Bf16> values(count);
  for (Bf16& value : values) value = ToBf16(normal(random));
  return values;
}

std::vector<float> RandomFloats(std::mt19937& random, size_t count, float mean = 0) {
  std::normal_distribution<float> normal(mean, 1);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

std::vector<double> Doubles(const std::vector<Bf16>& values) {
  std::vector<double> out;
  for (const Bf16 value : values) out.push_back(ToFloat(value));
  return out;
}
std::vector<double> Doubles(const std::vector<float>& values) {
  return {values.begin(), values.end()};
}

// Every element by itself: relative, and absolute below `floor`.
void ExpectNear(const std::vector<double>& got, const std::vector<double>& want, double relative,
                double floor) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    const double allowed = relative * std::max(std::fabs(want[i]), floor);
    ASSERT_LE(std::fabs(got[i] - want[i]), allowed)
        << "element " << i << ": " << got[i] << ", not " << want[i];
  }
}

class ElementwiseGpuTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam() && !testing::HasProgrammaticLaunch()) GTEST_SKIP() << "needs 9.0";
  }
  Launch launch() const { return {.stream = stream_, .programmatic = GetParam()}; }

  std::mt19937 random_{20260117};
  TestStream stream_;
};

INSTANTIATE_TEST_SUITE_P(Launches, ElementwiseGpuTest, ::testing::Values(false, true),
                         [](const auto& info) { return info.param ? "Programmatic" : "Plain"; });

TEST_P(ElementwiseGpuTest, EmbedGathersRowsAndDrawnTokens) {
  const std::vector<int32_t> drawn = {7, 3, 11};
  const std::vector<int32_t> ids = {5, kDrawnToken, 0, kDrawnToken, kDrawnToken, 12, 99};
  const std::vector<int32_t> slots = {0, 2, 1, 0, -1, 1, 1};
  const std::vector<int32_t> expected = {5, 11, 0, 7, 0, 12, 0};
  const int64_t vocab = 13, rows = static_cast<int64_t>(ids.size());
  const DeviceArray<int32_t> device_ids(ids), device_slots(slots), device_drawn(drawn);
  for (const int64_t hidden : {8, 64, 576, 2560, 8192}) {
    SCOPED_TRACE(::testing::Message() << "hidden " << hidden);
    const std::vector<Bf16> table = RandomBf16(random_, vocab * hidden);
    const DeviceArray<Bf16> device_table(table);
    const DeviceArray<Bf16> out(rows * hidden);
    const DeviceArray<float> out_float(rows * hidden);
    EmbedParams params{.ids = device_ids.data(),
                       .slots = device_slots.data(),
                       .drawn = device_drawn.data(),
                       .table = device_table.data(),
                       .out = out.data(),
                       .rows = rows,
                       .hidden = hidden,
                       .vocab = vocab};
    Embed(params, launch());
    params.out = out_float.data();
    params.out_type = DataType::kF32;
    Embed(params, launch());
    const std::vector<double> got = Doubles(out.Get()), got_float = Doubles(out_float.Get());
    for (int64_t i = 0; i < rows * hidden; ++i) {
      const double want = ToFloat(table[expected[i / hidden] * hidden + i % hidden]);
      ASSERT_EQ(got[i], want) << i;
      ASSERT_EQ(got_float[i], want) << i;
    }
  }
}

TEST_P(ElementwiseGpuTest, AddNormAgreesWithTheReference) {
  for (const int64_t hidden : {8, 64, 96, 576, 2560, 4096, 8192, 8200, 16384}) {
    for (const int64_t rows : {1, 2, 65}) {
      for (const bool is_float : {false, true}) {
        for (const bool adds : {false, true}) {
          SCOPED_TRACE(::testing::Message() << "hidden " << hidden << " rows " << rows << " f32 "
                                            << is_float << " adds " << adds);
          const std::vector<float> floats = RandomFloats(random_, rows * hidden);
          const std::vector<Bf16> halves = RandomBf16(random_, rows * hidden, 3);
          const std::vector<Bf16> delta = RandomBf16(random_, rows * hidden);
          const std::vector<float> weight = RandomFloats(random_, hidden, 1);
          const DeviceArray<float> device_floats(floats), device_weight(weight);
          const DeviceArray<Bf16> device_halves(halves), device_delta(delta), out(rows * hidden);
          AddNorm({.residual = is_float ? static_cast<void*>(device_floats.data())
                                        : static_cast<void*>(device_halves.data()),
                   .residual_type = is_float ? DataType::kF32 : DataType::kBf16,
                   .delta = adds ? device_delta.data() : nullptr,
                   .weight = device_weight.data(),
                   .out = out.data(),
                   .rows = rows,
                   .hidden = hidden,
                   .epsilon = 1e-6f},
                  launch());
          std::vector<double> residual = is_float ? Doubles(floats) : Doubles(halves);
          for (int64_t i = 0; adds && i < rows * hidden; ++i) {
            const float sum = static_cast<float>(residual[i]) + ToFloat(delta[i]);
            residual[i] = is_float ? sum : ToFloat(ToBf16(sum));
          }
          const std::vector<double> got_residual =
              is_float ? Doubles(device_floats.Get()) : Doubles(device_halves.Get());
          ASSERT_EQ(got_residual, residual);
          ExpectNear(Doubles(out.Get()), reference::RmsNorm(residual, Doubles(weight), 1e-6),
                     kBf16Error, 1e-30);
        }
      }
    }
  }
}

TEST_P(ElementwiseGpuTest, RopeTableIsExactToAMillion) {
  for (const int64_t half : {16, 32, 48, 64}) {
    std::vector<float> frequencies(half);
    for (int64_t i = 0; i < half; ++i) {
      frequencies[i] = static_cast<float>(std::pow(1e6, -static_cast<double>(i) / half));
    }
    std::vector<int32_t> positions = {0, 1, 2, 63, 64, 8191, 131071, 999999, 1048575, 16777215};
    for (int i = 0; i < 300; ++i) positions.push_back(static_cast<int32_t>(random_() % (1 << 24)));
    const DeviceArray<int32_t> device_positions(positions);
    const DeviceArray<float> device_frequencies(frequencies);
    const DeviceArray<float> cos_sin(positions.size() * 2 * half);
    RopeTable({.positions = device_positions.data(),
               .inverse_frequencies = device_frequencies.data(),
               .cos_sin = cos_sin.data(),
               .rows = static_cast<int64_t>(positions.size()),
               .half = half,
               .factor = 1},
              launch());
    const std::vector<float> got = cos_sin.Get();
    for (size_t row = 0; row < positions.size(); ++row) {
      for (int64_t i = 0; i < half; ++i) {
        const double angle = double{frequencies[i]} * positions[row];
        ASSERT_NEAR(got[row * 2 * half + i], std::cos(angle), 1e-6) << positions[row] << " " << i;
        ASSERT_NEAR(got[row * 2 * half + half + i], std::sin(angle), 1e-6)
            << positions[row] << " " << i;
      }
    }
  }
}

struct RopeCase {
  int32_t heads;
  int32_t kv_heads;
  int32_t head_dim;
  int64_t rows;
  bool norms;
  bool bias;
  bool rotate_queries;
};

// Rows of several slots in random order, with dead ones between; only written positions of the
// pages change.
class RopeProblem {
 public:
  static constexpr int32_t kSlots = 3, kLayers = 2, kMaxPages = 4, kLayer = 1;

  RopeProblem(const RopeCase& c, std::mt19937& random)
      : c_(c), width_((c.heads + 2 * c.kv_heads) * int64_t{c.head_dim}) {
    page_elements_ = int64_t{2} * c.kv_heads * kPageTokens * c.head_dim;
    qkv_ = RandomBf16(random, c.rows * width_);
    cos_sin_.resize(c.rows * c.head_dim);
    std::vector<int32_t> pages(kSlots * kLayers * kMaxPages);
    for (size_t i = 0; i < pages.size(); ++i) pages[i] = static_cast<int32_t>(i + 1);
    std::shuffle(pages.begin(), pages.end(), random);
    table_ = pages;
    // Positions of a row are nobody else's.
    std::vector<int32_t> places(kSlots * kMaxPages * kPageTokens);
    for (size_t i = 0; i < places.size(); ++i) places[i] = static_cast<int32_t>(i);
    std::shuffle(places.begin(), places.end(), random);
    for (int64_t row = 0; row < c.rows; ++row) {
      const bool dead = c.rows > 4 && random() % 5 == 0;
      slots_.push_back(dead ? -1 : places[row] / (kMaxPages * kPageTokens));
      positions_.push_back(dead ? 1 << 30 : places[row] % (kMaxPages * kPageTokens));
    }
    for (int32_t i = 0; i < c.head_dim / 2; ++i) {
      frequencies_.push_back(std::pow(1e4f, -2.0f * static_cast<float>(i) / c.head_dim));
    }
    for (int64_t row = 0; row < c.rows; ++row) {
      for (int32_t i = 0; i < c.head_dim / 2; ++i) {
        const double angle = double{frequencies_[i]} * positions_[row];
        cos_sin_[row * c.head_dim + i] = static_cast<float>(std::cos(angle));
        cos_sin_[row * c.head_dim + c.head_dim / 2 + i] = static_cast<float>(std::sin(angle));
      }
    }
    q_norm_ = RandomFloats(random, c.head_dim, 1);
    k_norm_ = RandomFloats(random, c.head_dim, 1);
    bias_ = RandomFloats(random, width_);
    num_pages_ = static_cast<int64_t>(pages.size()) + 1;
  }

  void Run(const Launch& launch) {
    const DeviceArray<Bf16> qkv(qkv_);
    const DeviceArray<Bf16> pages(num_pages_ * page_elements_);
    const DeviceArray<float> cos_sin(cos_sin_), q_norm(q_norm_), k_norm(k_norm_), bias(bias_);
    const DeviceArray<int32_t> positions(positions_), slots(slots_), table(table_);
    RopeAndStore({.qkv = qkv.data(),
                  .bias = c_.bias ? bias.data() : nullptr,
                  .cos_sin = cos_sin.data(),
                  .q_norm = c_.norms ? q_norm.data() : nullptr,
                  .k_norm = c_.norms ? k_norm.data() : nullptr,
                  .norm_epsilon = 1e-6f,
                  .positions = positions.data(),
                  .slots = slots.data(),
                  .page_table = {table.data(), kLayers, kMaxPages},
                  .pages = {reinterpret_cast<std::byte*>(pages.data()), page_elements_ * 2},
                  .rows = c_.rows,
                  .layer = kLayer,
                  .heads = c_.heads,
                  .kv_heads = c_.kv_heads,
                  .head_dim = c_.head_dim,
                  .rotate_queries = c_.rotate_queries},
                 launch);
    Check(qkv.Get(), pages.Get());
  }

 private:
  std::vector<double> Expected(int64_t row, int32_t head) const {
    const int64_t at = row * width_ + int64_t{head} * c_.head_dim;
    std::vector<double> x(c_.head_dim);
    for (int32_t d = 0; d < c_.head_dim; ++d) {
      x[d] = ToFloat(qkv_[at + d]);
      if (c_.bias) x[d] += bias_[int64_t{head} * c_.head_dim + d];
    }
    if (head >= c_.heads + c_.kv_heads) return x;
    if (c_.norms) {
      x = reference::RmsNorm(x, Doubles(head < c_.heads ? q_norm_ : k_norm_), 1e-6);
    }
    reference::Rope(x, positions_[row], frequencies_);
    return x;
  }

  void Check(const std::vector<Bf16>& qkv, const std::vector<Bf16>& pages) const {
    std::vector<bool> written(pages.size(), false);
    for (int64_t row = 0; row < c_.rows; ++row) {
      if (slots_[row] < 0) continue;
      SCOPED_TRACE(::testing::Message() << "row " << row << " position " << positions_[row]);
      for (int32_t head = 0; head < c_.heads + 2 * c_.kv_heads; ++head) {
        SCOPED_TRACE(::testing::Message() << "head " << head);
        std::vector<double> got(c_.head_dim), want = Expected(row, head);
        if (head < c_.heads) {
          for (int32_t d = 0; d < c_.head_dim; ++d) {
            const int64_t at = row * width_ + int64_t{head} * c_.head_dim + d;
            got[d] = ToFloat(qkv[at]);
            if (!c_.rotate_queries) want[d] = ToFloat(qkv_[at]);
          }
        } else {
          const int32_t kv = head - c_.heads;  // K heads, then V heads
          const int32_t block = positions_[row] / kPageTokens;
          const int32_t page = table_[(slots_[row] * kLayers + kLayer) * kMaxPages + block];
          const int64_t at =
              page * page_elements_ +
              (int64_t{kv} * kPageTokens + positions_[row] % kPageTokens) * c_.head_dim;
          for (int32_t d = 0; d < c_.head_dim; ++d) {
            got[d] = ToFloat(pages[at + d]);
            written[at + d] = true;
          }
        }
        ASSERT_NO_FATAL_FAILURE(ExpectNear(got, want, kBf16Error, 1e-2));
      }
    }
    for (size_t i = 0; i < pages.size(); ++i) {
      if (written[i]) continue;
      ASSERT_EQ(pages[i].bits, 0xffff) << "element " << i << " of the pages";
    }
  }

  RopeCase c_;
  int64_t width_;
  int64_t page_elements_;
  int64_t num_pages_;
  std::vector<Bf16> qkv_;
  std::vector<float> cos_sin_, q_norm_, k_norm_, bias_, frequencies_;
  std::vector<int32_t> table_, slots_, positions_;
};

TEST_P(ElementwiseGpuTest, RopeAndStoreAgreesWithTheReference) {
  const std::vector<RopeCase> cases = {
      {1, 1, 64, 1, false, false, true},    {32, 8, 128, 1, true, false, true},
      {32, 8, 128, 70, true, true, true},   {9, 3, 64, 33, false, false, true},
      {14, 2, 64, 65, false, true, true},   {32, 8, 96, 17, false, false, true},
      {6, 1, 96, 5, true, false, true},     {8, 8, 256, 9, true, false, true},
      {4, 4, 32, 200, true, true, true},    {3, 1, 80, 31, false, false, true},
      {32, 8, 128, 64, true, false, false}, {4, 1, 16, 7, true, true, true},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(::testing::Message() << "case " << i);
    RopeProblem problem(cases[i], random_);
    problem.Run(launch());
    if (HasFatalFailure()) return;
  }
}

TEST_P(ElementwiseGpuTest, SiluMulAgreesWithTheReference) {
  for (const int64_t width : {8, 1536, 2048, 2056, 9728}) {
    for (const int64_t rows : {1, 3, 64}) {
      SCOPED_TRACE(::testing::Message() << "width " << width << " rows " << rows);
      std::vector<Bf16> gate_up = RandomBf16(random_, rows * 2 * width, 4);
      gate_up[0] = ToBf16(-100);
      gate_up[1] = ToBf16(100);
      const DeviceArray<Bf16> x(gate_up), out(rows * width);
      SiluMul({.gate_up = x.data(), .out = out.data(), .rows = rows, .width = width}, launch());
      ExpectNear(Doubles(out.Get()), reference::SiluMul(Doubles(gate_up), width), kBf16Error,
                 1e-30);
    }
  }
}

TEST_P(ElementwiseGpuTest, GatherRowsCopiesAndLeavesWhatIsNotNamed) {
  for (const int64_t width : {16, 160, 5120, 12304}) {
    SCOPED_TRACE(::testing::Message() << "bytes " << width);
    std::vector<uint8_t> x(20 * width);
    for (uint8_t& byte : x) byte = static_cast<uint8_t>(random_());
    const std::vector<int32_t> indices = {19, 0, -1, 7, 7};
    const DeviceArray<uint8_t> device_x(x), out(indices.size() * width);
    const DeviceArray<int32_t> device_indices(indices);
    GatherRows({.x = device_x.data(),
                .indices = device_indices.data(),
                .out = out.data(),
                .rows = static_cast<int64_t>(indices.size()),
                .row_bytes = width},
               launch());
    const std::vector<uint8_t> got = out.Get();
    for (size_t i = 0; i < got.size(); ++i) {
      const int32_t from = indices[i / width];
      ASSERT_EQ(got[i], from < 0 ? 0xff : x[from * width + i % width]) << i;
    }
  }
}

// From the same memory of the host each time, as steps are: no cache may keep what it held before.
TEST_P(ElementwiseGpuTest, WordsGoToTheDeviceAndBack) {
  constexpr int64_t kMost = 100000;
  uint64_t* host = nullptr;
  SWAA_CUDA_CHECK(cudaMallocHost(reinterpret_cast<void**>(&host), 2 * kMost * sizeof(uint64_t)));
  uint64_t* back = host + kMost;
  const DeviceArray<uint64_t> device(kMost);
  for (const int64_t words : {int64_t{1}, int64_t{31}, int64_t{257}, kMost, int64_t{300}}) {
    for (int64_t i = 0; i < kMost; ++i) host[i] = random_() + (uint64_t{random_()} << 32);
    std::fill_n(back, kMost, 0);
    const int64_t bytes = words * static_cast<int64_t>(sizeof(uint64_t));
    CopyWords({.from = host, .to = device.data(), .bytes = bytes}, {.stream = stream_});
    CopyWords({.from = device.data(), .to = back, .bytes = bytes}, launch());
    stream_.Wait();
    EXPECT_TRUE(std::equal(host, host + words, back)) << words;
    EXPECT_TRUE(std::all_of(back + words, back + kMost, [](uint64_t x) { return x == 0; }))
        << words;
  }
  SWAA_CUDA_CHECK(cudaFreeHost(host));
}

TEST_P(ElementwiseGpuTest, PageTableEntriesAreTheLastOfEachPlace) {
  constexpr int32_t kSlots = 4, kLayers = 3, kMaxPages = 50;
  std::vector<int32_t> table(kSlots * kLayers * kMaxPages, 0);
  DeviceArray<int32_t> device_table(table);
  for (int step = 0; step < 20; ++step) {
    std::vector<PageTableEntry> updates;
    const size_t count = random_() % 700;
    for (size_t i = 0; i < count; ++i) {
      updates.push_back(
          {static_cast<int32_t>(random_() % kSlots), static_cast<int32_t>(random_() % kLayers),
           static_cast<int32_t>(random_() % kMaxPages), static_cast<int32_t>(random_())});
      const PageTableEntry& u = updates.back();
      table[(u.slot * kLayers + u.layer) * kMaxPages + u.block] = u.page;
    }
    std::vector<PageTableEntry> kept = KeepLastOfEach(updates);
    EXPECT_LE(kept.size(), updates.size());
    const std::vector<int32_t> live = {static_cast<int32_t>(kept.size())};
    const DeviceArray<int32_t> device_count(live);
    // Room beyond the live ones, as a graph has: what lies there is not read.
    kept.resize(kept.size() + 300, {kSlots, kLayers, kMaxPages, -1});
    const DeviceArray<PageTableEntry> device_updates(kept);
    SetPageTable({.entries = device_table.data(),
                  .num_layers = kLayers,
                  .max_pages = kMaxPages,
                  .updates = device_updates.data(),
                  .count = device_count.data(),
                  .capacity = static_cast<int64_t>(kept.size())},
                 launch());
    ASSERT_EQ(device_table.Get(), table) << "step " << step;
  }
}

// A decode step's chain in a graph gives what the calls alone give: nobody begins too early.
TEST(ElementwiseGraphGpuTest, AChainOfDependentLaunchesIsInOrder) {
  if (!testing::HasProgrammaticLaunch()) GTEST_SKIP() << "needs compute capability 9.0";
  constexpr int64_t kRows = 64, kHidden = 2048;
  constexpr int kLinks = 200;
  std::mt19937 random(7);
  const std::vector<float> start = RandomFloats(random, kRows * kHidden);
  const std::vector<float> weight = RandomFloats(random, kHidden, 1);
  const DeviceArray<float> device_weight(weight);
  const auto run = [&](bool programmatic, bool graph) {
    TestStream stream;
    const DeviceArray<float> residual(start);
    const DeviceArray<Bf16> a(kRows * kHidden, 0), b(kRows * kHidden / 2, 0);
    const auto enqueue = [&] {
      const Launch launch{.stream = stream, .programmatic = programmatic};
      for (int i = 0; i < kLinks; ++i) {
        AddNorm({.residual = residual.data(),
                 .residual_type = DataType::kF32,
                 .delta = i == 0 ? nullptr : a.data(),
                 .weight = device_weight.data(),
                 .out = a.data(),
                 .rows = kRows,
                 .hidden = kHidden,
                 .epsilon = 1e-6f},
                launch);
        SiluMul({.gate_up = a.data(), .out = b.data(), .rows = kRows, .width = kHidden / 2},
                launch);
      }
    };
    if (graph) {
      cudaGraph_t captured;
      cudaGraphExec_t exec;
      SWAA_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
      enqueue();
      SWAA_CUDA_CHECK(cudaStreamEndCapture(stream, &captured));
      SWAA_CUDA_CHECK(cudaGraphInstantiate(&exec, captured, 0));
      SWAA_CUDA_CHECK(cudaGraphLaunch(exec, stream));
      stream.Wait();
      SWAA_CUDA_CHECK(cudaGraphExecDestroy(exec));
      SWAA_CUDA_CHECK(cudaGraphDestroy(captured));
    } else {
      enqueue();
    }
    std::vector<double> all = Doubles(residual.Get());
    const std::vector<double> last = Doubles(b.Get());
    all.insert(all.end(), last.begin(), last.end());
    return all;
  };
  const std::vector<double> want = run(false, false);
  EXPECT_EQ(run(true, false), want);
  EXPECT_EQ(run(false, true), want);
  EXPECT_EQ(run(true, true), want);
}

}  // namespace
}  // namespace swaa::kernels::cuda
