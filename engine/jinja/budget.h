// What one rendering of a template may spend, and how it fails. Inside this library errors are
// exceptions, which never leave it: Template turns them into a status.

#ifndef SWAA_ENGINE_JINJA_BUDGET_H_
#define SWAA_ENGINE_JINJA_BUDGET_H_

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "absl/status/status.h"

namespace swaa::jinja {

// Bounds of one template and of each rendering.
struct Limits {
  int64_t max_steps = 4'000'000;  // evaluated nodes, visited elements
  int64_t max_bytes = 1LL << 28;  // of all values made while rendering, freed ones included
  int64_t max_output_bytes = 1 << 26;
  int max_depth = 400;  // nested code, calls and values
  size_t max_template_bytes = 1 << 20;
};

// Why a template cannot be read or rendered. `line` is 0 where the thrower does not know it.
class Failure : public std::runtime_error {
 public:
  explicit Failure(const std::string& message, int line = 0,
                   absl::StatusCode code = absl::StatusCode::kInvalidArgument)
      : std::runtime_error(message), line(line), code(code) {}

  int line;
  absl::StatusCode code;
};

[[noreturn]] inline void Fail(const std::string& message) { throw Failure(message); }

// Counts down; throws Failure when a bound is passed. One per rendering, one thread.
class Budget {
 public:
  explicit Budget(const Limits& limits) : limits_(limits) {}

  void Step(int64_t steps = 1) {
    steps_ += steps;
    if (steps_ > limits_.max_steps) FailSteps();
  }
  // Before memory is taken, so that a huge request takes none.
  void Take(size_t bytes) {
    if (bytes > static_cast<size_t>(limits_.max_bytes - bytes_)) FailBytes();
    bytes_ += static_cast<int64_t>(bytes);
  }
  void CheckOutput(size_t bytes) const {
    if (bytes > static_cast<size_t>(limits_.max_output_bytes)) FailOutput();
  }
  // A value that would hold others `depth` levels deep.
  void CheckDepth(int depth) const {
    if (depth > limits_.max_depth) FailDepth();
  }

  // Lives as long as one level of recursion.
  class Level {
   public:
    explicit Level(Budget& budget) : budget_(budget) {
      ++budget_.level_;
      if (budget_.level_ > budget_.limits_.max_depth) {
        --budget_.level_;
        budget_.FailDepth();
      }
    }
    ~Level() { --budget_.level_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Budget& budget_;
  };

 private:
  [[noreturn]] void FailSteps() const;
  [[noreturn]] void FailBytes() const;
  [[noreturn]] void FailOutput() const;
  [[noreturn]] void FailDepth() const;

  const Limits limits_;
  int64_t steps_ = 0;
  int64_t bytes_ = 0;
  int level_ = 0;
};

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_BUDGET_H_
