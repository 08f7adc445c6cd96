# Draws of the CPU backend against a naive sampler in double precision, and the noise they rest on.
swaa_test(cpu_sampling_test
  SOURCES draw_token_test.cc gumbel_noise_test.cc sampler_test.cc
  DEPENDS swaa_kernels_cpu_sampling
  LABELS unit)
set_source_files_properties(draw_token_test.cc gumbel_noise_test.cc PROPERTIES COMPILE_OPTIONS
  "-ffp-contract=off")
