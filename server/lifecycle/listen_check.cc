// Whether an address can be listened on, asked before the model is loaded.

#include "server/lifecycle/listen_check.h"

#include <cerrno>
#include <cstring>
#include <netdb.h>
#include <unistd.h>

#include <sys/socket.h>

#include "absl/strings/str_cat.h"
#include "server/generate/errors.h"

namespace swaa::server {
namespace {

// 0, or why not.
int TryListen(const addrinfo& address) {
  const int fd = socket(address.ai_family, address.ai_socktype | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const bool listens = bind(fd, address.ai_addr, address.ai_addrlen) == 0 && listen(fd, 1) == 0;
  const int error = listens ? 0 : errno;
  close(fd);
  return error;
}

absl::Status Refuse(const std::string& flag, const std::string& address, const char* why) {
  return absl::UnavailableError(
      absl::StrCat(flag, ": cannot listen on ", Quoted(address), ": ", why,
                   "; is the port taken, or the address not this machine's? Port 0 takes any free "
                   "one"));
}

}  // namespace

absl::Status CheckCanListen(const std::string& flag, const std::string& address) {
  const size_t colon = address.rfind(':');
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  if (const int error =
          getaddrinfo(host.c_str(), address.substr(colon + 1).c_str(), &hints, &found);
      error != 0) {
    return Refuse(flag, address, gai_strerror(error));
  }
  // One is enough, as it is for gRPC: a name may stand for addresses of two families.
  int error = 0;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    error = TryListen(*one);
    if (error == 0) break;
  }
  freeaddrinfo(found);
  return error == 0 ? absl::OkStatus() : Refuse(flag, address, std::strerror(error));
}

}  // namespace swaa::server
