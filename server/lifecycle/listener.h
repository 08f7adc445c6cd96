// The server's own ear: gRPC 1.51 stops listening for ever after one failed accept and bounds no
// connections, so it is given connections instead of an address.

#ifndef SWAA_SERVER_LIFECYCLE_LISTENER_H_
#define SWAA_SERVER_LIFECYCLE_LISTENER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace swaa::server {

// Accepts TCP connections on one address on a thread of its own. Running out of file descriptors
// costs it a pause, not its life. The counters may be read from any thread.
class Listener {
 public:
  // Binds HOST:PORT, every address that the host stands for, all on one port; 0 takes any free one.
  // Nobody can connect yet, but the port is taken. UNAVAILABLE names `flag`, the address and the
  // reason.
  static absl::StatusOr<std::unique_ptr<Listener>> Bind(const std::string& flag,
                                                        const std::string& address);
  // Stops.
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // Accepts from now on; `on_connection` gets each socket and owns it, unless it says false: then,
  // and while descriptors run out, newcomers are closed at once. UNAVAILABLE if another process
  // listens here by now.
  absl::Status Start(std::function<bool(int fd)> on_connection);
  // Closes the sockets; what was accepted stays. Idempotent.
  void Stop();

  int port() const { return port_; }
  int64_t accepted() const { return accepted_.load(std::memory_order_relaxed); }
  int64_t refused() const { return refused_.load(std::memory_order_relaxed); }

  // Connects to the port as a client would, of TLS or not, and waits for the first bytes that
  // answer it, at most `timeout` for each. UNAVAILABLE says what did not come.
  absl::Status Probe(absl::Duration timeout, bool tls = false) const;

 private:
  Listener(std::string flag, std::string address)
      : flag_(std::move(flag)), address_(std::move(address)) {}

  absl::Status Refuse(const std::string& why) const;
  void Accept();
  void AcceptAll(int socket);
  // Descriptors ran out: takes one newcomer with the reserve, and lets it go.
  bool TurnAway(int socket);

  const std::string flag_;
  const std::string address_;
  std::vector<int> sockets_;
  int port_ = 0;
  int wake_fd_ = -1;
  int reserve_fd_ = -1;
  std::function<bool(int)> on_connection_;
  std::atomic<int64_t> accepted_{0};
  std::atomic<int64_t> refused_{0};
  std::thread thread_;
};

// Raises the soft limit of open files to the hard one; the limit. RESOURCE_EXHAUSTED if that is too
// low to serve at all.
absl::StatusOr<int64_t> RaiseOpenFileLimit();

}  // namespace swaa::server

#endif  // SWAA_SERVER_LIFECYCLE_LISTENER_H_
