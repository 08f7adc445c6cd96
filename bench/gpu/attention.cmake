# Attention, on the problems of its tests.
set(attention_problem ${PROJECT_SOURCE_DIR}/tests/gpu)
swaa_gpu_benchmarks(
  SOURCES attention_bench.cc ${attention_problem}/attention_problem.cc
          ${attention_problem}/attention_reference.cu ${attention_problem}/random_fill.cu
  DEPENDS swaa_cuda_attention absl::str_format)
