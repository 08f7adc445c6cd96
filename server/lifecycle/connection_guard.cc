// Who is connected, and what each connection has sent that came to nothing.

#include "server/lifecycle/connection_guard.h"

#include <algorithm>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/observation/request_log.h"

namespace swaa::server {
namespace {

// ADDRESS:PORT without gRPC's scheme, brackets and their escapes.
std::string PeerKey(const std::string& peer) {
  const size_t colon = peer.find(':');
  return absl::StrReplaceAll(peer.substr(colon == std::string::npos ? 0 : colon + 1),
                             {{"%5B", ""}, {"%5D", ""}, {"[", ""}, {"]", ""}});
}

// The same of a socket's other end; empty if it is gone.
std::string PeerKey(int fd) {
  sockaddr_storage address = {};
  socklen_t size = sizeof(address);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return "";
  char text[INET6_ADDRSTRLEN] = {};
  if (address.ss_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address);
    inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text));
    return absl::StrCat(text, ":", ntohs(v4->sin_port));
  }
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address);
  if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
    inet_ntop(AF_INET, &v6->sin6_addr.s6_addr[12], text, sizeof(text));
  } else {
    inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof(text));
  }
  return absl::StrCat(text, ":", ntohs(v6->sin6_port));
}

int64_t BytesReceived(int fd) {
  tcp_info info = {};
  socklen_t size = sizeof(info);
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return 0;
  return static_cast<int64_t>(info.tcpi_bytes_received);
}

}  // namespace

ConnectionGuard::ConnectionGuard(const Options& options)
    : options_(options), thread_([this] { Watch(); }) {}

ConnectionGuard::~ConnectionGuard() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
  for (auto& [peer, connection] : connections_) close(connection.fd);
}

bool ConnectionGuard::Add(int fd) {
  const std::string peer = PeerKey(fd);
  std::lock_guard lock(mutex_);
  if (static_cast<int>(connections_.size()) >= options_.max_connections) RemoveClosed();
  if (peer.empty() || static_cast<int>(connections_.size()) >= options_.max_connections) {
    return false;
  }
  const int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (own < 0) return false;
  auto [place, is_new] = connections_.try_emplace(peer);
  // The client's port is in use again, before its last connection was seen to end.
  if (!is_new) close(place->second.fd);
  place->second = Connection{.fd = own};
  if (connections_.size() == 1) changed_.notify_all();
  return true;
}

void ConnectionGuard::OnMessage(const std::string& peer, int64_t bytes) {
  std::lock_guard lock(mutex_);
  auto found = connections_.find(PeerKey(peer));
  if (found != connections_.end()) found->second.debt -= static_cast<double>(bytes);
}

void ConnectionGuard::OnAbandoned(const std::string& peer) {
  std::lock_guard lock(mutex_);
  auto found = connections_.find(PeerKey(peer));
  if (found == connections_.end()) return;
  Connection& connection = found->second;
  connection.abandoned += 1;
  if (connection.abandoned > options_.max_abandoned) {
    CutOff(found->first, &connection, "it leaves its calls before their messages");
  }
}

int64_t ConnectionGuard::open() const {
  std::lock_guard lock(mutex_);
  return static_cast<int64_t>(connections_.size());
}

int64_t ConnectionGuard::cut_off() const {
  std::lock_guard lock(mutex_);
  return cut_off_;
}

void ConnectionGuard::CutOff(const std::string& peer, Connection* connection,
                             const std::string& why) {
  if (connection->cut) return;
  connection->cut = true;
  ++cut_off_;
  // gRPC sees the end and closes its own descriptor.
  shutdown(connection->fd, SHUT_RDWR);
  LogWarning(absl::StrCat("connection of ", peer, " cut off: ", why));
}

void ConnectionGuard::RemoveClosed() {
  for (auto it = connections_.begin(); it != connections_.end();) {
    pollfd one = {it->second.fd, 0, 0};
    // gRPC shuts a socket down before it closes it, so the other descriptor hears of it.
    if (poll(&one, 1, 0) == 1 && (one.revents & (POLLHUP | POLLERR)) != 0) {
      close(it->second.fd);
      it = connections_.erase(it);
    } else {
      ++it;
    }
  }
}

void ConnectionGuard::Look(Connection* connection, Clock::time_point now) {
  const double seconds = std::chrono::duration<double>(now - connection->looked).count();
  connection->looked = now;
  const int64_t received = BytesReceived(connection->fd);
  connection->debt += static_cast<double>(received - connection->received);
  connection->received = received;
  // A message counts when it is whole, so a debt never falls below zero for longer than a look.
  connection->debt = std::max(0.0, connection->debt - seconds * options_.forgiven_bytes_per_second);
  connection->abandoned =
      std::max(0.0, connection->abandoned - seconds * options_.forgiven_abandoned_per_second);
}

void ConnectionGuard::Watch() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !connections_.empty(); });
    if (changed_.wait_for(lock, options_.interval, [this] { return stopping_; })) return;
    RemoveClosed();
    const Clock::time_point now = Clock::now();
    double sum = 0;
    for (auto& [peer, connection] : connections_) {
      Look(&connection, now);
      if (!connection.cut) sum += connection.debt;
    }
    while (sum > static_cast<double>(options_.max_debt_bytes)) {
      auto largest = std::max_element(
          connections_.begin(), connections_.end(), [](const auto& a, const auto& b) {
            return (a.second.cut ? 0 : a.second.debt) < (b.second.cut ? 0 : b.second.debt);
          });
      sum -= largest->second.debt;
      CutOff(largest->first, &largest->second,
             absl::StrCat(static_cast<int64_t>(largest->second.debt),
                          " bytes came on it that were no message"));
    }
  }
}

}  // namespace swaa::server
