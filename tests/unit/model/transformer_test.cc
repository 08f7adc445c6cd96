// The transformer against a forward pass in double precision: switches of the model families,
// windows, chunks, mixed batches, wanted rows.

#include "engine/model/transformer.h"

#include <algorithm>
#include <cmath>
#include <iostream>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/device/step.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/instruction_set.h"
#include "tests/unit/model/tiny_model.h"
#include "tests/unit/testing/seed.h"

namespace swaa {
namespace {

using kernels::KeySpan;

constexpr int32_t kSlots = 4;
constexpr int32_t kMaxPages = 8;
constexpr int32_t kMaxRows = 400;
constexpr int32_t kLogitsRows = 64;

// A sequence with what each layer sees while prefilling and while decoding.
struct Sequence {
  std::vector<int32_t> tokens;
  int32_t prompt_tokens = 0;
  std::vector<KeySpan> prefill;  // [layers]
  std::vector<KeySpan> decode;
};

// Part of a sequence in a step: rows begin .. end - 1 in one phase.
struct Part {
  const Sequence* sequence;
  int32_t slot;
  int32_t begin;
  int32_t end;
};

class TransformerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    seed_ = testing::Seed();
    random_.seed(seed_);
  }
  void TearDown() override {
    if (HasFailure()) std::cerr << "SWAA_TEST_SEED=" << seed_ << std::endl;
  }

  void Load(const ModelConfig& config, const std::string& dtype,
            const std::string& instruction_set = "auto") {
    config_ = config;
    weights_ = std::make_unique<RandomWeights>(config, seed_);
    auto operators = kernels::CreateOperators(
        {.dtype = dtype, .threads = 2, .instruction_set = instruction_set});
    ASSERT_TRUE(operators.ok()) << operators.status();
    transformer_.reset();
    operators_ = std::move(*operators);
    std::vector<double> progress;
    auto loaded = Transformer::Load(operators_.get(), config, *weights_,
                                    {.step_rows = kMaxRows, .logits_rows = kLogitsRows},
                                    [&](double share) { progress.push_back(share); });
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    transformer_ = std::move(*loaded);
    EXPECT_TRUE(std::is_sorted(progress.begin(), progress.end()));
    EXPECT_DOUBLE_EQ(progress.back(), 1.0);
    ASSERT_TRUE(operators_
                    ->PrepareSteps({.model = ShapeOf(config),
                                    .num_pages = 1 + kSlots * config.num_layers * kMaxPages,
                                    .num_slots = kSlots,
                                    .max_pages_per_layer = kMaxPages,
                                    .max_rows = kMaxRows,
                                    .max_logits_rows = kLogitsRows})
                    .ok());
    MakePageTable();
  }

