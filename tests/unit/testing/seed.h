// The seed of a random test: a new one each time, or the one to be repeated.

#ifndef SWAA_TESTS_UNIT_TESTING_SEED_H_
#define SWAA_TESTS_UNIT_TESTING_SEED_H_

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <random>

namespace swaa::testing {

// What SWAA_TEST_SEED names, else a random number. Printed either way, so that a run that fails or
// hangs can be repeated:  SWAA_TEST_SEED=1234 build/tests/scheduler_test --gtest_filter=...
inline uint32_t Seed() {
  const char* given = std::getenv("SWAA_TEST_SEED");
  const uint32_t seed = given != nullptr ? static_cast<uint32_t>(std::strtoul(given, nullptr, 10))
                                         : std::random_device{}();
  std::cout << "SWAA_TEST_SEED=" << seed << std::endl;
  return seed;
}

}  // namespace swaa::testing

#endif  // SWAA_TESTS_UNIT_TESTING_SEED_H_
