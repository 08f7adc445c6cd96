// Outcome tokens and the key behind them.

#include "server/experiments/outcome_token.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/server/experiments/storage_testing.h"

namespace swaa::server {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kDay = 24 * 60 * 60 * 1000;

ExperimentKey KeyOf(const std::string& secret) {
  absl::StatusOr<ExperimentKey> key = ExperimentKey::Create(secret);
  SWAA_CHECK(key.ok()) << key.status().message();
  return *std::move(key);
}

OutcomeScope SomeScope() {
  return {.revision = ~uint64_t{5},
          .arm = 300,
          .group = 255,
          .unit_key = uint64_t{0x8123456789abcdef},
          .end_ms = 1'764'000'000'123,
          .triggered = true,
          .prompt_class = 4,
          .unit_age = 2};
}

// RFC 4231 has no key of 32 different bytes, so these are of Python's hmac module, with the bytes
// 0 to 31 as key.
TEST(ExperimentKeyTest, UnitKeys) {
  std::string secret;
  for (char c = 0; c < 32; ++c) secret.push_back(c);
  const ExperimentKey key = KeyOf(secret);
  EXPECT_EQ(key.UnitKey("user-1"), uint64_t{0xc49dc017978a22e1});
  EXPECT_EQ(key.UnitKey(""), uint64_t{0xd38b42096d80f45f});
  EXPECT_EQ(key.fingerprint(), "272c52aad3eee35f");
}

TEST(ExperimentKeyTest, RandomKeysDiffer) {
  EXPECT_NE(ExperimentKey::Random().UnitKey("u"), ExperimentKey::Random().UnitKey("u"));
}

TEST(ExperimentKeyTest, Files) {
  const TestFolder folder;
  const std::string path = folder.File("key");
  const std::string secret = "0123456789abcdef0123456789abcdef\n";
  std::ofstream(path) << secret;
  std::filesystem::permissions(path, std::filesystem::perms(0440));
  const auto loaded = LoadExperimentKey(path);
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  EXPECT_EQ(loaded->key.fingerprint(), KeyOf(secret).fingerprint());
  EXPECT_THAT(loaded->warning, IsEmpty());
  std::filesystem::permissions(path, std::filesystem::perms(0644));
  EXPECT_THAT(LoadExperimentKey(path)->warning, HasSubstr("chmod 600"));

  for (const std::string& wrong : {std::string(""), secret.substr(0, 31), std::string(64, 'a'),
                                   std::string(5000, 'a') + secret}) {
    std::ofstream(path) << wrong;
    const absl::Status status = LoadExperimentKey(path).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << wrong.size();
    EXPECT_THAT(std::string(status.message()), HasSubstr(path));
  }
  EXPECT_EQ(LoadExperimentKey(folder.File("none")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(LoadExperimentKey(folder.File("")).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(OutcomeTokenTest, ComesBackOnAnyReplica) {
  const std::string secret = "0123456789abcdef0123456789abcdef";
  const OutcomeScope scope = SomeScope();
  const std::string token = MakeOutcomeToken(KeyOf(secret), "request", scope);
  const auto read = ReadOutcomeToken(KeyOf(secret), "request", token, scope.end_ms + kDay, kDay);
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(read->revision, scope.revision);
  EXPECT_EQ(read->arm, scope.arm);
  EXPECT_EQ(read->group, scope.group);
  EXPECT_EQ(read->unit_key, scope.unit_key);
  EXPECT_EQ(read->end_ms, scope.end_ms);
  EXPECT_EQ(read->triggered, scope.triggered);
  EXPECT_EQ(read->prompt_class, scope.prompt_class);
  EXPECT_EQ(read->unit_age, scope.unit_age);
}

TEST(OutcomeTokenTest, NobodyElseMakesOne) {
  const ExperimentKey key = ExperimentKey::Random();
  const int64_t now = SomeScope().end_ms;
  const std::string token = MakeOutcomeToken(key, "request", SomeScope());
  const auto code = [&](std::string_view request_id, std::string_view changed) {
    return ReadOutcomeToken(key, request_id, changed, now, kDay).status().code();
  };
  ASSERT_EQ(code("request", token), absl::StatusCode::kOk);
  for (size_t bit = 0; bit < 8 * token.size(); ++bit) {
    std::string changed = token;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_EQ(code("request", changed), absl::StatusCode::kInvalidArgument) << "bit " << bit;
  }
  for (size_t size = 0; size < token.size(); ++size) {
    EXPECT_EQ(code("request", token.substr(0, size)), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(code("request", token + '\0'), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("Request", token), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("", token), absl::StatusCode::kInvalidArgument);

  const absl::Status other =
      ReadOutcomeToken(ExperimentKey::Random(), "request", token, now, kDay).status();
  EXPECT_EQ(other.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(other.message()), HasSubstr("key_file"));
}

// A unit of a client's choice yields a part of a signature if both are made with one key.
TEST(OutcomeTokenTest, UnitKeysSignNothing) {
  const ExperimentKey key = ExperimentKey::Random();
  const std::string token = MakeOutcomeToken(key, "", SomeScope());
  const size_t signed_bytes = kOutcomeTokenBytes - 16;
  uint64_t signature = 0;
  for (size_t i = 0; i < 8; ++i) {
    signature = signature << 8 | static_cast<unsigned char>(token[signed_bytes + i]);
  }
  EXPECT_NE(key.UnitKey(token.substr(0, signed_bytes)), signature);
}

TEST(OutcomeTokenTest, ExpiresWithTheWindow) {
  const ExperimentKey key = ExperimentKey::Random();
  const int64_t end = SomeScope().end_ms;
  const std::string token = MakeOutcomeToken(key, "request", SomeScope());
  EXPECT_TRUE(ReadOutcomeToken(key, "request", token, end + kDay, kDay).ok());
  EXPECT_TRUE(ReadOutcomeToken(key, "request", token, end - kDay, kDay).ok()) << "clocks differ";
  const absl::Status late = ReadOutcomeToken(key, "request", token, end + kDay + 1, kDay).status();
  EXPECT_EQ(late.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(late.message()), HasSubstr("24h"));
}

}  // namespace
}  // namespace swaa::server
