// Bench: a load, from its plan to its records.

#include "tools/bench/load.h"

#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
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
  std::vector<uint64_t> dealt(options.arms.size(), plan.first_index_in_arm);
  std::optional<ArrivalProcess> arrivals;
  if (plan.request_rate > 0) {
    arrivals.emplace(plan.request_rate, options.burstiness, options.seed);
  }
  const double end_seconds = absl::ToDoubleSeconds(plan.duration);
  for (int64_t i = 0; !plan.num_requests || i < *plan.num_requests; ++i) {
    RequestRecord record;
    record.arm = plan.arm.has_value() ? *plan.arm : dealer.Next();
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

// The server counts every recipe in full as custom; where there is one, it has a name here. A
// turn's first samples may still show what the turn before sent, which another turn's recipe names.
void NameCustom(const LoadPlan& plan, const BenchOptions& options,
                std::vector<LoadSample>* samples) {
  std::vector<std::string> names;
  for (const RecipeArm& arm : options.arms) {
    if (arm.in_full) names.push_back(arm.label);
  }
  if (plan.arm.has_value() && options.arms[*plan.arm].in_full) {
    names = {options.arms[*plan.arm].label};
  }
  if (names.size() != 1) return;
  for (LoadSample& sample : *samples) {
    for (v1::RecipeLoad& recipe : *sample.load.mutable_recipes()) {
      if (recipe.recipe_name() == "custom") recipe.set_recipe_name(names[0]);
    }
  }
}

// Puts what a turn gave behind what came before it.
void Append(size_t arm, LoadResult turn, LoadResult* all) {
  const double before = all->duration_seconds;
  for (RequestRecord& record : turn.records) {
    for (double* time :
         {&record.scheduled_seconds, &record.sent_seconds, &record.finished_seconds}) {
      *time += before;
    }
    for (double* time : {&record.first_token_seconds, &record.last_token_seconds}) {
      if (*time >= 0) *time += before;
    }
    all->records.push_back(std::move(record));
  }
  for (LoadSample& sample : turn.samples) {
    sample.seconds += before;
    all->samples.push_back(std::move(sample));
  }
  all->duration_seconds += turn.duration_seconds;
  all->arm_seconds[arm] += turn.duration_seconds;
  all->interrupted = turn.interrupted;
}

// How many of the plan's requests each recipe has, by weight.
std::vector<int64_t> Shares(int64_t requests, const BenchOptions& options) {
  RecipeDealer dealer(options.arms, options.seed);
  std::vector<int64_t> shares(options.arms.size());
  for (int64_t i = 0; i < requests; ++i) ++shares[dealer.Next()];
  return shares;
}

}  // namespace

v1::GenerateRequest RequestMaker::Make(uint64_t index, size_t arm, uint64_t index_in_arm) const {
  v1::GenerateRequest request;
  prompts_.SetInput(index, index_in_arm, &request);
  // An experiment chooses only where the request does not.
  if (options_.experiment_units == 0) options_.arms[arm].SetOn(&request);
  std::mt19937_64 lengths = MakeGenerator(options_.seed, RandomStream::kOutputLength, index_in_arm);
  v1::StoppingOptions* stopping = request.mutable_stopping_options();
  stopping->set_max_tokens(options_.output_tokens.Draw(lengths));
  stopping->set_ignore_eos(options_.ignore_eos);
  request.set_cache_salt(options_.cache_salt);
  if (options_.experiment_units > 0) {
    std::mt19937_64 units = MakeGenerator(options_.seed, RandomStream::kUnit, index);
    request.set_experiment_unit_id(absl::StrCat("bench-", units() % options_.experiment_units));
  }
  request.mutable_sampling_params()->set_temperature(options_.temperature);
  return request;
}

LoadResult RunInTurns(const LoadPlan& plan, const BenchOptions& options, const RequestMaker& maker,
                      const std::vector<std::shared_ptr<grpc::Channel>>& channels) {
  constexpr int kTurns = 2;
  const size_t arms = options.arms.size();
  const std::vector<int64_t> shares = Shares(plan.num_requests.value_or(0), options);
  double weights = 0;
  for (const RecipeArm& arm : options.arms) weights += arm.weight;
  LoadResult all{.arm_seconds = std::vector<double>(arms)};
  LoadPlan turn = plan;
  std::vector<uint64_t> sent(arms);
  for (size_t i = 0; i < kTurns * arms && !all.interrupted; ++i) {
    const size_t arm = i < arms ? i : 2 * arms - 1 - i;
    turn.title = options.arms[arm].label;
    turn.arm = arm;
    turn.first_index_in_arm = sent[arm];
    turn.duration = plan.duration * (options.arms[arm].weight / weights / kTurns);
    if (plan.num_requests) {
      turn.num_requests = i < arms ? (shares[arm] + 1) / kTurns : shares[arm] / kTurns;
      if (*turn.num_requests == 0) continue;
    }
    LoadResult result = RunLoad(turn, options, maker, channels);
    turn.first_index += result.records.size();
    sent[arm] += result.records.size();
    Append(arm, std::move(result), &all);
  }
  return all;
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
  NameCustom(plan, options, &result.samples);
  result.records = pool.TakeRecords();
  result.interrupted = interrupted;
  return result;
}

}  // namespace swaa::tools::bench
