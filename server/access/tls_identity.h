// What the gRPC port shows in a TLS handshake, and what it demands.

#ifndef SWAA_SERVER_ACCESS_TLS_IDENTITY_H_
#define SWAA_SERVER_ACCESS_TLS_IDENTITY_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "swaa/v1/config.pb.h"

namespace swaa::server {

struct TlsIdentity {
  std::string certificate_chain;  // PEM, the server's own first
  std::string private_key;        // PEM
  std::string client_ca;          // PEM; empty: clients need no certificate
  std::string subject;            // of the server's own certificate, for the log
  absl::Time not_after;           // its end
  bool key_is_public = false;     // every user of the host can read the key's file

  bool operator==(const TlsIdentity&) const = default;
};

// Reads the files and checks that they go together: the key is the first certificate's, which has
// not expired at `now`, and the authorities are certificates. The status names the setting and the
// file: NOT_FOUND for one that cannot be read, INVALID_ARGUMENT for one that is wrong or missing.
absl::StatusOr<TlsIdentity> LoadTlsIdentity(const v1::TlsConfig& files, absl::Time now);

// The identity that new connections get. Thread-safe.
class CurrentTlsIdentity {
 public:
  explicit CurrentTlsIdentity(TlsIdentity identity)
      : identity_(std::make_shared<const TlsIdentity>(std::move(identity))) {}

  std::shared_ptr<const TlsIdentity> Get() const {
    std::lock_guard lock(mutex_);
    return identity_;
  }
  void Set(TlsIdentity identity) {
    auto made = std::make_shared<const TlsIdentity>(std::move(identity));
    std::lock_guard lock(mutex_);
    identity_.swap(made);
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const TlsIdentity> identity_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_ACCESS_TLS_IDENTITY_H_
