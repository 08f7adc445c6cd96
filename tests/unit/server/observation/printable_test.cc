// Text of anybody's on one line, and how many lines.

#include "server/observation/printable.h"

#include <gtest/gtest.h>

#include "server/observation/log_throttle.h"

namespace swaa::server {
namespace {

TEST(PrintableTest, WhatCouldForgeALineIsEscaped) {
  EXPECT_EQ(Printable("a\nb\r\tc\x1b[31m\x7f"), "a\\nb\\r\\tc\\x1b[31m\\x7f");
  EXPECT_EQ(Printable("\xc2\x85|\xe2\x80\xa8|\xe2\x80\xa9"), "\\x85|\\u2028|\\u2029");
  EXPECT_EQ(Printable("\xe2\x80\xae|\xe2\x81\xa6|\xe2\x80\x8b|\xef\xbb\xbf"),
            "\\u202e|\\u2066|\\u200b|\\ufeff");
  EXPECT_EQ(Printable("\xf3\xa0\x80\x81"), "\\U000e0001");
  EXPECT_EQ(Printable("\xff\xc3"), "\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_FALSE(IsPrintable("\xe2\x80\xa8"));
  EXPECT_FALSE(IsPrintable("\xff"));
}

TEST(PrintableTest, WritingOfAllKindsStays) {
  const std::string text = "na\xc3\xafve \xe6\xbc\xa2\xe5\xad\x97 \xf0\x9f\x99\x82 \"quoted\" \\";
  EXPECT_EQ(Printable(text), text);
  EXPECT_TRUE(IsPrintable(text));
  EXPECT_EQ(Printable(Printable("a\nb")), Printable("a\nb"));
}

TEST(LogThrottleTest, CountsWhatItLeavesOut) {
  LogThrottle throttle(/*per_second=*/10, /*burst=*/3);
  const auto start = std::chrono::steady_clock::now() + std::chrono::hours(1);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(throttle.Admit(start), 0);
  for (int i = 0; i < 7; ++i) EXPECT_EQ(throttle.Admit(start), std::nullopt);
  EXPECT_EQ(throttle.Admit(start + std::chrono::milliseconds(110)), 7);
  EXPECT_EQ(throttle.Admit(start + std::chrono::milliseconds(110)), std::nullopt);
  EXPECT_EQ(throttle.Admit(start + std::chrono::milliseconds(220)), 1);
  EXPECT_EQ(throttle.total_suppressed(), 8);
}

}  // namespace
}  // namespace swaa::server
