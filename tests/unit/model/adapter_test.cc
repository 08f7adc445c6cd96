// Adapters under the real scheduler and the real device, in f32: a request's greedy tokens are
// those of the model into whose weights its adapter was merged; alone, beside other adapters, in
// chunks, partly forced, after preemption and from a warm prefix cache; on one device, and on ranks
// that share the model.

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "engine/checkpoint/peft_adapter.h"
#include "engine/model/model_device.h"
#include "engine/schedule/scheduler.h"
#include "tests/unit/model/tiny_model.h"
#include "tests/unit/testing/fake_device.h"
#include "tests/unit/testing/random_recipe.h"
#include "tests/unit/testing/recording_sink.h"
#include "tests/unit/testing/seed.h"

namespace swaa {
namespace {

using testing::RecordingSink;

constexpr int32_t kAdapters = 3;
constexpr int32_t kRequests = 16;
// Tokens behind two that are so near are not compared: sums are in another order.
constexpr float kNearTie = 0.002f;

ModelConfig SmallConfig() {
  ModelConfig config = TinyConfig();
  config.vocab_size = testing::kFakeVocab;
  return config;
}

// An adapter of random matrices, and what they come to.
struct RandomAdapter {
  LoraCheckpoint checkpoint;
  std::vector<std::unique_ptr<std::vector<float>>> values;

  StoredTensor Matrix(int64_t rows, int64_t columns, double deviation, std::mt19937* random) {
    std::normal_distribution<double> normal(0, deviation);
    std::vector<float>& matrix =
        *values.emplace_back(std::make_unique<std::vector<float>>(rows * columns));
    for (float& value : matrix) value = static_cast<float>(normal(*random));
    return {.shape = {rows, columns},
            .data = reinterpret_cast<const std::byte*>(matrix.data()),
            .bytes = rows * columns * 4};
  }

  void AddTo(RandomWeights* weights, std::mt19937* random, WeightRole role, int32_t layer,
             int64_t rows, int64_t columns) {
    const auto rank = static_cast<int64_t>(1 + (*random)() % 20);
    LoraMatrices& matrices = checkpoint.matrices[{role, layer}];
    matrices.rank = static_cast<int32_t>(rank);
    matrices.scale = 0.5;
    matrices.down = Matrix(rank, columns, 1 / std::sqrt(columns), random);
    matrices.up = Matrix(rows, rank, 2 / std::sqrt(rank), random);
    std::vector<double> update(rows * columns);
    const std::vector<float>& down = **(values.end() - 2);
    const std::vector<float>& up = *values.back();
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t r = 0; r < rank; ++r) {
        for (int64_t c = 0; c < columns; ++c) {
          update[row * columns + c] += 0.5 * up[row * rank + r] * down[r * columns + c];
        }
      }
    }
    weights->Add(role, layer, update);
  }
};

struct Case {
  GenerationRequest request;
  int32_t adapter = -1;
  std::vector<int32_t> expected;  // of the merged model, alone
  size_t compared = 0;
};

// By the ranks of the device.
class AdapterTest : public ::testing::TestWithParam<int32_t> {
 protected:
  void SetUp() override {
    random_.seed(seed_);
    base_ = MakeDevice(std::make_shared<RandomWeights>(config_, 7), GetParam());
    for (int32_t a = 0; a < kAdapters; ++a) {
      auto weights = std::make_shared<RandomWeights>(config_, 7);
      const RandomAdapter adapter = MakeAdapter(a, weights.get());
      auto loaded = base_->LoadAdapter(adapter.checkpoint);
      ASSERT_TRUE(loaded.ok()) << loaded.status();
      adapters_.push_back(std::make_shared<LoadedAdapter>(
          LoadedAdapter{"adapter" + std::to_string(a), static_cast<uint64_t>(a + 1), *loaded}));
      merged_.push_back(MakeDevice(weights, 1));
    }
  }

  std::unique_ptr<Device> MakeDevice(std::shared_ptr<const WeightSource> weights, int32_t ranks) {
    Checkpoint checkpoint;
    checkpoint.config = config_;
    checkpoint.weights = std::move(weights);
    ModelDeviceOptions options;
    options.operators = {.dtype = "f32", .threads = 1};
    options.ranks = ranks;
    options.kv_cache_bytes = 64 << 20;
    options.max_step_tokens = 512;
    options.num_slots = kRequests;
    auto device = CreateModelDevice(checkpoint, options);
    EXPECT_TRUE(device.ok()) << device.status();
    return *std::move(device);
  }

