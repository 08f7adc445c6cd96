// A decode step of n rows, each its own sequence, for n in turn: whether a row more ever costs so
// much that fewer tokens a second come out.
//
//   build/bin/step_bench MODEL [--rows N] [--depth N] [--rounds N] [--threads N]
//
// MODEL is a GGUF file or a Hugging Face folder. Every round has a step of each row count, one
// directly after the other, so that what else runs on the machine is shared by all. Printed are the
// median and the least time of each, and the tokens a second that the least one makes.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.h"
#include "engine/model/model_device.h"
#include "kernels/cpu/threads.h"
#include "kernels/page_count.h"

namespace swaa {
namespace {

struct Arguments {
  std::string model;
  int32_t rows = 32;
  int32_t depth = 64;  // keys that each row sees
  int32_t rounds = 60;
  int32_t threads = 0;  // 0: all processors
};

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << status << std::endl;
  std::exit(1);
}

class Bench {
 public:
  explicit Bench(const Arguments& arguments) : arguments_(arguments) {
    absl::StatusOr<Checkpoint> checkpoint = LoadCheckpoint(arguments.model, LoadFormat::kAuto);
    Check(checkpoint.status());
    layers_ = checkpoint->config.num_layers;
    ModelDeviceOptions options;
    options.operators.device = "cpu";
    options.operators.threads = arguments.threads;
    options.kv_cache_bytes = int64_t{1} << 30;
    options.max_step_tokens = arguments.rows;
    options.num_slots = arguments.rows;
    absl::StatusOr<std::unique_ptr<Device>> created = CreateModelDevice(*checkpoint, options);
    Check(created.status());
    device_ = *std::move(created);
    SetUp();
  }

  const std::string& name() const { return device_->info().name; }

  // Of a step of the first `rows` sequences.
  double StepSeconds(int32_t rows) { return Run(MakeStep(rows)); }

 private:
  Step MakeStep(int32_t rows) const {
    Step step;
    step.layer_class.assign(layers_, 0);
    step.spans.assign(rows, {});
    for (int32_t row = 0; row < rows; ++row) {
      step.tokens.push_back(1000 + row);
      step.sequences.push_back({.slot = row,
                                .first_row = row,
                                .query_count = 1,
                                .first_position = arguments_.depth - 1});
      step.logits.push_back({.row = row, .slot = row});
    }
    return step;
  }

  // Pages for every position, and greedy draws.
  void SetUp() {
    Step step = MakeStep(arguments_.rows);
    auto greedy = std::make_shared<kernels::SamplingParams>();
    greedy->temperature = 0;
    const int32_t blocks = (arguments_.depth + kernels::kPageTokens - 1) / kernels::kPageTokens;
    int32_t page = 0;
    for (int32_t slot = 0; slot < arguments_.rows; ++slot) {
      step.setups.push_back({.slot = slot, .sampling = greedy});
      for (int32_t layer = 0; layer < layers_; ++layer) {
        for (int32_t block = 0; block < blocks; ++block) {
          step.page_table_updates.push_back({slot, layer, block, ++page});
        }
      }
    }
    SWAA_CHECK_LT(page, device_->info().num_pages) << "the pool is too small for these sequences";
    Run(std::move(step));
  }

  double Run(Step step) {
    step.id = ++steps_;
    device_->Submit(std::move(step));
    const StepResult result = device_->Collect();
    Check(result.status);
    return result.seconds;
  }

  const Arguments arguments_;
  int32_t layers_ = 0;
  std::unique_ptr<Device> device_;
  uint64_t steps_ = 0;
};

Arguments Parse(int argc, char** argv) {
  Arguments arguments;
  const std::pair<std::string_view, int32_t*> flags[] = {{"--rows", &arguments.rows},
                                                         {"--depth", &arguments.depth},
                                                         {"--rounds", &arguments.rounds},
                                                         {"--threads", &arguments.threads}};
  for (int i = 1; i < argc; ++i) {
    const auto flag = std::find_if(std::begin(flags), std::end(flags),
                                   [&](const auto& f) { return f.first == argv[i]; });
    if (flag != std::end(flags) && i + 1 < argc) {
      *flag->second = std::atoi(argv[++i]);
    } else if (arguments.model.empty() && argv[i][0] != '-') {
      arguments.model = argv[i];
    } else {
      arguments.model.clear();
      break;
    }
  }
  if (arguments.model.empty() || arguments.rows < 1 || arguments.depth < 1 ||
      arguments.rounds < 1) {
    std::cerr << "usage: step_bench MODEL [--rows N] [--depth N] [--rounds N] [--threads N]\n";
    std::exit(1);
  }
  return arguments;
}

void Main(const Arguments& arguments) {
  Bench bench(arguments);
  std::vector<std::vector<double>> seconds(arguments.rows + 1);
  for (int32_t round = 0; round < arguments.rounds; ++round) {
    for (int32_t rows = 1; rows <= arguments.rows; ++rows) {
      seconds[rows].push_back(bench.StepSeconds(rows));
    }
  }
  std::printf("%s, %d keys a row, %d rounds\n", bench.name().c_str(), arguments.depth,
              arguments.rounds);
  std::printf("rows  median ms  least ms  tokens/s\n");
  double before = 0;
  for (int32_t rows = 1; rows <= arguments.rows; ++rows) {
    std::vector<double>& times = seconds[rows];
    std::sort(times.begin(), times.end());
    const double rate = rows / times.front();
    std::printf("%4d  %9.3f  %8.3f  %8.0f%s\n", rows, times[times.size() / 2] * 1e3,
                times.front() * 1e3, rate, rate < before ? "  fewer than before" : "");
    before = rate;
  }
}

}  // namespace
}  // namespace swaa

int main(int argc, char** argv) {
  const swaa::Arguments arguments = swaa::Parse(argc, argv);
  swaa::kernels::cpu::ConfigureOpenMp(arguments.threads);
  swaa::Main(arguments);
  return 0;
}
