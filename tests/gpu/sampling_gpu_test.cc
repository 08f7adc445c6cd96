// Tests: the device draws what the processor draws from the same logits, to the last bit, whatever
// is asked for, and reports the same log-probabilities.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cpu/sampler.h"
#include "kernels/cuda/sampling/sampler.h"
#include "kernels/types.h"
#include "tests/gpu/device_array.h"

namespace swaa::kernels::cuda {
namespace {

using testing::DeviceArray;
using testing::TestStream;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Rows of many shapes: what models give, and what they should not.
enum class Shape {
  kNormal,
  kRounded,
  kPeaked,
  kWide,
  kNarrow,
  kFlat,
  kTies,
  kZeros,
  kHoles,
  kNotFinite,
  kNan
};
constexpr int kShapes = 11;

std::vector<float> RandomRow(Shape shape, int32_t vocab, std::mt19937& random) {
  std::normal_distribution<float> normal(0, 2.5f);
  std::vector<float> row(vocab);
  for (float& logit : row) {
    const float x = normal(random);
    switch (shape) {
      case Shape::kNormal:
      case Shape::kPeaked:
        logit = x;
        break;
      case Shape::kRounded:  // as a product with a bf16 result has them
        logit = ToFloat(ToBf16(x));
        break;
      case Shape::kWide:
        logit = 40 * x;
        break;
      case Shape::kNarrow:
        logit = 5 + 1e-3f * x;
        break;
      case Shape::kFlat:
        logit = -1.5f;
        break;
      case Shape::kTies:
        logit = std::round(x) * (random() % 2 == 0 ? 1.0f : -1.0f);  // 0 and -0 among them
        break;
      case Shape::kZeros:  // of both signs, which are equal
        logit = random() % 2 == 0 ? 0.0f : -0.0f;
        break;
      case Shape::kHoles:
        logit = random() % 3 == 0 ? -kInfinity : x;
        break;
      case Shape::kNotFinite: {
        const float odd[] = {NAN, -kInfinity, -NAN, x, 3e38f, -3e38f};
        logit = odd[random() % 6];
        break;
      }
      case Shape::kNan:
        logit = NAN;
        break;
    }
  }
  if (shape == Shape::kPeaked) row[random() % vocab] += 15;
  return row;
}

SamplingParams RandomParams(int32_t vocab, std::mt19937& random) {
  const auto maybe = [&](int one_in) { return random() % one_in == 0; };
  const float temperatures[] = {0, 1, 1, 0.1f, 0.7f, 1.3f, 5, 1e-6f, 1e-38f, 100};
  SamplingParams params{.temperature = temperatures[random() % 10], .seed = random()};
  if (maybe(2)) {
    const uint32_t counts[] = {1, 2, 20, 50, 1000, 20000, 4000000000u};
    params.top_k = maybe(2) ? counts[random() % 7] : 1 + random() % vocab;
  }
  const float shares[] = {1e-9f, 0.1f, 0.5f, 0.9f, 0.95f, 0.999999f};
  if (maybe(2)) params.top_p = shares[random() % 6];
  const float least[] = {1e-6f, 0.02f, 0.3f, 1};
  if (maybe(3)) params.min_p = least[random() % 4];
  if (maybe(3)) params.frequency_penalty = 0.3f;
  if (maybe(3)) params.presence_penalty = -0.7f;
  if (maybe(3)) params.repetition_penalty = maybe(2) ? 1.3f : 0.6f;
  if (maybe(3)) {
    std::vector<int32_t> tokens;
    const size_t count = 1 + random() % std::min<size_t>(vocab, kMaxLogitBiases);
    for (size_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(random() % vocab));
    std::sort(tokens.begin(), tokens.end());
    tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
    std::uniform_real_distribution<float> bias(-8, 8);
    for (const int32_t token : tokens) {
      params.logit_bias.emplace_back(static_cast<uint32_t>(token),
                                     maybe(20) ? 100.0f : bias(random));
    }
  }
  return params;
}

std::vector<int32_t> RandomTokens(size_t count, int32_t vocab, std::mt19937& random) {
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % vocab);
  return tokens;
}

std::string Describe(const SamplingParams& p) {
  return ::testing::PrintToString(std::vector<double>{
             p.temperature, static_cast<double>(p.top_k), p.top_p, p.min_p, p.frequency_penalty,
             p.presence_penalty, p.repetition_penalty, static_cast<double>(p.logit_bias.size())}) +
         " (temperature, top_k, top_p, min_p, frequency, presence, repetition, biases)";
}

void ExpectSameLogprob(float got, float want) {
  if (std::isinf(want)) {  // of a logit that is as far below the largest as f32 goes
    EXPECT_EQ(got, want);
  } else {
    EXPECT_NEAR(got, want, 1e-5 * std::max(1.0f, -want));
  }
}

// Both samplers, with the same slots.
class Samplers {
 public:
  Samplers(int32_t slots, int32_t vocab, int32_t max_rows)
      : vocab_(vocab),
        max_rows_(max_rows),
        cpu_(slots, vocab),
        params_(slots),
        logits_(static_cast<size_t>(max_rows) * vocab),
        rows_(max_rows),
        live_(1),
        tokens_(max_rows),
        alternatives_(max_rows) {
    absl::StatusOr<std::unique_ptr<CudaSampler>> created =
        CudaSampler::Create(slots, vocab, max_rows);
    if (!created.ok()) throw std::runtime_error(std::string(created.status().message()));
    cuda_ = *std::move(created);
  }

