// Adapters' products of the CPU backend against the double-precision reference, on every
// instruction set of this machine, and the grouping of rows by adapter.

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/adapter_rows.h"
#include "kernels/operators.h"
#include "kernels/reference/operators.h"
#include "tests/unit/kernels/operators_fixture.h"

namespace swaa::kernels {
namespace {

TEST(AdapterRows, AreGroupedByAdapterInOrder) {
  const std::vector<int32_t> tokens(9);
  const SequenceRows sequences[] = {
      {0, 0, 2, 0}, {1, 2, 1, 0}, {2, 3, 3, 0}, {3, 6, 2, 0}, {4, 8, 1, 0}};
  const int16_t adapters[] = {2, -1, 0, 2, 0};
  const StepInput input{.tokens = tokens, .sequences = sequences, .sequence_adapters = adapters};
  AdapterRows all, wanted;
  const std::vector<int32_t> wanted_rows = {1, 2, 5, 8};
  GroupRowsByAdapter(input, wanted_rows, &all, &wanted);
  EXPECT_THAT(all.rows, ::testing::ElementsAre(3, 4, 5, 8, 0, 1, 6, 7));
  ASSERT_EQ(all.groups.size(), 2u);  // no row has adapter 1
  EXPECT_EQ(all.groups[0].adapter, 0);
  EXPECT_EQ(all.groups[0].count, 4);
  EXPECT_EQ(all.groups[1].adapter, 2);
  EXPECT_EQ(all.groups[1].first, 4);
  EXPECT_THAT(wanted.rows, ::testing::ElementsAre(2, 3, 0));  // places among the wanted
  ASSERT_EQ(wanted.groups.size(), 2u);
  EXPECT_EQ(wanted.groups[1].count, 1);

  GroupRowsByAdapter({.tokens = tokens, .sequences = sequences}, wanted_rows, &all, &wanted);
  EXPECT_TRUE(all.rows.empty() && all.groups.empty());
  EXPECT_TRUE(wanted.rows.empty() && wanted.groups.empty());
}

// A part with its values.
struct Part {
  int64_t first_output;
  int64_t outputs;
  int64_t rank;
  std::vector<double> down;
  std::vector<double> up;
};

RowReader ReaderOf(const std::vector<double>& values, int64_t columns) {
  return [&values, columns](int64_t first_row, int64_t count, float* out) {
    std::copy_n(values.begin() + first_row * columns, count * columns, out);
  };
}

class LoraTest : public OperatorsFixture {
 protected:
  static constexpr int32_t kSlots = 64;

  // Steps of one-row sequences are all that these tests compute.
  void Prepare(int64_t in, int64_t out) {
    in_ = in;
    out_ = out;
    ASSERT_TRUE(operators_
                    ->PrepareSteps({.model = {.num_layers = 1,
                                              .hidden = 32,
                                              .ffn_width = 32,
                                              .heads = 1,
                                              .kv_heads = 1,
                                              .head_dim = 32,
                                              .attention_scale = 1,
                                              .vocab = 16},
                                    .num_pages = 2,
                                    .num_slots = kSlots,
                                    .max_pages_per_layer = 1,
                                    .max_rows = kSlots,
                                    .max_logits_rows = kSlots})
                    .ok());
    weight_values_ = Random(in * out, 0.1, /*round=*/true);
    const HostRows rows[] = {{out, ReaderOf(weight_values_, in)}};
    auto weight = operators_->PackWeight(rows, in);
    ASSERT_TRUE(weight.ok()) << weight.status();
    weight_ = std::move(*weight);
  }

  // Rounded as weights are, so that packing loses nothing.
  Part RandomPart(int64_t first_output, int64_t outputs, int64_t rank) {
    return {first_output, outputs, rank, Random(rank * in_, 0.3, true),
            Random(outputs * rank, 0.3, true)};
  }

  std::unique_ptr<LoraWeight> Pack(const std::vector<Part>& parts) {
    LoraSpec spec{.in_features = in_};
    for (const Part& part : parts) {
      spec.parts.push_back({.first_output = part.first_output,
                            .outputs = part.outputs,
                            .rank = part.rank,
                            .down = ReaderOf(part.down, in_),
                            .up = ReaderOf(part.up, part.rank)});
    }
    auto packed = operators_->PackLora(std::span(&spec, 1));
    EXPECT_TRUE(packed.ok()) << packed.status();
    return std::move(packed->front());
  }

