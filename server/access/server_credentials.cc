// The gRPC port's credentials, over gRPC's C interface.

#include "server/access/server_credentials.h"

#include <mutex>
#include <string>
#include <utility>

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

#include "absl/base/thread_annotations.h"
#include "base/check.h"

namespace swaa::server {
namespace {

std::string_view TextOf(const grpc_slice& slice) {
  return {reinterpret_cast<const char*>(GRPC_SLICE_START_PTR(slice)), GRPC_SLICE_LENGTH(slice)};
}

// Gives gRPC the identity, when it is another one than last time. Asked before each handshake.
class IdentityFetcher {
 public:
  explicit IdentityFetcher(const CurrentTlsIdentity* identity) : identity_(identity) {}

  static grpc_ssl_certificate_config_reload_status Fetch(
      void* fetcher, grpc_ssl_server_certificate_config** config) {
    return static_cast<IdentityFetcher*>(fetcher)->FetchNew(config);
  }

 private:
  grpc_ssl_certificate_config_reload_status FetchNew(grpc_ssl_server_certificate_config** config) {
    std::lock_guard lock(mutex_);
    auto now = identity_->Get();
    if (now == given_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    const grpc_ssl_pem_key_cert_pair pair = {now->private_key.c_str(),
                                             now->certificate_chain.c_str()};
    // gRPC wants authorities even where it asks clients for no certificate, and then uses none.
    *config = grpc_ssl_server_certificate_config_create(
        (now->client_ca.empty() ? now->certificate_chain : now->client_ca).c_str(), &pair, 1);
    given_ = std::move(now);
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  }

  const CurrentTlsIdentity* const identity_;
  std::mutex mutex_;
  std::shared_ptr<const TlsIdentity> given_ ABSL_GUARDED_BY(mutex_);
};

// Called on gRPC's threads. The auth context is the connection's, not the call's.
void ProcessMetadata(void* authorize, grpc_auth_context*, const grpc_metadata* metadata,
                     size_t count, grpc_process_auth_metadata_done_cb done, void* user_data) {
  std::string_view path;
  std::vector<std::string_view> authorization;
  for (size_t i = 0; i < count; ++i) {
    const std::string_view key = TextOf(metadata[i].key);
    if (key == ":path") path = TextOf(metadata[i].value);
    if (key == "authorization") authorization.push_back(TextOf(metadata[i].value));
  }
  const absl::Status status = (*static_cast<AuthorizeCall*>(authorize))(path, authorization);
  const std::string message(status.message());
  done(user_data, nullptr, 0, nullptr, 0, static_cast<grpc_status_code>(status.code()),
       status.ok() ? nullptr : message.c_str());
}

void DeleteAuthorize(void* authorize) { delete static_cast<AuthorizeCall*>(authorize); }

class Credentials final : public grpc::ServerCredentials {
 public:
  Credentials(const CurrentTlsIdentity* identity, AuthorizeCall authorize) {
    if (identity != nullptr) {
      fetcher_ = std::make_unique<IdentityFetcher>(identity);
      credentials_ = grpc_ssl_server_credentials_create_with_options(
          grpc_ssl_server_credentials_create_options_using_config_fetcher(
              identity->Get()->client_ca.empty()
                  ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                  : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY,
              &IdentityFetcher::Fetch, fetcher_.get()));
    } else {
      credentials_ = grpc_insecure_server_credentials_create();
    }
    SWAA_CHECK(credentials_ != nullptr) << "gRPC makes no credentials";
    if (authorize == nullptr) return;
    grpc_server_credentials_set_auth_metadata_processor(
        credentials_,
        {&ProcessMetadata, &DeleteAuthorize, new AuthorizeCall(std::move(authorize))});
  }
  ~Credentials() override { grpc_server_credentials_release(credentials_); }

  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {
    SWAA_CHECK(false) << "the check of calls is given at the start";
  }

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  std::unique_ptr<IdentityFetcher> fetcher_;
  grpc_server_credentials* credentials_ = nullptr;
};

}  // namespace

std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(const CurrentTlsIdentity* identity,
                                                               AuthorizeCall authorize) {
  return std::make_shared<Credentials>(identity, std::move(authorize));
}

}  // namespace swaa::server
