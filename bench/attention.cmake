# Attention of the CPU backend beside what the machine can do.
add_executable(attention_bench attention_bench.cc)
target_include_directories(attention_bench PRIVATE ${PROJECT_SOURCE_DIR})
target_link_libraries(attention_bench PRIVATE
  swaa_kernels_cpu_attention DNNL::dnnl OpenMP::OpenMP_CXX benchmark::benchmark)
