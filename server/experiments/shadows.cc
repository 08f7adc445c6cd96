// Computes some finished requests again, alone, under two recipes.

#include "server/experiments/shadows.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "server/observation/memory_guard.h"

namespace swaa::server {
namespace {

// Keeps what the engine tells, for one that waits.
class ReplaySink final : public GenerationSink {
 public:
  void OnAccepted() override {}
  void OnPromptLogprobs(int32_t, std::vector<ScoredToken>) override {}
  void OnTokens(std::vector<OutputToken> tokens) override {
    try {
      std::move(tokens.begin(), tokens.end(), std::back_inserter(tokens_));
    } catch (const std::bad_alloc&) {
      tokens_lost_ = true;
    }
  }
  void OnFinished(const GenerationResult& result) override {
    stats_ = result.stats;
    if (tokens_lost_) status_ = out_of_memory_;
    if (result.reason == FinishReason::kCancelled) status_ = absl::CancelledError("aborted");
    done_.Notify();
  }
  void OnFailed(const absl::Status& status, const GenerationStats&) override {
    status_ = status;
    done_.Notify();
  }

  void Await() const { done_.WaitForNotification(); }
  const absl::Status& status() const { return status_; }
  const GenerationStats& stats() const { return stats_; }
  std::vector<OutputToken>& tokens() { return tokens_; }

 private:
  absl::Status status_;
  GenerationStats stats_;
  std::vector<OutputToken> tokens_;
  bool tokens_lost_ = false;
  const absl::Status out_of_memory_ = absl::ResourceExhaustedError("out of memory");
  absl::Notification done_;
};

int32_t MostLikely(const OutputToken& token) {
  return token.scored.top.empty() ? -1 : token.scored.top.front().first;
}

}  // namespace

Shadows::Shadows(const Options& options, Engine* engine, const CurrentRecipes* recipes,
                 AdapterRegistry* adapters, Experiments* experiments, Metrics* metrics)
    : engine_(engine),
      recipes_(recipes),
      adapters_(adapters),
      experiments_(experiments),
      metrics_(metrics),
      options_(options),
      thread_([this] { Run(); }) {}

Shadows::~Shadows() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Shadows::SetOptions(const Options& options) {
  std::lock_guard lock(mutex_);
  options_ = options;
}

bool Shadows::Wants(const std::string& request_id, const ExperimentTag* tag) const {
  double share = 0;
  {
    std::lock_guard lock(mutex_);
    share = options_.share;
  }
  if (share <= 0) return false;
  const std::string salt = tag == nullptr ? "" : tag->experiment->proto().salt();
  const uint32_t bucket = BucketOf(AssignmentHash(absl::StrCat("shadow.", salt), request_id));
  return bucket < share * kBuckets;
}

void Shadows::Drop(const ShadowJob& job, const std::string& reason) {
  experiments_->metrics()->CountShadowDropped(PromptLengthClass(job.stats.prompt_tokens), reason);
}

void Shadows::Offer(ShadowJob job) {
  {
    std::lock_guard lock(mutex_);
    if (jobs_.size() < options_.max_waiting && !stopping_) {
      jobs_.push_back(std::move(job));
      wake_.notify_all();
      return;
    }
  }
  Drop(job, "queue_full");
}

void Shadows::Run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
    if (stopping_) return;
    const ShadowJob job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    GuardMemory("a shadow", [&] { Compare(job); });
    lock.lock();
  }
}

std::optional<Shadows::Other> Shadows::ChooseOther(const ShadowJob& job,
                                                   const std::string& baseline) const {
  if (job.tag.has_value()) {
    const std::optional<int32_t> arm = experiments_->ShadowArm(*job.tag, job.request_id);
    if (!arm.has_value()) return std::nullopt;
    const ActiveExperiment& experiment = *job.tag->experiment;
    const ArmRecipe& recipe = experiment.definition.recipes[*arm];
    return Other{recipe.recipe, experiment.proto().arms(*arm).recipe_name(), recipe.lora_name,
                 *arm};
  }
  const auto recipes = recipes_->Get();
  const NamedRecipe* named = recipes->Find(baseline);
  if (named == nullptr || job.recipe_label == baseline) return std::nullopt;
  return Other{named->recipe, baseline, named->lora_name};
}

