// Products of the CPU backend against the double-precision reference: every row count, odd sizes,
// bias, accumulation, output types.

#include "kernels/cpu/linear.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_weight.h"
#include "kernels/cpu/onednn_matmul.h"
#include "kernels/reference/operators.h"
#include "tests/unit/kernels/operators_fixture.h"
#include "tests/unit/testing/seed.h"

namespace swaa::kernels {
namespace {

struct Shape {
  int64_t in;
  int64_t out;
};

// What f16 holds exactly, as long as it is not tiny.
float RoundToTenBits(float value) {
  int exponent = 0;
  const float fraction = std::frexp(value, &exponent);
  return std::ldexp(std::nearbyint(fraction * 1024), exponent - 10);
}

class LinearTest : public OperatorsFixture {
 protected:
  RowReader ReaderOf(const std::vector<double>& values, int64_t columns) {
    return [&values, columns](int64_t first_row, int64_t count, float* out) {
      for (int64_t i = 0; i < count * columns; ++i) {
        out[i] = static_cast<float>(values[first_row * columns + i]);
      }
    };
  }

  // One weight for many products, of values that a packed weight holds exactly.
  void Prepare(const Shape& shape) {
    Prepare(shape, Random(shape.in * shape.out, 1 / std::sqrt(shape.in), /*round=*/true));
  }

  void Prepare(const Shape& shape, std::vector<double> values) {
    shape_ = shape;
    weight_values_ = std::move(values);
    bias_values_ = Random(shape.out);
    bias_ = Upload(bias_values_, DataType::kF32);
    // In two parts, as products that share an input are packed.
    const int64_t above = shape.out / 3;
    const RowReader read = ReaderOf(weight_values_, shape.in);
    const HostRows parts[] = {
        {above, read},
        {shape.out - above, [read, above](int64_t first_row, int64_t count, float* out) {
           read(above + first_row, count, out);
         }}};
    auto weight = operators_->PackWeight(parts, shape.in);
    ASSERT_TRUE(weight.ok()) << weight.status();
    weight_ = std::move(*weight);
    EXPECT_EQ(weight_->in_features(), shape.in);
    EXPECT_EQ(weight_->out_features(), shape.out);
    EXPECT_GE(weight_->bytes(), shape.in * shape.out * SizeOf(operators_->precision().weights));
  }

  // Every group of inputs of an output quantised by itself, with up to so many levels above the
  // lowest; min and step in f16 or not.
  std::vector<double> AffineValues(const Shape& shape, int group_inputs, int levels,
                                   bool f16 = false) {
    std::uniform_real_distribution<float> uniform(0.5f, 2.0f);
    std::uniform_int_distribution<int> level(0, levels);
    std::vector<double> values;
    for (int64_t o = 0; o < shape.out; ++o) {
      float min = 0, step = 0;
      for (int64_t i = 0; i < shape.in; ++i) {
        if (i % group_inputs == 0) {
          min = -uniform(random_) / std::sqrt(static_cast<float>(shape.in));
          step = -min * uniform(random_) / static_cast<float>(levels);
          if (f16) {
            min = RoundToTenBits(min);
            step = RoundToTenBits(step);
          }
        }
        // Every group has its min, as quantisers make them: a few values that all cancel against it
        // would be too small to show their levels.
        const int chosen = i % group_inputs == 0 ? 0 : level(random_);
        values.push_back(min + step * static_cast<float>(chosen));
      }
    }
    return values;
  }

  static constexpr const char* kNoSkinnyProducts =
      "they need weights of bf16 and a processor with avx512_bf16";
  bool has_skinny_products() const {
    return activations() == DataType::kBf16 && cpu::HasBf16Products();
  }

