// What the server costs over its engine: the same requests, called directly and through gRPC, by
// turns, on one engine in one process. The gRPC clients' own work counts against the server, as
// they run on the same processors.
//
//   build/bin/server_overhead_bench [MODEL]      tokens/s and time to first token, both ways

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <latch>
#include <mutex>
#include <random>
#include <thread>

#include <grpcpp/grpcpp.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "kernels/cpu/threads.h"
#include "server/lifecycle/server.h"
#include "server/settings/config.h"
#include "swaa/v1/inference_service.grpc.pb.h"

namespace swaa {
namespace {

constexpr int kRounds = 5;
constexpr int kPromptTokens = 256;
constexpr int kOutputTokens = 64;
constexpr int kRequestsAClient = 2;

// One round: what all clients together got, and when each request got its first token.
struct Round {
  double tokens_per_second = 0;
  double first_token_ms = 0;  // median
};

// A prompt that nobody has sent before, so that the prefix cache has no part in this.
std::vector<int32_t> NewPrompt() {
  static std::mt19937 generator(1);
  static std::mutex mutex;
  std::lock_guard lock(mutex);
  std::uniform_int_distribution<int32_t> token(1000, 40000);
  std::vector<int32_t> prompt(kPromptTokens);
  for (int32_t& id : prompt) id = token(generator);
  return prompt;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Notes the first token and the end.
class TimingSink final : public GenerationSink {
 public:
  void OnAccepted() override {}
  void OnPromptLogprobs(int32_t, std::vector<ScoredToken>) override {}
  void OnTokens(std::vector<OutputToken>) override {
    if (first_ == absl::InfinitePast()) first_ = absl::Now();
  }
  void OnFinished(const GenerationResult& result) override {
    SWAA_CHECK_EQ(result.stats.completion_tokens, kOutputTokens);
    done_.count_down();
  }
  void OnFailed(const absl::Status& status, const GenerationStats&) override {
    SWAA_CHECK(false) << status.ToString();
  }
  absl::Time AwaitFirstToken() {
    done_.wait();
    return first_;
  }

 private:
  absl::Time first_ = absl::InfinitePast();
  std::latch done_{1};
};

absl::Time AskDirectly(const server::ServingContext& serving) {
  static std::atomic<int> number{0};
  GenerationRequest request;
  request.id = absl::StrCat("direct-", ++number);
  request.prompt = std::make_shared<const std::vector<int32_t>>(NewPrompt());
  request.recipe = serving.recipes.Get()->default_recipe().recipe;
  request.recipe_label = "full";
  request.sampling.temperature = 0;
  request.stopping.max_tokens = kOutputTokens;
  request.stopping.ignore_eos = true;
  auto sink = std::make_shared<TimingSink>();
  const absl::Status status = serving.engine->Submit(std::move(request), sink);
  SWAA_CHECK(status.ok()) << status.ToString();
  return sink->AwaitFirstToken();
}

absl::Time AskThroughGrpc(v1::InferenceService::Stub* stub) {
  v1::GenerateRequest request;
  for (int32_t id : NewPrompt()) request.mutable_token_ids()->add_ids(id);
  request.mutable_sampling_params()->set_temperature(0);
  request.mutable_stopping_options()->set_max_tokens(kOutputTokens);
  request.mutable_stopping_options()->set_ignore_eos(true);
  grpc::ClientContext context;
  auto stream = stub->Generate(&context, request);
  absl::Time first = absl::InfinitePast();
  int tokens = 0;
  for (v1::GenerateResponse response; stream->Read(&response);) {
    if (!response.has_token_delta()) continue;
    if (first == absl::InfinitePast()) first = absl::Now();
    tokens += response.token_delta().tokens_size();
  }
  const grpc::Status status = stream->Finish();
  SWAA_CHECK(status.ok()) << status.error_message();
  SWAA_CHECK_EQ(tokens, kOutputTokens);
  return first;
}

// `clients` threads that ask one request after the other.
template <typename Ask>
Round Run(int clients, const Ask& ask) {
  std::mutex mutex;
  std::vector<double> first_token_ms;
  const absl::Time start = absl::Now();
  std::vector<std::thread> threads;
  for (int c = 0; c < clients; ++c) {
    threads.emplace_back([&, c] {
      for (int i = 0; i < kRequestsAClient; ++i) {
        const absl::Time sent = absl::Now();
        const absl::Time first = ask(c);
        std::lock_guard lock(mutex);
        first_token_ms.push_back(absl::ToDoubleMilliseconds(first - sent));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  return {.tokens_per_second = clients * kRequestsAClient * kOutputTokens / seconds,
          .first_token_ms = Median(first_token_ms)};
}

// Both ways, by turns; medians.
void Compare(server::Server* server, int clients) {
  std::vector<std::unique_ptr<v1::InferenceService::Stub>> stubs;
  for (int c = 0; c < clients; ++c) {
    grpc::ChannelArguments own;  // or all clients share a connection
    own.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stubs.push_back(v1::InferenceService::NewStub(grpc::CreateCustomChannel(
        absl::StrCat("127.0.0.1:", server->port()), grpc::InsecureChannelCredentials(), own)));
  }
  std::vector<double> rates[2], waits[2], shares;
  for (int round = 0; round <= kRounds; ++round) {
    const Round direct = Run(clients, [&](int) { return AskDirectly(server->serving()); });
    const Round grpc = Run(clients, [&](int c) { return AskThroughGrpc(stubs[c].get()); });
    if (round == 0) continue;  // connections are made
    const Round* both[2] = {&direct, &grpc};
    for (int way = 0; way < 2; ++way) {
      rates[way].push_back(both[way]->tokens_per_second);
      waits[way].push_back(both[way]->first_token_ms);
    }
    shares.push_back(grpc.tokens_per_second / direct.tokens_per_second);
  }
  std::printf("| %d | %.0f | %.0f | %.3f | %.1f | %.1f |\n", clients, Median(rates[0]),
              Median(rates[1]), Median(shares), Median(waits[0]), Median(waits[1]));
  std::fflush(stdout);
}

void Main(const std::string& model) {
  SWAA_CHECK(server::ConfigureLogging(server::LogFormat::kText, "error").ok());
  v1::ServerConfig config;
  config.mutable_model()->set_path(model);
  config.mutable_network()->set_listen_address("127.0.0.1:0");
  const absl::StatusOr<server::ServerOptions> options = server::MakeServerOptions("", {}, config);
  SWAA_CHECK(options.ok()) << options.status().ToString();
  auto server = server::Server::Start(*options);
  SWAA_CHECK(server.ok()) << server.status().ToString();
  std::printf(
      "Prompts of %d tokens, %d generated, %d requests a client one by one; medians of %d "
      "rounds\n\n",
      kPromptTokens, kOutputTokens, kRequestsAClient, kRounds);
  std::printf(
      "| clients | direct, tokens/s | gRPC | share | first token, ms: direct | gRPC |\n"
      "|---|---|---|---|---|---|\n");
  for (int clients : {1, 4, 16}) Compare(server->get(), clients);
}

}  // namespace
}  // namespace swaa

int main(int argc, char** argv) {
  swaa::kernels::cpu::ConfigureOpenMp(0);
  const char* home = std::getenv("HOME");
  swaa::Main(argc > 1 ? argv[1]
                      : absl::StrCat(home == nullptr ? "" : home,
                                     "/.cache/swaa/smollm2-135m-instruct.gguf"));
  return 0;
}
