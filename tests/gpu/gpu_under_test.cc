// The GPU, for the parity tests.

#include "tests/parity/devices_under_test.h"

namespace swaa {

std::vector<DeviceUnderTest> DevicesUnderTest() {
  return {{.name = "cuda",
           .operators = {.device = "cuda"},
           .mean_tolerance = 0.05,
           .worst_tolerance = 0.35,
           .small_heads = false}};
}

}  // namespace swaa
