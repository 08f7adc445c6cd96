// What a process that ends badly still says.

#include "server/observation/last_words.h"

#include <csignal>
#include <cstdlib>
#include <exception>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "server/observation/memory_guard.h"
#include "server/observation/request_log.h"

namespace swaa::server {
namespace {

void LogException(const std::exception_ptr& exception) {
  try {
    if (exception != nullptr) std::rethrow_exception(exception);
    LogError("a thread cannot go on");
  } catch (const std::exception& error) {
    LogError(absl::StrCat("nobody caught an exception: ", error.what()));
  } catch (...) {
    LogError("nobody caught an exception");
  }
}

[[noreturn]] void OnTerminate() {
  GuardMemory("a line of the log", [] { LogException(std::current_exception()); });
  std::abort();
}

// The other threads run on meanwhile, among them the one that writes.
void OnCrash(int signal) {
  FlushLog();
  raise(signal);  // once this returns, by the default action
}

}  // namespace

void InstallLastWords() {
  check_failure_log = [](const std::string& words) { LogError(words); };
  std::set_terminate(&OnTerminate);
  for (int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) {
    struct sigaction action = {};
    if (sigaction(signal, nullptr, &action) != 0 || action.sa_handler != SIG_DFL) continue;
    action.sa_handler = &OnCrash;
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    sigaction(signal, &action, nullptr);
  }
}

}  // namespace swaa::server
