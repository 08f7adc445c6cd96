// The CPU in both its precisions.

#include "tests/parity/devices_under_test.h"

namespace swaa {

std::vector<DeviceUnderTest> DevicesUnderTest() {
  return {{.name = "f32",
           .operators = {.dtype = "f32"},
           .f32 = true,
           .mean_tolerance = 0.001,
           .worst_tolerance = 0.001},
          {.name = "auto", .mean_tolerance = 0.05, .worst_tolerance = 0.35}};
}

}  // namespace swaa