  // A step of one row a sequence, whose adapters change one product; the logits of `wanted` rows
  // are wanted.
  StagedStep* Stage(const std::vector<int16_t>& adapters, const std::vector<int32_t>& wanted,
                    const std::vector<const LoraWeight*>& weights) {
    std::vector<SequenceRows> sequences;
    for (size_t i = 0; i < adapters.size(); ++i) {
      const auto row = static_cast<int32_t>(i);
      sequences.push_back({.slot = row, .first_row = row, .query_count = 1, .first_position = 0});
    }
    std::vector<LogitsRow> logits;
    for (const int32_t row : wanted) logits.push_back({.row = row, .slot = row});
    const std::vector<int32_t> tokens(adapters.size());
    const std::vector<KeySpan> spans(adapters.size());
    const uint8_t layer_class[] = {0};
    std::vector<std::span<const LoraWeight* const>> loaded;
    for (const LoraWeight* const& weight : weights) loaded.emplace_back(&weight, 1);
    return operators_->Stage({.tokens = tokens,
                              .sequences = sequences,
                              .layer_class = layer_class,
                              .spans = spans,
                              .logits = logits,
                              .sequence_adapters = adapters,
                              .adapters = loaded});
  }

  // The product of the rows, each with what its adapter adds.
  std::vector<double> Expected(const std::vector<double>& x, const std::vector<int32_t>& rows,
                               const std::vector<int16_t>& adapters,
                               const std::vector<std::vector<Part>>& parts) {
    std::vector<double> expected = reference::Linear(x, weight_values_, {}, in_);
    for (size_t i = 0; i < rows.size(); ++i) {
      if (adapters[rows[i]] < 0) continue;
      for (const Part& part : parts[adapters[rows[i]]]) {
        const auto added =
            reference::LowRank(std::span(x).subspan(i * in_, in_), part.down, part.up);
        for (int64_t o = 0; o < part.outputs; ++o) {
          expected[i * out_ + part.first_output + o] += added[o];
        }
      }
    }
    return expected;
  }

