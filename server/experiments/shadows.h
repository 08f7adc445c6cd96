// Computes some finished requests again, alone, under their own recipe and another: how much faster
// is it truly, and how alike are the answers.

#ifndef SWAA_SERVER_EXPERIMENTS_SHADOWS_H_
#define SWAA_SERVER_EXPERIMENTS_SHADOWS_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "engine/engine.h"
#include "server/adapters/adapter_registry.h"
#include "server/experiments/experiments.h"
#include "server/observation/metrics.h"
#include "server/recipes/current_recipes.h"

namespace swaa::server {

// A finished request that may be computed again.
struct ShadowJob {
  std::string request_id;
  std::shared_ptr<const std::vector<int32_t>> prompt;
  std::vector<int32_t> answer;  // at least one token
  Recipe recipe;                // that answered
  // Of the adapter that answered, by name and load: a job that waits keeps nobody from unloading
  // it.
  std::string lora_name;  // empty: the base model
  uint64_t lora_load = 0;
  std::string recipe_label;
  std::optional<ExperimentTag> tag;
  GenerationStats stats;
};

// Jobs wait in a queue with a bound and are computed by shadows of the engine (RequestClass), one
// after the other: real requests come first, and shadows are in no other metric. Both recipes
// replay the same answer as forced tokens, in random order, so that the agreement does not hang on
// how one of them would have gone on, and the ratio of their times is a paired one. The replay
// under the answer's own recipe is the comparison's other side, not the real run: that computed in
// other company and by other kernels.
//
// A request of an experiment is compared with control's recipe, one of control's with that of
// another arm, so that answers of both are judged by both; any other with the baseline.
// Thread-safe.
class Shadows {
 public:
  struct Options {
    double share = 0;                      // of finished requests, [0, 1]
    std::string baseline_recipe = "full";  // registered
    size_t max_waiting = 64;
  };

  // All outlive the object.
  // `adapters` may be null: there are none.
  Shadows(const Options& options, Engine* engine, const CurrentRecipes* recipes,
          AdapterRegistry* adapters, Experiments* experiments, Metrics* metrics);
  // Drops what waits; what is computed ends first, so drain or end the engine before.
  ~Shadows();

  void SetOptions(const Options& options);
  // Whether the request should be offered when it is finished: by its id and its experiment's salt
  // alone, so in a fixed share of all requests whatever becomes of them.
  bool Wants(const std::string& request_id, const ExperimentTag* tag) const;
  void Offer(ShadowJob job);

 private:
  struct Replay {
    absl::Status status;
    GenerationStats stats;
    std::vector<OutputToken> tokens;
  };
  // What the request is compared with.
  struct Other {
    Recipe recipe;
    std::string label;
    std::string lora_name;  // empty: the base model
    int32_t arm = -1;       // of the request's experiment
  };

  void Run();
  void Compare(const ShadowJob& job);
  std::optional<Other> ChooseOther(const ShadowJob& job, const std::string& baseline) const;
  Replay Compute(const ShadowJob& job, const Recipe& recipe, const AdapterHandle& adapter);
  void Drop(const ShadowJob& job, const std::string& reason);
  // The adapter of that name; of that load, where it is not 0. NOT_FOUND: it is not there any more.
  absl::StatusOr<AdapterHandle> Acquire(const std::string& lora_name, uint64_t load);

  Engine* const engine_;
  const CurrentRecipes* const recipes_;
  AdapterRegistry* const adapters_;
  Experiments* const experiments_;
  Metrics* const metrics_;
  std::mt19937_64 random_{std::random_device{}()};  // the thread's
  uint64_t next_id_ = 0;                            // likewise

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  Options options_ ABSL_GUARDED_BY(mutex_);
  std::deque<ShadowJob> jobs_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_SHADOWS_H_
