// `swaa serve` as it is, on a device that fails when a test says so: the real one behind a file
// whose content is asked at every step. No file: all is well; "memory": the step has found too
// little; "lost": no later step can succeed.
//
// usage: swaa_failing_server FILE serve [flags of swaa serve]

#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "engine/model/model_device.h"
#include "tools/command_line.h"
#include "tools/commands.h"
#include "tools/serve_command.h"

namespace swaa {
namespace {

class FailingDevice final : public Device {
 public:
  FailingDevice(std::unique_ptr<Device> device, std::string path)
      : device_(std::move(device)), path_(std::move(path)) {}

  const DeviceInfo& info() const override { return device_->info(); }
  void Submit(Step step) override { device_->Submit(std::move(step)); }
  StepResult Collect() override {
    StepResult result = device_->Collect();
    std::string fault;
    std::ifstream(path_) >> fault;
    if (fault == "memory") {
      result.status = absl::ResourceExhaustedError("the device ran out of memory");
    } else if (fault == "lost") {
      result.status = absl::InternalError("the device failed: illegal address");
      result.device_lost = true;
    }
    if (!result.status.ok()) result.tokens.clear();
    return result;
  }
  kernels::MemoryUse Memory(int32_t rank) const override { return device_->Memory(rank); }
  kernels::DeviceFacts Facts(int32_t rank) const override { return device_->Facts(rank); }

 private:
  const std::unique_ptr<Device> device_;
  const std::string path_;
};

int Main(const std::vector<std::string>& arguments) {
  const std::string path = arguments.at(0);
  const auto flags =
      tools::ParseFlags({arguments.begin() + 2, arguments.end()}, tools::ServeCommand().help);
  if (!flags.ok()) {
    std::fprintf(stderr, "%s\n", flags.status().ToString().c_str());
    return 2;
  }
  return tools::Serve(
      *flags,
      [&](const Checkpoint& checkpoint,
          const ModelDeviceOptions& options) -> absl::StatusOr<std::unique_ptr<Device>> {
        SWAA_ASSIGN_OR_RETURN(auto device, CreateModelDevice(checkpoint, options));
        return std::make_unique<FailingDevice>(std::move(device), path);
      });
}

}  // namespace
}  // namespace swaa

int main(int argc, char** argv) { return swaa::Main({argv + 1, argv + argc}); }
