// What the gRPC port shows in a TLS handshake, and what it demands.

#include "server/access/tls_identity.h"

#include <ctime>
#include <vector>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/generate/errors.h"
#include "server/settings/regular_file.h"

namespace swaa::server {
namespace {

// A chain or a list of authorities has some KiB; the system's own list has 200.
constexpr size_t kMostPemBytes = size_t{1} << 20;
constexpr char kCertificateKey[] = "tls.certificate_file";
constexpr char kKeyKey[] = "tls.key_file";
constexpr char kClientCaKey[] = "tls.client_ca_file";

struct Free {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
template <typename T>
using Owned = std::unique_ptr<T, Free>;

Owned<BIO> BytesOf(const std::string& pem) {
  return Owned<BIO>(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

absl::Status Wrong(const char* setting, const std::string& path, const std::string& what) {
  ERR_clear_error();
  return absl::InvalidArgumentError(absl::StrCat(setting, ": ", Quoted(path), " ", what));
}

absl::StatusOr<RegularFile> ReadPem(const char* setting, const std::string& path) {
  absl::StatusOr<RegularFile> file = ReadRegularFile(path, kMostPemBytes);
  if (file.ok()) return file;
  const std::string why(file.status().message());
  if (absl::IsInvalidArgument(file.status())) return Wrong(setting, path, why);
  return absl::NotFoundError(absl::StrCat(setting, ": cannot read ", Quoted(path), ": ", why,
                                          "; name a PEM file that the server's user can read"));
}

// libcrypto would ask on the terminal.
int RefusePassword(char*, int, int, void*) { return -1; }

absl::StatusOr<std::vector<Owned<X509>>> ParseCertificates(const char* setting,
                                                           const std::string& path,
                                                           const std::string& pem) {
  const Owned<BIO> bytes = BytesOf(pem);
  std::vector<Owned<X509>> certificates;
  while (X509* one = PEM_read_bio_X509(bytes.get(), nullptr, &RefusePassword, nullptr)) {
    certificates.emplace_back(one);
  }
  // What ends the file well is that no certificate begins any more.
  if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
    return Wrong(setting, path,
                 absl::StrCat("is damaged after ", certificates.size(),
                              " certificates; write it again, in PEM"));
  }
  ERR_clear_error();
  if (certificates.empty()) return Wrong(setting, path, "has no certificate; it must be in PEM");
  return certificates;
}

absl::Time TimeOf(const ASN1_TIME* time) {
  std::tm parts = {};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return absl::InfinitePast();
  return absl::FromTM(parts, absl::UTCTimeZone());
}

std::string SubjectOf(const X509* certificate) {
  const Owned<BIO> text(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(text.get(), X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253);
  char* data = nullptr;
  const long size = BIO_get_mem_data(text.get(), &data);
  return size > 0 ? std::string(data, static_cast<size_t>(size)) : std::string("(no name)");
}

absl::Status CheckKey(const v1::TlsConfig& files, const std::string& pem, X509* certificate) {
  const Owned<BIO> bytes = BytesOf(pem);
  const Owned<EVP_PKEY> key(
      PEM_read_bio_PrivateKey(bytes.get(), nullptr, &RefusePassword, nullptr));
  if (key == nullptr) {
    return Wrong(kKeyKey, files.key_file(), "has no private key without a password, in PEM");
  }
  if (X509_check_private_key(certificate, key.get()) == 1) return absl::OkStatus();
  return Wrong(kKeyKey, files.key_file(),
               absl::StrCat("is not the key of the certificate in ",
                            Quoted(files.certificate_file()), "; replace both"));
}

}  // namespace

absl::StatusOr<TlsIdentity> LoadTlsIdentity(const v1::TlsConfig& files, absl::Time now) {
  for (const auto& [setting, path] :
       {std::pair{kCertificateKey, &files.certificate_file()}, {kKeyKey, &files.key_file()}}) {
    if (!path->empty()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(setting,
                     ": not set, but another of tls is; TLS takes a certificate and its "
                     "key, and client_ca_file if it likes"));
  }
  TlsIdentity identity;
  SWAA_ASSIGN_OR_RETURN(RegularFile chain, ReadPem(kCertificateKey, files.certificate_file()));
  SWAA_ASSIGN_OR_RETURN(RegularFile key, ReadPem(kKeyKey, files.key_file()));
  SWAA_ASSIGN_OR_RETURN(const std::vector<Owned<X509>> certificates,
                        ParseCertificates(kCertificateKey, files.certificate_file(), chain.bytes));
  SWAA_RETURN_IF_ERROR(CheckKey(files, key.bytes, certificates.front().get()));
  identity.subject = SubjectOf(certificates.front().get());
  identity.not_after = TimeOf(X509_get0_notAfter(certificates.front().get()));
  if (identity.not_after <= now) {
    return Wrong(
        kCertificateKey, files.certificate_file(),
        absl::StrCat("expired at ",
                     absl::FormatTime(absl::RFC3339_sec, identity.not_after, absl::UTCTimeZone()),
                     "; renew it"));
  }
  identity.certificate_chain = std::move(chain.bytes);
  identity.private_key = std::move(key.bytes);
  identity.key_is_public = key.others_may_read;
  if (files.client_ca_file().empty()) return identity;
  SWAA_ASSIGN_OR_RETURN(RegularFile authorities, ReadPem(kClientCaKey, files.client_ca_file()));
  SWAA_RETURN_IF_ERROR(
      ParseCertificates(kClientCaKey, files.client_ca_file(), authorities.bytes).status());
  identity.client_ca = std::move(authorities.bytes);
  return identity;
}

}  // namespace swaa::server