  // The first changes everything, the others some of it.
  RandomAdapter MakeAdapter(int32_t which, RandomWeights* weights) {
    const int64_t hidden = config_.hidden, ffn = config_.ffn_width;
    const int64_t heads = int64_t{config_.heads} * config_.head_dim;
    const int64_t kv = int64_t{config_.kv_heads} * config_.head_dim;
    RandomAdapter adapter;
    for (int32_t l = 0; l < config_.num_layers; ++l) {
      const auto add = [&](WeightRole role, int64_t rows, int64_t columns) {
        if (which == 0 || random_() % 2 == 0) {
          adapter.AddTo(weights, &random_, role, l, rows, columns);
        }
      };
      add(WeightRole::kQuery, heads, hidden);
      add(WeightRole::kKey, kv, hidden);
      add(WeightRole::kValue, kv, hidden);
      add(WeightRole::kAttentionOutput, hidden, heads);
      add(WeightRole::kFfnGate, ffn, hidden);
      add(WeightRole::kFfnUp, ffn, hidden);
      add(WeightRole::kFfnDown, hidden, ffn);
    }
    return adapter;
  }

  // All requests at once.
  std::vector<std::shared_ptr<RecordingSink>> Run(Device* device,
                                                  const std::vector<GenerationRequest>& requests,
                                                  int32_t budget, bool cache) {
    const DeviceInfo& info = device->info();
    const SchedulerOptions options{.max_batch_tokens = budget,
                                   .max_running_requests = kRequests,
                                   .max_context_tokens = config_.max_context_tokens,
                                   .prefix_cache = cache};
    Scheduler scheduler(options, info, tokenizer_.get());
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (const GenerationRequest& request : requests) {
      sinks.push_back(std::make_shared<RecordingSink>());
      const absl::StatusOr<int32_t> most = MaxOutputTokens(request, options, info);
      EXPECT_TRUE(most.ok()) << most.status();
      scheduler.Add(request, sinks.back(), *most, SteadyClock::now());
    }
    most_adapters_ = 0;
    while (!scheduler.idle() || scheduler.steps_in_flight() > 0) {
      std::optional<Step> step = scheduler.NextStep(SteadyClock::now());
      if (step.has_value()) {
        most_adapters_ = std::max(most_adapters_, step->adapters.size());
        device->Submit(*std::move(step));
      }
      scheduler.Commit(device->Collect(), SteadyClock::now());
    }
    EXPECT_TRUE(scheduler.Load().adapters.empty());
    return sinks;
  }

  // A step between two arrivals, in a pool of `pages`.
  std::vector<std::shared_ptr<RecordingSink>> RunOneAfterTheOther(
      const std::vector<GenerationRequest>& requests, int32_t pages) {
    DeviceInfo info = base_->info();
    info.num_pages = pages;
    const SchedulerOptions options{.max_batch_tokens = 128,
                                   .max_running_requests = kRequests,
                                   .max_context_tokens = config_.max_context_tokens,
                                   .prefix_cache = false};
    Scheduler scheduler(options, info, tokenizer_.get());
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    while (sinks.size() < requests.size() || !scheduler.idle()) {
      if (sinks.size() < requests.size()) {
        const GenerationRequest& request = requests[sinks.size()];
        sinks.push_back(std::make_shared<RecordingSink>());
        const absl::StatusOr<int32_t> most = MaxOutputTokens(request, options, info);
        EXPECT_TRUE(most.ok()) << most.status();
        scheduler.Add(request, sinks.back(), *most, SteadyClock::now());
      }
      std::optional<Step> step = scheduler.NextStep(SteadyClock::now());
      if (!step.has_value()) continue;
      base_->Submit(*std::move(step));
      scheduler.Commit(base_->Collect(), SteadyClock::now());
    }
    preemptions_ = scheduler.Load().preemptions;
    return sinks;
  }

