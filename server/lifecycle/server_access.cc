// What keeps strangers out: TLS, tokens, and their files, read again while streams run.

#include <string>
#include <utility>

#include <prometheus/counter.h>
#include <prometheus/gauge.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "server/access/server_credentials.h"
#include "server/lifecycle/server.h"

namespace swaa::server {
namespace {

bool UsesTls(const v1::TlsConfig& tls) {
  return !tls.certificate_file().empty() || !tls.key_file().empty() ||
         !tls.client_ca_file().empty();
}

absl::Status CheckMetricsAccess(const v1::AccessConfig& access) {
  if (access.metrics() != "token" || !access.token_file().empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "access.metrics: \"token\" without access.token_file, so nobody had one; set the file too");
}

bool IsLoopback(const std::string& address) {
  return absl::StartsWith(address, "127.") || absl::StartsWith(address, "localhost:") ||
         absl::StartsWith(address, "[::1]:");
}

std::string TlsInWords(const TlsIdentity& identity) {
  return absl::StrCat(
      "TLS: the certificate is ", identity.subject, ", until ",
      absl::FormatTime(absl::RFC3339_sec, identity.not_after, absl::UTCTimeZone()),
      identity.client_ca.empty() ? "; clients need none" : "; clients need one as well");
}

}  // namespace

absl::Status CheckAccess(const ServerOptions& options) {
  SWAA_RETURN_IF_ERROR(CheckMetricsAccess(options.config.access()));
  if (UsesTls(options.config.tls())) {
    SWAA_RETURN_IF_ERROR(LoadTlsIdentity(options.config.tls(), absl::Now()).status());
  }
  if (options.config.access().token_file().empty()) return absl::OkStatus();
  return Access::Create({.token_file = options.config.access().token_file()}).status();
}

absl::Status Server::LoadAccess() {
  SWAA_RETURN_IF_ERROR(CheckMetricsAccess(config_.access()));
  access_registry_ = std::make_shared<prometheus::Registry>();
  if (UsesTls(config_.tls())) {
    SWAA_ASSIGN_OR_RETURN(TlsIdentity identity, LoadTlsIdentity(config_.tls(), absl::Now()));
    tls_ = std::make_unique<CurrentTlsIdentity>(TlsIdentity());
    TakeTls(std::move(identity));
  }
  if (config_.access().token_file().empty()) return absl::OkStatus();
  SWAA_ASSIGN_OR_RETURN(
      access_, Access::Create({.token_file = config_.access().token_file(),
                               .shared_prefix_cache = config_.access().shared_prefix_cache(),
                               .log_format = LogFormatOf(config_.logging().format()),
                               .registry = access_registry_.get()}));
  serving_.access = access_.get();
  if (tls_ == nullptr && !IsLoopback(config_.network().listen_address())) {
    LogWarning(
        "tokens are taken without TLS: who is on the network between reads them; set "
        "tls.certificate_file, or let a proxy end TLS on this host");
  }
  return absl::OkStatus();
}

void Server::TakeTls(TlsIdentity identity) {
  LogInfo(TlsInWords(identity));
  if (identity.key_is_public) {
    LogWarning(absl::StrCat(config_.tls().key_file(),
                            ": every user of this host can read this key; chmod 600 it, or set "
                            "defaultMode: 0440 of its Secret's volume"));
  }
  prometheus::BuildGauge()
      .Name("swaa_tls_certificate_expiry_timestamp_seconds")
      .Help("When the certificate ends that new connections get, in seconds since 1970.")
      .Register(*access_registry_)
      .Add({})
      .Set(absl::ToDoubleSeconds(identity.not_after - absl::UnixEpoch()));
  tls_->Set(std::move(identity));
}

absl::Status Server::ReloadTls() {
  // A file each has a watcher, with a thread of its own.
  std::lock_guard lock(reload_tls_mutex_);
  SWAA_ASSIGN_OR_RETURN(TlsIdentity identity, LoadTlsIdentity(config_.tls(), absl::Now()));
  // Where all files were replaced at once, the first of their watchers has seen to it.
  if (identity != *tls_->Get()) TakeTls(std::move(identity));
  return absl::OkStatus();
}

void Server::WatchSecrets() {
  auto& reloads =
      prometheus::BuildCounter()
          .Name("swaa_secret_reloads_total")
          .Help("Readings of changed files of TLS and of tokens, by what became of them.")
          .Register(*access_registry_);
  const auto watch = [&](const std::string& path, const char* kind,
                         std::function<absl::Status()> reload) {
    if (path.empty()) return;
    auto* const good = &reloads.Add({{"kind", kind}, {"result", "ok"}});
    auto* const bad = &reloads.Add({{"kind", kind}, {"result", "failed"}});
    secret_watchers_.push_back(std::make_unique<FileWatcher>(path, [=, reload = std::move(reload)](
                                                                       bool triggered) {
      LogInfo(absl::StrCat(triggered ? "SIGHUP" : "file changed", ": reading ", path, " again"));
      const absl::Status status = reload();
      (status.ok() ? good : bad)->Increment();
      if (status.ok()) return;
      LogError(absl::StrCat(kind, " stays as it was: ", std::string(status.message())));
    }));
  };
  for (const std::string& path : {config_.tls().certificate_file(), config_.tls().key_file(),
                                  config_.tls().client_ca_file()}) {
    watch(path, "tls", [this] { return ReloadTls(); });
  }
  watch(config_.access().token_file(), "tokens", [this] { return access_->Reload(); });
}

void Server::MakeCredentials() {
  AuthorizeCall authorize;
  if (access_ != nullptr) {
    authorize = [access = access_.get()](std::string_view path,
                                         const std::vector<std::string_view>& authorization) {
      return access->Authorize(path, authorization);
    };
  }
  credentials_ = MakeServerCredentials(tls_.get(), std::move(authorize));
}

}  // namespace swaa::server