  int64_t in_ = 0;
  int64_t out_ = 0;
  std::vector<double> weight_values_;
  std::unique_ptr<Weight> weight_;
};

TEST_P(LoraTest, EachRowGetsItsOwnAdapters) {
  for (const auto& [in, out] : {std::pair<int64_t, int64_t>{40, 70}, {97, 200}, {576, 960}}) {
    Prepare(in, out);
    // Parts as qkv has them; one rank for all and one for each; and an adapter that changes a part
    // of the product alone.
    const std::vector<std::vector<Part>> parts = {
        {RandomPart(0, out - 40, 8), RandomPart(out - 40, 20, 8), RandomPart(out - 20, 20, 8)},
        {RandomPart(0, out, 1)},
        {RandomPart(5, 33, 17), RandomPart(out - 3, 3, 40)},
    };
    std::vector<std::unique_ptr<LoraWeight>> owned;
    std::vector<const LoraWeight*> packed;
    for (const auto& one : parts) {
      owned.push_back(Pack(one));
      packed.push_back(owned.back().get());
    }
    packed.push_back(nullptr);  // an adapter that leaves this weight alone
    auto with_nothing = parts;
    with_nothing.push_back({});
    for (const int32_t rows : {1, 2, 7, 48}) {
      std::vector<int16_t> adapters(rows);
      std::vector<int32_t> all(rows), wanted;
      for (int32_t r = 0; r < rows; ++r) {
        adapters[r] = static_cast<int16_t>(static_cast<int>(random_() % 5) - 1);
        all[r] = r;
        if (random_() % 2 == 0) wanted.push_back(r);
      }
      StagedStep* step = Stage(adapters, wanted, packed);
      for (const bool of_wanted : {false, true}) {
        const std::vector<int32_t>& which = of_wanted ? wanted : all;
        const auto count = static_cast<int64_t>(which.size());
        if (count == 0) continue;
        const auto x_values = Random(count * in, 1, /*round=*/true);
        const int64_t padded = operators_->PaddedRows(count);
        auto x = Upload(x_values, activations(), padded * in);
        auto result = Upload({}, DataType::kF32, padded * out);
        const LoraUpdate update{.step = step, .wanted_rows = of_wanted};
        operators_->Linear({.weight = weight_.get(),
                            .x = x->data(),
                            .out = result->data(),
                            .rows = count,
                            .lora = &update});
        ExpectNear(*result, DataType::kF32, Expected(x_values, which, adapters, with_nothing), 2e-5,
                   5e-4, absl::StrCat(rows, " rows of ", in, " x ", out));
      }
    }
  }
}

TEST_P(LoraTest, GatedProductsAreAdaptedBeforeTheGate) {
  const int64_t in = 40, width = 48;
  Prepare(in, 2 * width);
  const std::vector<std::vector<Part>> parts = {
      {RandomPart(0, width, 4), RandomPart(width, width, 4)}, {RandomPart(width, width, 20)}};
  const auto first = Pack(parts[0]), second = Pack(parts[1]);
  const std::vector<const LoraWeight*> packed = {first.get(), second.get()};
  const std::vector<int16_t> adapters = {1, -1, 0, 0, 1};
  StagedStep* step = Stage(adapters, {}, packed);
  const auto x_values = Random(5 * in, 1, /*round=*/true);
  const int64_t padded = operators_->PaddedRows(5);
  auto x = Upload(x_values, activations(), padded * in);
  auto scratch = Upload({}, activations(), padded * 2 * width);
  auto result = Upload({}, activations(), padded * width);
  const LoraUpdate update{.step = step};
  operators_->GatedLinear({.weight = weight_.get(),
                           .x = x->data(),
                           .scratch = scratch->data(),
                           .out = result->data(),
                           .rows = 5,
                           .lora = &update});
  const auto gate_up = Expected(x_values, {0, 1, 2, 3, 4}, adapters, parts);
  // In bf16 the product is rounded before and after the adapters' part of it.
  const bool bf16 = activations() == DataType::kBf16;
  ExpectNear(*result, activations(), reference::SiluMul(gate_up, width), bf16 ? 0.05 : 1e-4,
             bf16 ? 0.05 : 1e-4, "gated");
}

TEST_P(LoraTest, ARowsSumDoesNotDependOnItsCompany) {
  Prepare(300, 130);
  const auto lora = Pack({RandomPart(0, 130, 16)});
  const std::vector<const LoraWeight*> packed = {lora.get()};
  const auto row = Random(300, 1, /*round=*/true);
  std::optional<std::vector<float>> alone;
  for (const int64_t rows : {1, 2, 3, 4, 5, 40}) {
    std::vector<double> x_values;
    for (int64_t r = 0; r < rows; ++r) x_values.insert(x_values.end(), row.begin(), row.end());
    StagedStep* step = Stage(std::vector<int16_t>(rows, 0), {}, packed);
    const int64_t padded = operators_->PaddedRows(rows);
    auto x = Upload(x_values, activations(), padded * 300);
    auto out = Upload({}, DataType::kF32, padded * 130);
    // The base product's bits depend on the number of rows: it is taken away.
    auto base = Upload({}, DataType::kF32, padded * 130);
    const LoraUpdate update{.step = step};
    LinearParams params{.weight = weight_.get(), .x = x->data(), .out = base->data(), .rows = rows};
    operators_->Linear(params);
    params.out = out->data();
    params.lora = &update;
    operators_->Linear(params);
    std::vector<float> added(130);
    for (int64_t o = 0; o < 130; ++o) {
      added[o] = Floats(out)[(rows - 1) * 130 + o] - Floats(base)[(rows - 1) * 130 + o];
    }
    if (!alone.has_value()) alone = added;
    for (int64_t o = 0; o < 130; ++o) ASSERT_NEAR(added[o], (*alone)[o], 1e-5) << rows;
  }
}

TEST_P(LoraTest, MemoryIsCountedAndGivenBack) {
  Prepare(64, 64);
  const int64_t before = operators_->Memory().weights;
  auto lora = Pack({RandomPart(0, 64, 16)});
  EXPECT_EQ(operators_->Memory().weights - before, lora->bytes());
  EXPECT_GE(lora->bytes(), 2 * 64 * 16 * SizeOf(operators_->precision().weights));
  lora.reset();
  EXPECT_EQ(operators_->Memory().weights, before);
}

INSTANTIATE_TEST_SUITE_P(All, LoraTest, ::testing::ValuesIn(Variants()), NameOf);

}  // namespace
}  // namespace swaa::kernels
