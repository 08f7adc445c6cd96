// Bench: a load, from its plan to its records.

#include "tools/bench/load.h"

#include <atomic>
#include <utility>

#include "tools/bench/arrivals.h"
#include "tools/bench/progress.h"
#include "tools/bench/random.h"
#include "tools/bench/recipe_mix.h"
#include "tools/bench/stream_pool.h"

namespace swaa::tools::bench {
namespace {

// Sends what the plan says; returns when all is sent, time is up, or the pool was cancelled.
void SendAll(const LoadPlan& plan, const BenchOptions& options, const RequestMaker& maker,
             StreamPool* pool) {
  RecipeDealer dealer(options.arms, options.seed);
  std::vector<uint64_t> dealt(options.arms.size());
  std::optional<ArrivalProcess> arrivals;
  if (plan.request_rate > 0) {
    arrivals.emplace(plan.request_rate, options.burstiness, options.seed);
  }
  const double end_seconds = absl::ToDoubleSeconds(plan.duration);
  for (int64_t i = 0; !plan.num_requests || i < *plan.num_requests; ++i) {
    RequestRecord record;
    record.arm = dealer.Next();
    // Made before its time comes, so that a long prompt is not sent late.
    v1::GenerateRequest request =
        maker.Make(plan.first_index + static_cast<uint64_t>(i), record.arm, dealt[record.arm]++);
    record.scheduled_seconds = arrivals ? arrivals->NextSeconds() : -1;
    if (record.scheduled_seconds >= end_seconds) break;
    if (arrivals && !pool->WaitUntil(record.scheduled_seconds)) break;
    if (!pool->WaitForRoom(end_seconds)) break;
    pool->Start(std::move(request), std::move(record));
  }
}

}  // namespace

v1::GenerateRequest RequestMaker::Make(uint64_t index, size_t arm, uint64_t index_in_arm) const {
  v1::GenerateRequest request;
  prompts_.SetInput(index, index_in_arm, &request);
  options_.arms[arm].SetOn(&request);
  std::mt19937_64 lengths = MakeGenerator(options_.seed, RandomStream::kOutputLength, index_in_arm);
  v1::StoppingOptions* stopping = request.mutable_stopping_options();
  stopping->set_max_tokens(options_.output_tokens.Draw(lengths));
  stopping->set_ignore_eos(options_.ignore_eos);
  request.set_cache_salt(options_.cache_salt);
  request.mutable_sampling_params()->set_temperature(options_.temperature);
  return request;
}

LoadResult RunLoad(const LoadPlan& plan, const BenchOptions& options, const RequestMaker& maker,
                   const std::vector<std::shared_ptr<grpc::Channel>>& channels) {
  LoadResult result;
  Progress progress(plan.title, plan.num_requests, plan.duration);
  std::atomic<bool> interrupted = false;
  StreamPool pool(channels, plan.max_in_flight, options.deadline);
  Monitor monitor(channels[0], options.poll_interval,
                  {.seconds = [&] { return pool.SecondsSinceStart(); },
                   .tick = [&] { progress.Show(pool.counts(), pool.SecondsSinceStart()); },
                   .interrupted =
                       [&] {
                         interrupted = true;
                         pool.CancelAll();
                       }});
  SendAll(plan, options, maker, &pool);
  pool.WaitUntilIdle();
  result.duration_seconds = pool.SecondsSinceStart();
  result.samples = monitor.Stop();
  result.records = pool.TakeRecords();
  result.interrupted = interrupted;
  return result;
}

}  // namespace swaa::tools::bench
