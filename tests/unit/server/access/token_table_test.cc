// Callers of a token file: whose a token is, what they may call, and what a file is refused for.

#include "server/access/token_table.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include "server/access/method_roles.h"
#include "server/settings/yaml_message.h"
#include "swaa/v1/control_service.pb.h"
#include "swaa/v1/experiment_service.pb.h"
#include "swaa/v1/inference_service.pb.h"

namespace swaa::server {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kTwo[] = R"(
callers:
- {name: a, tokens: [aaaaaaaaaaaaaaaa, AAAAAAAAAAAAAAAA], roles: [generate], max_running_requests: 3,
   max_queued_requests: 4, max_tokens_per_minute: 5}
- {name: b, tokens: [cccccccccccccccc], roles: [administer]}
)";

absl::StatusOr<TokenTable> Read(const std::string& yaml, bool shared = false) {
  v1::TokenFile file;
  if (absl::Status status = ReadYamlMessage(yaml, "f", &file); !status.ok()) return status;
  return TokenTable::Create(file, shared);
}

std::string NameOf(const TokenTable& table, const std::string& token) {
  const auto caller = table.Find(token);
  return caller == nullptr ? "" : caller->name;
}

TEST(TokenTableTest, FindsWhoseATokenIs) {
  const auto table = Read(kTwo);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(NameOf(*table, "aaaaaaaaaaaaaaaa"), "a");
  EXPECT_EQ(NameOf(*table, "AAAAAAAAAAAAAAAA"), "a");
  for (const char* nobodys :
       {"", "aaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaa", "Aaaaaaaaaaaaaaaa", "a"}) {
    EXPECT_EQ(NameOf(*table, nobodys), "") << nobodys;
  }
  const auto caller = table->Find("aaaaaaaaaaaaaaaa");
  EXPECT_EQ(caller->roles, kGenerate);
  EXPECT_EQ(caller->max_running_requests, 3u);
  EXPECT_EQ(caller->max_queued_requests, 4u);
  EXPECT_EQ(caller->max_tokens_per_minute, 5u);
  EXPECT_EQ(table->without_token(), nullptr);
}

// SHA-256 of "bbbbbbbbbbbbbbbb", from coreutils' sha256sum.
TEST(TokenTableTest, TakesADigestInsteadOfAToken) {
  const auto table = Read(
      "callers: [{name: b, roles: [administer], token_sha256: "
      "[2e61afd25d3ca76a0ee265dbc22ba5e9d844dc93ac5f2e37199a34fcbdcb5a52]}]");
  ASSERT_TRUE(table.ok()) << table.status();
  const auto caller = table->Find("bbbbbbbbbbbbbbbb");
  ASSERT_NE(caller, nullptr);
  EXPECT_EQ(caller->roles, kAdminister | kObserve);
}

TEST(TokenTableTest, SaltsAreATokensOwnUnlessShared) {
  const auto apart = Read(kTwo);
  const auto salt = [](const TokenTable& table, const char* token) {
    return table.Find(token)->CacheSalt("s");
  };
  EXPECT_NE(salt(*apart, "aaaaaaaaaaaaaaaa"), salt(*apart, "AAAAAAAAAAAAAAAA"));
  EXPECT_EQ(salt(*apart, "aaaaaaaaaaaaaaaa"), salt(*Read(kTwo), "aaaaaaaaaaaaaaaa"));
  EXPECT_THAT(salt(*apart, "aaaaaaaaaaaaaaaa"), Not(HasSubstr("aaaa")));
  EXPECT_EQ(salt(*Read(kTwo, /*shared=*/true), "aaaaaaaaaaaaaaaa"), "s");
}

TEST(TokenTableTest, WhoSendsNoTokenMayBeACaller) {
  const auto table = Read("callers: [{name: gateway, without_token: on, roles: [generate]}]");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->without_token()->name, "gateway");
  EXPECT_EQ(NameOf(*table, ""), "");
}

TEST(TokenTableTest, RefusesWhatIsWrongAndTellsNoToken) {
  const struct {
    const char* yaml;
    const char* says;
  } cases[] = {
      {"callers: []", "callers: nobody could call"},
      {"callers: [{tokens: [aaaaaaaaaaaaaaaa], roles: [generate]}]", "callers[0].name"},
      {"callers: [{name: a b, tokens: [aaaaaaaaaaaaaaaa], roles: [generate]}]", "callers[0].name"},
      {"callers: [{name: a, tokens: [aaaaaaaaaaaaaaaa]}]", "callers[a].roles: none"},
      {"callers: [{name: a, roles: [generate]}]", "callers[a].tokens: none"},
      {"callers: [{name: a, tokens: [secretsecret], roles: [generate]}]", "a token of 12 bytes"},
      {"callers: [{name: a, tokens: ['secret secret secret'], roles: [generate]}]", "has blanks"},
      {"callers: [{name: a, token_sha256: [secret], roles: [generate]}]", "is no SHA-256"},
      {"callers: [{name: a, tokens: [secretsecretsecret], roles: [generate]}, "
       "{name: a, tokens: [secretsecretsecreT], roles: [generate]}]",
       "callers[1].name: \"a\" is there twice"},
      {"callers: [{name: a, tokens: [secretsecretsecret], roles: [generate]}, "
       "{name: b, tokens: [secretsecretsecret], roles: [generate]}]",
       "callers[b].tokens[0]: is a token of a already"},
      {"callers: [{name: a, without_token: on, roles: [generate]}, "
       "{name: b, without_token: on, roles: [generate]}]",
       "callers[b].without_token: a is whoever sends none"},
  };
  for (const auto& one : cases) {
    const auto table = Read(one.yaml);
    EXPECT_EQ(table.status().code(), absl::StatusCode::kInvalidArgument) << one.yaml;
    EXPECT_THAT(std::string(table.status().message()),
                AllOf(HasSubstr(one.says), Not(HasSubstr("secret"))))
        << one.yaml;
  }
}

// A method that the table does not have takes the role administer: whoever adds one decides.
TEST(MethodRolesTest, KnowsEveryMethod) {
  for (const auto* file :
       {v1::GetLoadRequest::descriptor()->file(), v1::GetReportRequest::descriptor()->file(),
        google::protobuf::DescriptorPool::generated_pool()->FindFileByName(
            "swaa/v1/inference_service.proto")}) {
    ASSERT_NE(file, nullptr);
    ASSERT_EQ(file->service_count(), 1);
    const google::protobuf::ServiceDescriptor& service = *file->service(0);
    for (int i = 0; i < service.method_count(); ++i) {
      const std::string name = service.method(i)->name();
      const std::string path = "/" + service.full_name() + "/" + name;
      const bool dangerous = name == "LoadLora" || name == "UnloadLora" ||
                             name == "StartExperiment" || name == "StopExperiment";
      EXPECT_EQ(RolesOfMethod(path) == kAdminister, dangerous) << path;
      EXPECT_NE(RolesOfMethod(path), kNoRole) << path;
    }
  }
}

TEST(MethodRolesTest, AloneHealthIsOpen) {
  EXPECT_EQ(RolesOfMethod("/grpc.health.v1.Health/Check"), kNoRole);
  for (const char* path :
       {"", "/", "/grpc.health.v1.Health", "/x/grpc.health.v1.Health/Check", "/no.such/Method",
        "/swaa.v1.InferenceService/Generate/", "swaa.v1.InferenceService/Generate"}) {
    EXPECT_EQ(RolesOfMethod(path), kAdminister) << path;
  }
}

}  // namespace
}  // namespace swaa::server
