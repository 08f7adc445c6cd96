// A listener against clients that come in numbers, and without file descriptors.

#include "server/lifecycle/listener.h"

#include <cerrno>
#include <map>
#include <mutex>
#include <string>
#include <unistd.h>
#include <vector>

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "absl/time/clock.h"
#include "server/lifecycle/connection_guard.h"

namespace swaa::server {
namespace {

int Connect(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    close(fd);
    return -1;
  }
  return fd;
}

template <typename Condition>
bool Await(const Condition& condition) {
  const absl::Time until = absl::Now() + absl::Minutes(2);
  while (!condition() && absl::Now() < until) absl::SleepFor(absl::Milliseconds(2));
  return condition();
}

class ListenerTest : public ::testing::Test {
 protected:
  ~ListenerTest() override {
    if (listener_ != nullptr) listener_->Stop();
    CloseAll(&accepted_);
    CloseAll(&clients_);
  }
  static void CloseAll(std::vector<int>* fds) {
    for (int fd : *fds) close(fd);
    fds->clear();
  }
  void Start(size_t max_connections) {
    auto bound = Listener::Bind("--listen-address", "127.0.0.1:0");
    ASSERT_TRUE(bound.ok()) << bound.status();
    listener_ = *std::move(bound);
    ASSERT_TRUE(listener_
                    ->Start([this, max_connections](int fd) {
                      std::lock_guard lock(mutex_);
                      if (accepted_.size() >= max_connections) return false;
                      accepted_.push_back(fd);
                      return true;
                    })
                    .ok());
  }
  void Open(int count) {
    for (int i = 0; i < count; ++i) {
      if (const int fd = Connect(listener_->port()); fd >= 0) clients_.push_back(fd);
    }
  }

  std::unique_ptr<Listener> listener_;
  std::mutex mutex_;
  std::vector<int> accepted_;
  std::vector<int> clients_;
};

TEST_F(ListenerTest, TurnsAwayWhomItsServerDoesNotTake) {
  Start(/*max_connections=*/20);
  Open(60);
  ASSERT_TRUE(Await([&] { return listener_->accepted() + listener_->refused() == 60; }));
  EXPECT_EQ(listener_->accepted(), 20);
}

class ConnectionGuardTest : public ListenerTest {
 protected:
  ~ConnectionGuardTest() override { listener_->Stop(); }
  void Guard(const ConnectionGuard::Options& options) {
    guard_ = std::make_unique<ConnectionGuard>(options);
    auto bound = Listener::Bind("--listen-address", "127.0.0.1:0");
    ASSERT_TRUE(bound.ok()) << bound.status();
    listener_ = *std::move(bound);
    ASSERT_TRUE(listener_
                    ->Start([this](int fd) {
                      if (!guard_->Add(fd)) return false;
                      std::lock_guard lock(mutex_);
                      accepted_.push_back(fd);
                      return true;
                    })
                    .ok());
  }
  // As gRPC names a client.
  static std::string PeerOf(int client) {
    sockaddr_in address = {};
    socklen_t size = sizeof(address);
    getsockname(client, reinterpret_cast<sockaddr*>(&address), &size);
    return "ipv4:127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  }
  // Reads and sends, as both ends do, until `bytes` were sent; false: the connection has ended.
  bool Send(int client, int server, size_t bytes) {
    const std::string chunk(1 << 16, 'x');
    std::string sink(1 << 16, 0);
    while (bytes > 0) {
      if (send(client, chunk.data(), chunk.size(), MSG_NOSIGNAL) < 0) return false;
      while (recv(server, sink.data(), sink.size(), MSG_DONTWAIT) > 0) {
      }
      bytes -= std::min(bytes, chunk.size());
    }
    return true;
  }

  std::unique_ptr<ConnectionGuard> guard_;
};

TEST_F(ConnectionGuardTest, CountsWhatIsOpenAndBoundsIt) {
  Guard({.max_connections = 20, .interval = std::chrono::milliseconds(5)});
  Open(30);
  ASSERT_TRUE(Await([&] { return listener_->accepted() + listener_->refused() == 30; }));
  EXPECT_EQ(guard_->open(), 20);
  // As gRPC ends a connection.
  {
    std::lock_guard lock(mutex_);
    for (int fd : accepted_) shutdown(fd, SHUT_RDWR);
    CloseAll(&accepted_);
  }
  CloseAll(&clients_);
  EXPECT_TRUE(Await([&] { return guard_->open() == 0; }));
  EXPECT_EQ(guard_->cut_off(), 0);
}

TEST_F(ConnectionGuardTest, CutsOffWhoSendsWhatIsNoMessageAndNobodyElse) {
  Guard({.max_debt_bytes = 8 << 20,
         .max_unanswered_bytes = INT64_MAX,
         .interval = std::chrono::milliseconds(5)});
  Open(2);
  ASSERT_TRUE(Await([&] { return guard_->open() == 2; }));
  std::vector<int> servers;
  {
    std::lock_guard lock(mutex_);
    servers = accepted_;
  }
  // Forty megabytes in messages.
  for (int i = 0; i < 40; ++i) {
    ASSERT_TRUE(Send(clients_[0], servers[0], 1 << 20));
    guard_->OnMessage(PeerOf(clients_[0]), 1 << 20);
  }
  EXPECT_EQ(guard_->cut_off(), 0);
  while (Send(clients_[1], servers[1], 1 << 20)) {
  }
  EXPECT_EQ(guard_->cut_off(), 1);
  EXPECT_TRUE(Send(clients_[0], servers[0], 1 << 16));
}

TEST_F(ConnectionGuardTest, CutsOffWhoSendsWhatGetsNoAnswerAndNobodyElse) {
  Guard({.max_unanswered_bytes = 1 << 20, .interval = std::chrono::milliseconds(5)});
  Open(3);
  ASSERT_TRUE(Await([&] { return guard_->open() == 3; }));
  std::map<std::string, int> servers;  // by peer
  {
    std::lock_guard lock(mutex_);
    for (int fd : accepted_) {
      sockaddr_in address = {};
      socklen_t size = sizeof(address);
      getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size);
      servers["ipv4:127.0.0.1:" + std::to_string(ntohs(address.sin_port))] = fd;
    }
  }
  const auto server_of = [&](int client) { return servers[PeerOf(client)]; };
  // One gets an answer now and then, as while a long message comes; of the other messages do.
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(Send(clients_[0], server_of(clients_[0]), 1 << 16));
    ASSERT_EQ(send(server_of(clients_[0]), "!", 1, MSG_NOSIGNAL), 1);
    ASSERT_TRUE(Send(clients_[1], server_of(clients_[1]), 1 << 16));
    guard_->OnMessage(PeerOf(clients_[1]), 1 << 16);
  }
  EXPECT_EQ(guard_->cut_off(), 0);
  while (Send(clients_[2], server_of(clients_[2]), 1 << 16)) {
  }
  EXPECT_EQ(guard_->cut_off(), 1);
  EXPECT_TRUE(Send(clients_[0], server_of(clients_[0]), 1 << 16));
}