  void SetUp(const std::vector<SlotSetup>& setups) {
    cpu_.SetUp(setups);
    const absl::Status status = cuda_->SetUp(setups, stream_);
    ASSERT_TRUE(status.ok()) << status;
    for (const SlotSetup& setup : setups) params_[setup.slot] = setup.sampling;
  }

  SampleParams Arguments(SamplingFeatures features = {}) {
    return {.logits = logits_.data(),
            .rows = rows_.data(),
            .live_rows = live_.data(),
            .tokens = tokens_.data(),
            .alternatives = alternatives_.data(),
            .max_rows = max_rows_,
            .features = features};
  }

  void Enqueue(const Launch& launch) { cuda_->Sample(Arguments(), launch); }

  void Upload(const std::vector<float>& logits, const std::vector<LogitsRow>& rows) {
    logits_.Set(logits);
    rows_.Set(rows);
    live_.Set({static_cast<int32_t>(rows.size())});
    tokens_.Set(std::vector<SampledToken>(max_rows_, {-7, -7}));
  }

  // What the device left, against what the processor makes of the same.
  void Compare(const std::vector<float>& logits, const std::vector<LogitsRow>& rows) {
    stream_.Wait();
    std::vector<ScoredToken> want(rows.size());
    cpu_.Sample(logits.data(), rows, want);
    const std::vector<SampledToken> tokens = tokens_.Get();
    const std::vector<Alternatives> alternatives = alternatives_.Get();
    std::vector<int32_t> drawn(params_.size());
    SWAA_CUDA_CHECK(
        cudaMemcpy(drawn.data(), cuda_->drawn(), drawn.size() * 4, cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < rows.size(); ++i) {
      SCOPED_TRACE(::testing::Message()
                   << "row " << i << " slot " << rows[i].slot << " t " << rows[i].output_index
                   << " forbid " << rows[i].forbid << " " << Describe(*params_[rows[i].slot]));
      ASSERT_EQ(tokens[i].token, want[i].token);
      if (rows[i].known_token < 0) {
        ASSERT_EQ(drawn[rows[i].slot], want[i].token);
      }
      if (rows[i].alternatives < 0) continue;
      ExpectSameLogprob(tokens[i].logprob, want[i].logprob);
      for (size_t n = 0; n < want[i].top.size(); ++n) {
        ASSERT_EQ(alternatives[i].tokens[n], want[i].top[n].first) << n;
        ExpectSameLogprob(alternatives[i].logprobs[n], want[i].top[n].second);
      }
    }
    for (size_t i = rows.size(); i < tokens.size(); ++i) {
      ASSERT_EQ(tokens[i].token, -7) << "row " << i << " was not live";
    }
    for (size_t slot = 0; slot < drawn.size(); ++slot) {
      ASSERT_EQ(drawn[slot], cpu_.drawn(static_cast<int32_t>(slot))) << "slot " << slot;
    }
  }

  const TestStream& stream() const { return stream_; }
  CudaSampler& cuda() { return *cuda_; }

 private:
  int32_t vocab_;
  int32_t max_rows_;
  TestStream stream_;
  cpu::CpuSampler cpu_;
  std::unique_ptr<CudaSampler> cuda_;
  std::vector<std::shared_ptr<const SamplingParams>> params_;
  DeviceArray<float> logits_;
  DeviceArray<LogitsRow> rows_;
  DeviceArray<int32_t> live_;
  DeviceArray<SampledToken> tokens_;
  DeviceArray<Alternatives> alternatives_;
};

SlotSetup RandomSetup(int32_t slot, int32_t vocab, std::mt19937& random) {
  SlotSetup setup{.slot = slot,
                  .sampling = std::make_shared<SamplingParams>(RandomParams(vocab, random)),
                  .output = RandomTokens(random() % 30, vocab, random),
                  .forbidden = RandomTokens(random() % 5, vocab, random)};
  if (random() % 10 == 0) {  // everything, where the vocabulary is small
    for (int32_t token = 0; token < std::min(vocab, 1000); ++token) {
      setup.forbidden.push_back(token);
    }
  }
  if (setup.sampling->needs_history()) {
    setup.prompt =
        std::make_shared<std::vector<int32_t>>(RandomTokens(random() % 3000, vocab, random));
  }
  return setup;
}

// Rows of a step: each slot draws at most once, and some tokens are scored.
std::vector<LogitsRow> RandomRows(int32_t slots, size_t most, uint32_t t, int32_t vocab,
                                  std::mt19937& random) {
  std::vector<LogitsRow> rows;
  for (int32_t slot = 0; slot < slots; ++slot) {
    if (random() % 4 == 0) {
      rows.push_back({.slot = slot, .known_token = static_cast<int32_t>(random() % vocab)});
    }
    rows.push_back({.slot = slot, .output_index = t, .forbid = random() % 2 == 0});
  }
  std::shuffle(rows.begin(), rows.end(), random);
  if (rows.size() > most) rows.resize(most);
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].row = static_cast<int32_t>(i);
    const int32_t alternatives[] = {-1, -1, 0, 1, 7, kMaxAlternatives};
    rows[i].alternatives = alternatives[random() % 6];
  }
  return rows;
}

