// Whether a call may begin, and who calls.

#ifndef SWAA_SERVER_ACCESS_ACCESS_H_
#define SWAA_SERVER_ACCESS_ACCESS_H_

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <grpcpp/grpcpp.h>
#include <prometheus/registry.h>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "server/access/caller.h"
#include "server/observation/request_log.h"

namespace swaa::server {

class TokenTable;

// The callers of a token file, which may be read again at any time. Thread-safe.
class Access {
 public:
  struct Options {
    std::string token_file;
    bool shared_prefix_cache = false;
    LogFormat log_format = LogFormat::kText;
    prometheus::Registry* registry = nullptr;  // null: nothing is counted
  };

  // Reads the file. NOT_FOUND or INVALID_ARGUMENT names it and what is wrong.
  static absl::StatusOr<std::unique_ptr<Access>> Create(const Options& options);

  // Reads the file again; one that is wrong changes nothing. A caller that is gone from it begins
  // no further call; its requests that run go on.
  absl::Status Reload();

  // Whether a call may begin (AuthorizeCall in server_credentials.h). UNAUTHENTICATED: no token, or
  // one of nobody; PERMISSION_DENIED: its caller has not the role. Refusals are counted and stand
  // in the log, as many as other refusals do.
  absl::Status Authorize(std::string_view path,
                         const std::vector<std::string_view>& authorization) const;

  // Whose header it is. UNAUTHENTICATED as above.
  absl::StatusOr<std::shared_ptr<const Caller>> Identify(
      const std::vector<std::string_view>& authorization) const;

  // Whether it is the token of a caller that may observe.
  bool MayObserve(const std::string& token) const;

 private:
  explicit Access(const Options& options);

  std::shared_ptr<const TokenTable> table() const {
    std::lock_guard lock(mutex_);
    return table_;
  }
  absl::StatusOr<TokenTable> ReadTable() const;

  const Options options_;
  prometheus::Family<prometheus::Counter>* refusals_ = nullptr;
  mutable std::mutex mutex_;
  std::shared_ptr<const TokenTable> table_ ABSL_GUARDED_BY(mutex_);
};

// Who makes a call that was let begin; everybody if `access` is null. UNAUTHENTICATED if the token
// was taken away since.
absl::StatusOr<std::shared_ptr<const Caller>> CallerOf(const Access* access,
                                                       const grpc::ServerContextBase& call);

}  // namespace swaa::server

#endif  // SWAA_SERVER_ACCESS_ACCESS_H_
