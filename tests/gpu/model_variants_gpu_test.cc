// Mixtures of experts and adapters on the GPU, as whole models against the CPU.

#include <atomic>
#include <cmath>
#include <cuda_runtime_api.h>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "engine/checkpoint/peft_adapter.h"
#include "engine/checkpoint/weight_table.h"
#include "tests/gpu/model_gpu_fixture.h"

namespace swaa {
namespace {

ModelConfig MixtureConfig(int32_t experts, int32_t per_token) {
  ModelConfig config = SmallConfig(64);
  config.architecture = "qwen3_moe";
  config.qk_norm = true;
  config.experts = ExpertsConfig{.count = experts,
                                 .per_token = per_token,
                                 .ffn_width = 72,
                                 .normalize = true,
                                 .dense_layers = {1}};
  return config;
}

// A random adapter and the memory that its checkpoint points to.
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
};

class ModelVariantsGpuTest : public ModelGpuTest {
 protected:
  // Of about half the products; of those of a mixture's experts, none.
  std::unique_ptr<RandomAdapter> MakeAdapter() {
    auto adapter = std::make_unique<RandomAdapter>();
    for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
      for (const WeightRole role :
           {WeightRole::kQuery, WeightRole::kKey, WeightRole::kValue, WeightRole::kAttentionOutput,
            WeightRole::kFfnGate, WeightRole::kFfnUp, WeightRole::kFfnDown}) {
        const bool ffn = role == WeightRole::kFfnGate || role == WeightRole::kFfnUp ||
                         role == WeightRole::kFfnDown;
        if (random_() % 2 == 0 || (ffn && config_.is_mixture(layer))) continue;
        const std::vector<int64_t> shape = WeightShape(SpecOf(role), config_);
        const auto rank = static_cast<int32_t>(1 + random_() % 40);
        adapter->checkpoint.matrices[{role, layer}] = {
            .rank = rank,
            .scale = 0.5,
            .down = adapter->Matrix(rank, shape[1], 1 / std::sqrt(shape[1]), &random_),
            .up = adapter->Matrix(shape[0], rank, 1 / std::sqrt(rank), &random_)};
      }
    }
    return adapter;
  }

  void LoadAdapters(int count) {
    for (int i = 0; i < count; ++i) {
      const std::unique_ptr<RandomAdapter> adapter = MakeAdapter();
      for (Device* device : {gpu_.get(), cpu_.get()}) {
        auto loaded = device->LoadAdapter(adapter->checkpoint);
        ASSERT_TRUE(loaded.ok()) << loaded.status();
        adapters_[device].push_back(*std::move(loaded));
      }
    }
  }
};

// Every expert is chosen: rounding changes no choice.
TEST_F(ModelVariantsGpuTest, MixturesOfAllTheirExpertsMatchTheCpu) {
  SCOPED_TRACE(seed_);
  Load(MixtureConfig(8, 8));
  ASSERT_TRUE(gpu_ != nullptr && cpu_ != nullptr);
  for (int round = 0; round < 3; ++round) {
    Compare("all of 8 experts");
    if (HasFatalFailure()) return;
  }
}

// Where two experts' logits are near one another rounding chooses otherwise, for a few rows.
TEST_F(ModelVariantsGpuTest, MixturesThatChooseMatchTheCpuInMostRows) {
  SCOPED_TRACE(seed_);
  Load(MixtureConfig(16, 3));
  ASSERT_TRUE(gpu_ != nullptr && cpu_ != nullptr);
  for (int round = 0; round < 3; ++round) {
    const std::vector<double> differences = Differences("3 of 16 experts");
    ASSERT_FALSE(differences.empty());
    const double median = differences[differences.size() / 2];
    const double most = differences[differences.size() * 3 / 4];
    std::cout << "3 of 16 experts: relative differences, median " << median << ", three quarters "
              << most << ", worst " << differences.back() << std::endl;
    EXPECT_LT(median, 0.01);
    EXPECT_LT(most, 0.03);
  }
}

TEST_F(ModelVariantsGpuTest, MixesOfAdaptersMatchTheCpu) {
  SCOPED_TRACE(seed_);
  Load(SmallConfig(64));
  ASSERT_TRUE(gpu_ != nullptr && cpu_ != nullptr);
  EXPECT_TRUE(gpu_->SupportsAdapters().ok());
  for (const int adapters : {1, 3, 4}) {
    LoadAdapters(adapters - static_cast<int>(adapters_[gpu_.get()].size()));
    ASSERT_FALSE(HasFatalFailure());
    for (int round = 0; round < 2; ++round) {
      Compare(std::to_string(adapters) + " adapters");
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(ModelVariantsGpuTest, AMixtureTakesAdaptersOfItsAttention) {
  SCOPED_TRACE(seed_);
  Load(MixtureConfig(8, 8));
  ASSERT_TRUE(gpu_ != nullptr && cpu_ != nullptr);
  LoadAdapters(2);
  ASSERT_FALSE(HasFatalFailure());
  Compare("a mixture with adapters");
}

TEST_F(ModelVariantsGpuTest, GpusThatShareMixturesAndAdaptersComputeTheSame) {
  SCOPED_TRACE(seed_);
  int count = 0;
  ASSERT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
  if (count < 2) GTEST_SKIP() << "one GPU";
  for (const int32_t ranks : {2, 4, 8}) {
    if (ranks > count) continue;
    ModelConfig dense = SmallConfig(64);
    ModelConfig mixture = MixtureConfig(8, 8);
    mixture.experts->ffn_width = 128;  // a multiple of 8 on each of 8 ranks
    for (ModelConfig* config : {&dense, &mixture}) {
      config->heads = 8;
      adapters_.clear();  // of devices that go
      Load(*config, "cuda", ranks);
      ASSERT_TRUE(gpu_ != nullptr && cpu_ != nullptr);
      const std::string what = config->architecture + ", ranks: " + std::to_string(ranks);
      Compare(what);
      LoadAdapters(3);
      if (HasFatalFailure()) return;
      Compare(what + ", adapters");
      if (HasFatalFailure()) return;
    }
  }
}

// Others come and go beside steps that read those that stay.
TEST_F(ModelVariantsGpuTest, AdaptersComeAndGoWhileStepsRun) {
  SCOPED_TRACE(seed_);
  Load(SmallConfig(64));
  ASSERT_TRUE(gpu_ != nullptr && cpu_ != nullptr);
  LoadAdapters(2);
  ASSERT_FALSE(HasFatalFailure());
  const int64_t before = gpu_->Memory(0).weights;
  const std::unique_ptr<RandomAdapter> other = MakeAdapter();
  std::atomic<bool> stop = false;
  std::atomic<int> loads = 0;
  std::thread loader([&] {
    while (!stop) {
      auto loaded = gpu_->LoadAdapter(other->checkpoint);
      ASSERT_TRUE(loaded.ok()) << loaded.status();
      ++loads;
    }
  });
  for (int round = 0; round < 3; ++round) Compare("beside loading");
  while (loads < 3) std::this_thread::yield();
  stop = true;
  loader.join();
  EXPECT_EQ(gpu_->Memory(0).weights, before);
}

}  // namespace
}  // namespace swaa
