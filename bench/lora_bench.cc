// A decode step of 16 rows, each its own sequence, under 0, 1, 4 and 16 different adapters of rank
// 16: of all seven modules of a layer, and of q_proj, k_proj and v_proj alone.
//
//   build/bin/lora_bench MODEL [DEVICE [LOAD_FORMAT]] [--benchmark_filter=...]
//
// MODEL is a GGUF file or a Hugging Face folder, DEVICE cpu (the default) or cuda, LOAD_FORMAT auto
// or dummy. Where others are at work, processor_ms of one thread (taskset -c 0) tells more than
// time.

#include <cstdint>
#include <iostream>
#include <memory>
#include <string>
#include <time.h>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include "engine/checkpoint/peft_adapter.h"
#include "engine/checkpoint/weight_table.h"
#include "engine/model/model_device.h"
#include "kernels/cpu/threads.h"
#include "kernels/page_count.h"

namespace swaa {
namespace {

constexpr int32_t kRows = 16;
constexpr int32_t kRank = 16;
constexpr int32_t kPosition = 255;  // of every row
constexpr int32_t kBlocks = (kPosition + kernels::kPageTokens) / kernels::kPageTokens;
constexpr WeightRole kAll[] = {
    WeightRole::kQuery,   WeightRole::kKey,   WeightRole::kValue,  WeightRole::kAttentionOutput,
    WeightRole::kFfnGate, WeightRole::kFfnUp, WeightRole::kFfnDown};
// What adapting a model to windows trains.
constexpr WeightRole kQueryKeyValue[] = {WeightRole::kQuery, WeightRole::kKey, WeightRole::kValue};

class Bench {
 public:
  Bench(const std::string& path, const std::string& device, LoadFormat format) {
    absl::StatusOr<Checkpoint> checkpoint = LoadCheckpoint(path, format);
    Check(checkpoint.status());
    config_ = checkpoint->config;
    ModelDeviceOptions options;
    options.operators.device = device;
    options.kv_cache_bytes = int64_t{1} << 30;
    options.max_step_tokens = kRows;
    options.num_slots = kRows;
    absl::StatusOr<std::unique_ptr<Device>> created = CreateModelDevice(*checkpoint, options);
    Check(created.status());
    device_ = *std::move(created);
    SetUp();
  }

  const std::string& name() const { return device_->info().name; }

  // Seconds of a step whose rows have these adapters in turn.
  double StepSeconds(const std::vector<std::shared_ptr<const DeviceAdapter>>& adapters) {
    Step step = MakeStep();
    step.adapters = adapters;
    for (int32_t row = 0; row < kRows && !adapters.empty(); ++row) {
      step.sequence_adapters.push_back(static_cast<int16_t>(row % adapters.size()));
    }
    // As many in flight as the device takes: it is not to wait for the host.
    while (in_flight_ + 1 < device_->info().max_steps_in_flight) Submit(step);
    Submit(std::move(step));
    return Collect();
  }

  // Ends what StepSeconds left in flight.
  void Finish() {
    while (in_flight_ > 0) Collect();
  }

  std::shared_ptr<const DeviceAdapter> MakeAdapter(std::span<const WeightRole> roles) {
    LoraCheckpoint checkpoint;
    std::vector<std::unique_ptr<std::vector<float>>> values;
    const auto matrix = [&](int64_t rows, int64_t columns) -> StoredTensor {
      std::vector<float>& made =
          *values.emplace_back(std::make_unique<std::vector<float>>(rows * columns));
      for (float& value : made) value = 1e-3f * static_cast<float>(++noise_ * 7919 % 201) - 0.1f;
      return {.shape = {rows, columns},
              .data = reinterpret_cast<const std::byte*>(made.data()),
              .bytes = rows * columns * 4};
    };
    for (const WeightRole role : roles) {
      const std::vector<int64_t> shape = WeightShape(SpecOf(role), config_);
      for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
        checkpoint.matrices[{role, layer}] = {.rank = kRank,
                                              .scale = 0.01,
                                              .down = matrix(kRank, shape[1]),
                                              .up = matrix(shape[0], kRank)};
      }
    }
    auto adapter = device_->LoadAdapter(checkpoint);
    Check(adapter.status());
    return *std::move(adapter);
  }