  // Every slot has pages for all its positions, in a random order.
  void MakePageTable() {
    std::vector<int32_t> pages(kSlots * config_.num_layers * kMaxPages);
    std::iota(pages.begin(), pages.end(), 1);
    std::shuffle(pages.begin(), pages.end(), random_);
    table_.clear();
    for (int32_t slot = 0; slot < kSlots; ++slot) {
      for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
        for (int32_t block = 0; block < kMaxPages; ++block) {
          table_.push_back({slot, layer, block, pages[table_.size()]});
        }
      }
    }
  }

  Sequence RandomSequence(int32_t length, int32_t prompt, const std::vector<KeySpan>& prefill,
                          const std::vector<KeySpan>& decode) {
    Sequence sequence{{}, prompt, prefill, decode};
    for (int32_t i = 0; i < length; ++i) {
      sequence.tokens.push_back(static_cast<int32_t>(random_() % config_.vocab_size));
    }
    return sequence;
  }

  std::vector<KeySpan> Everywhere(KeySpan span) {
    return std::vector<KeySpan>(config_.num_layers, span);
  }

  // Logits [wanted, vocab] of one step, up to a constant a row: log-probabilities of all tokens.
  // All rows are wanted, or those of `wanted`.
  std::vector<float> Forward(const std::vector<Part>& parts,
                             const std::vector<int32_t>* wanted = nullptr) {
    Step step;
    // Each layer is a class of its own: spans differ as the test likes.
    step.layer_class.resize(config_.num_layers);
    std::iota(step.layer_class.begin(), step.layer_class.end(), uint8_t{0});
    step.spans.resize(parts.size() * config_.num_layers);
    for (size_t s = 0; s < parts.size(); ++s) {
      const Part& part = parts[s];
      step.sequences.push_back({.slot = part.slot,
                                .first_row = static_cast<int32_t>(step.tokens.size()),
                                .query_count = part.end - part.begin,
                                .first_position = part.begin});
      const bool decodes = part.begin >= part.sequence->prompt_tokens;
      const auto& spans = decodes ? part.sequence->decode : part.sequence->prefill;
      for (int32_t l = 0; l < config_.num_layers; ++l) {
        step.spans[l * parts.size() + s] = spans[l];
      }
      for (int32_t i = part.begin; i < part.end; ++i) {
        step.tokens.push_back(part.sequence->tokens[i]);
      }
    }
    step.page_table_updates = std::exchange(table_, {});
    for (int32_t row = 0; row < static_cast<int32_t>(step.tokens.size()); ++row) {
      if (wanted != nullptr && std::ranges::find(*wanted, row) == wanted->end()) continue;
      step.logits.push_back({.row = row, .known_token = 0, .alternatives = config_.vocab_size});
    }
    kernels::StagedStep* staged = operators_->Stage(step.input());
    operators_->Replay(staged, [&] { transformer_->Forward(staged); });
    operators_->Submit(staged);
    absl::StatusOr<kernels::StepOutput> output = operators_->Wait(staged);
    EXPECT_TRUE(output.ok()) << output.status();
    std::vector<float> logits;
    for (const ScoredToken& scored : output->tokens) {
      EXPECT_EQ(static_cast<int32_t>(scored.top.size()), config_.vocab_size);
      const size_t begin = logits.size();
      logits.resize(begin + config_.vocab_size);
      for (const auto& [token, logprob] : scored.top) logits[begin + token] = logprob;
    }
    EXPECT_EQ(output->tokens.size(), step.logits.size());
    return logits;
  }

  // Logits of all rows of a sequence, in chunks of at most `chunk` that do not cross the prompt's
  // end.
  std::vector<float> ForwardInChunks(const Sequence& sequence, int32_t slot, int32_t chunk) {
    std::vector<float> logits;
    const auto length = static_cast<int32_t>(sequence.tokens.size());
    for (int32_t begin = 0; begin < length;) {
      const int32_t border = begin < sequence.prompt_tokens ? sequence.prompt_tokens : length;
      const int32_t end = std::min(begin + chunk, border);
      const auto part = Forward({{&sequence, slot, begin, end}});
      logits.insert(logits.end(), part.begin(), part.end());
      begin = end;
    }
    return logits;
  }

  std::vector<double> Reference(const Sequence& sequence, double* routing_margin = nullptr) {
    std::vector<KeySpan> spans;
    for (int32_t i = 0; i < static_cast<int32_t>(sequence.tokens.size()); ++i) {
      const auto& row = i < sequence.prompt_tokens ? sequence.prefill : sequence.decode;
      spans.insert(spans.end(), row.begin(), row.end());
    }
    std::vector<double> logits =
        ReferenceLogits(config_, *weights_, sequence.tokens, spans, routing_margin);
    for (size_t row = 0; row < logits.size(); row += config_.vocab_size) {
      double sum = 0;
      for (int32_t t = 0; t < config_.vocab_size; ++t) sum += std::exp(logits[row + t]);
      for (int32_t t = 0; t < config_.vocab_size; ++t) logits[row + t] -= std::log(sum);
    }
    return logits;
  }

  // A sequence none of whose choices of experts is a near tie: such a one rounding could turn.
  Sequence DecisiveSequence(int32_t length, int32_t prompt, const std::vector<KeySpan>& prefill,
                            const std::vector<KeySpan>& decode) {
    for (;;) {
      const Sequence sequence = RandomSequence(length, prompt, prefill, decode);
      double margin = 0;
      Reference(sequence, &margin);
      if (margin > 1e-3) return sequence;
    }
  }

  template <typename A, typename B>
  static double MaxDifference(const A& a, const B& b) {
    EXPECT_EQ(a.size(), b.size());
    double largest = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
      if (!(difference <= largest)) largest = difference;  // NaN too
    }
    return largest;
  }

  uint64_t seed_ = 0;
  std::mt19937_64 random_;
  ModelConfig config_;
  std::unique_ptr<RandomWeights> weights_;
  std::unique_ptr<kernels::Operators> operators_;
  std::unique_ptr<Transformer> transformer_;
  std::vector<PageTableUpdate> table_;  // until the first step sends it
};

TEST_F(TransformerTest, EveryFamilySwitchMatchesTheReferenceInF32) {
  for (int variant = 0; variant < 6; ++variant) {
    ModelConfig config = TinyConfig();
    if (variant == 1) config.tied_embeddings = true;
    if (variant == 2) config.qkv_bias = true;
    if (variant == 5) config.output_bias = true;
    if (variant == 3) config.qk_norm = true;
    if (variant == 4) config.rope_scaling = Llama3RopeScaling{.original_context = 64};
    Load(config, "f32");
    const auto full = Everywhere({});
    const Sequence sequence = RandomSequence(150, 150, full, full);
    EXPECT_LT(MaxDifference(ForwardInChunks(sequence, 1, 150), Reference(sequence)), 1e-3)
        << "variant " << variant;
  }
}

