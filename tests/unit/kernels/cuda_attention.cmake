# What the CUDA attention kernels share with the host. Needs neither a CUDA compiler nor a GPU.
swaa_test(visited_tiles_test
  SOURCES visited_tiles_test.cc
  DEPENDS swaa_kernels
  LABELS unit)
swaa_test(prefill_plan_test
  SOURCES prefill_plan_test.cc ${PROJECT_SOURCE_DIR}/kernels/cuda/attention/prefill_plan.cc
  DEPENDS swaa_kernels
  LABELS unit)