  std::vector<Case> MakeCases() {
    std::vector<int32_t> document(150);
    for (int32_t& token : document) token = static_cast<int32_t>(random_() % 256);
    std::vector<Case> cases;
    for (int32_t i = 0; i < kRequests; ++i) {
      Case c;
      c.adapter = i % (kAdapters + 1) - 1;
      c.request.id = std::to_string(i);
      c.request.prompt = std::make_shared<const std::vector<int32_t>>(
          document.begin(), document.begin() + 10 + random_() % 140);
      c.request.recipe = testing::RandomRecipe(&random_, config_.num_layers);
      c.request.recipe_label = "custom";
      c.request.sampling.temperature = 0;
      c.request.stopping = {.max_tokens = 8, .ignore_eos = true};
      c.request.output_logprobs = 2;
      Device* device = c.adapter < 0 ? base_.get() : merged_[c.adapter].get();
      const auto alone = Run(device, {c.request}, 512, /*cache=*/false)[0];
      c.expected = alone->output;
      for (const OutputToken& token : alone->events) {
        const auto& top = token.scored.top;
        if (top[0].second - top[1].second < kNearTie) break;
        ++c.compared;
      }
      if (c.adapter >= 0) c.request.adapter = adapters_[c.adapter];
      cases.push_back(std::move(c));
    }
    return cases;
  }

  static std::vector<GenerationRequest> Requests(const std::vector<Case>& cases) {
    std::vector<GenerationRequest> requests;
    for (const Case& c : cases) requests.push_back(c.request);
    return requests;
  }

  static void Expect(const std::vector<Case>& cases,
                     const std::vector<std::shared_ptr<RecordingSink>>& sinks,
                     const std::string& how) {
    size_t compared = 0;
    for (size_t i = 0; i < cases.size(); ++i) {
      const Case& c = cases[i];
      ASSERT_TRUE(sinks[i]->result.has_value()) << how << " " << sinks[i]->status;
      ASSERT_EQ(sinks[i]->output.size(), c.expected.size());
      const auto end = c.expected.begin() + static_cast<int64_t>(c.compared);
      EXPECT_TRUE(std::equal(c.expected.begin(), end, sinks[i]->output.begin()))
          << how << ", request " << i << ", the first " << c.compared << " tokens";
      compared += c.compared;
    }
    if (cases.size() > 1) {
      EXPECT_GT(compared, cases.size() * 3) << "too few tokens were compared to say anything";
    }
  }

  const uint32_t seed_ = testing::Seed();
  std::mt19937 random_;
  const ModelConfig config_ = SmallConfig();
  const std::unique_ptr<Tokenizer> tokenizer_ = testing::MakeByteTokenizer();
  std::unique_ptr<Device> base_;
  std::vector<std::shared_ptr<LoadedAdapter>> adapters_;
  std::vector<std::unique_ptr<Device>> merged_;
  size_t most_adapters_ = 0;  // of a step of the last Run
  int64_t preemptions_ = 0;
};

TEST_P(AdapterTest, TokensAreThoseOfMergedWeightsWhateverTheCompany) {
  SCOPED_TRACE(seed_);
  const std::vector<Case> cases = MakeCases();
  ASSERT_FALSE(HasFatalFailure());
  // Adapters matter, or this test could not fail.
  int32_t changed = 0;
  for (const Case& c : cases) {
    if (c.adapter < 0) continue;
    GenerationRequest plain = c.request;
    plain.adapter = nullptr;
    changed += Run(base_.get(), {plain}, 512, false)[0]->output != c.expected;
    Expect({c}, Run(base_.get(), {c.request}, 512, false), "alone");
  }
  EXPECT_GT(changed, kRequests / 2);

  Expect(cases, Run(base_.get(), Requests(cases), 512, false), "mixed");
  EXPECT_EQ(most_adapters_, size_t{kAdapters});
  for (const int32_t budget : {23, 100}) {
    Expect(cases, Run(base_.get(), Requests(cases), budget, false),
           "in steps of " + std::to_string(budget));
  }
  std::vector<GenerationRequest> forced = Requests(cases);
  for (size_t i = 0; i < cases.size(); ++i) {
    const std::vector<int32_t>& all = cases[i].expected;
    forced[i].forced_output.assign(all.begin(), all.begin() + random_() % all.size());
  }
  Expect(cases, Run(base_.get(), forced, 128, false), "partly forced");
  // All prompts begin alike, under four scopes: each may find only what its own adapter left. Those
  // that come again find that.
  std::vector<Case> twice = cases;
  for (Case c : cases) {
    c.request.id += " again";
    twice.push_back(std::move(c));
  }
  const auto cached = Run(base_.get(), Requests(twice), 64, true);
  Expect(twice, cached, "from the prefix cache");
  int32_t hits = 0;
  for (const auto& sink : cached) hits += sink->result->stats.cached_prompt_tokens > 0;
  EXPECT_GT(hits, 0);
  // Those that outrank the others come later, and take their pages.
  std::vector<GenerationRequest> ranked = Requests(cases);
  for (size_t i = 0; i < ranked.size(); ++i) ranked[i].priority = static_cast<int32_t>(i);
  Expect(cases, RunOneAfterTheOther(ranked, 1 + 4 * config_.num_layers), "short of pages");
  EXPECT_GT(preemptions_, 0);
}

