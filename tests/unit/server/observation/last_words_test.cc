// Lines that are still on their way to the log when the process ends badly.

#include "server/observation/last_words.h"

#include <csignal>
#include <stdexcept>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "server/observation/request_log.h"

namespace swaa::server {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int kLines = 1000;

class LastWordsDeathTest : public ::testing::Test {
 protected:
  LastWordsDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }

  static void LogAndDie(void (*die)()) {
    ASSERT_TRUE(ConfigureLogging(LogFormat::kJson, "info").ok());
    InstallLastWords();
    for (int i = 0; i < kLines; ++i) LogInfo(absl::StrCat("line ", i));
    die();
  }
  static auto SaysAllAnd(const std::string& words) {
    return AllOf(HasSubstr(absl::StrCat("\"message\":\"line ", kLines - 1, "\"}\n")),
                 HasSubstr(words));
  }
};

TEST_F(LastWordsDeathTest, ABrokenCheckIsALine) {
  EXPECT_DEATH(LogAndDie([] { SWAA_CHECK_EQ(1, 2) << "as ever"; }),
               SaysAllAnd("check failed: 1 == 2 (1 vs 2) as ever\"}\n"));
}

TEST_F(LastWordsDeathTest, SoIsAnExceptionThatNobodyCatches) {
  EXPECT_DEATH(
      LogAndDie([] { std::thread([] { throw std::runtime_error("all is lost"); }).join(); }),
      SaysAllAnd("\"message\":\"nobody caught an exception: all is lost\"}\n"));
}

TEST_F(LastWordsDeathTest, ACrashLeavesTheLogWhole) {
  // One that sanitizers do not take themselves.
  EXPECT_EXIT(LogAndDie([] { raise(SIGABRT); }), ::testing::KilledBySignal(SIGABRT),
              SaysAllAnd(""));
}

TEST_F(LastWordsDeathTest, SoDoesAnExit) {
  EXPECT_EXIT(LogAndDie([] { std::exit(3); }), ::testing::ExitedWithCode(3), SaysAllAnd(""));
}

}  // namespace
}  // namespace swaa::server
