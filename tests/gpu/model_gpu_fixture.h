// Whole models on the GPU against the same weights on the CPU in f32: random sequences under mixed
// recipes and adapters, chunks, both sides of the prompt's end in one step, decoding in captured
// graphs two steps deep.

#ifndef SWAA_TESTS_GPU_MODEL_GPU_FIXTURE_H_
#define SWAA_TESTS_GPU_MODEL_GPU_FIXTURE_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "engine/model/model_device.h"
#include "tests/unit/model/tiny_model.h"
#include "tests/unit/testing/seed.h"

namespace swaa {
using kernels::KeySpan;

inline constexpr int32_t kSlots = 6;
inline constexpr int32_t kMaxBlocks = 8;

// A sequence with what each layer sees while prefilling and while decoding.
struct Sequence {
  std::vector<int32_t> tokens;
  int32_t prompt_tokens = 0;
  std::vector<KeySpan> prefill;  // [layers]
  std::vector<KeySpan> decode;
  int32_t computed = 0;
  std::vector<double> logprobs;  // of token i + 1 after i
  int16_t adapter = -1;          // of the fixture's
};

inline ModelConfig SmallConfig(int32_t head_dim) {
  ModelConfig config = TinyConfig();
  config.head_dim = head_dim;
  config.hidden = 128;
  config.heads = 6;
  config.kv_heads = 2;
  config.ffn_width = 192;
  config.vocab_size = 264;
  return config;
}

class ModelGpuTest : public ::testing::Test {
 protected:
  void Load(const ModelConfig& config, const std::string& device = "cuda", int32_t ranks = 1) {
    config_ = config;
    checkpoint_.config = config;
    checkpoint_.weights = std::make_shared<RandomWeights>(config, seed_);
    gpu_ = Create(device, "auto", ranks);
    cpu_ = Create("cpu", "f32");
  }

  std::unique_ptr<Device> Create(const std::string& device, const std::string& dtype,
                                 int32_t ranks = 1) {
    ModelDeviceOptions options;
    options.ranks = ranks;
    options.operators = {.device = device, .dtype = dtype};
    options.kv_cache_bytes = int64_t{64} << 20;
    options.max_step_tokens = 2 * kSlots * 100;
    options.num_slots = kSlots;
    auto created = CreateModelDevice(checkpoint_, options);
    EXPECT_TRUE(created.ok()) << created.status();
    return created.ok() ? *std::move(created) : nullptr;
  }

  // Rows of one slot that see everything before them; the token after the last is drawn, or scored.
  Step RowsOf(int32_t slot, int32_t first, std::vector<int32_t> tokens, bool draws) const {
    const auto count = static_cast<int32_t>(tokens.size());
    return {
        .tokens = std::move(tokens),
        .sequences = {{slot, 0, count, first}},
        .layer_class = std::vector<uint8_t>(config_.num_layers, 0),
        .spans = {KeySpan{}},
        .logits = {
            {.row = count - 1, .slot = slot, .known_token = draws ? -1 : 1, .alternatives = 0}}};
  }

  // The first block of a slot in all layers: pages from `first_page` on.
  std::vector<PageTableUpdate> FirstBlock(int32_t slot, int32_t first_page) const {
    std::vector<PageTableUpdate> updates;
    for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
      updates.push_back({slot, layer, 0, first_page + layer});
    }
    return updates;
  }

  KeySpan RandomSpan() {
    if (random_() % 3 == 0) return {};
    return {.window = 1 + static_cast<int32_t>(random_() % 150),
            .sinks = static_cast<int32_t>(random_() % 80)};
  }

  std::vector<Sequence> RandomSequences() {
    std::vector<Sequence> sequences(kSlots);
    for (Sequence& sequence : sequences) {
      const auto length = static_cast<int32_t>(40 + random_() % (kMaxBlocks * 64 - 40));
      sequence.prompt_tokens = static_cast<int32_t>(1 + random_() % length);
      // One number more than adapters: none.
      const auto adapters = static_cast<uint32_t>(adapters_[gpu_.get()].size());
      sequence.adapter = static_cast<int16_t>(static_cast<int32_t>(random_() % (adapters + 1)) - 1);
      for (int32_t i = 0; i < length; ++i) {
        sequence.tokens.push_back(static_cast<int32_t>(random_() % config_.vocab_size));
      }
      for (int32_t l = 0; l < config_.num_layers; ++l) {
        sequence.prefill.push_back(RandomSpan());
        sequence.decode.push_back(RandomSpan());
      }
    }
    return sequences;
  }

  // Rows of every unfinished sequence, at most `chunk` each; every row's next token is scored.
  Step NextStep(std::vector<Sequence>* sequences, int32_t chunk) {
    Step step;
    std::vector<std::vector<KeySpan>> columns;  // of each sequence in the step
    for (int32_t slot = 0; slot < kSlots; ++slot) {
      Sequence& sequence = (*sequences)[slot];
      for (const bool decodes : {false, true}) {
        const auto end = decodes ? static_cast<int32_t>(sequence.tokens.size()) - 1
                                 : std::min(sequence.prompt_tokens,
                                            static_cast<int32_t>(sequence.tokens.size()) - 1);
        const int32_t count = std::min(chunk, end - sequence.computed);
        if (count <= 0 || decodes != (sequence.computed >= sequence.prompt_tokens)) continue;
        const auto first_row = static_cast<int32_t>(step.tokens.size());
        step.sequences.push_back({slot, first_row, count, sequence.computed});
        step.sequence_adapters.push_back(sequence.adapter);
        columns.push_back(decodes ? sequence.decode : sequence.prefill);
        for (int32_t i = 0; i < count; ++i) {
          const int32_t position = sequence.computed + i;
          step.tokens.push_back(sequence.tokens[position]);
          step.logits.push_back({.row = first_row + i,
                                 .slot = slot,
                                 .known_token = sequence.tokens[position + 1],
                                 .alternatives = 0});
        }
        sequence.computed += count;
      }
    }
    step.layer_class.resize(config_.num_layers);
    std::iota(step.layer_class.begin(), step.layer_class.end(), uint8_t{0});
    for (int32_t l = 0; l < config_.num_layers; ++l) {
      for (const auto& column : columns) step.spans.push_back(column[l]);
    }
    return step;
  }

