// A device whose "model" is a hash, exact and cheap: the value of every layer and position depends
// on every key that the recipe makes visible, and on nothing else. What it reads it reads through
// the page table, from pages that remember what was written where; a wrong page, a released page or
// a wrong span changes the tokens or fails at once.

#ifndef SWAA_TESTS_UNIT_TESTING_FAKE_DEVICE_H_
#define SWAA_TESTS_UNIT_TESTING_FAKE_DEVICE_H_

#include <cstdint>
#include <deque>
#include <map>
#include <vector>

#include "engine/device/device.h"
#include "engine/recipe/recipe.h"
#include "engine/tokenizer/tokenizer.h"

namespace swaa::testing {

inline constexpr int32_t kFakeVocab = 257;  // 256 bytes and the end token
inline constexpr int32_t kFakeEos = 256;

// A tokenizer of single bytes and one special end token.
std::unique_ptr<Tokenizer> MakeByteTokenizer();

class FakeDevice final : public Device {
 public:
  explicit FakeDevice(DeviceInfo info);

  const DeviceInfo& info() const override { return info_; }
  void Submit(Step step) override;
  StepResult Collect() override;

  // Makes the next steps fail.
  void FailWith(absl::Status status) { failure_ = std::move(status); }
  // Sleeps this long a step.
  void set_step_time(absl::Duration time) { step_time_ = time; }

  // Positions computed by slot, and the token at position 0 of the sequence that holds the slot.
  struct Slot {
    int32_t first_token = -1;
    int32_t computed = 0;
  };
  const std::map<int32_t, Slot>& slots() const { return slots_; }
  const Step& last_step() const { return last_step_; }
  int64_t steps() const { return steps_; }
  // Entries of the page table that name a page.
  int64_t table_entries() const;

 private:
  struct Cell {
    int32_t layer = -1;
    int32_t position = -1;
    uint64_t value = 0;
  };

  Cell& CellOf(int32_t slot, int32_t layer, int32_t position);
  StepResult Run(const Step& step);

  DeviceInfo info_;
  std::vector<int32_t> table_;
  std::vector<Cell> cells_;
  std::map<int32_t, Slot> slots_;
  std::deque<Step> submitted_;
  Step last_step_;
  int64_t steps_ = 0;
  absl::Status failure_;
  absl::Duration step_time_;
};

// The greedy output of a request, by the formula over plain arrays: no pages, no chunks, no batch.
std::vector<int32_t> ReferenceOutput(const std::vector<int32_t>& prompt,
                                     const std::vector<int32_t>& forced, const Recipe& recipe,
                                     int32_t max_tokens, bool ignore_eos);

// The device's log-probability of `token` after a position whose last layer has `value`.
float FakeLogprob(uint64_t value, int32_t token);

// The last layer's values of all positions of `tokens`.
std::vector<uint64_t> ReferenceValues(const std::vector<int32_t>& tokens, int32_t prompt_tokens,
                                      const Recipe& recipe);

}  // namespace swaa::testing

#endif  // SWAA_TESTS_UNIT_TESTING_FAKE_DEVICE_H_
