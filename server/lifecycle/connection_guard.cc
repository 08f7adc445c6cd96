// Who is connected, and what each connection has sent that came to nothing.

#include "server/lifecycle/connection_guard.h"

#include <algorithm>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/observation/memory_guard.h"
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

struct Traffic {
  int64_t received = 0;  // by the kernel
  int64_t read = 0;      // of it, by whom the socket belongs to
  int64_t written = 0;
};

Traffic TrafficOf(int fd) {
  tcp_info info = {};
  socklen_t size = sizeof(info);
  int unread = 0;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return {};
  if (ioctl(fd, FIONREAD, &unread) != 0) return {};
  Traffic traffic;
  traffic.received = static_cast<int64_t>(info.tcpi_bytes_received);
  traffic.read = traffic.received - unread;
  traffic.written = static_cast<int64_t>(info.tcpi_bytes_sent - info.tcpi_bytes_retrans) +
                    info.tcpi_notsent_bytes;
  return traffic;
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
  if (found == connections_.end()) return;
  found->second.debt -= static_cast<double>(bytes);
  Answer(&found->second);
}

void ConnectionGuard::OnAbandoned(const std::string& peer) {
  std::lock_guard lock(mutex_);
  auto found = connections_.find(PeerKey(peer));
  if (found == connections_.end()) return;
  Connection& connection = found->second;
  connection.abandoned += 1;
  Answer(&connection);
  if (connection.abandoned > options_.max_abandoned) {
    CutOff(found->first, &connection, static_cast<int64_t>(connection.abandoned),
           " calls were left before their messages");
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

void ConnectionGuard::CutOff(const std::string& peer, Connection* connection, int64_t count,
                             const char* why) {
  if (connection->cut) return;
  connection->cut = true;
  ++cut_off_;
  // A reset: what the kernel still has for gRPC is gone, gRPC sees an error and closes its own
  // descriptor, and a client that waits for the window to open hears of it. (After a plain end it
  // would wait for its own timeout.)
  const sockaddr nobody = {.sa_family = AF_UNSPEC, .sa_data = {}};
  if (connect(connection->fd, &nobody, sizeof(nobody)) != 0) shutdown(connection->fd, SHUT_RDWR);
  GuardMemory("a line of the log",
              [&] { LogWarning(absl::StrCat("connection of ", peer, " cut off: ", count, why)); });
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
  const Traffic traffic = TrafficOf(connection->fd);
  connection->debt += static_cast<double>(traffic.received - connection->received);
  connection->received = traffic.received;
  connection->unanswered += static_cast<double>(traffic.read - connection->read);
  if (traffic.written != connection->written) connection->unanswered = 0;
  connection->read = traffic.read;
  connection->written = traffic.written;
  // A message counts when it is whole, so a debt never falls below zero for longer than a look.
  connection->debt = std::max(0.0, connection->debt - seconds * options_.forgiven_bytes_per_second);
  connection->abandoned =
      std::max(0.0, connection->abandoned - seconds * options_.forgiven_abandoned_per_second);
}

// A call that has reached a handler is a header block that has ended.
void ConnectionGuard::Answer(Connection* connection) {
  connection->read = TrafficOf(connection->fd).read;
  connection->unanswered = 0;
}

void ConnectionGuard::Watch() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !connections_.empty(); });
    if (changed_.wait_for(lock, options_.interval, [this] { return stopping_; })) return;
    RemoveClosed();
    const Clock::time_point now = Clock::now();
    for (auto& [peer, connection] : connections_) Look(&connection, now);
    CutOffBeyond(options_.max_debt_bytes, &Connection::debt,
                 " bytes came on it that were no message");
    CutOffBeyond(options_.max_unanswered_bytes, &Connection::unanswered,
                 " bytes came on it that ask for no answer, as headers without an end");
  }
}

void ConnectionGuard::CutOffBeyond(int64_t most, double Connection::*owed, const char* why) {
  const auto owes = [owed](const auto& entry) { return entry.second.cut ? 0 : entry.second.*owed; };
  double sum = 0;
  for (const auto& entry : connections_) sum += owes(entry);
  while (sum > static_cast<double>(most)) {
    auto largest =
        std::max_element(connections_.begin(), connections_.end(),
                         [&](const auto& a, const auto& b) { return owes(a) < owes(b); });
    const double bytes = owes(*largest);
    sum -= bytes;
    CutOff(largest->first, &largest->second, static_cast<int64_t>(bytes), why);
  }
}

}  // namespace swaa::server
