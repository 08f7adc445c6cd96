// The server's own ear.

#include "server/lifecycle/listener.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <unistd.h>
#include <utility>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "server/generate/errors.h"
#include "server/observation/memory_guard.h"
#include "server/observation/request_log.h"

namespace swaa::server {
namespace {

constexpr int kBacklog = 1024;
// After a failed accept; clients wait in the backlog meanwhile.
constexpr int kPauseMilliseconds = 50;
// Files, pipes, the metrics port's connections, gRPC's own descriptors.
constexpr int64_t kLeastOpenFiles = 64;
// What a client of HTTP/2 says first, with empty settings.
constexpr char kPreface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
// The type of a TLS record with a handshake's message, as a server's first is; RFC 8446, 5.1.
constexpr char kTlsHandshake = 22;

int Milliseconds(absl::Duration duration) {
  return static_cast<int>(absl::ToInt64Milliseconds(duration));
}

struct AddressList {
  ~AddressList() {
    if (first != nullptr) freeaddrinfo(first);
  }
  addrinfo* first = nullptr;
};

void SetPort(int port, sockaddr_storage* address) {
  if (address->ss_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6*>(address)->sin6_port = htons(static_cast<uint16_t>(port));
  } else {
    reinterpret_cast<sockaddr_in*>(address)->sin_port = htons(static_cast<uint16_t>(port));
  }
}

int PortOf(const sockaddr_storage& address) {
  return ntohs(address.ss_family == AF_INET6
                   ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                   : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

// A bound socket; or -1, and errno says why.
int BindOne(const addrinfo& where, int port) {
  const int fd = socket(where.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  // "::" alone takes IPv4 as well; beside an IPv4 socket it must not.
  const int only_v6 = port != 0 ? 1 : 0;
  if (where.ai_family == AF_INET6) {
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only_v6, sizeof(only_v6));
  }
  sockaddr_storage address = {};
  std::memcpy(&address, where.ai_addr, where.ai_addrlen);
  if (port != 0) SetPort(port, &address);
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), where.ai_addrlen) == 0) return fd;
  const int error = errno;
  close(fd);
  errno = error;
  return -1;
}

int OpenReserve() { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

// Whether the descriptor becomes ready in time.
bool Await(int fd, short events, absl::Duration timeout) {
  pollfd one = {fd, events, 0};
  return poll(&one, 1, Milliseconds(timeout)) == 1;
}

// What a client of TLS says first.
std::string ClientHello() {
  const std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context(SSL_CTX_new(TLS_client_method()),
                                                             &SSL_CTX_free);
  SWAA_CHECK(context != nullptr) << "libssl makes no context";
  const std::unique_ptr<SSL, void (*)(SSL*)> ssl(SSL_new(context.get()), &SSL_free);
  SWAA_CHECK(ssl != nullptr) << "libssl makes no connection";
  BIO* const out = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl.get(), BIO_new(BIO_s_mem()), out);  // which it owns
  static constexpr unsigned char kAlpn[] = {2, 'h', '2'};
  SSL_set_alpn_protos(ssl.get(), kAlpn, sizeof(kAlpn));
  SSL_connect(ssl.get());  // ends where it would read
  char* data = nullptr;
  const long size = BIO_get_mem_data(out, &data);
  SWAA_CHECK(size > 0) << "libssl says no hello";
  return std::string(data, static_cast<size_t>(size));
}

}  // namespace

absl::Status Listener::Refuse(const std::string& why) const {
  return absl::UnavailableError(
      absl::StrCat(flag_, ": cannot listen on ", Quoted(address_), ": ", why,
                   "; is the port taken, or the address not this machine's? Port 0 takes any free "
                   "one"));
}

absl::StatusOr<std::unique_ptr<Listener>> Listener::Bind(const std::string& flag,
                                                         const std::string& address) {
  std::unique_ptr<Listener> listener(new Listener(flag, address));
  const size_t colon = address.rfind(':');
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  AddressList found;
  const int error =
      getaddrinfo(host.c_str(), address.substr(colon + 1).c_str(), &hints, &found.first);
  if (error != 0) return listener->Refuse(gai_strerror(error));
  // One is enough: a name may stand for a family that this machine does not have.
  int why = 0;
  for (const addrinfo* one = found.first; one != nullptr; one = one->ai_next) {
    const int fd = BindOne(*one, listener->port_);
    if (fd < 0) {
      why = errno;
      continue;
    }
    listener->sockets_.push_back(fd);
    sockaddr_storage bound = {};
    socklen_t size = sizeof(bound);
    SWAA_CHECK_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size), 0);
    listener->port_ = PortOf(bound);
  }
  if (listener->sockets_.empty()) return listener->Refuse(std::strerror(why));
  return listener;
}

Listener::~Listener() { Stop(); }

