# Draws of the CPU backend and stop strings.
add_executable(sampling_bench sampling_bench.cc)
target_include_directories(sampling_bench PRIVATE ${PROJECT_SOURCE_DIR})
target_link_libraries(sampling_bench PRIVATE swaa_kernels_cpu_sampling swaa_sampling benchmark::benchmark)