TEST_F(ConnectionGuardTest, CutsOffWhoLeavesCallAfterCall) {
  Guard({.max_abandoned = 100,
         .forgiven_abandoned_per_second = 0,
         .interval = std::chrono::milliseconds(5)});
  Open(2);
  ASSERT_TRUE(Await([&] { return guard_->open() == 2; }));
  for (int i = 0; i < 100; ++i) guard_->OnAbandoned(PeerOf(clients_[0]));
  EXPECT_EQ(guard_->cut_off(), 0);
  guard_->OnAbandoned(PeerOf(clients_[0]));
  EXPECT_EQ(guard_->cut_off(), 1);
  char byte = 0;
  EXPECT_EQ(recv(clients_[0], &byte, 1, 0), -1);
  EXPECT_EQ(errno, ECONNRESET) << "a mere end would be no news to who cannot send on";
  EXPECT_EQ(recv(clients_[1], &byte, 1, MSG_DONTWAIT), -1) << "the other does not";
}

TEST_F(ListenerTest, OutlivesATimeWithoutFileDescriptors) {
  Start(/*max_connections=*/1000);
  rlimit limit = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  const int next = dup(0);
  close(next);
  // The clients take what there is, so that accept fails.
  const rlimit low = {static_cast<rlim_t>(next + 12), limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  std::vector<int> hogs;
  while (true) {
    const int fd = dup(0);
    if (fd < 0) break;
    hogs.push_back(fd);
  }
  // One descriptor for a client, none for its accept.
  close(hogs.back());
  hogs.pop_back();
  Open(1);
  EXPECT_TRUE(Await([&] { return listener_->refused() > 0; }));
  CloseAll(&hogs);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  const int64_t before = listener_->accepted();
  Open(3);
  EXPECT_TRUE(Await([&] { return listener_->accepted() == before + 3; }));
}

TEST_F(ListenerTest, ATakenPortIsRefusedByName) {
  Start(10);
  const std::string address = "127.0.0.1:" + std::to_string(listener_->port());
  const absl::Status status = Listener::Bind("--listen-address", address).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("--listen-address"));
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(address));
  EXPECT_FALSE(Listener::Bind("--listen-address", "no.such.host.invalid:1").ok());
}

TEST_F(ListenerTest, AProbeTellsSilenceFromBeingTurnedAway) {
  Start(/*max_connections=*/1000);
  EXPECT_EQ(listener_->Probe(absl::Milliseconds(50)).code(), absl::StatusCode::kUnavailable)
      << "connected, but nobody answers";
  listener_->Stop();
  auto bound = Listener::Bind("--listen-address", "127.0.0.1:0");
  ASSERT_TRUE(bound.ok());
  listener_ = *std::move(bound);
  ASSERT_TRUE(listener_->Start([](int) { return false; }).ok());
  EXPECT_EQ(listener_->Probe(absl::Minutes(2)).code(), absl::StatusCode::kResourceExhausted);
  listener_->Stop();
  EXPECT_EQ(listener_->Probe(absl::Minutes(2)).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace swaa::server
