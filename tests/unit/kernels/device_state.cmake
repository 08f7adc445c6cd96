# Needs neither a CUDA compiler nor a driver: NVML is a library of this folder's.
add_library(fake_nvml MODULE fake_nvml.cc)
swaa_test(device_state_test
  SOURCES device_state_test.cc ${PROJECT_SOURCE_DIR}/kernels/cuda/nvml.cc
  DEPENDS swaa_kernels ${CMAKE_DL_LIBS}
  LABELS unit)
target_compile_definitions(device_state_test PRIVATE FAKE_NVML="$<TARGET_FILE:fake_nvml>")
add_dependencies(device_state_test fake_nvml)