  void Check(int64_t rows, bool bias, DataType out_type, double absolute = 2e-5) {
    const std::string what =
        absl::StrCat(rows, " x ", shape_.in, " x ", shape_.out, bias ? ", bias" : "",
                     out_type == DataType::kBf16 ? ", bf16 out" : "");
    const int64_t padded = operators_->PaddedRows(rows);
    const auto x_values = Random(rows * shape_.in, 1, /*round=*/true);
    const auto before = Random(rows * shape_.out);
    auto expected = reference::Linear(x_values, weight_values_,
                                      bias ? bias_values_ : std::vector<double>{}, shape_.in);
    // Rows of padding are NaN and must change nothing; past the room nothing may be written.
    auto x = Upload(x_values, activations(), padded * shape_.in);
    const int64_t room = padded * shape_.out;
    auto out = Upload(before, out_type, room + 64);
    operators_->Linear({.weight = weight_.get(),
                        .x = x->data(),
                        .bias = bias ? Floats(bias_) : nullptr,
                        .out = out->data(),
                        .out_type = out_type,
                        .rows = rows});
    ExpectNear(*out, out_type, expected, 2e-5, absolute, what);
    for (int64_t i = room; i < room + 64; ++i) {
      ASSERT_TRUE(std::isnan(Read(*out, out_type, i))) << what << ": written past the room";
    }
  }

