// The callers of a token file, and which of them sent a token.

#ifndef SWAA_SERVER_ACCESS_TOKEN_TABLE_H_
#define SWAA_SERVER_ACCESS_TOKEN_TABLE_H_

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/access/caller.h"
#include "swaa/v1/access.pb.h"

namespace swaa::server {

// Immutable; any thread. Keeps digests, no token.
class TokenTable {
 public:
  // INVALID_ARGUMENT names the field, and the caller by its name; never a token.
  static absl::StatusOr<TokenTable> Create(const v1::TokenFile& file, bool shared_prefix_cache);

  // Whose token it is; null: nobody's. Takes a time that depends on the token's length and on the
  // number of tokens in the table, not on what they are.
  std::shared_ptr<const Caller> Find(std::string_view token) const;
  // Who sends no token; null: they may not call.
  const std::shared_ptr<const Caller>& without_token() const { return without_token_; }

  size_t num_callers() const { return num_callers_; }

 private:
  using Digest = std::array<unsigned char, 32>;  // SHA-256
  struct Entry {
    Digest digest;
    std::shared_ptr<const Caller> caller;
  };

  static Digest DigestOf(std::string_view text);
  absl::Status Add(const v1::Caller& proto, const std::string& path, bool shared_prefix_cache);
  absl::Status AddToken(const Digest& digest, const std::string& path, Caller caller,
                        bool shared_prefix_cache);

  std::vector<Entry> entries_;
  std::shared_ptr<const Caller> without_token_;
  size_t num_callers_ = 0;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_ACCESS_TOKEN_TABLE_H_
