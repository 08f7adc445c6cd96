// What the parity tests run on: the CPU in ctest, the GPU in the GPU test program.

#ifndef SWAA_TESTS_PARITY_DEVICES_UNDER_TEST_H_
#define SWAA_TESTS_PARITY_DEVICES_UNDER_TEST_H_

#include <string>
#include <vector>

#include "kernels/operators.h"

namespace swaa {

struct DeviceUnderTest {
  std::string name;
  kernels::OperatorsOptions operators;
  bool f32 = false;  // computes in f32: equal tokens are equal, whatever the batch
  // How far log-probabilities may be from float32's.
  double mean_tolerance = 0;
  double worst_tolerance = 0;
  bool small_heads = true;  // has attention for the tiny models' heads of 32 dimensions
};

// Defined by each test program.
std::vector<DeviceUnderTest> DevicesUnderTest();

}  // namespace swaa

#endif  // SWAA_TESTS_PARITY_DEVICES_UNDER_TEST_H_
