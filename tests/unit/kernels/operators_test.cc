// The row-wise operators of the CPU backend against the double-precision reference, on every
// instruction set of this machine.

#include "kernels/reference/operators.h"

#include <algorithm>
#include <cmath>
#include <memory>
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

TEST_P(OperatorsTest, AddNorm) {
  for (int64_t hidden : kWidths) {
    for (int64_t rows : {1, 3, 40}) {
      for (bool with_delta : {false, true}) {
        const auto before = Random(rows * hidden, 3);
        const auto delta_values = Random(rows * hidden, 2);
        const auto weight_values = Random(hidden);
        const float epsilon = 1e-5f;
        auto sum = before;
        for (size_t i = 0; with_delta && i < sum.size(); ++i) {
          sum[i] = static_cast<float>(before[i]) + static_cast<float>(delta_values[i]);
        }
        auto residual = Upload(before, DataType::kF32, rows * hidden + 1);
        auto delta = Upload(delta_values, DataType::kF32);
        auto weight = Upload(weight_values, DataType::kF32);
        auto out = Upload({}, activations(), rows * hidden + 1);
        operators_->AddNorm({residual->data(), with_delta ? delta->data() : nullptr, Floats(weight),
                             out->data(), rows, hidden, epsilon});
        const std::string what = absl::StrCat(rows, " x ", hidden, with_delta ? ", delta" : "");
        ExpectNear(*residual, DataType::kF32, sum, 0, 0, what);
        ExpectNear(*out, activations(), reference::RmsNorm(sum, weight_values, epsilon), 1e-5, 1e-7,
                   what);
        ASSERT_TRUE(std::isnan(Read(*residual, DataType::kF32, rows * hidden)));
        ASSERT_TRUE(std::isnan(Read(*out, activations(), rows * hidden)));
      }
    }
  }
}

TEST_P(OperatorsTest, NormOfZerosIsZero) {
  auto residual = Upload(std::vector<double>(64, 0.0), DataType::kF32);
  auto weight = Upload(Random(64), DataType::kF32);
  auto out = Upload({}, activations(), 64);
  operators_->AddNorm({residual->data(), nullptr, Floats(weight), out->data(), 1, 64, 1e-5f});
  ExpectNear(*out, activations(), std::vector<double>(64, 0.0), 0, 0, "zeros");
}

// Through a weight whose gate half picks x's first half and whose up half picks its second, so that
// the products are exact.
class GatedLinearTest : public OperatorsFixture {
 protected:
  void Check(const std::vector<double>& values, int64_t width, double absolute) {
    const int64_t rows = values.size() / (2 * width), in = 2 * width;
    const RowReader identity = [in](int64_t first_row, int64_t count, float* out) {
      std::fill_n(out, count * in, 0.0f);
      for (int64_t r = 0; r < count; ++r) out[r * in + first_row + r] = 1;
    };
    const HostRows parts[] = {{in, identity}};
    auto weight = operators_->PackWeight(parts, in);
    ASSERT_TRUE(weight.ok()) << weight.status();
    const int64_t padded = operators_->PaddedRows(rows);
    auto x = Upload(values, activations(), padded * in);
    auto scratch = Upload({}, activations(), padded * in);
    auto out = Upload({}, activations(), rows * width + 1);
    operators_->GatedLinear({.weight = weight->get(),
                             .x = x->data(),
                             .scratch = scratch->data(),
                             .out = out->data(),
                             .rows = rows});
    ExpectNear(*out, activations(), reference::SiluMul(values, width), 2e-6, absolute,
               absl::StrCat(rows, " x ", width));
    ASSERT_TRUE(std::isnan(Read(*out, activations(), rows * width)));
  }
};

TEST_P(GatedLinearTest, EveryWidthAndRowCount) {
  for (int64_t width : {1, 2, 3, 7, 8, 15, 16, 17, 31, 63, 64, 65, 127, 257}) {
    for (int64_t rows : {1, 3, 40}) Check(Random(rows * 2 * width, 4, /*round=*/true), width, 1e-9);
  }
}

TEST_P(GatedLinearTest, LargeValues) {
  const std::vector<double> gates = {-1e4, -200, -100, -88, -50, 0, 50, 88, 100, 200, 1e4};
  std::vector<double> values = gates;
  values.insert(values.end(), gates.size(), 1.0);
  for (double& value : values) {
    if (activations() == DataType::kBf16) value = ToFloat(ToBf16(static_cast<float>(value)));
  }
  Check(values, static_cast<int64_t>(gates.size()), 1e-30);
}

// A model of small numbers, and steps of one sequence in slot 0 or 1.
class StepOperatorsTest : public OperatorsFixture {
 protected:
  static constexpr int32_t kSlots = 2, kMaxPages = 16, kVocab = 37;

