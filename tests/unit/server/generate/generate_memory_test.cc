// Memory that runs out in the server costs the request that it hits: on the workers, on gRPC's
// callback threads and on the engine's. This program's own allocation functions refuse one
// allocation of the server's code: in turn the first, the second and so on, until the whole life of
// two streams needs no more. What gRPC itself asks for is not refused, as it would end the process;
// what the device does is another test's.

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <dlfcn.h>
#include <execinfo.h>
#include <functional>
#include <initializer_list>
#include <new>
#include <string_view>
#include <vector>

#include <google/protobuf/text_format.h>

#include "absl/strings/str_cat.h"
#include "server/generate/errors.h"
#include "tests/unit/server/generate/generate_stream_fixture.h"
#include "tests/unit/testing/refusing_new.h"

namespace {

thread_local bool is_client = false;  // the test's own thread
thread_local bool is_looking = false;
std::atomic<int64_t> allocations = 0;
std::atomic<int64_t> refused = 0;  // which is refused; 0: none
std::atomic<bool> was_refused = false;
void* program = nullptr;  // where it lies

bool BeginsWithAny(std::string_view text, std::initializer_list<std::string_view> prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](std::string_view prefix) {
    return text.substr(0, prefix.size()) == prefix;
  });
}

// Whether the server's code wants memory, if through a library: the innermost frame decides that is
// neither the standard library's nor another's that knows nothing of gRPC. This program exports its
// symbols, but for those of unnamed namespaces.
bool IsOurs() {
  constexpr int kOwnFrames = 3;  // this, RefusesAllocation, operator new
  void* frames[24];
  const int count = backtrace(frames, 24);
  for (int i = kOwnFrames; i < count; ++i) {
    Dl_info info;
    if (dladdr(frames[i], &info) == 0) continue;
    const std::string_view file = info.dli_fname;
    if (file.find("grpc") != file.npos || file.find("libgpr") != file.npos) return false;
    if (info.dli_fbase != program) continue;
    const std::string_view name = info.dli_sname == nullptr ? "" : info.dli_sname;
    if (BeginsWithAny(name, {"_ZN4grpc", "_ZNK4grpc", "_ZN4swaa7testing"})) return false;
    if (!BeginsWithAny(name, {"_Zn", "_ZSt", "_ZNSt", "_ZNKSt", "_ZN9__gnu_cxx",
                              "_ZN6google8protobuf", "_ZN4absl", "_ZNK4absl"})) {
      return true;
    }
  }
  return false;
}

}  // namespace

[[gnu::noinline]] bool swaa::testing::RefusesAllocation() {
  if (refused == 0 || is_client || is_looking) return false;
  is_looking = true;
  const bool refuses = IsOurs() && ++allocations == refused;
  is_looking = false;
  if (refuses) {
    was_refused = true;
    refused = 0;
  }
  return refuses;
}

// Not asked about: who calls these is prepared for nothing.
void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return std::malloc(bytes); }
void* operator new[](size_t bytes, const std::nothrow_t&) noexcept { return std::malloc(bytes); }

// A repeated field that cannot grow loses the element that it has made.
extern "C" const char* __lsan_default_suppressions() {
  return "leak:google::protobuf::internal::RepeatedPtrFieldBase\n"
         "leak:google::protobuf::Arena\n";
}

namespace swaa::server {
namespace {

class GenerateMemoryTest : public GenerateStreamTest {
 protected:
  void SetUp() override {
    is_client = true;
    Dl_info info;
    ASSERT_NE(dladdr(reinterpret_cast<void*>(&swaa::testing::RefusesAllocation), &info), 0);
    program = info.dli_fbase;
    void* frame = nullptr;
    backtrace(&frame, 1);  // what it loads, it loads now
    Start(/*stream_buffer_bytes=*/1 << 20);
  }
  void TearDown() override { refused = 0; }

  static void Refuse(int64_t allocation) {
    allocations = 0;
    was_refused = false;
    refused = allocation;
  }

  // Makes a unary call, told of what is refused, until it needs no more: each that fails does so
  // with RESOURCE_EXHAUSTED, and the next one is as usual.
  template <typename Response>
  void FailsAlone(const std::function<grpc::Status(grpc::ClientContext*, Response*)>& method,
                  grpc::StatusCode usual) {
    const auto fails = [&] {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(2));
      Response response;
      const grpc::Status status = method(&context, &response);
      if (status.error_code() == usual) return false;
      EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED)
          << status.error_message();
      return true;
    };
    int failed = 0;
    for (int64_t n = 1;; ++n) {
      Refuse(n);
      if (fails()) ++failed;
      refused = 0;
      if (!was_refused) break;
      EXPECT_FALSE(fails()) << "allocation " << n;
      ASSERT_FALSE(HasFailure()) << "allocation " << n;
    }
    EXPECT_GT(failed, 0);
  }
};

constexpr int kTokens = 5;
// The address sanitizer makes looking at stacks slow: then one in so many is refused.
#ifdef __SANITIZE_ADDRESS__
constexpr int64_t kStride = 37;
#else
constexpr int64_t kStride = 1;
#endif