 private:
  static void Check(const absl::Status& status) {
    if (status.ok()) return;
    std::cerr << status << std::endl;
    std::exit(1);
  }

  Step MakeStep() {
    Step step;
    step.layer_class.assign(config_.num_layers, 0);
    step.spans.assign(kRows, {});
    for (int32_t row = 0; row < kRows; ++row) {
      step.tokens.push_back(1000 + row);
      step.sequences.push_back(
          {.slot = row, .first_row = row, .query_count = 1, .first_position = kPosition});
      step.logits.push_back({.row = row, .slot = row});
    }
    return step;
  }

  // Pages for every position, and greedy draws.
  void SetUp() {
    Step step = MakeStep();
    auto greedy = std::make_shared<kernels::SamplingParams>();
    greedy->temperature = 0;
    int32_t page = 0;
    for (int32_t slot = 0; slot < kRows; ++slot) {
      step.setups.push_back({.slot = slot, .sampling = greedy});
      for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
        for (int32_t block = 0; block < kBlocks; ++block) {
          step.page_table_updates.push_back({slot, layer, block, ++page});
        }
      }
    }
    Submit(std::move(step));
    Collect();
  }

  void Submit(Step step) {
    step.id = ++steps_;
    device_->Submit(std::move(step));
    ++in_flight_;
  }

  double Collect() {
    const StepResult result = device_->Collect();
    Check(result.status);
    --in_flight_;
    return result.seconds;
  }

  ModelConfig config_;
  std::unique_ptr<Device> device_;
  uint64_t steps_ = 0;
  int32_t in_flight_ = 0;
  uint64_t noise_ = 0;
};

// Of all threads of this process: it stands still while other processes have their cores.
double ProcessorSeconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

void BM_Step(benchmark::State& state, Bench* bench, std::span<const WeightRole> roles) {
  std::vector<std::shared_ptr<const DeviceAdapter>> adapters;
  for (int64_t a = 0; a < state.range(0); ++a) adapters.push_back(bench->MakeAdapter(roles));
  bench->StepSeconds(adapters);
  const double begin = ProcessorSeconds();
  for (auto _ : state) state.SetIterationTime(bench->StepSeconds(adapters));
  state.counters["processor_ms"] =
      (ProcessorSeconds() - begin) * 1e3 / static_cast<double>(state.iterations());
  bench->Finish();
  int64_t bytes = 0;
  for (const auto& adapter : adapters) bytes += adapter->bytes();
  state.counters["adapter_MiB"] = static_cast<double>(bytes) / (1 << 20);
}

}  // namespace
}  // namespace swaa

int main(int argc, char** argv) {
  swaa::kernels::cpu::ConfigureOpenMp(0);
  benchmark::Initialize(&argc, argv);
  if (argc < 2 || argc > 4) {
    std::cerr << "usage: lora_bench MODEL [DEVICE [LOAD_FORMAT]]\n";
    return 1;
  }
  const bool dummy = argc > 3 && std::string(argv[3]) == "dummy";
  swaa::Bench bench(argv[1], argc > 2 ? argv[2] : "cpu",
                    dummy ? swaa::LoadFormat::kDummy : swaa::LoadFormat::kAuto);
  benchmark::AddCustomContext("device", bench.name());
  for (const auto& [name, roles] :
       {std::pair<const char*, std::span<const swaa::WeightRole>>{"all", swaa::kAll},
        {"query_key_value", swaa::kQueryKeyValue}}) {
    auto* registered = benchmark::RegisterBenchmark(
        (std::string("Decode16/") + name).c_str(),
        [&bench, roles = roles](benchmark::State& state) { swaa::BM_Step(state, &bench, roles); });
    registered->UseManualTime()->Unit(benchmark::kMillisecond);
    for (const int64_t adapters : {0, 1, 4, 16}) registered->Arg(adapters);
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
