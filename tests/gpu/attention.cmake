# Attention against double precision, on problems that the benchmark shares.
swaa_gpu_tests(
  SOURCES attention_gpu_test.cc attention_graph_gpu_test.cc attention_test_support.cc
          attention_problem.cc attention_reference.cu decode_rope_gpu_test.cc random_fill.cu
  DEPENDS swaa_cuda_attention swaa_cuda_elementwise)