Shadows::Replay Shadows::Compute(const ShadowJob& job, const Recipe& recipe,
                                 const AdapterHandle& adapter) {
  GenerationRequest request;
  // No client's id has such a character.
  request.id = absl::StrCat("\x01shadow ", next_id_++);
  request.request_class = RequestClass::kShadow;
  request.prompt = job.prompt;
  request.forced_output = job.answer;
  request.recipe = recipe;
  request.adapter = adapter;
  request.sampling.temperature = 0;
  request.stopping.max_tokens = static_cast<uint32_t>(job.answer.size());
  request.stopping.ignore_eos = true;
  request.output_logprobs = 1;
  auto sink = std::make_shared<ReplaySink>();
  Replay replay;
  replay.status = engine_->Submit(std::move(request), sink);
  if (!replay.status.ok()) return replay;
  sink->Await();
  replay.status = sink->status();
  replay.stats = sink->stats();
  replay.tokens = std::move(sink->tokens());
  return replay;
}

absl::StatusOr<AdapterHandle> Shadows::Acquire(const std::string& lora_name, uint64_t load) {
  if (lora_name.empty()) return AdapterHandle();
  if (adapters_ == nullptr) return absl::NotFoundError("no adapters");
  absl::StatusOr<AdapterHandle> adapter = adapters_->Acquire(lora_name, "recipe.lora_name");
  if (adapter.ok() && load != 0 && (*adapter)->load != load) {
    return absl::NotFoundError("another load of the adapter");
  }
  return adapter;
}

void Shadows::Compare(const ShadowJob& job) {
  std::string baseline;
  {
    std::lock_guard lock(mutex_);
    baseline = options_.baseline_recipe;
  }
  const std::optional<Other> other = ChooseOther(job, baseline);
  if (!other.has_value()) return;
  const absl::StatusOr<AdapterHandle> own_adapter = Acquire(job.lora_name, job.lora_load);
  const absl::StatusOr<AdapterHandle> other_adapter = Acquire(other->lora_name, 0);
  if (!own_adapter.ok() || !other_adapter.ok()) return Drop(job, "not_computed");
  Replay own_replay;
  Replay other_replay;
  const bool own_first = random_() % 2 == 0;
  if (own_first) own_replay = Compute(job, job.recipe, *own_adapter);
  if (own_first && !own_replay.status.ok()) return Drop(job, "not_computed");
  other_replay = Compute(job, other->recipe, *other_adapter);
  if (!own_first) own_replay = Compute(job, job.recipe, *own_adapter);
  if (!own_replay.status.ok() || !other_replay.status.ok()) return Drop(job, "not_computed");

  ShadowComparison comparison{.other_arm = other->arm};
  const size_t tokens = std::min(own_replay.tokens.size(), other_replay.tokens.size());
  comparison.tokens = comparison.first_divergence = static_cast<int64_t>(tokens);
  for (size_t i = 0; i < tokens; ++i) {
    const OutputToken& mine = own_replay.tokens[i];
    const OutputToken& theirs = other_replay.tokens[i];
    comparison.logprob_difference += mine.scored.logprob - theirs.scored.logprob;
    if (MostLikely(mine) == MostLikely(theirs)) {
      ++comparison.equal_argmax;
    } else {
      comparison.first_divergence = std::min(comparison.first_divergence, static_cast<int64_t>(i));
    }
  }
  // What was computed twice took twice its time.
  if (own_replay.stats.preemptions + other_replay.stats.preemptions > 0) {
    return Drop(job, "preempted");
  }
  const double own_seconds = own_replay.stats.step_seconds;
  const double other_seconds = other_replay.stats.step_seconds;
  if (own_seconds <= 0 || other_seconds <= 0) return Drop(job, "not_timed");
  experiments_->metrics()->CountShadow(job.recipe_label, comparison.tokens, comparison.equal_argmax,
                                       comparison.logprob_difference);
  if (other->label == baseline) {
    metrics_->OnShadowSpeedup(job.recipe_label, other_seconds / own_seconds);
  } else if (job.recipe_label == baseline) {
    metrics_->OnShadowSpeedup(other->label, own_seconds / other_seconds);
  }
  if (!job.tag.has_value()) return;
  // Control's over the other recipe's.
  const double sign = job.tag->arm == job.tag->experiment->definition.control ? 1 : -1;
  comparison.log_time_ratio = sign * std::log(own_seconds / other_seconds);
  comparison.log_kv_bytes_ratio =
      sign * std::log(static_cast<double>(own_replay.stats.peak_kv_bytes) /
                      static_cast<double>(other_replay.stats.peak_kv_bytes));
  experiments_->OnShadow(*job.tag, job.stats, comparison);
}

}  // namespace swaa::server