  void Prepare(const ModelShape& shape) {
    shape_ = shape;
    const absl::Status status =
        operators_->PrepareSteps({.model = shape,
                                  .num_pages = 1 + kSlots * shape.num_layers * kMaxPages,
                                  .num_slots = kSlots,
                                  .max_pages_per_layer = kMaxPages,
                                  .max_rows = 1000,
                                  .max_logits_rows = 64});
    ASSERT_TRUE(status.ok()) << status;
  }

  // Rows of one class of spans.
  StagedStep* Stage(const std::vector<int32_t>& tokens, const std::vector<SequenceRows>& sequences,
                    const std::vector<LogitsRow>& logits, const KeySpan& span = {},
                    const std::vector<PageTableUpdate>& updates = {},
                    const std::vector<SlotSetup>& setups = {}) {
    const std::vector<uint8_t> layer_class(shape_.num_layers, 0);
    const std::vector<KeySpan> spans(sequences.size(), span);
    return operators_->Stage({tokens, sequences, layer_class, spans, updates, setups, logits});
  }

  auto MakeEmbedding(int64_t hidden, RowReader read) {
    return operators_->MakeEmbedding(nullptr, {kVocab, std::move(read)}, hidden);
  }

  ModelShape shape_;
};

TEST_P(StepOperatorsTest, EmbedGathersRowsRoundedAsWeights) {
  const int64_t hidden = 65;
  Prepare({.num_layers = 1,
           .hidden = hidden,
           .heads = 1,
           .kv_heads = 1,
           .head_dim = 32,
           .vocab = kVocab});
  const auto table = Random(kVocab * hidden);
  auto embedding = MakeEmbedding(hidden, [&](int64_t first_row, int64_t count, float* out) {
    for (int64_t i = 0; i < count * hidden; ++i) {
      out[i] = static_cast<float>(table[first_row * hidden + i]);
    }
  });
  ASSERT_TRUE(embedding.ok());
  std::vector<int32_t> ids(300);
  for (int32_t& id : ids) id = static_cast<int32_t>(random_() % kVocab);
  auto out = Allocate(ids.size() * hidden * 4);
  const StagedStep* step = Stage(ids, {{.query_count = 300}}, {});
  operators_->Embed(*step, **embedding, out->data());
  const bool bf16 = operators_->precision().weights == DataType::kBf16;
  for (size_t r = 0; r < ids.size(); ++r) {
    for (int64_t c = 0; c < hidden; ++c) {
      const auto value = static_cast<float>(table[ids[r] * hidden + c]);
      ASSERT_EQ(Floats(out)[r * hidden + c], bf16 ? ToFloat(ToBf16(value)) : value);
    }
  }
}

TEST_P(StepOperatorsTest, ADrawnTokenIsTheNextStepsInput) {
  const int64_t hidden = 4;
  Prepare({.num_layers = 1,
           .hidden = hidden,
           .heads = 1,
           .kv_heads = 1,
           .head_dim = 32,
           .vocab = kVocab});
  auto greedy = std::make_shared<SamplingParams>();
  greedy->temperature = 0;
  const std::vector<double> logits_values = Random(2 * kVocab);
  auto logits = Upload(logits_values, DataType::kF32);
  StagedStep* step =
      Stage({1, 2}, {{.slot = 1, .query_count = 1}, {.first_row = 1, .query_count = 1}},
            {{.row = 0, .slot = 1}, {.row = 1, .slot = 0, .known_token = 5}}, {}, {},
            {{.slot = 1, .sampling = greedy}});
  operators_->Sample(step, {.logits = Floats(logits), .first = 0, .count = 2});
  operators_->Submit(step);
  const auto output = operators_->Wait(step);
  ASSERT_TRUE(output.ok());
  const auto best = std::max_element(logits_values.begin(), logits_values.begin() + kVocab);
  const auto drawn = static_cast<int32_t>(best - logits_values.begin());
  EXPECT_EQ(output->tokens[0].token, drawn);
  EXPECT_EQ(output->tokens[1].token, 5);
  EXPECT_GE(output->seconds, 0);

  auto embedding = MakeEmbedding(hidden, [&](int64_t first_row, int64_t count, float* out) {
    for (int64_t i = 0; i < count * hidden; ++i) {
      out[i] = static_cast<float>(first_row + i / hidden);
    }
  });
  ASSERT_TRUE(embedding.ok());
  auto out = Allocate(hidden * 4);
  const StagedStep* next = Stage({kDrawnToken}, {{.slot = 1, .query_count = 1}}, {});
  operators_->Embed(*next, **embedding, out->data());
  EXPECT_EQ(Floats(out)[0], static_cast<float>(drawn));
}

