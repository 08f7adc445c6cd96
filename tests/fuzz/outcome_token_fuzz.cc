// Fuzz target: outcome tokens, as clients may send them: what was not made here is refused, what
// was comes back.

#include <algorithm>

#include "base/check.h"
#include "server/experiments/outcome_token.h"
#include "tests/fuzz/fuzz_input.h"

namespace swaa::fuzz {
namespace {

constexpr int64_t kWindowMs = int64_t{7} * 24 * 60 * 60 * 1000;

server::ExperimentKey Key() {
  absl::StatusOr<server::ExperimentKey> key =
      server::ExperimentKey::Create("0123456789abcdef0123456789abcdef");
  SWAA_CHECK(key.ok());
  return *std::move(key);
}

bool Equal(const server::OutcomeScope& a, const server::OutcomeScope& b) {
  return a.revision == b.revision && a.arm == b.arm && a.group == b.group &&
         a.unit_key == b.unit_key && a.end_ms == b.end_ms && a.triggered == b.triggered &&
         a.prompt_class == b.prompt_class && a.unit_age == b.unit_age;
}

// A token of ours, changed where the input says so. No token is compared here: the fuzzer sees what
// is compared, and would send it.
void ChangeToken(std::string_view request_id, std::string_view change) {
  static const server::ExperimentKey kKey = Key();
  const server::OutcomeScope scope = {.revision = change.size() * 0x9e3779b97f4a7c15,
                                      .arm = static_cast<int32_t>(change.size() % 65536),
                                      .group = static_cast<int32_t>(change.size() % 256),
                                      .unit_key = 1,
                                      .end_ms = static_cast<int64_t>(change.size()),
                                      .triggered = change.size() % 2 == 1,
                                      .prompt_class = static_cast<int32_t>(change.size() % 32),
                                      .unit_age = static_cast<int32_t>(change.size() % 3)};
  std::string token = server::MakeOutcomeToken(kKey, request_id, scope);
  bool changed = false;
  for (size_t i = 0; i < std::min(change.size(), token.size()); ++i) {
    token[i] = static_cast<char>(token[i] ^ change[i]);
    changed = changed || change[i] != 0;
  }
  const auto read = server::ReadOutcomeToken(kKey, request_id, token, kWindowMs, kWindowMs);
  SWAA_CHECK_EQ(read.ok(), !changed);
  if (!read.ok()) return CheckRefusal(read.status());
  SWAA_CHECK(Equal(*read, scope));
}

}  // namespace

void FuzzOutcomeToken(std::string_view input) {
  static const server::ExperimentKey kKey = Key();
  const std::vector<std::string_view> parts = SplitAtZeros(input, 2);
  const auto read = server::ReadOutcomeToken(kKey, parts[0], parts[1], kWindowMs, kWindowMs);
  SWAA_CHECK(!read.ok()) << "made without the key";
  CheckRefusal(read.status());
  ChangeToken(parts[0], parts[1]);
}

}  // namespace swaa::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  swaa::fuzz::FuzzOutcomeToken(swaa::fuzz::AsText(data, size));
  return 0;
}
