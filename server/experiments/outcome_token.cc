// What lets any replica record the outcome of a request that another one served.

#include "server/experiments/outcome_token.h"

#include <openssl/crypto.h>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/check.h"

namespace swaa::server {
namespace {

constexpr uint64_t kVersion = 2;
constexpr size_t kMacBytes = 16;
constexpr size_t kScopeBytes = kOutcomeTokenBytes - kMacBytes;
constexpr int32_t kMaxArms = 1 << 16;
constexpr int32_t kMaxPromptClasses = 1 << 5;

void Put(uint64_t value, int bytes, std::string* out) {
  for (int i = bytes - 1; i >= 0; --i) out->push_back(static_cast<char>(value >> (8 * i)));
}

uint64_t Take(int bytes, std::string_view* from) {
  uint64_t value = 0;
  for (int i = 0; i < bytes; ++i) value = value << 8 | static_cast<unsigned char>((*from)[i]);
  from->remove_prefix(static_cast<size_t>(bytes));
  return value;
}

// The scope's length is fixed, so where the request's id begins is not open.
HmacSha256 Mac(const ExperimentKey& key, std::string_view scope, std::string_view request_id) {
  return key.Sign(std::string(scope).append(request_id));
}

OutcomeScope TakeScope(std::string_view bytes) {
  OutcomeScope scope;
  scope.revision = Take(8, &bytes);
  scope.arm = static_cast<int32_t>(Take(2, &bytes));
  scope.group = static_cast<int32_t>(Take(1, &bytes));
  const uint64_t kinds = Take(1, &bytes);
  scope.triggered = (kinds & 1) != 0;
  scope.unit_age = static_cast<int32_t>(kinds >> 1 & 3);
  scope.prompt_class = static_cast<int32_t>(kinds >> 3);
  scope.unit_key = Take(8, &bytes);
  scope.end_ms = static_cast<int64_t>(Take(6, &bytes));
  return scope;
}

absl::Status CheckAge(int64_t end_ms, int64_t now_ms, int64_t window_ms) {
  if (now_ms - end_ms <= window_ms) return absl::OkStatus();
  return absl::OutOfRangeError(absl::StrCat(
      "outcome_token: its request ended ",
      absl::FormatTime(absl::FromUnixMillis(end_ms), absl::UTCTimeZone()),
      ", and outcomes are taken for ", absl::FormatDuration(absl::Milliseconds(window_ms)),
      "; send them sooner, or raise experiment_storage.outcome_window"));
}

}  // namespace

std::string MakeOutcomeToken(const ExperimentKey& key, std::string_view request_id,
                             const OutcomeScope& scope) {
  SWAA_CHECK(scope.arm >= 0 && scope.arm < kMaxArms) << scope.arm;
  SWAA_CHECK(scope.group >= 0 && scope.group < kUnitGroups) << scope.group;
  SWAA_CHECK(scope.prompt_class >= 0 && scope.prompt_class < kMaxPromptClasses)
      << scope.prompt_class;
  SWAA_CHECK(scope.unit_age >= 0 && scope.unit_age < kUnitAges) << scope.unit_age;
  SWAA_CHECK(scope.end_ms >= 0 && scope.end_ms < int64_t{1} << 48) << scope.end_ms;
  std::string token;
  token.reserve(kOutcomeTokenBytes);
  Put(kVersion, 1, &token);
  Put(key.id(), 4, &token);
  Put(scope.revision, 8, &token);
  Put(static_cast<uint64_t>(scope.arm), 2, &token);
  Put(static_cast<uint64_t>(scope.group), 1, &token);
  Put(static_cast<uint64_t>(scope.prompt_class << 3 | scope.unit_age << 1 | scope.triggered), 1,
      &token);
  Put(scope.unit_key, 8, &token);
  Put(static_cast<uint64_t>(scope.end_ms), 6, &token);
  const HmacSha256 mac = Mac(key, token, request_id);
  token.append(reinterpret_cast<const char*>(mac.data()), kMacBytes);
  SWAA_CHECK_EQ(token.size(), kOutcomeTokenBytes);
  return token;
}

absl::StatusOr<OutcomeScope> ReadOutcomeToken(const ExperimentKey& key, std::string_view request_id,
                                              std::string_view token, int64_t now_ms,
                                              int64_t window_ms) {
  if (token.size() != kOutcomeTokenBytes || static_cast<unsigned char>(token[0]) != kVersion) {
    return absl::InvalidArgumentError(
        absl::StrCat("outcome_token: ", token.size(),
                     " bytes that are no token; send Finished.outcome_token as it came"));
  }
  std::string_view rest = token.substr(1);
  if (Take(4, &rest) != key.id()) {
    return absl::InvalidArgumentError(
        "outcome_token: signed with another key; give all replicas the same "
        "experiment_storage.key_file");
  }
  const HmacSha256 mac = Mac(key, token.substr(0, kScopeBytes), request_id);
  if (CRYPTO_memcmp(mac.data(), token.data() + kScopeBytes, kMacBytes) != 0) {
    return absl::InvalidArgumentError(
        "outcome_token: not of this request_id, or changed; send both as they came");
  }
  const OutcomeScope scope = TakeScope(rest);
  if (const absl::Status status = CheckAge(scope.end_ms, now_ms, window_ms); !status.ok()) {
    return status;
  }
  return scope;
}

}  // namespace swaa::server