  Shape shape_{};
  std::vector<double> weight_values_, bias_values_;
  std::unique_ptr<Buffer> bias_;
  std::unique_ptr<Weight> weight_;
};

TEST_P(LinearTest, EveryRowCount) {
  Prepare({96, 80});
  for (int64_t rows = 1; rows <= 70; ++rows) {
    Check(rows, rows % 2 == 0, DataType::kF32);
    if (HasFatalFailure()) return;
  }
}

TEST_P(LinearTest, OddShapes) {
  for (const Shape& shape : {Shape{1, 1},
                             {2, 3},
                             {33, 50},
                             {64, 17},
                             {31, 64},
                             {100, 131},
                             {576, 1100},
                             {129, 1030},
                             {48, 47}}) {
    Prepare(shape);
    for (int64_t rows : {1, 2, 3, 4, 5, 7, 8, 9, 17, 66}) {
      for (bool bias : {false, true}) {
        Check(rows, bias, DataType::kF32);
        Check(rows, bias, activations());
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(LinearTest, ManyRows) {
  Prepare({64, 192});
  for (int64_t rows : {127, 200, 333, 512, 513, 700}) {
    Check(rows, true, DataType::kF32);
    Check(rows, false, activations());
    if (HasFatalFailure()) return;
  }
}

// Weights that bf16 would round: skinny products must be as near as f32 brings them.
TEST_P(LinearTest, SkinnyProductsOfAffineWeightsAreExact) {
  if (!has_skinny_products()) GTEST_SKIP() << "no skinny products here: " << kNoSkinnyProducts;
  struct Format {
    int group_inputs, levels;
    bool f16;
  };
  for (const Format& format : {Format{32, 15, false},
                               {32, 15, true},
                               {32, 255, false},
                               {32, 255, true},
                               {16, 255, false},
                               {16, 255, true}}) {
    for (const Shape& shape : {Shape{1, 1}, {33, 50}, {32, 16}, {31, 64}, {100, 131}, {1000, 48}}) {
      SCOPED_TRACE(absl::StrCat("groups of ", format.group_inputs, ", ", format.levels,
                                format.f16 ? " levels, f16" : " levels"));
      Prepare(shape, AffineValues(shape, format.group_inputs, format.levels, format.f16));
      for (int64_t rows = 1; rows <= cpu::ProductChoice{}.affine_rows; ++rows) {
        for (bool bias : {false, true}) {
          Check(rows, bias, DataType::kF32);
          Check(rows, bias, activations());
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST_P(LinearTest, ManyRowsOfAffineWeightsAreRounded) {
  const Shape shape{100, 131};
  Prepare(shape, AffineValues(shape, 32, 15));
  for (int64_t rows : {cpu::kMaxSkinnyRows + 1, int64_t{70}}) {
    Check(rows, true, DataType::kF32, activations() == DataType::kBf16 ? 0.03 : 2e-5);
    if (HasFatalFailure()) return;
  }
}

TEST_P(LinearTest, OnlyAffineWeightsHaveASecondForm) {
  const Shape shape{64, 192};
  Prepare(shape);
  const int64_t packed = weight_->bytes();
  EXPECT_EQ(packed, shape.in * shape.out * SizeOf(operators_->precision().weights));
  Prepare(shape, AffineValues(shape, 32, 15));
  const int64_t weights = has_skinny_products() ? shape.in * shape.out : 0;
  EXPECT_EQ(weight_->bytes(), packed + weights * 3 / 4);
  Prepare(shape, AffineValues(shape, 32, 15, /*f16=*/true));
  EXPECT_EQ(weight_->bytes(), packed + weights * 5 / 8);
}

TEST_P(LinearTest, NoRowsDoNothing) {
  Prepare({16, 16});
  operators_->Linear({.weight = weight_.get()});
}

TEST_P(LinearTest, PaddedRowsCoverAndNeverFall) {
  int64_t previous = 0;
  for (int64_t rows = 1; rows < 3000; ++rows) {
    const int64_t padded = operators_->PaddedRows(rows);
    ASSERT_GE(padded, rows);
    ASSERT_GE(padded, previous);
    ASSERT_LT(padded, rows + 128);
    previous = padded;
  }
}

// A layout that suits many rows only would make oneDNN fall back to its reference product, orders
// of magnitude slower.
TEST_P(LinearTest, NoRowCountFallsBackToOneDnnsReference) {
  const DataType type = operators_->precision().weights;
  auto matmul = cpu::OneDnnMatmul::Create(type);
  const std::vector<double> values = Random(576 * 960);
  auto weight = matmul->Pack(960, 576, ReaderOf(values, 576));
  ASSERT_TRUE(weight.ok()) << weight.status();
  for (int64_t rows : {1, 16, 64, 512}) {
    const std::string name = matmul->Implementation({.weight = weight->get()}, rows);
    EXPECT_EQ(name.find("ref"), std::string::npos) << rows << " rows: " << name;
  }
}

// Values that bf16 holds exactly, so that all forms multiply the same weight: levels of 4 or 8
// bits, whose step is another in every second group of `group_inputs`.
std::vector<float> ExactValues(const Shape& shape, int levels, int group_inputs, float scale,
                               std::mt19937* random) {
  std::vector<float> values(shape.in * shape.out);
  for (size_t i = 0; i < values.size(); ++i) {
    const bool odd = i % shape.in / group_inputs % 2 != 0;
    const auto level = static_cast<float>((*random)() % levels);
    values[i] = (level - static_cast<float>(levels / 2)) * (odd ? 0.125f : 1) * scale;
  }
  return values;
}

// Whatever is measured: every form that a weight has, at every row count that it may get.
TEST(SkinnyFormsTest, EveryFormOfAWeightAgrees) {
  if (!cpu::HasBf16Products()) GTEST_SKIP() << "no skinny products without avx512_bf16";
  const uint32_t seed = testing::Seed();
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  auto linear = cpu::CpuLinear::Create(DataType::kBf16, /*skinny=*/true, /*threads=*/2);
  struct Format {
    int levels, group_inputs;
    float scale;  // 2^-30: f16 cannot hold the step
  };
  for (const Format& format : {Format{16, 32, 0.125f},
                               {16, 32, 0x1p-30f},
                               {256, 32, 0.125f},
                               {256, 32, 0x1p-30f},
                               {256, 16, 0.125f},
                               {256, 16, 0x1p-30f}}) {
    for (const Shape& shape : {Shape{64, 100}, {96, 16}, {33, 50}, {576, 192}}) {
      const std::vector<float> values =
          ExactValues(shape, format.levels, format.group_inputs, format.scale, &random);
      auto weight =
          linear->Pack(shape.out, shape.in, [&](int64_t first_row, int64_t count, float* out) {
            std::copy_n(values.begin() + first_row * shape.in, count * shape.in, out);
          });
      ASSERT_TRUE(weight.ok()) << weight.status();
      if (shape.in > 2 * format.group_inputs) {  // else one step may hold all of them
        const auto& affine = static_cast<const cpu::CpuWeight&>(**weight).affine();
        ASSERT_TRUE(affine.has_value());
        EXPECT_EQ(affine->format.level_bits, format.levels == 16 ? 4 : 8);
        EXPECT_EQ(affine->format.group_inputs, format.group_inputs);
        EXPECT_EQ(affine->format.f16, format.scale == 0.125f);
      }
      const float tolerance = 3e-4f * static_cast<float>(format.levels) * format.scale;
      for (int64_t rows = 1; rows <= cpu::kMaxSkinnyRows; ++rows) {
        SCOPED_TRACE(absl::StrCat("seed ", seed, ": ", rows, " x ", shape.in, " x ", shape.out,
                                  ", ", format.levels, " levels, groups of ", format.group_inputs,
                                  ", scale ", format.scale));
        std::vector<Bf16> x(cpu::CpuLinear::PaddedRows(rows) * shape.in);
        for (Bf16& value : x) value = ToBf16(normal(random));
        std::vector<float> outs[cpu::kProductForms];
        for (int form = 0; form < cpu::kProductForms; ++form) {
          // oneDNN makes a primitive for each, and sees no difference between formats.
          if (form == static_cast<int>(cpu::ProductForm::kOneDnn) && format.levels != 16) continue;
          outs[form].resize(cpu::CpuLinear::PaddedRows(rows) * shape.out);
          linear->RunAs(
              {.weight = weight->get(), .x = x.data(), .out = outs[form].data(), .rows = rows},
              static_cast<cpu::ProductForm>(form));
          for (int64_t i = 0; i < rows * shape.out; ++i) {
            ASSERT_NEAR(outs[form][i], outs[0][i], tolerance) << "form " << form << " at " << i;
          }
        }
        double expected = 0;
        for (int64_t i = 0; i < shape.in; ++i) {
          expected += ToFloat(x[(rows - 1) * shape.in + i]) *
                      static_cast<double>(values[(shape.out - 1) * shape.in + i]);
        }
        ASSERT_NEAR(outs[0][rows * shape.out - 1], expected, tolerance);
      }
    }
  }
}

// A weight large enough is measured while packing; small ones of its kind follow.
TEST(SkinnyFormsTest, ALargeWeightDecidesForItsKind) {
  if (!cpu::HasBf16Products()) GTEST_SKIP() << "no skinny products without avx512_bf16";
  auto linear = cpu::CpuLinear::Create(DataType::kBf16, /*skinny=*/true, /*threads=*/2);
  const auto pack = [&](int64_t out, int64_t in) {
    auto weight = linear->Pack(out, in, [&](int64_t first_row, int64_t count, float* values) {
      for (int64_t i = 0; i < count * in; ++i) {
        values[i] = static_cast<float>((first_row * in + i) * 7919 % 16) * 0.125f - 1;
      }
    });
    EXPECT_TRUE(weight.ok()) << weight.status();
    return std::move(*weight);
  };
  const auto before = pack(64, 64), large = pack(2048, 576), after = pack(64, 64);
  for (int64_t rows = 1; rows <= cpu::kMaxSkinnyRows + 1; ++rows) {
    EXPECT_EQ(linear->FormFor(*before, rows), linear->FormFor(*large, rows)) << rows;
    EXPECT_EQ(linear->FormFor(*after, rows), linear->FormFor(*large, rows)) << rows;
  }
  EXPECT_EQ(linear->FormFor(*large, cpu::kMaxSkinnyRows + 1), cpu::ProductForm::kOneDnn);
}

INSTANTIATE_TEST_SUITE_P(Cpu, LinearTest, ::testing::ValuesIn(Variants()), NameOf);

}  // namespace
}  // namespace swaa::kernels
