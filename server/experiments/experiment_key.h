// The secret that all replicas share: it hides unit ids and signs outcome tokens.

#ifndef SWAA_SERVER_EXPERIMENTS_EXPERIMENT_KEY_H_
#define SWAA_SERVER_EXPERIMENTS_EXPERIMENT_KEY_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace swaa::server {

using HmacSha256 = std::array<unsigned char, 32>;

// Immutable, hence thread-safe. HMAC-SHA256 as in RFC 2104 and FIPS 180-4.
class ExperimentKey {
 public:
  static constexpr size_t kMinBytes = 32;
  static constexpr size_t kMaxBytes = 4096;

  // INVALID_ARGUMENT for fewer or more bytes than that, or so few different ones that nobody can
  // have drawn them at random.
  static absl::StatusOr<ExperimentKey> Create(std::string secret);
  // One that nobody else has.
  static ExperimentKey Random();

  // What stands for a unit on disk and in logs: the first 8 bytes of HMAC-SHA256(secret, unit), big
  // endian. About 1 µs.
  uint64_t UnitKey(std::string_view unit) const;

  // Signs a token. Its key is not the one of UnitKey, so no choice of a unit yields a signature.
  HmacSha256 Sign(std::string_view message) const;

  // Tells keys apart and gives nothing away: 16 hexadecimal digits, and the first four bytes of it.
  const std::string& fingerprint() const { return fingerprint_; }
  uint32_t id() const { return id_; }

 private:
  explicit ExperimentKey(std::string secret);

  std::string secret_;
  std::string signing_key_;
  std::string fingerprint_;
  uint32_t id_;
};

struct LoadedExperimentKey {
  ExperimentKey key;
  std::string warning;  // empty: none
};

// The file's bytes as they are, a newline at the end among them. Besides Create's refusals
// NOT_FOUND and PERMISSION_DENIED. A file that others than its owner and group may read is used,
// with a warning: Kubernetes mounts Secrets so unless it is told otherwise, in a container of
// nobody else's.
absl::StatusOr<LoadedExperimentKey> LoadExperimentKey(const std::string& path);

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_EXPERIMENT_KEY_H_