TEST_P(StepOperatorsTest, RopeTable) {
  std::vector<double> frequencies;
  for (int i = 0; i < 16; ++i) frequencies.push_back(std::pow(10000.f, -i / 16.f));
  Prepare(
      {.num_layers = 1, .hidden = 32, .heads = 1, .kv_heads = 1, .head_dim = 32, .vocab = kVocab});
  auto device_frequencies = Upload(frequencies, DataType::kF32);
  const std::vector<int32_t> positions = {0, 1, 5, 63, 64, 1023};
  std::vector<SequenceRows> sequences;
  for (int32_t r = 0; r < static_cast<int32_t>(positions.size()); ++r) {
    sequences.push_back({.first_row = r, .query_count = 1, .first_position = positions[r]});
  }
  auto out = Allocate(positions.size() * 32 * 4);
  const StagedStep* step = Stage(std::vector<int32_t>(positions.size(), 0), sequences, {});
  operators_->RopeTable(*step, Floats(device_frequencies), 0.5f, Floats(out));
  for (size_t r = 0; r < positions.size(); ++r) {
    for (size_t i = 0; i < 16; ++i) {
      // The angle is an f32: its rounding grows with the position.
      const double angle = positions[r] * static_cast<double>(static_cast<float>(frequencies[i]));
      const double bound = 1e-6 + angle * 6e-8;
      ASSERT_NEAR(Floats(out)[r * 32 + i], 0.5 * std::cos(angle), bound);
      ASSERT_NEAR(Floats(out)[r * 32 + 16 + i], 0.5 * std::sin(angle), bound);
    }
  }
}

TEST_P(StepOperatorsTest, GatherWantedRows) {
  const int64_t width = 33;
  Prepare(
      {.num_layers = 1, .hidden = 32, .heads = 1, .kv_heads = 1, .head_dim = 32, .vocab = kVocab});
  const auto values = Random(50 * width);
  auto x = Upload(values, DataType::kF32);
  const std::vector<int32_t> rows = {0, 7, 8, 13, 49};
  std::vector<LogitsRow> logits;
  for (int32_t row : rows) logits.push_back({.row = row, .known_token = 0});
  const StagedStep* step = Stage(std::vector<int32_t>(50, 0), {{.query_count = 50}}, logits);
  EXPECT_EQ(step->rows(), 50);
  EXPECT_EQ(step->wanted_rows(), 5);
  EXPECT_FALSE(step->all_wanted());
  auto out = Allocate(rows.size() * width * 4);
  operators_->GatherWantedRows(*step, x->data(), width * 4, out->data());
  for (size_t r = 0; r < rows.size(); ++r) {
    for (int64_t c = 0; c < width; ++c) {
      ASSERT_EQ(Floats(out)[r * width + c], static_cast<float>(values[rows[r] * width + c]));
    }
  }
}

// Rotation of two sequences with pages in a shuffled order, and what attention then reads: with a
// window of one key every row returns its own V.
class RopeAndStoreTest : public StepOperatorsTest {
 protected:
  static constexpr int kHeads = 6, kKvHeads = 2, kHeadDim = 64;
  static constexpr int64_t kWidth = (kHeads + 2 * kKvHeads) * kHeadDim;

