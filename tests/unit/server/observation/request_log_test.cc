// A request's line in the log.

#include "server/observation/request_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "server/generate/errors.h"

namespace swaa::server {
namespace {

RequestRecord Refused() {
  RequestRecord record;
  record.id = "a \"b\" \xff";
  record.recipe_label = "fast";
  record.status = MakeError(absl::StatusCode::kInvalidArgument, "why", "line\nbreak");
  record.total = absl::Milliseconds(12);
  return record;
}

TEST(RequestLogTest, JsonIsEscaped) {
  const std::string members = FormatRecord(Refused(), LogFormat::kJson);
  const nlohmann::json json = nlohmann::json::parse("{" + members + "}");
  EXPECT_EQ(json["id"], "a \"b\" \xef\xbf\xbd");
  EXPECT_EQ(json["error"], "line\nbreak");
  EXPECT_EQ(json["reason"], "why");
  EXPECT_EQ(json["total_ms"], 12);
  EXPECT_EQ(json["status"], "INVALID_ARGUMENT");
  EXPECT_FALSE(json.contains("finish"));
}

TEST(RequestLogTest, TextIsOneLine) {
  RequestRecord record = Refused();
  const std::string line = FormatRecord(record, LogFormat::kText);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_THAT(line, ::testing::HasSubstr("request id=\"a \\\"b\\\" \xef\xbf\xbd\" recipe=fast"));
  record.status = absl::OkStatus();
  record.finish_reason = FinishReason::kLength;
  EXPECT_THAT(FormatRecord(record, LogFormat::kText),
              ::testing::HasSubstr("status=OK finish=length"));
}

TEST(RequestLogTest, UnknownLevelIsRefused) {
  EXPECT_EQ(ConfigureLogging(LogFormat::kText, "loud").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(ConfigureLogging(LogFormat::kText, "off").ok());
}

}  // namespace
}  // namespace swaa::server
