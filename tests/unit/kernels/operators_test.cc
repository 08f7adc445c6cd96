// The row-wise operators of the CPU backend against the double-precision reference, on every
// instruction set of this machine.

#include "kernels/reference/operators.h"

#include <algorithm>
#include <cmath>
#include <sched.h>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/threads.h"
#include "tests/unit/kernels/operators_fixture.h"

namespace swaa::kernels {
namespace {

constexpr int64_t kWidths[] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 63, 64, 65, 127, 576, 1001};

class OperatorsTest : public OperatorsFixture {};

TEST_P(OperatorsTest, RmsNorm) {
  for (int64_t hidden : kWidths) {
    for (int64_t rows : {1, 3, 40}) {
      const auto x_values = Random(rows * hidden, 3);
      const auto weight_values = Random(hidden);
      const float epsilon = 1e-5f;
      auto x = Upload(x_values, DataType::kF32);
      auto weight = Upload(weight_values, DataType::kF32);
      auto out = Upload({}, activations(), rows * hidden + 1);
      operators_->RmsNorm({Floats(x), Floats(weight), out->data(), rows, hidden, epsilon});
      ExpectNear(*out, activations(), reference::RmsNorm(x_values, weight_values, epsilon), 1e-5,
                 1e-7, absl::StrCat(rows, " x ", hidden));
      ASSERT_TRUE(std::isnan(Read(*out, activations(), rows * hidden)));
    }
  }
}

TEST_P(OperatorsTest, RmsNormOfZerosIsZero) {
  auto x = Upload(std::vector<double>(64, 0.0), DataType::kF32);
  auto weight = Upload(Random(64), DataType::kF32);
  auto out = Upload({}, activations(), 64);
  operators_->RmsNorm({Floats(x), Floats(weight), out->data(), 1, 64, 1e-5f});
  ExpectNear(*out, activations(), std::vector<double>(64, 0.0), 0, 0, "zeros");
}

TEST_P(OperatorsTest, SiluMul) {
  for (int64_t width : kWidths) {
    for (int64_t rows : {1, 3, 40}) {
      const auto values = Random(rows * 2 * width, 4, /*round=*/true);
      auto gate_up = Upload(values, activations());
      auto out = Upload({}, activations(), rows * width + 1);
      operators_->SiluMul(gate_up->data(), rows, width, out->data());
      ExpectNear(*out, activations(), reference::SiluMul(values, width), 2e-6, 1e-9,
                 absl::StrCat(rows, " x ", width));
      ASSERT_TRUE(std::isnan(Read(*out, activations(), rows * width)));
    }
  }
}

TEST_P(OperatorsTest, SiluMulOfLargeValues) {
  const std::vector<double> gates = {-1e4, -200, -100, -88, -50, 0, 50, 88, 100, 200, 1e4};
  std::vector<double> values = gates;
  values.insert(values.end(), gates.size(), 1.0);
  for (double& value : values) {
    if (activations() == DataType::kBf16) value = ToFloat(ToBf16(static_cast<float>(value)));
  }
  auto gate_up = Upload(values, activations());
  auto out = Upload({}, activations(), gates.size());
  operators_->SiluMul(gate_up->data(), 1, gates.size(), out->data());
  ExpectNear(*out, activations(), reference::SiluMul(values, gates.size()), 2e-6, 1e-30, "large");
}

TEST_P(OperatorsTest, EmbedGathersRowsRoundedAsWeights) {
  const int64_t vocab = 37, hidden = 65;
  const auto table = Random(vocab * hidden);
  auto embedding =
      operators_->MakeEmbedding(vocab, hidden, [&](int64_t first_row, int64_t count, float* out) {
        for (int64_t i = 0; i < count * hidden; ++i) {
          out[i] = static_cast<float>(table[first_row * hidden + i]);
        }
      });
  ASSERT_TRUE(embedding.ok());
  std::vector<int32_t> ids(300);
  for (int32_t& id : ids) id = static_cast<int32_t>(random_() % vocab);
  auto out = Allocate(ids.size() * hidden * 4);
  operators_->Embed(**embedding, ids, Floats(out));
  const bool bf16 = operators_->precision().weights == DataType::kBf16;
  for (size_t r = 0; r < ids.size(); ++r) {
    for (int64_t c = 0; c < hidden; ++c) {
      const auto value = static_cast<float>(table[ids[r] * hidden + c]);
      ASSERT_EQ(Floats(out)[r * hidden + c], bf16 ? ToFloat(ToBf16(value)) : value);
    }
  }
}

TEST_P(OperatorsTest, RopeTable) {
  std::vector<float> frequencies;
  for (int i = 0; i < 16; ++i) frequencies.push_back(std::pow(10000.f, -i / 16.f));
  const std::vector<int32_t> positions = {0, 1, 5, 63, 64, 4095};
  auto out = Allocate(positions.size() * 32 * 4);
  operators_->RopeTable(positions, frequencies, 0.5f, Floats(out));
  for (size_t r = 0; r < positions.size(); ++r) {
    for (size_t i = 0; i < 16; ++i) {
      // The angle is an f32: its rounding grows with the position.
      const double angle = static_cast<double>(positions[r]) * frequencies[i];
      const double bound = 1e-6 + angle * 6e-8;
      ASSERT_NEAR(Floats(out)[r * 32 + i], 0.5 * std::cos(angle), bound);
      ASSERT_NEAR(Floats(out)[r * 32 + 16 + i], 0.5 * std::sin(angle), bound);
    }
  }
}

TEST_P(OperatorsTest, GatherRows) {
  const int64_t width = 33;
  const auto values = Random(50 * width);
  auto x = Upload(values, DataType::kF32);
  const std::vector<int32_t> rows = {49, 0, 7, 7, 13};
  auto out = Allocate(rows.size() * width * 4);
  operators_->GatherRows(Floats(x), rows, width, Floats(out));
  for (size_t r = 0; r < rows.size(); ++r) {
    for (int64_t c = 0; c < width; ++c) {
      ASSERT_EQ(Floats(out)[r * width + c], static_cast<float>(values[rows[r] * width + c]));
    }
  }
}

// Rotation of two sequences with pages in a shuffled order, and what attention then reads: with a
// window of one key every row returns its own V.
class RopeAndStoreTest : public OperatorsFixture {
 protected:
  static constexpr int kHeads = 6, kKvHeads = 2, kHeadDim = 64, kLayers = 2, kMaxPages = 4;
  static constexpr int64_t kWidth = (kHeads + 2 * kKvHeads) * kHeadDim;

