# The transformer and the device on a small random model.
swaa_test(transformer_test
  SOURCES transformer_test.cc model_device_test.cc tiny_model.cc
  DEPENDS swaa_model_device swaa_kernels_reference_operators swaa_kernels_reference_attention
  LABELS unit)