  void Run(bool norms, bool rotate_queries) {
    Prepare({.num_layers = 2,
             .hidden = 64,
             .heads = kHeads,
             .kv_heads = kKvHeads,
             .head_dim = kHeadDim,
             .attention_scale = 0.125f,
             .vocab = kVocab});
    const std::vector<SequenceRows> sequences = {
        {.slot = 1, .first_row = 0, .query_count = 90, .first_position = 60},
        {.slot = 0, .first_row = 90, .query_count = 1, .first_position = 3}};
    const int64_t rows = 91;
    const std::vector<PageTableUpdate> updates = {
        {0, 1, 0, 5}, {1, 1, 0, 3}, {1, 1, 1, 1}, {1, 1, 2, 4}};
    std::vector<int32_t> positions;
    for (const auto& s : sequences) {
      for (int r = 0; r < s.query_count; ++r) positions.push_back(s.first_position + r);
    }
    std::vector<float> frequencies;
    for (int i = 0; i < kHeadDim / 2; ++i) frequencies.push_back(std::pow(500.f, -i / 32.f));
    auto device_frequencies = Upload({frequencies.begin(), frequencies.end()}, DataType::kF32);
    auto cos_sin = Allocate(rows * kHeadDim * 4);
    // A window of one key.
    const StagedStep* step =
        Stage(std::vector<int32_t>(rows, 0), sequences, {}, {.window = 1, .sinks = 0}, updates);
    operators_->RopeTable(*step, Floats(device_frequencies), 1.0f, Floats(cos_sin));
    const auto values = Random(rows * kWidth);
    auto qkv = Upload(values, DataType::kF32);
    const auto norm_values = Random(kHeadDim);
    auto norm = Upload(norm_values, DataType::kF32);
    operators_->RopeAndStore(*step, {.qkv = qkv->data(),
                                     .cos_sin = Floats(cos_sin),
                                     .q_norm = norms ? Floats(norm) : nullptr,
                                     .k_norm = norms ? Floats(norm) : nullptr,
                                     .norm_epsilon = 1e-6f,
                                     .layer = 1,
                                     .rotate_queries = rotate_queries});
    CheckRotated(values, positions, frequencies, norms ? norm_values : std::vector<double>{},
                 rotate_queries, *qkv);
    CheckStored(values, *step, *qkv);
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

  void CheckStored(const std::vector<double>& values, const StagedStep& step, const Buffer& qkv) {
    const int64_t rows = values.size() / kWidth;
    auto out = Allocate(rows * kHeads * kHeadDim * 4);
    operators_->Attention(step, {.qkv = qkv.data(), .out = out->data(), .layer = 1});
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

INSTANTIATE_TEST_SUITE_P(Cpu, OperatorsTest, ::testing::ValuesIn(Variants()), NameOf);
INSTANTIATE_TEST_SUITE_P(Cpu, GatedLinearTest, ::testing::ValuesIn(Variants()), NameOf);
INSTANTIATE_TEST_SUITE_P(Cpu, StepOperatorsTest, ::testing::ValuesIn(Variants()), NameOf);
INSTANTIATE_TEST_SUITE_P(Cpu, RopeAndStoreTest, ::testing::ValuesIn(Variants()), NameOf);

TEST(AllocateTest, ZeroedAlignedAndWritable) {
  auto operators = CreateOperators({});
  ASSERT_TRUE(operators.ok());
  for (int64_t bytes : {int64_t{1}, int64_t{4096}, int64_t{5} << 20}) {
    auto buffer = (*operators)->Allocate(bytes, MemoryKind::kWorkspace);
    ASSERT_TRUE(buffer.ok());
    EXPECT_EQ((*buffer)->bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>((*buffer)->data()) % 64, 0u);
    // The host reads what this backend calls the device's memory.
    EXPECT_TRUE(std::all_of((*buffer)->data(), (*buffer)->data() + bytes,
                            [](std::byte b) { return b == std::byte{0}; }));
    std::vector<std::byte> host(bytes);
    host.back() = std::byte{7};
    (*operators)->Upload(host.data(), bytes, (*buffer)->data());
    EXPECT_EQ((*buffer)->data()[bytes - 1], std::byte{7});
  }
  EXPECT_GT((*operators)->AvailableBytes(), 0);
}

TEST(CreateOperatorsTest, RefusesWhatItLacksAndListsWhatItHas) {
  struct Case {
    OperatorsOptions options;
    const char* message;
  };
  for (const Case& c :
       {Case{{.device = "tpu"}, "device: this build has no \"tpu\"; it has auto, cpu"},
        Case{{.dtype = "int3"}, "dtype: unknown value \"int3\"; use auto or f32"},
        Case{{.threads = -1}, "threads: -1 is negative"},
        Case{{.instruction_set = "mmx"}, "no \"mmx\"; it has auto, generic"}}) {
    auto operators = CreateOperators(c.options);
    EXPECT_EQ(operators.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(operators.status().message()), ::testing::HasSubstr(c.message));
  }
}

TEST(CreateOperatorsTest, ShapesWithoutAttentionAreRefusedByName) {
  auto operators = CreateOperators({});
  ASSERT_TRUE(operators.ok());
  EXPECT_TRUE((*operators)->Supports({.head_dim = 96}).ok());
  for (const int32_t head_dim : {100, 512}) {
    const absl::Status status = (*operators)->Supports({.head_dim = head_dim});
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(
        std::string(status.message()),
        ::testing::HasSubstr(absl::StrCat("head_dim: the CPU has no attention for ", head_dim)));
  }
}

TEST(CreateOperatorsTest, TakesEveryProcessorThatItMayUseUnlessTold) {
  const auto threads_of = [](const OperatorsOptions& options) {
    auto operators = CreateOperators(options);
    EXPECT_TRUE(operators.ok()) << operators.status();
    return (*operators)->device_name();
  };
  EXPECT_THAT(threads_of({.threads = 3}), ::testing::EndsWith(", 3 threads"));
  EXPECT_THAT(threads_of({.threads = 1}), ::testing::EndsWith(", 1 thread"));
  const int all = cpu::AvailableProcessors();
  EXPECT_THAT(threads_of({}),
              ::testing::EndsWith(absl::StrCat(", ", all, all == 1 ? " thread" : " threads")));
  // In a thread that is bound to one processor.
  std::thread([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    EXPECT_THAT(threads_of({}), ::testing::EndsWith(", 1 thread"));
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
              ::testing::HasSubstr(std::string(cpu::Name(cpu::BestInstructionSet()))));
}

}  // namespace
}  // namespace swaa::kernels
