# Draws and log-probabilities. Scans of a whole vocabulary per token: worth the vectoriser, which -O2
# holds back. Nothing may be fused: other backends repeat every bit.
swaa_library(swaa_kernels_cpu_sampling
  SOURCES draw_token.cc sampler.cc slot_history.cc
  DEPENDS swaa_base swaa_kernels OpenMP::OpenMP_CXX)
set_source_files_properties(draw_token.cc PROPERTIES
  COMPILE_OPTIONS "-O3;-fno-trapping-math;-ffp-contract=off")
