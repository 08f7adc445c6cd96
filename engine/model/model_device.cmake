# The transformer and the device that runs it.
swaa_library(swaa_model_device
  SOURCES model_device.cc score_rows.cc step_check.cc transformer.cc transformer_weights.cc
  DEPENDS swaa_base swaa_device swaa_sampling swaa_operators OpenMP::OpenMP_CXX
          Threads::Threads)