struct Call {
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader;
};

TEST_F(GenerateMemoryTest, OneAllocationCostsOneRequestAtMost) {
  int failed_lives = 0;
  int untouched_lives = 0;
  for (int64_t n = 1;; n += kStride) {
    Refuse(n);
    int failed = 0;
    std::array<Call, 2> calls;
    for (Call& call : calls) {
      call.context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(2));
      call.reader = stub_->Generate(&call.context, Request(kTokens));
    }
    for (Call& call : calls) {
      v1::GenerateResponse response;
      int tokens = 0;
      while (call.reader->Read(&response)) tokens += response.token_delta().tokens_size();
      const grpc::Status status = call.reader->Finish();
      if (status.ok()) {
        EXPECT_TRUE(response.has_finished());
        EXPECT_EQ(tokens, kTokens);
        continue;
      }
      ++failed;
      EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED)
          << status.error_message();
    }
    ASSERT_TRUE(engine_->AwaitIdle(absl::Minutes(2)));
    ASSERT_TRUE(serving_.live_streams.AwaitNone(absl::Minutes(2)));
    refused = 0;
    if (!was_refused) break;  // a whole life needs fewer
    EXPECT_LE(failed, 1);
    ++(failed > 0 ? failed_lives : untouched_lives);
    EXPECT_EQ(engine_->Load().used_pages, 0);
    EXPECT_EQ(engine_->Load().running + engine_->Load().queued, 0);
    ASSERT_TRUE(AwaitWorkersIdle());
    EXPECT_EQ(serving_.pending.AbortAll(), 0);
    ASSERT_FALSE(HasFailure()) << "allocation " << n;
  }
  RecordProperty("one failed", failed_lives);
  RecordProperty("none failed", untouched_lives);
  EXPECT_GT(failed_lives, 100 / kStride);
  EXPECT_GT(failed_lives + untouched_lives, 200 / kStride);
}

TEST_F(GenerateMemoryTest, ACallOfTheControlPlaneFailsAlone) {
  // On a callback thread.
  FailsAlone<v1::ListRecipesResponse>(
      [&](auto* call, auto* response) { return control_->ListRecipes(call, {}, response); },
      grpc::StatusCode::OK);
  FailsAlone<v1::GetServerInfoResponse>(
      [&](auto* call, auto* response) { return control_->GetServerInfo(call, {}, response); },
      grpc::StatusCode::OK);
  // On a worker.
  FailsAlone<v1::LoadLoraResponse>(
      [&](auto* call, auto* response) { return control_->LoadLora(call, {}, response); },
      grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(GenerateMemoryTest, AnUnloadFailsAlone) {
  AdapterRegistry adapters({}, [](const std::string&, bool) { return AdapterContent(); });
  serving_.adapters = &adapters;
  v1::UnloadLoraRequest request;
  request.set_lora_name("a-name-that-is-no-short-string");
  FailsAlone<v1::UnloadLoraResponse>(
      [&](auto* call, auto* response) {
        EXPECT_TRUE(adapters.Load(request.lora_name(), "/folder").ok());
        const grpc::Status status = control_->UnloadLora(call, request, response);
        EXPECT_TRUE(!status.ok() || !adapters.Has(request.lora_name()));
        return status;
      },
      grpc::StatusCode::OK);
  serving_.adapters = nullptr;
}

TEST_F(GenerateMemoryTest, AnOutcomeFailsAloneOnTheStoresThreadToo) {
  google::protobuf::RepeatedPtrField<v1::Experiment> experiments;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      R"(id: "chat" control_arm: "control" arms { name: "control" recipe_name: "full" }
         arms { name: "window" recipe_name: "window" }
         metrics { name: "thumbs_up" role: METRIC_ROLE_GOAL scale: METRIC_SCALE_RATE
                   higher_is_better: true minimum_detectable_effect: 0.02 })",
      experiments.Add()));
  const auto find = [](const std::string& name) -> std::optional<ArmRecipe> {
    RecipeSpec spec;
    if (name == "window") spec.sliding_window_tokens = 64;
    return ArmRecipe{*ResolveRecipe(spec, kLayers)};
  };
  auto set = experiments_->Check(experiments, {find, "full, window"});
  ASSERT_TRUE(set.ok()) << set.status();
  ASSERT_TRUE(experiments_->Adopt(*std::move(set)).ok());
  int requests = 0;
  FailsAlone<v1::RecordOutcomeResponse>(
      [&](auto* call, auto* response) {
        v1::RecordOutcomeRequest request;
        request.set_request_id(absl::StrCat("request ", ++requests));
        const auto tag = experiments_->Choose("unit", request.request_id()).tag;
        request.set_outcome_token(
            experiments_->FinishOf(tag.value(), request.request_id(), {}).outcome_token);
        request.add_outcomes()->set_metric("thumbs_up");
        request.mutable_outcomes(0)->set_value(1);
        return outcomes_->RecordOutcome(call, request, response);
      },
      grpc::StatusCode::OK);
}

}  // namespace
}  // namespace swaa::server
