// Checks of invariants. A broken one is a defect of this program, never of its input: it prints the
// expression, both values and the place, and aborts.
//
//   SWAA_CHECK(page > 0) << "page " << page << " is reserved";
//   SWAA_CHECK_EQ(rows, tokens.size());

#ifndef SWAA_BASE_CHECK_H_
#define SWAA_BASE_CHECK_H_

#include <atomic>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>

namespace swaa {

// Where the words of a broken check go; null: to stderr.
inline std::atomic<void (*)(const std::string& words)> check_failure_log = nullptr;

// Collects the message and aborts when it goes out of scope.
class CheckFailure {
 public:
  CheckFailure(const char* file, int line, const char* expression) {
    stream_ << file << ":" << line << ": check failed: " << expression << " ";
  }
  CheckFailure(const CheckFailure&) = delete;
  CheckFailure& operator=(const CheckFailure&) = delete;
  [[noreturn]] ~CheckFailure() {
    if (const auto log = check_failure_log.load()) {
      log(stream_.str());
    } else {
      std::cerr << stream_.str() << std::endl;
    }
    std::abort();
  }
  std::ostream& stream() { return stream_; }

 private:
  std::ostringstream stream_;
};

}  // namespace swaa

#define SWAA_CHECK(condition)                   \
  while (__builtin_expect(!(condition), false)) \
  ::swaa::CheckFailure(__FILE__, __LINE__, #condition).stream()

#define SWAA_CHECK_OP_(a, op, b)                                       \
  while (__builtin_expect(!((a)op(b)), false))                         \
  ::swaa::CheckFailure(__FILE__, __LINE__, #a " " #op " " #b).stream() \
      << "(" << (a) << " vs " << (b) << ") "

#define SWAA_CHECK_EQ(a, b) SWAA_CHECK_OP_(a, ==, b)
#define SWAA_CHECK_NE(a, b) SWAA_CHECK_OP_(a, !=, b)
#define SWAA_CHECK_LT(a, b) SWAA_CHECK_OP_(a, <, b)
#define SWAA_CHECK_LE(a, b) SWAA_CHECK_OP_(a, <=, b)
#define SWAA_CHECK_GT(a, b) SWAA_CHECK_OP_(a, >, b)
#define SWAA_CHECK_GE(a, b) SWAA_CHECK_OP_(a, >=, b)

#endif  // SWAA_BASE_CHECK_H_