absl::Status Listener::Start(std::function<bool(int)> on_connection) {
  std::vector<int> listening;
  int why = 0;
  for (int fd : sockets_) {
    if (listen(fd, kBacklog) == 0) {
      listening.push_back(fd);
    } else {
      why = errno;
      close(fd);
    }
  }
  sockets_ = std::move(listening);
  if (sockets_.empty()) return Refuse(std::strerror(why));
  on_connection_ = std::move(on_connection);
  wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  reserve_fd_ = OpenReserve();
  if (wake_fd_ < 0 || reserve_fd_ < 0) return Refuse("no file descriptor is left");
  thread_ = std::thread([this] { Accept(); });
  return absl::OkStatus();
}

void Listener::Stop() {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    SWAA_CHECK_EQ(write(wake_fd_, &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
    thread_.join();
  }
  for (int fd : sockets_) close(fd);
  sockets_.clear();
  for (int* fd : {&wake_fd_, &reserve_fd_}) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
  }
}

void Listener::Accept() {
  std::vector<pollfd> fds;
  for (int fd : sockets_) fds.push_back({fd, POLLIN, 0});
  fds.push_back({wake_fd_, POLLIN, 0});
  for (;;) {
    if (poll(fds.data(), fds.size(), -1) < 0) continue;
    if (fds.back().revents != 0) return;
    for (size_t i = 0; i + 1 < fds.size(); ++i) {
      if (fds[i].revents != 0) AcceptAll(fds[i].fd);
    }
  }
}

void Listener::AcceptAll(int socket) {
  for (;;) {
    const int fd = accept4(socket, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      const int on = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
      bool taken = false;
      GuardMemory("taking a connection", [&] { taken = on_connection_(fd); });
      (taken ? accepted_ : refused_).fetch_add(1, std::memory_order_relaxed);
      if (!taken) close(fd);
      continue;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) return;
    if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO) continue;
    if ((errno == EMFILE || errno == ENFILE) && TurnAway(socket)) continue;
    poll(nullptr, 0, kPauseMilliseconds);
    return;
  }
}

bool Listener::TurnAway(int socket) {
  if (reserve_fd_ >= 0) close(reserve_fd_);
  const int fd = accept4(socket, nullptr, nullptr, SOCK_CLOEXEC);
  if (fd >= 0) {
    close(fd);
    refused_.fetch_add(1, std::memory_order_relaxed);
  }
  reserve_fd_ = OpenReserve();
  return fd >= 0;
}

absl::Status Listener::Probe(absl::Duration timeout, bool tls) const {
  const std::string hello = tls ? ClientHello() : std::string(kPreface, sizeof(kPreface) - 1);
  sockaddr_storage address = {};
  socklen_t size = sizeof(address);
  if (sockets_.empty() ||
      getsockname(sockets_[0], reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return absl::UnavailableError("nothing listens");
  }
  // A socket bound to every address is reached at 0.0.0.0 and :: as at the loopback.
  const int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return absl::UnavailableError(absl::StrCat("no socket: ", std::strerror(errno)));
  absl::Status status;
  char first = 0;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 && errno != EINPROGRESS) {
    status = absl::UnavailableError(absl::StrCat("no connection: ", std::strerror(errno)));
  } else if (!Await(fd, POLLOUT, timeout)) {
    status = absl::UnavailableError("no connection in time");
  } else if (send(fd, hello.data(), hello.size(), MSG_NOSIGNAL) < 0) {
    status = absl::UnavailableError(absl::StrCat("nothing is taken: ", std::strerror(errno)));
  } else if (!Await(fd, POLLIN, timeout)) {
    status = absl::UnavailableError("connected, but nothing answers");
  } else if (recv(fd, &first, 1, 0) <= 0) {
    // Full, which is no fault of the listener's; its clients see the same.
    status = absl::ResourceExhaustedError("turned away: too many connections");
  } else if (tls && first != kTlsHandshake) {
    status = absl::UnavailableError("connected, but no TLS handshake begins");
  }
  close(fd);
  return status;
}

absl::StatusOr<int64_t> RaiseOpenFileLimit() {
  rlimit limit = {};
  SWAA_CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  if (limit.rlim_cur < limit.rlim_max) {
    const rlimit raised = {limit.rlim_max, limit.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
  }
  const auto files =
      static_cast<int64_t>(std::min<rlim_t>(limit.rlim_cur, static_cast<rlim_t>(int64_t{1} << 30)));
  if (files < kLeastOpenFiles) {
    return absl::ResourceExhaustedError(absl::StrCat("the limit of open files is ", files,
                                                     "; a server needs at least ", kLeastOpenFiles,
                                                     ": raise it (ulimit -n, LimitNOFILE=)"));
  }
  return files;
}

}  // namespace swaa::server
