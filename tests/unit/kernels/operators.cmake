# The CPU backend's operators against the double-precision reference.
swaa_test(operators_test
  SOURCES operators_test.cc linear_test.cc experts_test.cc lora_test.cc
  DEPENDS swaa_operators swaa_kernels_reference_operators
  LABELS unit)
# Blocks of quantised files are where affine weights come from.
swaa_test(affine_weight_test
  SOURCES affine_weight_test.cc
  DEPENDS swaa_kernels_cpu swaa_checkpoint
  LABELS unit)
swaa_test(product_choice_test
  SOURCES product_choice_test.cc
  DEPENDS swaa_kernels_cpu
  LABELS unit)
swaa_test(cgroup_test
  SOURCES cgroup_test.cc
  DEPENDS swaa_kernels_cpu
  LABELS unit)
swaa_test(threads_test
  SOURCES threads_test.cc
  DEPENDS swaa_kernels_cpu
  LABELS unit)
swaa_test(skinny_partition_test
  SOURCES skinny_partition_test.cc
  DEPENDS swaa_kernels
  LABELS unit)