TEST_P(AdapterTest, AnotherLoadOfTheSameAdapterFindsNothingOfTheFirst) {
  SCOPED_TRACE(seed_);
  std::vector<int32_t> prompt(200);
  for (int32_t& token : prompt) token = static_cast<int32_t>(random_() % 256);
  const DeviceInfo info = base_->info();
  const SchedulerOptions options{.max_batch_tokens = 512,
                                 .max_running_requests = kRequests,
                                 .max_context_tokens = config_.max_context_tokens,
                                 .prefix_cache = true};
  Scheduler scheduler(options, info, tokenizer_.get());
  auto again = std::make_shared<LoadedAdapter>(*adapters_[0]);
  again->load = 99;
  std::vector<int32_t> cached;
  for (const AdapterHandle& adapter : {AdapterHandle(), AdapterHandle(adapters_[0]),
                                       AdapterHandle(adapters_[0]), AdapterHandle(again)}) {
    GenerationRequest request;
    request.id = "r";
    request.prompt = testing::Shared(prompt);
    request.recipe = {.layer_full = std::vector<bool>(config_.num_layers),
                      .decode_full = std::vector<bool>(config_.num_layers)};
    request.adapter = adapter;
    request.stopping = {.max_tokens = 1, .ignore_eos = true};
    auto sink = std::make_shared<RecordingSink>();
    scheduler.Add(request, sink, 1, SteadyClock::now());
    // Whose requests wait, and run, is told by name.
    const std::string name = adapter == nullptr ? "" : adapter->name;
    EXPECT_EQ(scheduler.Load().adapters[name].queued, adapter == nullptr ? 0 : 1);
    while (!scheduler.idle()) {
      base_->Submit(*scheduler.NextStep(SteadyClock::now()));
      EXPECT_EQ(scheduler.Load().adapters[name].running, adapter == nullptr ? 0 : 1);
      scheduler.Commit(base_->Collect(), SteadyClock::now());
    }
    ASSERT_TRUE(sink->result.has_value()) << sink->status;
    cached.push_back(sink->result->stats.cached_prompt_tokens);
    // No request is left: nobody but this test and the lists above owns the adapter.
  }
  EXPECT_EQ(cached, (std::vector<int32_t>{0, 0, 192, 0}));
}

TEST_P(AdapterTest, AdaptersAreLetGoWithTheirLastRequest) {
  SchedulerOptions options{.max_batch_tokens = 512,
                           .max_running_requests = kRequests,
                           .max_context_tokens = config_.max_context_tokens};
  Scheduler scheduler(options, base_->info(), tokenizer_.get());
  GenerationRequest request;
  request.id = "r";
  request.prompt = testing::Shared({1, 2, 3});
  request.recipe = {.layer_full = std::vector<bool>(config_.num_layers),
                    .decode_full = std::vector<bool>(config_.num_layers)};
  request.stopping = {.max_tokens = 4, .ignore_eos = true};
  request.adapter = adapters_[1];
  const std::weak_ptr<const LoadedAdapter> watch = adapters_[1];
  scheduler.Add(std::move(request), std::make_shared<RecordingSink>(), 4, SteadyClock::now());
  adapters_.clear();
  while (!scheduler.idle() || scheduler.steps_in_flight() > 0) {
    ASSERT_FALSE(watch.expired());
    base_->Submit(*scheduler.NextStep(SteadyClock::now()));
    scheduler.Commit(base_->Collect(), SteadyClock::now());
  }
  EXPECT_TRUE(watch.expired());
}

INSTANTIATE_TEST_SUITE_P(Ranks, AdapterTest, ::testing::Values(1, 2));

}  // namespace
}  // namespace swaa