void RunProperty(int32_t vocab, int32_t slots, int steps, uint32_t seed) {
  SCOPED_TRACE(::testing::Message() << "vocab " << vocab << " seed " << seed);
  std::mt19937 random(seed);
  const int32_t max_rows = slots + 3;
  Samplers samplers(slots, vocab, max_rows);
  for (int step = 0; step < steps; ++step) {
    SCOPED_TRACE(::testing::Message() << "step " << step);
    std::vector<SlotSetup> setups;
    for (int32_t slot = 0; slot < slots; ++slot) {
      if (step == 0 || random() % 3 == 0) setups.push_back(RandomSetup(slot, vocab, random));
    }
    ASSERT_NO_FATAL_FAILURE(samplers.SetUp(setups));
    const std::vector<LogitsRow> rows =
        RandomRows(slots, max_rows, static_cast<uint32_t>(step), vocab, random);
    std::vector<float> logits;
    for (size_t i = 0; i < rows.size(); ++i) {
      const std::vector<float> row =
          RandomRow(static_cast<Shape>(random() % kShapes), vocab, random);
      logits.insert(logits.end(), row.begin(), row.end());
    }
    samplers.Upload(logits, rows);
    samplers.Enqueue({.stream = samplers.stream(),
                      .programmatic = step % 2 == 1 && testing::HasProgrammaticLaunch()});
    ASSERT_NO_FATAL_FAILURE(samplers.Compare(logits, rows));
  }
}

class SamplingGpuTest : public ::testing::TestWithParam<int32_t> {};

INSTANTIATE_TEST_SUITE_P(Vocabularies, SamplingGpuTest,
                         ::testing::Values(1, 2, 5, 31, 33, 1000, 4095, 4096, 4097, 49152, 50257,
                                           128256));

TEST_P(SamplingGpuTest, DrawsWhatTheProcessorDraws) {
  const int32_t vocab = GetParam();
  const int32_t slots = vocab > 10000 ? 24 : 60;
  for (uint32_t seed = 0; seed < 3; ++seed) {
    ASSERT_NO_FATAL_FAILURE(RunProperty(vocab, slots, /*steps=*/vocab > 10000 ? 8 : 20, seed));
  }
}

