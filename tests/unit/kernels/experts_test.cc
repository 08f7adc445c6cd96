// Mixtures of experts of the CPU backend against the double-precision reference.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/reference/operators.h"
#include "tests/unit/kernels/operators_fixture.h"

namespace swaa::kernels {
namespace {

class ExpertsTest : public OperatorsFixture {
 protected:
  // Experts whose weights a packed weight holds exactly; every other one of few levels, as
  // quantised files have them.
  void Prepare(const ExpertsShape& shape) {
    shape_ = shape;
    values_.clear();
    weights_.clear();
    experts_.clear();
    for (int32_t e = 0; e < shape.count; ++e) {
      values_.push_back(Values(2 * shape.width, shape.hidden, e % 2 == 1));
      const Weight* gate_up = Pack(values_.back(), shape.hidden);
      values_.push_back(Values(shape.hidden, shape.width, e % 2 == 1));
      experts_.push_back({gate_up, Pack(values_.back(), shape.width)});
    }
  }

  std::vector<double> Values(int64_t rows, int64_t columns, bool levels) {
    const double scale = 1 / std::sqrt(static_cast<double>(columns));
    std::vector<double> values = Random(rows * columns, scale, /*round=*/true);
    if (!levels) return values;
    for (double& value : values) value = std::clamp(std::round(value / scale * 4), -8.0, 7.0) / 64;
    return values;
  }

  const Weight* Pack(const std::vector<double>& values, int64_t columns) {
    const HostRows rows[] = {{static_cast<int64_t>(values.size()) / columns,
                              [&](int64_t first_row, int64_t count, float* out) {
                                const auto from = values.begin() + first_row * columns;
                                std::transform(from, from + count * columns, out,
                                               [](double v) { return static_cast<float>(v); });
                              }}};
    auto weight = operators_->PackWeight(rows, columns);
    EXPECT_TRUE(weight.ok()) << weight.status();
    weights_.push_back(std::move(*weight));
    return weights_.back().get();
  }

  // [rows, experts], in each row far enough apart for rounding to change no choice.
  std::vector<double> Logits(int64_t rows) {
    std::vector<double> logits(rows * shape_.count);
    for (int64_t r = 0; r < rows; ++r) {
      const auto row = logits.begin() + r * shape_.count;
      std::iota(row, row + shape_.count, 0);
      std::shuffle(row, row + shape_.count, random_);
      std::transform(row, row + shape_.count, row, [](double v) { return v / 8 - 1; });
    }
    return logits;
  }

  void Check(const std::vector<double>& logits, bool normalize) {
    const int64_t rows = logits.size() / shape_.count, hidden = shape_.hidden;
    const auto x_values = Random(rows * hidden, 1, /*round=*/true);
    const auto shares =
        reference::ExpertShares(logits, shape_.count, shape_.experts_per_row, normalize);
    std::vector<reference::Expert> experts;
    for (int32_t e = 0; e < shape_.count; ++e) {
      experts.push_back({values_[2 * e], values_[2 * e + 1]});
    }
    const auto expected = reference::Experts(x_values, shares, experts, hidden);
    auto x = Upload(x_values, activations());
    auto router = Upload(logits, DataType::kF32);
    const int64_t scratch_bytes = operators_->ExpertScratchBytes(shape_, rows);
    // Whatever the scratch holds; past its end, and the output's, nothing is written.
    auto scratch = Upload({}, DataType::kF32, scratch_bytes / 4 + 16);
    auto out = Upload({}, DataType::kF32, rows * hidden + 16);
    operators_->Experts({.experts = experts_,
                         .experts_per_row = shape_.experts_per_row,
                         .normalize = normalize,
                         .logits = Floats(router),
                         .x = x->data(),
                         .scratch = scratch->data(),
                         .out = out->data(),
                         .rows = rows});
    for (int64_t r = 0; r < rows; ++r) {
      double error = 0, norm = 0;
      for (int64_t i = r * hidden; i < (r + 1) * hidden; ++i) {
        const double difference = Read(*out, DataType::kF32, i) - expected[i];
        error += difference * difference;
        norm += expected[i] * expected[i];
      }
      // What gate, up and their product lose as bf16.
      ASSERT_LE(std::sqrt(error / norm), activations() == DataType::kBf16 ? 2e-2 : 1e-5)
          << "row " << r << " of " << rows << ", " << shape_.experts_per_row << " of "
          << shape_.count << " experts, hidden " << hidden << ", width " << shape_.width;
    }
    for (int64_t i = 0; i < 16; ++i) {
      ASSERT_TRUE(std::isnan(Read(*out, DataType::kF32, rows * hidden + i)));
      ASSERT_TRUE(std::isnan(Read(*scratch, DataType::kF32, scratch_bytes / 4 + i)));
    }
  }

  ExpertsShape shape_;
  std::vector<std::vector<double>> values_;  // gate_up, down of each expert
  std::vector<std::unique_ptr<Weight>> weights_;
  std::vector<ExpertWeights> experts_;
};

TEST_P(ExpertsTest, MatchTheReferenceForAnyShapeAndRowCount) {
  const struct {
    ExpertsShape shape;
    std::vector<int64_t> rows;
  } cases[] = {
      {{.hidden = 64, .width = 48, .count = 8, .experts_per_row = 2}, {1, 2, 9, 150}},
      {{.hidden = 33, .width = 17, .count = 5, .experts_per_row = 5}, {1, 40}},
      {{.hidden = 96, .width = 65, .count = 24, .experts_per_row = 7}, {3, 20}},
      {{.hidden = 16, .width = 8, .count = 1, .experts_per_row = 1}, {5}},
  };
  for (const auto& [shape, row_counts] : cases) {
    Prepare(shape);
    for (const int64_t rows : row_counts) Check(Logits(rows), /*normalize=*/rows % 2 == 0);
  }
}

TEST_P(ExpertsTest, AllRowsMayGoToTheSameExperts) {
  Prepare({.hidden = 64, .width = 48, .count = 8, .experts_per_row = 3});
  for (const int64_t rows : {5, 130}) {
    std::vector<double> logits = Logits(rows);
    for (int64_t r = 0; r < rows; ++r) {
      std::copy_n(logits.begin(), shape_.count, logits.begin() + r * shape_.count);
    }
    Check(logits, true);
  }
}

TEST_P(ExpertsTest, OthersThanTheChosenAreNotTouched) {
  Prepare({.hidden = 64, .width = 48, .count = 8, .experts_per_row = 2});
  // Of equal logits the lower experts' come first: here 3, then 0.
  std::vector<double> logits(4 * 8, 0.5);
  for (int64_t r = 0; r < 4; ++r) logits[r * 8 + 3] = 2;
  for (int32_t e = 0; e < 8; ++e) {
    if (e != 0 && e != 3) experts_[e] = {};
  }
  Check(logits, false);
}

INSTANTIATE_TEST_SUITE_P(All, ExpertsTest, ::testing::ValuesIn(Variants()), NameOf);

}  // namespace
}  // namespace swaa::kernels