  std::vector<PageTableUpdate> AllPages() {
    std::vector<int32_t> pages(kSlots * config_.num_layers * kMaxBlocks);
    std::iota(pages.begin(), pages.end(), 1);
    std::shuffle(pages.begin(), pages.end(), random_);
    std::vector<PageTableUpdate> updates;
    for (int32_t slot = 0; slot < kSlots; ++slot) {
      for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
        for (int32_t block = 0; block < kMaxBlocks; ++block) {
          updates.push_back({slot, layer, block, pages[updates.size()]});
        }
      }
    }
    return updates;
  }

  // Scores all sequences in chunks of random sizes, as many steps deep as the device is.
  void Score(Device* device, std::vector<Sequence>* sequences, const std::vector<int32_t>& chunks) {
    std::vector<Step> in_flight;
    std::vector<PageTableUpdate> pages = AllPages();
    const auto collect = [&] {
      const Step& step = in_flight.front();
      const StepResult result = device->Collect();
      ASSERT_TRUE(result.status.ok()) << result.status;
      ASSERT_EQ(result.tokens.size(), step.logits.size());
      for (size_t i = 0; i < step.logits.size(); ++i) {
        (*sequences)[step.logits[i].slot].logprobs.push_back(result.tokens[i].logprob);
      }
      in_flight.erase(in_flight.begin());
    };
    for (size_t n = 0;; ++n) {
      Step step = NextStep(sequences, chunks[n % chunks.size()]);
      if (step.tokens.empty()) break;
      step.id = n;
      step.page_table_updates = std::exchange(pages, {});
      step.adapters = adapters_[device];
      if (static_cast<int32_t>(in_flight.size()) == device->info().max_steps_in_flight) collect();
      if (HasFatalFailure()) return;
      in_flight.push_back(step);
      device->Submit(std::move(step));
    }
    while (!in_flight.empty() && !HasFatalFailure()) collect();
  }

  // Scores random sequences on both devices. The CPU's absolute log-probabilities are `scale` on
  // average; differences are relative to it, rising.
  std::vector<double> Differences(const std::string& what) {
    std::vector<int32_t> chunks = {8};  // 48 rows: skinny on Hopper alone
    for (int i = 0; i < 6; ++i) {
      // Single rows are steps that graphs replay.
      chunks.push_back(random_() % 2 == 0 ? 1 : static_cast<int32_t>(1 + random_() % 100));
    }
    std::vector<Sequence> on_gpu = RandomSequences();
    std::vector<Sequence> on_cpu = on_gpu;
    Score(gpu_.get(), &on_gpu, chunks);
    if (!HasFatalFailure()) Score(cpu_.get(), &on_cpu, {100});
    if (HasFatalFailure()) return {};
    double scale = 0;
    std::vector<double> differences;
    for (int32_t s = 0; s < kSlots; ++s) {
      EXPECT_EQ(on_gpu[s].logprobs.size(), on_gpu[s].tokens.size() - 1) << what;
      EXPECT_EQ(on_cpu[s].logprobs.size(), on_gpu[s].logprobs.size()) << what;
      for (size_t i = 0; i < on_gpu[s].logprobs.size(); ++i) {
        const double difference = std::abs(on_gpu[s].logprobs[i] - on_cpu[s].logprobs[i]);
        EXPECT_TRUE(std::isfinite(difference)) << what << ", sequence " << s << ", row " << i;
        differences.push_back(difference);
        scale += std::abs(on_cpu[s].logprobs[i]);
      }
    }
    scale /= static_cast<double>(differences.size());
    for (double& difference : differences) difference /= scale;
    std::sort(differences.begin(), differences.end());
    return differences;
  }

  void Compare(const std::string& what) {
    const std::vector<double> differences = Differences(what);
    ASSERT_FALSE(differences.empty()) << what;
    // Weights and activations in bf16 beside f32; a wrong key or a wrong rotation is off by far
    // more. Relative to the log-probabilities: tied random embeddings give logits ten times as
    // large.
    const double mean = std::accumulate(differences.begin(), differences.end(), 0.0) /
                        static_cast<double>(differences.size());
    const double worst = differences.back();
    std::cout << what << ": relative differences, mean " << mean << ", worst " << worst
              << std::endl;
    EXPECT_LT(mean, 0.005) << what;
    EXPECT_LT(worst, 0.06) << what;
  }

  const uint32_t seed_ = testing::Seed();
  std::mt19937 random_{seed_};
  ModelConfig config_;
  Checkpoint checkpoint_;
  std::unique_ptr<Device> gpu_;
  std::unique_ptr<Device> cpu_;
  // By device: those that sequences name.
  std::map<const Device*, std::vector<std::shared_ptr<const DeviceAdapter>>> adapters_;
};

}  // namespace swaa

#endif  // SWAA_TESTS_GPU_MODEL_GPU_FIXTURE_H_
