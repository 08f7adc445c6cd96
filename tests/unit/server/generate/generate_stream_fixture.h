// Streams over a real gRPC server and the real engine, on a device that is a hash.

#ifndef SWAA_TESTS_UNIT_SERVER_GENERATE_GENERATE_STREAM_FIXTURE_H_
#define SWAA_TESTS_UNIT_SERVER_GENERATE_GENERATE_STREAM_FIXTURE_H_

#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "server/control/control_service.h"
#include "server/control/experiment_service.h"
#include "server/generate/inference_service.h"
#include "tests/unit/testing/fake_device.h"

namespace swaa::server {

inline constexpr int32_t kLayers = 2;
inline constexpr int32_t kContext = 1 << 14;

class GenerateStreamTest : public ::testing::Test {
 protected:
  GenerateStreamTest()
      : device_({.num_layers = kLayers,
                 .num_pages = 64,
                 .page_bytes = 1,
                 .num_slots = 8,
                 .max_pages_per_layer = kContext / 64,
                 .max_step_tokens = 128}) {}

  ~GenerateStreamTest() override {
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
    server_.reset();
    shadows_.reset();
    engine_.reset();
  }

  // `slow_reader_clock`: what the time of slow readers is told by.
  void Start(size_t stream_buffer_bytes, absl::Duration slow_reader_timeout = absl::Minutes(5),
             std::function<absl::Time()> slow_reader_clock = &SteadyNow) {
    ASSERT_TRUE(ConfigureLogging(LogFormat::kText, "warning").ok());
    serving_.recipes.Set(*RecipeCatalog::Create(BuiltInRecipes(), kLayers, false, "full"));
    metrics_ = std::make_unique<Metrics>(*serving_.recipes.Get(), "0", "model", "fake");
    slow_readers_ =
        std::make_unique<SlowReaderWatch>(slow_reader_timeout, std::move(slow_reader_clock));
    workers_ = std::make_unique<WorkerPool>(WorkerPool::Options{});
    serving_.engine_options = {
        .max_batch_tokens = 128, .max_running_requests = 8, .max_context_tokens = kContext};
    engine_ = Engine::Create(serving_.engine_options, &device_, tokenizer_.get());
    experiments_ = *Experiments::Create({});
    shadows_ = std::make_unique<Shadows>(Shadows::Options{}, engine_.get(), &serving_.recipes,
                                         nullptr, experiments_.get(), metrics_.get());
    serving_.experiments = experiments_.get();
    serving_.shadows = shadows_.get();
    serving_.model.served_name = "model";
    serving_.model.tokenizer = tokenizer_.get();
    serving_.slow_readers = slow_readers_.get();
    serving_.metrics = metrics_.get();
    serving_.workers = workers_.get();
    serving_.engine = engine_.get();
    serving_.stream_buffer_bytes = stream_buffer_bytes;
    control_workers_ = std::make_unique<WorkerPool>(WorkerPool::Options{});
    serving_.control_workers = control_workers_.get();
    serving_.device_facts = [](int32_t) { return kernels::DeviceFacts(); };
    service_ = std::make_unique<InferenceService>(&serving_);
    control_service_ = std::make_unique<ControlService>(&serving_);
    experiment_service_ = std::make_unique<ExperimentService>(&serving_);
    int port = 0;
    server_ = grpc::ServerBuilder()
                  .AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port)
                  .RegisterService(service_.get())
                  .RegisterService(control_service_.get())
                  .RegisterService(experiment_service_.get())
                  .BuildAndStart();
    ASSERT_NE(port, 0);
    grpc::ChannelArguments arguments;
    // Or gRPC widens the window that a reader leaves unread to megabytes.
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    const auto channel = grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(port),
                                                   grpc::InsecureChannelCredentials(), arguments);
    stub_ = v1::InferenceService::NewStub(channel);
    control_ = v1::ControlService::NewStub(channel);
    outcomes_ = v1::ExperimentService::NewStub(channel);
  }

  static v1::GenerateRequest Request(uint32_t max_tokens) {
    v1::GenerateRequest request;
    request.set_prompt("abc");
    request.mutable_sampling_params()->set_temperature(0);
    request.mutable_stopping_options()->set_max_tokens(max_tokens);
    request.mutable_stopping_options()->set_ignore_eos(true);
    request.mutable_recipe()->set_sliding_window_tokens(8);
    return request;
  }

  bool AwaitRunning(int32_t running) {
    const absl::Time until = absl::Now() + absl::Minutes(2);
    while (engine_->Load().running != running) {
      if (absl::Now() > until) return false;
      absl::SleepFor(absl::Milliseconds(1));
    }
    return true;
  }

  bool AwaitAdmissions(absl::FunctionRef<bool(const AdmissionLoad&)> condition) {
    const absl::Time until = absl::Now() + absl::Minutes(2);
    while (!condition(workers_->admission_load())) {
      if (absl::Now() > until) return false;
      absl::SleepFor(absl::Milliseconds(1));
    }
    return true;
  }
  bool AwaitWaiting(int32_t waiting) {
    return AwaitAdmissions([&](const AdmissionLoad& load) { return load.waiting == waiting; });
  }
  bool AwaitWorkersIdle() {
    return AwaitAdmissions(
        [](const AdmissionLoad& load) { return load.waiting + load.running == 0; });
  }

  std::unique_ptr<Tokenizer> tokenizer_ = ::swaa::testing::MakeByteTokenizer();
  ::swaa::testing::FakeDevice device_;
  ServingContext serving_;
  std::unique_ptr<SlowReaderWatch> slow_readers_;
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<WorkerPool> workers_;
  std::unique_ptr<WorkerPool> control_workers_;
  std::unique_ptr<Experiments> experiments_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Shadows> shadows_;
  std::unique_ptr<InferenceService> service_;
  std::unique_ptr<ControlService> control_service_;
  std::unique_ptr<ExperimentService> experiment_service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::InferenceService::Stub> stub_;
  std::unique_ptr<v1::ControlService::Stub> control_;
  std::unique_ptr<v1::ExperimentService::Stub> outcomes_;
};

}  // namespace swaa::server

#endif  // SWAA_TESTS_UNIT_SERVER_GENERATE_GENERATE_STREAM_FIXTURE_H_