// Cuts among more equal or nearly equal logits than a bin's list holds.
TEST(SamplingCutGpuTest, FlatRowsAreCutWhereTheProcessorCutsThem) {
  constexpr int32_t kVocab = 151936;
  std::mt19937 random(99);
  const std::vector<SamplingParams> all = {
      {.top_k = 5000},
      {.top_k = 2},  // few are kept: a cut one token off changes many draws
      {.top_k = 3},
      {.top_p = 1e-5f},
      {.top_p = 0.5f, .top_k = 4},
      {.top_p = 0.25f},
      {.top_p = 0.5f, .top_k = 100000},
      {.temperature = 100, .top_k = 70000},
      {.temperature = 0.01f, .top_p = 0.9f, .top_k = 50},
      {.temperature = 0.05f, .top_p = 0.999f},
      {.top_p = 0.9f, .top_k = 4097, .min_p = 0.5f},
      {.top_k = 151935},
  };
  const auto slots = static_cast<int32_t>(all.size());
  Samplers samplers(slots, kVocab, slots);
  std::vector<SlotSetup> setups;
  for (int32_t slot = 0; slot < slots; ++slot) {
    setups.push_back({.slot = slot, .sampling = std::make_shared<SamplingParams>(all[slot])});
  }
  ASSERT_NO_FATAL_FAILURE(samplers.SetUp(setups));
  const std::vector<Shape> shapes = {Shape::kFlat, Shape::kZeros, Shape::kNarrow,
                                     Shape::kTies, Shape::kWide,  Shape::kNan};
  for (uint32_t t = 0; t < 24; ++t) {
    SCOPED_TRACE(::testing::Message() << "t " << t);
    std::vector<LogitsRow> rows;
    std::vector<float> logits;
    for (int32_t slot = 0; slot < slots; ++slot) {
      rows.push_back({.row = slot, .slot = slot, .output_index = t});
      const std::vector<float> row = RandomRow(shapes[t % shapes.size()], kVocab, random);
      logits.insert(logits.end(), row.begin(), row.end());
    }
    samplers.Upload(logits, rows);
    samplers.Enqueue({.stream = samplers.stream()});
    ASSERT_NO_FATAL_FAILURE(samplers.Compare(logits, rows));
  }
}

// A graph captured before any slot needed history serves whatever rows come, as many as are live.
TEST(SamplingGraphGpuTest, AGraphServesAnyRows) {
  constexpr int32_t kVocab = 32000, kSlots = 12;
  std::mt19937 random(5);
  Samplers samplers(kSlots, kVocab, kSlots);
  const bool programmatic = testing::HasProgrammaticLaunch();
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  SWAA_CUDA_CHECK(cudaStreamBeginCapture(samplers.stream(), cudaStreamCaptureModeThreadLocal));
  samplers.Enqueue({.stream = samplers.stream(), .programmatic = programmatic});
  SWAA_CUDA_CHECK(cudaStreamEndCapture(samplers.stream(), &graph));
  SWAA_CUDA_CHECK(cudaGraphInstantiate(&exec, graph, 0));
  const int64_t before = samplers.cuda().bytes();
  for (uint32_t t = 0; t < 30; ++t) {
    SCOPED_TRACE(::testing::Message() << "t " << t);
    std::vector<SlotSetup> setups;
    for (int32_t slot = 0; slot < kSlots; ++slot) {
      if (t == 0 || random() % 4 == 0) setups.push_back(RandomSetup(slot, kVocab, random));
    }
    ASSERT_NO_FATAL_FAILURE(samplers.SetUp(setups));
    const std::vector<LogitsRow> rows =
        RandomRows(kSlots, random() % (kSlots + 1), t, kVocab, random);
    std::vector<float> logits;
    for (size_t i = 0; i < rows.size(); ++i) {
      const std::vector<float> row =
          RandomRow(static_cast<Shape>(random() % kShapes), kVocab, random);
      logits.insert(logits.end(), row.begin(), row.end());
    }
    samplers.Upload(logits, rows);
    SWAA_CUDA_CHECK(cudaGraphLaunch(exec, samplers.stream()));
    ASSERT_NO_FATAL_FAILURE(samplers.Compare(logits, rows));
  }
  EXPECT_GE(samplers.cuda().bytes() - before, int64_t{4} * kSlots * kVocab);
  // What is reserved for it before it is made; beside it are the setups on their way.
  EXPECT_LE(before, CudaSampler::Bytes(kSlots, kVocab, kSlots));
  SWAA_CUDA_CHECK(cudaGraphExecDestroy(exec));
  SWAA_CUDA_CHECK(cudaGraphDestroy(graph));
}

TEST(SamplingCreateGpuTest, RefusesAVocabularyBeyondItsSums) {
  const auto sampler = CudaSampler::Create(1, 600000, 1);
  ASSERT_FALSE(sampler.ok());
  EXPECT_EQ(sampler.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(sampler.status().message().find("600000"), absl::string_view::npos);
}

}  // namespace
}  // namespace swaa::kernels::cuda