TEST_F(TransformerTest, MixturesOfExpertsMatchTheReferenceAloneInChunksAndInCompany) {
  for (const bool normalize : {true, false}) {
    ModelConfig config = TinyMixtureConfig();
    config.experts->normalize = normalize;
    Load(config, "f32");
    const auto window = Everywhere({.window = 20, .sinks = 3});
    const Sequence a = DecisiveSequence(70, 50, window, Everywhere({}));
    const Sequence b = DecisiveSequence(40, 40, Everywhere({}), Everywhere({}));
    const auto expected_a = Reference(a), expected_b = Reference(b);
    EXPECT_LT(MaxDifference(ForwardInChunks(a, 0, 1000), expected_a), 1e-3);
    for (const int32_t chunk : {1, 7}) {
      EXPECT_LT(MaxDifference(ForwardInChunks(a, 1, chunk), expected_a), 1e-3) << chunk;
    }
    const auto mixed = Forward({{&a, 2, 0, 50}, {&b, 3, 0, 40}});
    const int64_t vocab = config_.vocab_size;
    std::vector<double> expected(expected_a.begin(), expected_a.begin() + 50 * vocab);
    expected.insert(expected.end(), expected_b.begin(), expected_b.end());
    EXPECT_LT(MaxDifference(mixed, expected), 1e-3);
    // The choice must matter, or this test could not fail.
    config_.experts->per_token = 1;
    EXPECT_GT(MaxDifference(Reference(a), expected_a), 1e-2);
  }
}

TEST_F(TransformerTest, WindowsSinksAndPhasesMatchTheReference) {
  Load(TinyConfig(), "f32");
  const auto full = Everywhere({});
  const std::vector<std::pair<std::vector<KeySpan>, std::vector<KeySpan>>> recipes = {
      {Everywhere({.window = 20, .sinks = 0}), Everywhere({.window = 20, .sinks = 0})},
      {Everywhere({.window = 64, .sinks = 4}), full},
      {{{.window = 30, .sinks = 70}, {}, {.window = 1, .sinks = 0}},
       {{}, {}, {.window = 1, .sinks = 3}}},
  };
  for (const auto& [prefill, decode] : recipes) {
    const Sequence sequence = RandomSequence(210, 170, prefill, decode);
    EXPECT_LT(MaxDifference(ForwardInChunks(sequence, 0, 1000), Reference(sequence)), 1e-3);
    // The mask must matter, or this test could not fail.
    Sequence unmasked = sequence;
    unmasked.prefill = unmasked.decode = full;
    EXPECT_GT(MaxDifference(ForwardInChunks(unmasked, 1, 1000), Reference(sequence)), 1e-2);
  }
}

TEST_F(TransformerTest, ChunksChangeNothing) {
  Load(TinyConfig(), "f32");
  const Sequence sequence =
      RandomSequence(200, 160, Everywhere({.window = 50, .sinks = 3}), Everywhere({}));
  const auto whole = ForwardInChunks(sequence, 0, 1000);
  for (int32_t chunk : {1, 7, 64, 65, 128}) {
    EXPECT_LT(MaxDifference(ForwardInChunks(sequence, 1, chunk), whole), 1e-4) << chunk;
  }
}

TEST_F(TransformerTest, MixedBatchEqualsEachAlone) {
  Load(TinyConfig(), "f32");
  const Sequence a = RandomSequence(130, 100, Everywhere({.window = 33, .sinks = 2}),
                                    Everywhere({.window = 33, .sinks = 2}));
  const Sequence b = RandomSequence(90, 90, Everywhere({}), Everywhere({}));
  const Sequence c = RandomSequence(70, 69, Everywhere({.window = 8, .sinks = 0}), Everywhere({}));
  const auto alone_a = ForwardInChunks(a, 0, 1000);
  const auto alone_b = ForwardInChunks(b, 0, 1000);
  const auto alone_c = ForwardInChunks(c, 0, 1000);
  Forward({{&a, 1, 0, 100}, {&c, 3, 0, 69}, {&b, 2, 0, 30}});
  const auto mixed = Forward({{&a, 1, 100, 130}, {&b, 2, 30, 90}, {&c, 3, 69, 70}});
  const int64_t vocab = config_.vocab_size;
  std::vector<float> expected(alone_a.begin() + 100 * vocab, alone_a.end());
  expected.insert(expected.end(), alone_b.begin() + 30 * vocab, alone_b.end());
  expected.insert(expected.end(), alone_c.begin() + 69 * vocab, alone_c.end());
  EXPECT_LT(MaxDifference(mixed, expected), 1e-4);
}

