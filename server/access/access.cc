// Whether a call may begin, and who calls.

#include "server/access/access.h"

#include <utility>

#include <prometheus/counter.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/access/method_roles.h"
#include "server/access/token_table.h"
#include "server/generate/errors.h"
#include "server/settings/regular_file.h"
#include "server/settings/yaml_message.h"

namespace swaa::server {
namespace {

// A thousand tokens of the greatest length.
constexpr size_t kMostFileBytes = size_t{5} << 20;
constexpr char kTokenFileKey[] = "access.token_file";
constexpr std::string_view kScheme = "bearer ";  // in any case: RFC 9110, 11.1
constexpr char kUnauthenticated[] = "unauthenticated";
constexpr char kPermissionDenied[] = "permission_denied";

absl::Status Unauthenticated(const std::string& what) {
  return MakeError(absl::StatusCode::kUnauthenticated, kUnauthenticated,
                   absl::StrCat("authorization: ", what,
                                "; send `Bearer TOKEN` with a token that "
                                "the server's operator gave out"));
}

}  // namespace

Access::Access(const Options& options) : options_(options) {
  if (options_.registry == nullptr) return;
  refusals_ = &prometheus::BuildCounter()
                   .Name("swaa_access_refusals_total")
                   .Help("Calls that were not let begin, for want of a token or of a role.")
                   .Register(*options_.registry);
  for (const char* reason : {kUnauthenticated, kPermissionDenied}) {
    refusals_->Add({{"reason", reason}});
  }
}

absl::StatusOr<std::unique_ptr<Access>> Access::Create(const Options& options) {
  std::unique_ptr<Access> access(new Access(options));
  SWAA_RETURN_IF_ERROR(access->Reload());
  return access;
}

absl::StatusOr<TokenTable> Access::ReadTable() const {
  const std::string& path = options_.token_file;
  absl::StatusOr<RegularFile> file = ReadRegularFile(path, kMostFileBytes);
  if (!file.ok()) {
    return absl::Status(
        file.status().code(),
        absl::StrCat(kTokenFileKey, ": ", Quoted(path), ": ", std::string(file.status().message()),
                     "; name a YAML file that the server's user can read"));
  }
  v1::TokenFile proto;
  SWAA_RETURN_IF_ERROR(ReadYamlMessage(file->bytes, path, &proto));
  absl::StatusOr<TokenTable> table = TokenTable::Create(proto, options_.shared_prefix_cache);
  if (!table.ok()) {
    return absl::Status(table.status().code(),
                        absl::StrCat(path, ": ", std::string(table.status().message())));
  }
  if (file->others_may_read && !proto.callers().empty()) {
    LogWarning(
        absl::StrCat(path,
                     ": every user of this host can read these tokens; chmod 600 it, set "
                     "defaultMode: 0440 of its Secret's volume, or keep token_sha256 alone"));
  }
  return table;
}

absl::Status Access::Reload() {
  SWAA_ASSIGN_OR_RETURN(TokenTable read, ReadTable());
  auto table = std::make_shared<const TokenTable>(std::move(read));
  LogInfo(
      absl::StrCat("access: ", table->num_callers(), " callers of ", options_.token_file,
                   table->without_token() == nullptr
                       ? std::string("; every call but health checks needs a token")
                       : absl::StrCat("; who sends no token is ", table->without_token()->name)));
  std::lock_guard lock(mutex_);
  table_.swap(table);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const Caller>> Access::Identify(
    const std::vector<std::string_view>& authorization) const {
  const auto table = this->table();
  if (authorization.empty()) {
    if (table->without_token() != nullptr) return table->without_token();
    return Unauthenticated("absent");
  }
  if (authorization.size() > 1) return Unauthenticated("there twice");
  const std::string_view header = authorization.front();
  if (!absl::EqualsIgnoreCase(std::string(header.substr(0, kScheme.size())),
                              std::string(kScheme))) {
    return Unauthenticated("of another scheme");
  }
  std::shared_ptr<const Caller> caller = table->Find(header.substr(kScheme.size()));
  if (caller == nullptr) return Unauthenticated("nobody's token");
  return caller;
}

absl::Status Access::Authorize(std::string_view path,
                               const std::vector<std::string_view>& authorization) const {
  const Roles wanted = RolesOfMethod(path);
  if (wanted == kNoRole) return absl::OkStatus();
  const absl::StatusOr<std::shared_ptr<const Caller>> caller = Identify(authorization);
  absl::Status status = caller.status();
  if (status.ok() && !(*caller)->HasAny(wanted)) {
    status = MakeError(absl::StatusCode::kPermissionDenied, kPermissionDenied,
                       absl::StrCat("authorization: ", (*caller)->name, " has the roles ",
                                    RolesText((*caller)->roles), "; ", Quoted(std::string(path)),
                                    " takes any of ", RolesText(wanted)));
  }
  if (status.ok()) return status;
  if (refusals_ != nullptr) refusals_->Add({{"reason", ErrorReason(status)}}).Increment();
  LogAudit({.action = std::string(path),
            .caller = caller.ok() ? (*caller)->name : std::string(),
            .status = status},
           options_.log_format);
  return status;
}

bool Access::MayObserve(const std::string& token) const {
  const std::shared_ptr<const Caller> caller = table()->Find(token);
  return caller != nullptr && caller->HasAny(kObserve);
}

absl::StatusOr<std::shared_ptr<const Caller>> CallerOf(const Access* access,
                                                       const grpc::ServerContextBase& call) {
  if (access == nullptr) return Everybody();
  std::vector<std::string_view> authorization;
  const auto [first, last] = call.client_metadata().equal_range("authorization");
  for (auto it = first; it != last; ++it) {
    authorization.emplace_back(it->second.data(), it->second.size());
  }
  return access->Identify(authorization);
}

}  // namespace swaa::server
