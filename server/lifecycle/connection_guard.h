// Who is connected, and what each connection has sent that came to nothing.

#ifndef SWAA_SERVER_LIFECYCLE_CONNECTION_GUARD_H_
#define SWAA_SERVER_LIFECYCLE_CONNECTION_GUARD_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"

namespace swaa::server {

// Bounds what gRPC 1.51 does not: connections, the bytes that it buffers for one (headers without
// an end, CVE-2023-33953 and its kin), and streams that are reset as soon as they are opened
// (CVE-2023-44487). A connection's debt is what the kernel received on it less the messages that
// reached a handler; a little of it is forgiven each second, for what is rightly no message. When
// all debts exceed the bound, the largest debtor is cut off, by a reset.
//
// A byte of a header block may become two hundred: a reference to a table's entry. Such bytes get
// no answer until the block ends, while what comes of a message soon gets window updates and pings.
// So bytes that gRPC has read since it last wrote anything have a bound of their own, over all
// connections, and whose they are for the most part is cut off.
//
// Each connection takes a second file descriptor. Thread-safe.
class ConnectionGuard {
 public:
  struct Options {
    int max_connections = 4096;
    int64_t max_debt_bytes = int64_t{256} << 20;
    double forgiven_bytes_per_second = 1 << 20;
    int64_t max_unanswered_bytes = int64_t{1} << 20;
    // Calls that their client left before their message came: at once, and each second.
    double max_abandoned = 500;
    double forgiven_abandoned_per_second = 50;
    std::chrono::milliseconds interval{100};  // between two looks at the bytes
  };

  explicit ConnectionGuard(const Options& options);
  // Watches no more; connections stay.
  ~ConnectionGuard();

  // Watches an accepted socket. False: there are too many, or no descriptor is left; the caller
  // closes it.
  bool Add(int fd);

  // A handler got a message of this size from `peer`, as gRPC names it ("ipv4:127.0.0.1:1234").
  void OnMessage(const std::string& peer, int64_t bytes);
  // A handler was called for a call of `peer` that has no message.
  void OnAbandoned(const std::string& peer);

  int64_t open() const;
  int64_t cut_off() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Connection {
    int fd = -1;           // of our own
    int64_t received = 0;  // by the kernel
    int64_t read = 0;      // of it, by gRPC
    int64_t written = 0;   // by gRPC
    double debt = 0;
    double unanswered = 0;
    double abandoned = 0;
    Clock::time_point looked = Clock::now();
    bool cut = false;
  };

  void Watch();
  void RemoveClosed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Look(Connection* connection, Clock::time_point now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void Answer(Connection* connection);
  // Cuts connections off, the largest `owed` first, until all together owe at most `most`. `why`:
  // what follows the number of bytes.
  void CutOffBeyond(int64_t most, double Connection::*owed, const char* why)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CutOff(const std::string& peer, Connection* connection, int64_t count, const char* why)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, Connection> connections_ ABSL_GUARDED_BY(mutex_);  // by peer
  int64_t cut_off_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_LIFECYCLE_CONNECTION_GUARD_H_
