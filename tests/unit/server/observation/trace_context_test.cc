// What is a traceparent, by the cases of W3C Trace Context, section 3.2.

#include "server/observation/trace_context.h"

#include <gtest/gtest.h>

namespace swaa::server {
namespace {

constexpr char kTrace[] = "4bf92f3577b34da6a3ce929d0e0e4736";
constexpr char kSpan[] = "00f067aa0ba902b7";

TEST(TraceContextTest, Parses) {
  const struct {
    std::string version, flags, more;
    bool sampled;
  } cases[] = {{"00", "01", "", true},   {"00", "00", "", false}, {"00", "03", "", true},
               {"00", "fe", "", false},  {"00", "0b", "", true},  {"cc", "01", "", true},
               {"cc", "01", "-x", true}, {"01", "00", "-", false}};
  for (const auto& one : cases) {
    const std::string header =
        one.version + "-" + kTrace + "-" + kSpan + "-" + one.flags + one.more;
    const auto trace = ParseTraceparent(header);
    ASSERT_TRUE(trace.has_value()) << header;
    EXPECT_EQ(trace->trace_id, kTrace);
    EXPECT_EQ(trace->parent_id, kSpan);
    EXPECT_EQ(trace->sampled, one.sampled) << header;
  }
}

TEST(TraceContextTest, IgnoresWhatIsNone) {
  const std::string good = std::string("00-") + kTrace + "-" + kSpan + "-01";
  ASSERT_TRUE(ParseTraceparent(good).has_value());
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(ParseTraceparent(good.substr(0, size)).has_value()) << size;
  }
  for (size_t i = 0; i < good.size(); ++i) {
    for (const char c : {'g', 'A', ' ', '\0'}) {
      std::string bad = good;
      bad[i] = c;
      EXPECT_FALSE(ParseTraceparent(bad).has_value()) << bad;
    }
  }
  for (const std::string& bad :
       {good + "-", good + "0", "ff" + good.substr(2), "01" + good.substr(2) + "0",
        std::string("00-") + std::string(32, '0') + "-" + kSpan + "-01",
        std::string("00-") + kTrace + "-" + std::string(16, '0') + "-01"}) {
    EXPECT_FALSE(ParseTraceparent(bad).has_value()) << bad;
  }
}

}  // namespace
}  // namespace swaa::server
