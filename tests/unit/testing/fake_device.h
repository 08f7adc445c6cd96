// A device whose "model" is a hash, exact and cheap: the value of every layer and position depends
// on every key that the recipe makes visible, and on nothing else. What it reads it reads through
// the page table, from pages that remember what was written where; a wrong page, a released page or
// a wrong span changes the tokens or fails at once.

#ifndef SWAA_TESTS_UNIT_TESTING_FAKE_DEVICE_H_
#define SWAA_TESTS_UNIT_TESTING_FAKE_DEVICE_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "engine/device/device.h"
#include "engine/recipe/recipe.h"
#include "engine/tokenizer/tokenizer.h"

namespace swaa::testing {

inline constexpr int32_t kFakeVocab = 257;  // 256 bytes and the end token
inline constexpr int32_t kFakeEos = 256;

// A tokenizer of single bytes and one special end token.
std::unique_ptr<Tokenizer> MakeByteTokenizer();

// Steps are computed in Collect, in order, so that with several in flight every one but the oldest
// is behind what the engine has planned meanwhile. What the engine may not do then is CHECKed:
// write to a page, or set up a slot, that an uncollected step has a use for.
class FakeDevice final : public Device {
 public:
  explicit FakeDevice(DeviceInfo info);

  const DeviceInfo& info() const override { return info_; }
  void Submit(Step step) override;
  StepResult Collect() override;
  kernels::MemoryUse Memory(int32_t rank) const override {
    return {.weights = info_.weight_bytes, .kv = info_.num_pages * info_.page_bytes};
  }
  kernels::DeviceFacts Facts(int32_t rank) const override { return {}; }

  // Makes the next steps fail; with LoseWith no later one can succeed. From any thread.
  void FailWith(absl::Status status);
  void LoseWith(absl::Status status);
  // Sleeps this long a step, from the next one on. From any thread.
  void set_step_time(absl::Duration time) { step_microseconds_ = absl::ToInt64Microseconds(time); }
  // What a step says that it took: this long a row.
  void set_row_seconds(double seconds) { row_seconds_ = seconds; }
  // Nobody holds the page: its contents are gone, and no step submitted so far may touch it.
  void Poison(int32_t page);

  // Positions by slot, and the token at position 0 of the sequence that holds the slot.
  struct Slot {
    int32_t first_token = -1;
    int32_t computed = 0;
    int32_t submitted = 0;
  };
  const std::map<int32_t, Slot>& slots() const { return slots_; }
  const Step& last_step() const { return last_step_; }  // that was collected
  int64_t steps() const { return steps_; }

 private:
  struct Cell {
    int32_t layer = -1;
    int32_t position = -1;
    uint64_t value = 0;
  };
  // What the slot's draws depend on.
  struct SlotSampling {
    SlotSetup setup;
    int32_t drawn = -1;
  };
  // A block of one use of a slot.
  using Use = std::tuple<int32_t, int64_t, int32_t, int32_t>;  // slot, which use, layer, block
  struct Submitted {
    Step step;
    std::multimap<int32_t, Use> uses;  // by page
  };

  size_t EntryOf(int32_t slot, int32_t layer, int32_t block) const;
  void NoteSlots(const Step& step);
  std::multimap<int32_t, Use> UsesOf(const Step& step);
  Cell& CellOf(int32_t slot, int32_t layer, int32_t position);
  uint64_t ValueOf(int32_t token, int32_t slot) const;
  std::vector<uint64_t> RunLayer(const Step& step, int32_t layer, const std::vector<uint64_t>& x);
  ScoredToken RunLogits(const LogitsRow& row, uint64_t value);
  StepResult Run(const Step& step);

  DeviceInfo info_;
  std::vector<int32_t> table_;            // as of the steps that were computed
  std::vector<int32_t> submitted_table_;  // as of those that were submitted
  std::vector<Cell> cells_;
  std::vector<uint64_t> poisoned_;  // [pages] the last step submitted by then
  std::map<int32_t, Slot> slots_;
  std::map<int32_t, int64_t> slot_uses_;
  std::map<int32_t, SlotSampling> sampling_;
  std::deque<Submitted> submitted_;
  uint64_t last_submitted_ = 0;
  Step last_step_;
  int64_t steps_ = 0;
  std::mutex failure_mutex_;
  absl::Status failure_;
  bool lost_ = false;
  std::atomic<int64_t> step_microseconds_ = 0;
  double row_seconds_ = 0;
};

// What of a request's stopping and sampling the device's draws depend on.
struct ReferenceDraws {
  bool history = false;  // its sampling needs the history
  uint32_t min_tokens = 0;
  std::vector<int32_t> forbidden = {};  // before min_tokens
};

// The greedy output of a request, by the formula over plain arrays: no pages, no chunks, no batch.
std::vector<int32_t> ReferenceOutput(const std::vector<int32_t>& prompt,
                                     const std::vector<int32_t>& forced, const Recipe& recipe,
                                     int32_t max_tokens, bool ignore_eos,
                                     const ReferenceDraws& draws = {});

inline std::shared_ptr<const std::vector<int32_t>> Shared(std::vector<int32_t> tokens) {
  return std::make_shared<const std::vector<int32_t>>(std::move(tokens));
}

// The device's log-probability of `token` after a position whose last layer has `value`.
float FakeLogprob(uint64_t value, int32_t token);

// The last layer's values of all positions of `tokens`.
std::vector<uint64_t> ReferenceValues(const std::vector<int32_t>& tokens, int32_t prompt_tokens,
                                      const Recipe& recipe);

}  // namespace swaa::testing

#endif  // SWAA_TESTS_UNIT_TESTING_FAKE_DEVICE_H_
