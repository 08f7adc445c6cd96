// The secret that all replicas share.

#include "server/experiments/experiment_key.h"

#include <cerrno>
#include <fcntl.h>
#include <set>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <sys/stat.h>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace swaa::server {
namespace {

// Fewer different bytes than this among 32 drawn at random, of 16 possible ones as in hexadecimal:
// less than once in 10⁸ times.
constexpr size_t kMinDifferentBytes = 8;

HmacSha256 Hmac(std::string_view key, std::string_view message) {
  HmacSha256 mac;
  unsigned int size = 0;
  const auto* result = HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
                            reinterpret_cast<const unsigned char*>(message.data()), message.size(),
                            mac.data(), &size);
  SWAA_CHECK(result != nullptr && size == mac.size()) << "libcrypto has no HMAC-SHA256";
  return mac;
}

std::string_view AsText(const HmacSha256& mac) {
  return {reinterpret_cast<const char*>(mac.data()), mac.size()};
}

uint64_t BigEndian(std::string_view bytes) {
  uint64_t value = 0;
  for (const char byte : bytes) value = value << 8 | static_cast<unsigned char>(byte);
  return value;
}

// Keys of other uses, each extracted from the secret under a public label (RFC 5869, section 2.2).
HmacSha256 Derive(std::string_view label, std::string_view secret) { return Hmac(label, secret); }

absl::Status ErrnoStatus(const std::string& path) {
  const int error = errno;
  return absl::Status(
      error == ENOENT ? absl::StatusCode::kNotFound : absl::StatusCode::kPermissionDenied,
      absl::StrCat(path, ": ", std::generic_category().message(error),
                   "; name a file that the server's user can read"));
}

}  // namespace

absl::StatusOr<ExperimentKey> ExperimentKey::Create(std::string secret) {
  if (secret.size() < kMinBytes || secret.size() > kMaxBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        secret.size() < kMinBytes ? "too short" : "too long", " for a key, which has ", kMinBytes,
        " to ", kMaxBytes, " bytes; `head -c 32 /dev/urandom > FILE` makes one"));
  }
  const std::set<char> different(secret.begin(), secret.end());
  if (different.size() < kMinDifferentBytes) {
    return absl::InvalidArgumentError(absl::StrCat("only ", different.size(),
                                                   " different bytes: no key drawn at random; "
                                                   "`head -c 32 /dev/urandom > FILE` makes one"));
  }
  return ExperimentKey(std::move(secret));
}

ExperimentKey ExperimentKey::Random() {
  std::string secret(kMinBytes, '\0');
  SWAA_CHECK_EQ(
      RAND_bytes(reinterpret_cast<unsigned char*>(secret.data()), static_cast<int>(secret.size())),
      1)
      << "libcrypto has no random bytes";
  return ExperimentKey(std::move(secret));
}

ExperimentKey::ExperimentKey(std::string secret)
    : secret_(std::move(secret)), signing_key_(AsText(Derive("swaa outcome token", secret_))) {
  const HmacSha256 print = Derive("swaa key fingerprint", secret_);
  const std::string_view bytes = AsText(print);
  fingerprint_ = absl::BytesToHexString({bytes.data(), 8});
  id_ = static_cast<uint32_t>(BigEndian(bytes.substr(0, 4)));
}

uint64_t ExperimentKey::UnitKey(std::string_view unit) const {
  return BigEndian(AsText(Hmac(secret_, unit)).substr(0, 8));
}

HmacSha256 ExperimentKey::Sign(std::string_view message) const {
  return Hmac(signing_key_, message);
}

absl::StatusOr<LoadedExperimentKey> LoadExperimentKey(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(path);
  const absl::Cleanup closer = [fd] { close(fd); };
  struct stat facts;
  if (fstat(fd, &facts) != 0) return ErrnoStatus(path);
  if (!S_ISREG(facts.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": no file; name a file with a key"));
  }
  // One byte more shows that there are more.
  std::string secret(ExperimentKey::kMaxBytes + 1, '\0');
  const ssize_t size = read(fd, secret.data(), secret.size());
  if (size < 0) return ErrnoStatus(path);
  secret.resize(static_cast<size_t>(size));
  absl::StatusOr<ExperimentKey> key = ExperimentKey::Create(std::move(secret));
  if (!key.ok()) {
    return absl::Status(key.status().code(), absl::StrCat(path, ": ", key.status().message()));
  }
  std::string warning;
  if ((facts.st_mode & S_IROTH) != 0) {
    warning = absl::StrCat(path,
                           ": every user of this host can read this key; chmod 600 it, or "
                           "set defaultMode: 0440 of its Secret's volume");
  }
  return LoadedExperimentKey{*std::move(key), std::move(warning)};
}

}  // namespace swaa::server
