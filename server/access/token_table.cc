// The callers of a token file, and which of them sent a token.

#include "server/access/token_table.h"

#include <algorithm>
#include <set>
#include <utility>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "server/generate/errors.h"

namespace swaa::server {
namespace {

// Every call compares with all of them: so many take some 20 µs.
constexpr size_t kMostTokens = 1000;
constexpr size_t kMostNameBytes = 64;
constexpr size_t kLeastTokenBytes = 16;
constexpr size_t kMostTokenBytes = 4096;
constexpr size_t kHexDigestBytes = 64;

absl::Status Bad(const std::string& path, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

absl::Status CheckName(const std::string& name, const std::string& path) {
  const bool plain = name.find_first_not_of(
                         "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                         "0123456789_.-") == std::string::npos;
  if (!name.empty() && name.size() <= kMostNameBytes && plain) return absl::OkStatus();
  return Bad(absl::StrCat(path, ".name"),
             absl::StrCat(Quoted(name), " is no name; take 1 to ", kMostNameBytes,
                          " letters, digits, '_', '-' or '.'"));
}

// Says nothing of the token but its size.
absl::Status CheckToken(const std::string& token, const std::string& path) {
  if (token.size() < kLeastTokenBytes || token.size() > kMostTokenBytes) {
    return Bad(path, absl::StrCat("a token of ", token.size(), " bytes; take ", kLeastTokenBytes,
                                  " to ", kMostTokenBytes, ": `openssl rand -hex 32` makes one"));
  }
  const bool plain =
      std::all_of(token.begin(), token.end(), [](char c) { return c > ' ' && c <= '~'; });
  if (plain) return absl::OkStatus();
  return Bad(path, "has blanks or characters beyond ASCII, which no header carries; take others");
}

absl::StatusOr<Roles> RolesOf(const v1::Caller& proto, const std::string& path) {
  Roles roles = kNoRole;
  for (const int role : proto.roles()) {
    if (role == v1::CALLER_ROLE_GENERATE) roles = roles | kGenerate;
    if (role == v1::CALLER_ROLE_OBSERVE) roles = roles | kObserve;
    if (role == v1::CALLER_ROLE_ADMINISTER) roles = roles | kAdminister | kObserve;
  }
  if (roles != kNoRole) return roles;
  return Bad(absl::StrCat(path, ".roles"),
             "none; take generate, observe, administer or several of them");
}

}  // namespace

TokenTable::Digest TokenTable::DigestOf(std::string_view text) {
  Digest digest;
  unsigned int size = 0;
  SWAA_CHECK_EQ(EVP_Digest(text.data(), text.size(), digest.data(), &size, EVP_sha256(), nullptr),
                1)
      << "libcrypto has no SHA-256";
  return digest;
}

absl::StatusOr<TokenTable> TokenTable::Create(const v1::TokenFile& file, bool shared_prefix_cache) {
  TokenTable table;
  std::set<std::string> names;
  for (int i = 0; i < file.callers_size(); ++i) {
    const v1::Caller& proto = file.callers(i);
    const std::string path = absl::StrCat("callers[", i, "]");
    SWAA_RETURN_IF_ERROR(CheckName(proto.name(), path));
    if (!names.insert(proto.name()).second) {
      return Bad(absl::StrCat(path, ".name"),
                 absl::StrCat(Quoted(proto.name()),
                              " is there twice; one caller may have several tokens"));
    }
    SWAA_RETURN_IF_ERROR(
        table.Add(proto, absl::StrCat("callers[", proto.name(), "]"), shared_prefix_cache));
  }
  if (names.empty()) {
    return Bad("callers", "nobody could call; name somebody, or leave access.token_file out");
  }
  table.num_callers_ = names.size();
  return table;
}

absl::Status TokenTable::Add(const v1::Caller& proto, const std::string& path,
                             bool shared_prefix_cache) {
  Caller caller;
  caller.name = proto.name();
  SWAA_ASSIGN_OR_RETURN(caller.roles, RolesOf(proto, path));
  caller.max_running_requests = proto.max_running_requests();
  caller.max_queued_requests = proto.max_queued_requests();
  caller.max_tokens_per_minute = proto.max_tokens_per_minute();
  if (proto.tokens().empty() && proto.token_sha256().empty() && !proto.without_token()) {
    return Bad(absl::StrCat(path, ".tokens"), "none; give one, or its SHA-256 in token_sha256");
  }
  for (int i = 0; i < proto.tokens_size(); ++i) {
    const std::string at = absl::StrCat(path, ".tokens[", i, "]");
    SWAA_RETURN_IF_ERROR(CheckToken(proto.tokens(i), at));
    SWAA_RETURN_IF_ERROR(AddToken(DigestOf(proto.tokens(i)), at, caller, shared_prefix_cache));
  }
  for (int i = 0; i < proto.token_sha256_size(); ++i) {
    const std::string& hex = proto.token_sha256(i);
    const std::string at = absl::StrCat(path, ".token_sha256[", i, "]");
    if (hex.size() != kHexDigestBytes ||
        hex.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos) {
      return Bad(at,
                 absl::StrCat("is no SHA-256, which has ", kHexDigestBytes,
                              " hexadecimal digits: `printf %s \"$TOKEN\" | sha256sum` makes one"));
    }
    const std::string bytes = absl::HexStringToBytes(hex);
    Digest digest;
    std::copy(bytes.begin(), bytes.end(), digest.begin());
    SWAA_RETURN_IF_ERROR(AddToken(digest, at, caller, shared_prefix_cache));
  }
  if (!proto.without_token()) return absl::OkStatus();
  if (without_token_ != nullptr) {
    return Bad(absl::StrCat(path, ".without_token"),
               absl::StrCat(without_token_->name, " is whoever sends none; only one may be"));
  }
  if (!shared_prefix_cache) caller.cache_scope = "without token";
  without_token_ = std::make_shared<const Caller>(std::move(caller));
  return absl::OkStatus();
}

absl::Status TokenTable::AddToken(const Digest& digest, const std::string& path, Caller caller,
                                  bool shared_prefix_cache) {
  for (const Entry& entry : entries_) {
    if (CRYPTO_memcmp(entry.digest.data(), digest.data(), digest.size()) != 0) continue;
    return Bad(path, absl::StrCat("is a token of ", entry.caller->name, " already; make another"));
  }
  if (entries_.size() == kMostTokens) {
    return Bad(path, absl::StrCat("one token too many; at most ", kMostTokens));
  }
  if (!shared_prefix_cache) {
    // Of the digest, as the token itself may be unknown here; labelled, so that it is none.
    const Digest scope =
        DigestOf(absl::StrCat("swaa cache scope ", std::string(digest.begin(), digest.end())));
    caller.cache_scope = absl::BytesToHexString(std::string(scope.begin(), scope.end()));
  }
  entries_.push_back({digest, std::make_shared<const Caller>(std::move(caller))});
  return absl::OkStatus();
}

std::shared_ptr<const Caller> TokenTable::Find(std::string_view token) const {
  const Digest digest = DigestOf(token);
  size_t found = entries_.size();
  for (size_t i = 0; i < entries_.size(); ++i) {
    const bool same = CRYPTO_memcmp(entries_[i].digest.data(), digest.data(), digest.size()) == 0;
    // Without a branch, nor an early end.
    found ^= (found ^ i) & (size_t{0} - static_cast<size_t>(same));
  }
  return found < entries_.size() ? entries_[found].caller : nullptr;
}

}  // namespace swaa::server