  void Run(bool norms, bool rotate_queries) {
    const std::vector<SequenceRows> sequences = {
        {.slot = 1, .first_row = 0, .query_count = 90, .first_position = 60},
        {.slot = 0, .first_row = 90, .query_count = 1, .first_position = 3}};
    const int64_t rows = 91;
    const std::vector<int32_t> table = {0, 0, 0, 0, 5, 0, 0, 0,   // slot 0, layers 0 and 1
                                        0, 0, 0, 0, 3, 1, 4, 0};  // slot 1
    std::vector<int32_t> positions;
    for (const auto& s : sequences) {
      for (int r = 0; r < s.query_count; ++r) positions.push_back(s.first_position + r);
    }
    std::vector<float> frequencies;
    for (int i = 0; i < kHeadDim / 2; ++i) frequencies.push_back(std::pow(500.f, -i / 32.f));
    auto cos_sin = Allocate(rows * kHeadDim * 4);
    operators_->RopeTable(positions, frequencies, 1.0f, Floats(cos_sin));
    const auto values = Random(rows * kWidth);
    auto qkv = Upload(values, DataType::kF32);
    const auto norm_values = Random(kHeadDim);
    auto norm = Upload(norm_values, DataType::kF32);
    const int64_t page_bytes = operators_->KvPageBytes(kKvHeads, kHeadDim);
    auto pool = Allocate(6 * page_bytes);
    const PageTableView view{table.data(), kLayers, kMaxPages};
    const PagePoolView pages{pool->data(), page_bytes};
    operators_->RopeAndStore({.qkv = Floats(qkv),
                              .cos_sin = Floats(cos_sin),
                              .q_norm = norms ? Floats(norm) : nullptr,
                              .k_norm = norms ? Floats(norm) : nullptr,
                              .norm_epsilon = 1e-6f,
                              .sequences = sequences,
                              .page_table = view,
                              .pages = pages,
                              .layer = 1,
                              .heads = kHeads,
                              .kv_heads = kKvHeads,
                              .head_dim = kHeadDim,
                              .rotate_queries = rotate_queries});
    CheckRotated(values, positions, frequencies, norms ? norm_values : std::vector<double>{},
                 rotate_queries, *qkv);
    CheckStored(values, sequences, view, pages, *qkv);
    EXPECT_TRUE(std::all_of(pool->data(), pool->data() + page_bytes,
                            [](std::byte b) { return b == std::byte{0}; }));
  }

  void CheckRotated(const std::vector<double>& values, const std::vector<int32_t>& positions,
                    const std::vector<float>& frequencies, const std::vector<double>& norm,
                    bool rotate_queries, const Buffer& qkv) {
    std::vector<double> expected = values;
    for (size_t r = 0; r < positions.size(); ++r) {
      const int first_head = rotate_queries ? 0 : kHeads;
      std::span<double> heads(expected.data() + r * kWidth + first_head * kHeadDim,
                              (kHeads + kKvHeads - first_head) * kHeadDim);
      if (!norm.empty()) {
        std::ranges::copy(reference::RmsNorm(heads, norm, 1e-6), heads.begin());
      }
      reference::Rope(heads, positions[r], frequencies);
    }
    ExpectNear(qkv, DataType::kF32, expected, 1e-4, 2e-4, "rotated");
  }

