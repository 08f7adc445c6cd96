# Attention of the CPU backend against the double-precision reference.
swaa_test(attention_test
  SOURCES attention_test.cc attention_problem.cc
  DEPENDS swaa_kernels_cpu_attention swaa_kernels_reference_attention
  LABELS unit)
swaa_test(store_key_value_test
  SOURCES store_key_value_test.cc
  DEPENDS swaa_kernels_cpu_attention
  LABELS unit)
