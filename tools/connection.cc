// Tools: how a client reaches its server, as the flags of every client say.

#include "tools/connection.h"

#include <fstream>
#include <sstream>
#include <utility>

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <grpcpp/support/client_interceptor.h>

#include "absl/flags/flag.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

ABSL_FLAG(std::string, address, "127.0.0.1:50051", "HOST:PORT of the server");
ABSL_FLAG(
    std::string, tls_ca, "",
    "speak TLS with a server whose certificate one of this PEM file's authorities signed, such "
    "as /etc/ssl/certs/ca-certificates.crt; empty: no TLS");
ABSL_FLAG(bool, tls_unverified, false,
          "with --tls-ca: do not look who the server is, nor who signed its certificate, as "
          "kubelets do; for probes on its own host");
ABSL_FLAG(std::string, tls_certificate, "",
          "with --tls-ca: this client's own certificate, a PEM file, for servers that ask for one");
ABSL_FLAG(std::string, tls_key, "", "with --tls-certificate: its private key, a PEM file");
ABSL_FLAG(
    std::string, tls_server_name, "",
    "with --tls-ca: the name that the server's certificate must have; empty: --address's host");
ABSL_FLAG(std::string, token_file, "",
          "a file with the bearer token that is sent with every call; empty: none");

namespace swaa::tools {
namespace {

absl::Status BadFlag(const std::string& flag, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("--", flag, ": ", what));
}

// Empty without a path.
absl::StatusOr<std::string> ReadFlagFile(const std::string& flag, const std::string& path) {
  if (path.empty()) return std::string();
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) {
    return absl::NotFoundError(
        absl::StrCat("--", flag, ": cannot read \"", path, "\", or it is empty"));
  }
  return text.str();
}

// gRPC's SslCredentials always verify. These want authorities as well, and do not ask them.
std::shared_ptr<grpc::ChannelCredentials> UnverifiedTls(const grpc::SslCredentialsOptions& files) {
  namespace tls = grpc::experimental;
  tls::TlsChannelCredentialsOptions options;
  options.set_verify_server_certs(false);
  options.set_check_call_host(false);
  options.set_certificate_verifier(std::make_shared<tls::NoOpCertificateVerifier>());
  std::vector<tls::IdentityKeyCertPair> own;
  if (!files.pem_cert_chain.empty()) own = {{files.pem_private_key, files.pem_cert_chain}};
  options.set_certificate_provider(
      std::make_shared<tls::StaticDataCertificateProvider>(files.pem_root_certs, own));
  options.watch_root_certs();
  if (!own.empty()) options.watch_identity_key_cert_pairs();
  return tls::TlsCredentials(options);
}

absl::Status TakeTls(Connection* connection) {
  const std::string ca = absl::GetFlag(FLAGS_tls_ca);
  const std::string certificate = absl::GetFlag(FLAGS_tls_certificate);
  const std::string key = absl::GetFlag(FLAGS_tls_key);
  connection->server_name = absl::GetFlag(FLAGS_tls_server_name);
  if (certificate.empty() != key.empty()) {
    return BadFlag(certificate.empty() ? "tls-certificate" : "tls-key",
                   "not set, but the other is; a certificate and its key go together");
  }
  const bool unverified = absl::GetFlag(FLAGS_tls_unverified);
  if (ca.empty()) {
    if (unverified) return BadFlag("tls-unverified", "without --tls-ca; set both");
    if (!certificate.empty()) return BadFlag("tls-certificate", "without --tls-ca; set both");
    if (!connection->server_name.empty()) {
      return BadFlag("tls-server-name", "without --tls-ca; set both");
    }
    return absl::OkStatus();
  }
  grpc::SslCredentialsOptions options;
  SWAA_ASSIGN_OR_RETURN(options.pem_root_certs, ReadFlagFile("tls-ca", ca));
  SWAA_ASSIGN_OR_RETURN(options.pem_cert_chain, ReadFlagFile("tls-certificate", certificate));
  SWAA_ASSIGN_OR_RETURN(options.pem_private_key, ReadFlagFile("tls-key", key));
  connection->credentials = unverified ? UnverifiedTls(options) : grpc::SslCredentials(options);
  return absl::OkStatus();
}

// gRPC's own call credentials refuse a connection without TLS, even on the loopback.
class TokenSender final : public grpc::experimental::Interceptor {
 public:
  explicit TokenSender(const std::string& header) : header_(header) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    using Point = grpc::experimental::InterceptionHookPoints;
    if (methods->QueryInterceptionHookPoint(Point::PRE_SEND_INITIAL_METADATA)) {
      methods->GetSendInitialMetadata()->insert({"authorization", header_});
    }
    methods->Proceed();
  }

 private:
  const std::string header_;
};

class TokenSenders final : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  explicit TokenSenders(const std::string& token) : header_(absl::StrCat("Bearer ", token)) {}

  grpc::experimental::Interceptor* CreateClientInterceptor(
      grpc::experimental::ClientRpcInfo*) override {
    return new TokenSender(header_);  // which gRPC takes over
  }

 private:
  const std::string header_;
};

}  // namespace

std::vector<std::string> ConnectionFlagNames() {
  return {"address", "tls_ca", "tls_certificate", "tls_key", "tls_server_name", "token_file"};
}

std::string AddressFlag() { return absl::GetFlag(FLAGS_address); }

absl::StatusOr<Connection> ConnectionFromFlags() {
  Connection connection{.address = AddressFlag()};
  SWAA_RETURN_IF_ERROR(TakeTls(&connection));
  SWAA_ASSIGN_OR_RETURN(const std::string text,
                        ReadFlagFile("token-file", absl::GetFlag(FLAGS_token_file)));
  connection.token = std::string(absl::StripAsciiWhitespace(text));
  for (const char c : connection.token) {
    if (c > ' ' && c <= '~') continue;
    return BadFlag("token-file", "has more than one token in it; write one line of ASCII");
  }
  return connection;
}

std::shared_ptr<grpc::Channel> OpenChannel(const Connection& connection,
                                           grpc::ChannelArguments arguments) {
  if (!connection.server_name.empty()) arguments.SetSslTargetNameOverride(connection.server_name);
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> interceptors;
  if (!connection.token.empty()) {
    interceptors.push_back(std::make_unique<TokenSenders>(connection.token));
  }
  return grpc::experimental::CreateCustomChannelWithInterceptors(
      connection.address, connection.credentials, arguments, std::move(interceptors));
}

}  // namespace swaa::tools