TEST_F(TransformerTest, OnlyWantedRowsComeBackAndAllKeysAreStored) {
  Load(TinyConfig(), "f32");
  const Sequence sequence =
      RandomSequence(120, 120, Everywhere({.window = 40, .sinks = 1}), Everywhere({}));
  const auto whole = ForwardInChunks(sequence, 0, 1000);
  const int64_t vocab = config_.vocab_size;
  // No row wanted, then three, two of them neighbours: these read what the first step stored.
  const std::vector<int32_t> none, some = {0, 17, 18};
  EXPECT_TRUE(Forward({{&sequence, 1, 0, 100}}, &none).empty());
  const auto wanted = Forward({{&sequence, 1, 100, 120}}, &some);
  std::vector<float> expected;
  for (int32_t row : some) {
    const float* from = whole.data() + (100 + row) * vocab;
    expected.insert(expected.end(), from, from + vocab);
  }
  EXPECT_LT(MaxDifference(wanted, expected), 1e-4);
}

class TransformerInstructionSetTest
    : public TransformerTest,
      public ::testing::WithParamInterface<kernels::cpu::InstructionSet> {};

TEST_P(TransformerInstructionSetTest, IsNearTheReference) {
  if (GetParam() > kernels::cpu::BestInstructionSet()) {
    GTEST_SKIP() << "this processor has no " << kernels::cpu::Name(GetParam());
  }
  for (const char* dtype : {"auto", "f32"}) {
    Load(TinyConfig(), dtype, std::string(kernels::cpu::Name(GetParam())));
    const auto spans = Everywhere({.window = 70, .sinks = 5});
    const Sequence sequence = RandomSequence(140, 130, spans, spans);
    const auto logits = ForwardInChunks(sequence, 2, 100);
    const auto expected = Reference(sequence);
    double error = 0, norm = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      error += (logits[i] - expected[i]) * (logits[i] - expected[i]);
      norm += expected[i] * expected[i];
    }
    EXPECT_LT(std::sqrt(error / norm), dtype == std::string("f32") ? 1e-5 : 4e-2) << dtype;
  }
}

INSTANTIATE_TEST_SUITE_P(All, TransformerInstructionSetTest,
                         ::testing::ValuesIn(kernels::cpu::AllInstructionSets()),
                         [](const auto& info) {
                           return std::string(kernels::cpu::Name(info.param));
                         });

TEST_F(TransformerTest, MissingAndMisshapenWeightsAreNamed) {
  const ModelConfig config = TinyConfig();
  auto operators = kernels::CreateOperators({.threads = 2});
  ASSERT_TRUE(operators.ok());
  RandomWeights weights(config, 1);
  weights.Remove(WeightRole::kFfnUp, 2);
  auto missing = Transformer::Load(operators->get(), config, weights, {16, 16}, {});
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  ModelConfig wider = config;
  wider.hidden = 96;
  auto misshapen =
      Transformer::Load(operators->get(), wider, RandomWeights(config, 1), {16, 16}, {});
  EXPECT_EQ(misshapen.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(misshapen.status().message()), ::testing::HasSubstr("[131, 80]"));
}

TEST(RopeInverseFrequenciesTest, Llama3ScalingKeepsShortWavesAndStretchesLongOnes) {
  ModelConfig config = TinyConfig();
  config.head_dim = 128;
  config.rope_theta = 500000;
  const auto plain = RopeInverseFrequencies(config);
  EXPECT_FLOAT_EQ(plain[0], 1.0f);
  EXPECT_FLOAT_EQ(plain[32], std::pow(500000.0f, -0.5f));
  config.rope_scaling = Llama3RopeScaling{};
  const auto scaled = RopeInverseFrequencies(config);
  for (size_t i = 0; i < scaled.size(); ++i) {
    const double wavelength = 2 * M_PI / plain[i];
    if (wavelength < 8192 / 4.0) {
      EXPECT_FLOAT_EQ(scaled[i], plain[i]);
    } else if (wavelength > 8192) {
      EXPECT_FLOAT_EQ(scaled[i], plain[i] / 8);
    } else {
      const double smooth = (8192 / wavelength - 1) / 3;
      EXPECT_NEAR(scaled[i], (1 - smooth) * plain[i] / 8 + smooth * plain[i], 1e-9);
    }
  }
}

TEST(RopeInverseFrequenciesTest, ReadyMadeFactorsDivide) {
  ModelConfig config = TinyConfig();
  const auto plain = RopeInverseFrequencies(config);
  for (int i = 0; i < 16; ++i) config.rope_frequency_factors.push_back(1.0f + 0.5f * i);
  const auto divided = RopeInverseFrequencies(config);
  for (int i = 0; i < 16; ++i) EXPECT_FLOAT_EQ(divided[i], plain[i] / (1.0f + 0.5f * i));
}

}  // namespace
}  // namespace swaa
