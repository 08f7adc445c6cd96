// Failures as statuses with reasons, and when to come back.

#include "server/generate/errors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace swaa::server {
namespace {

TEST(ErrorsTest, TheFirstReasonStays) {
  absl::Status status = MakeError(absl::StatusCode::kNotFound, "recipe_not_found", "no");
  EXPECT_EQ(ErrorReason(WithReason(status, "other")), "recipe_not_found");
  EXPECT_EQ(ErrorReason(absl::InvalidArgumentError("no")), "invalid_argument");
  EXPECT_TRUE(WithReason(absl::OkStatus(), "none").ok());
  EXPECT_EQ(RetryPushbackMs(status), std::nullopt);
  EXPECT_EQ(RetryPushbackMs(WithRetryPushback(status, -1)), -1);
}

TEST(ErrorsTest, LongMessagesAreCutBetweenCharacters) {
  std::string text = "x";
  for (int i = 0; i < 4000; ++i) text += "\xc3\xa9";
  const grpc::Status status = ToGrpcStatus(absl::InternalError(text));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_LT(status.error_message().size(), 2000u);
  EXPECT_THAT(status.error_message(), ::testing::EndsWith("\xc3\xa9..."));
  EXPECT_LT(Quoted(text).size(), 200u);
  EXPECT_EQ(Quoted("a\n\"b"), "\"a\\n\\\"b\"");
}

}  // namespace
}  // namespace swaa::server