  void CheckStored(const std::vector<double>& values, const std::vector<SequenceRows>& sequences,
                   const PageTableView& table, const PagePoolView& pages, const Buffer& qkv) {
    const std::vector<KeySpan> spans(sequences.size(), {.window = 1, .sinks = 0});
    const int64_t rows = values.size() / kWidth;
    auto out = Allocate(rows * kHeads * kHeadDim * 4);
    operators_->Attention({.q = reinterpret_cast<const float*>(qkv.data()),
                           .q_stride = kWidth,
                           .out = out->data(),
                           .sequences = sequences,
                           .spans = spans.data(),
                           .span_stride = 1,
                           .page_table = table,
                           .pages = pages,
                           .layer = 1,
                           .heads = kHeads,
                           .kv_heads = kKvHeads,
                           .head_dim = kHeadDim,
                           .scale = 0.125f});
    std::vector<double> expected;
    for (int64_t r = 0; r < rows; ++r) {
      for (int h = 0; h < kHeads; ++h) {
        const double* v =
            &values[r * kWidth + (kHeads + kKvHeads + h / (kHeads / kKvHeads)) * kHeadDim];
        expected.insert(expected.end(), v, v + kHeadDim);
      }
    }
    // V may have been rounded to bf16 in the page.
    ExpectNear(*out, activations(), expected, 1.0 / 256 + 1e-5, 1e-6, "stored V");
  }
};

TEST_P(RopeAndStoreTest, RotatesAndStores) { Run(false, true); }
TEST_P(RopeAndStoreTest, NormsHeadsFirst) { Run(true, true); }
TEST_P(RopeAndStoreTest, LeavesQueriesThatNobodyWants) { Run(true, false); }

INSTANTIATE_TEST_SUITE_P(Cpu, OperatorsTest, testing::ValuesIn(Variants()), NameOf);
INSTANTIATE_TEST_SUITE_P(Cpu, RopeAndStoreTest, testing::ValuesIn(Variants()), NameOf);

TEST(AllocateTest, ZeroedAlignedAndWritable) {
  auto operators = CreateOperators({});
  ASSERT_TRUE(operators.ok());
  for (int64_t bytes : {int64_t{1}, int64_t{4096}, int64_t{5} << 20}) {
    auto buffer = (*operators)->Allocate(bytes);
    ASSERT_TRUE(buffer.ok());
    EXPECT_EQ((*buffer)->bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>((*buffer)->data()) % 64, 0u);
    EXPECT_TRUE(std::all_of((*buffer)->data(), (*buffer)->data() + bytes,
                            [](std::byte b) { return b == std::byte{0}; }));
    std::fill_n((*buffer)->data(), bytes, std::byte{1});
  }
  EXPECT_GT((*operators)->AvailableBytes(), 0);
}

TEST(CreateOperatorsTest, RefusesWhatItLacksAndListsWhatItHas) {
  struct Case {
    OperatorsOptions options;
    const char* message;
  };
  for (const Case& c : {Case{{.device = "tpu"}, "device: this build has no \"tpu\"; it has cpu"},
                        Case{{.dtype = "int3"}, "dtype: unknown value \"int3\"; use auto or f32"},
                        Case{{.threads = -1}, "threads: -1 is negative"},
                        Case{{.instruction_set = "mmx"}, "no \"mmx\"; it has auto, generic"}}) {
    auto operators = CreateOperators(c.options);
    EXPECT_EQ(operators.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(operators.status().message()), testing::HasSubstr(c.message));
  }
}

TEST(CreateOperatorsTest, TakesEveryProcessorThatItMayUseUnlessTold) {
  const auto threads_of = [](const OperatorsOptions& options) {
    auto operators = CreateOperators(options);
    EXPECT_TRUE(operators.ok()) << operators.status();
    return (*operators)->device_name();
  };
  EXPECT_THAT(threads_of({.threads = 3}), testing::EndsWith(", 3 threads"));
  EXPECT_THAT(threads_of({.threads = 1}), testing::EndsWith(", 1 thread"));
  const int all = cpu::AvailableProcessors();
  EXPECT_THAT(threads_of({}),
              testing::EndsWith(absl::StrCat(", ", all, all == 1 ? " thread" : " threads")));
  // In a thread that is bound to one processor.
  std::thread([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    EXPECT_THAT(threads_of({}), testing::EndsWith(", 1 thread"));
  }).join();
}

TEST(CreateOperatorsTest, PrecisionFollowsDtypeAndInstructionSet) {
  auto f32 = CreateOperators({.dtype = "f32"});
  ASSERT_TRUE(f32.ok());
  EXPECT_EQ((*f32)->precision().weights, DataType::kF32);
  EXPECT_EQ((*f32)->precision().activations, DataType::kF32);
  EXPECT_EQ((*f32)->precision().kv, DataType::kF32);
  auto plain = CreateOperators({.instruction_set = "generic"});
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ((*plain)->precision().weights, DataType::kF32);
  EXPECT_EQ((*plain)->precision().kv, DataType::kBf16);
  auto best = CreateOperators({});
  ASSERT_TRUE(best.ok());
  EXPECT_EQ((*best)->precision().weights == DataType::kBf16, cpu::HasBf16Products());
  EXPECT_THAT((*best)->device_name(),
              testing::HasSubstr(std::string(cpu::Name(cpu::BestInstructionSet()))));
}

}  // namespace
}  // namespace swaa::kernels
