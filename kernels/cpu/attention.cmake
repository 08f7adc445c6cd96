# Attention of the CPU backend. Files named after an instruction set are built for it; all others run on
# the lowest processor.
swaa_library(swaa_kernels_cpu_attention
  SOURCES
    attention.cc
    attention_amx.cc
    attention_amx_decode.cc
    attention_avx2.cc
    attention_avx512.cc
    attention_avx512_bf16.cc
    attention_choice.cc
    attention_generic.cc
    attention_plan.cc
    instruction_set.cc
    store_key_value.cc
  DEPENDS swaa_base OpenMP::OpenMP_CXX)

set(avx2_flags -mavx2 -mfma)
# GCC 12 takes the undefined values inside its own AVX-512 intrinsics for ours.
set(avx512_flags -Wno-maybe-uninitialized -Wno-uninitialized ${avx2_flags} -mavx512f -mavx512bw -mavx512dq
    -mavx512vl)
set_source_files_properties(attention_generic.cc PROPERTIES COMPILE_OPTIONS "-O3")
set_source_files_properties(attention_avx2.cc PROPERTIES COMPILE_OPTIONS "-O3;${avx2_flags}")
set_source_files_properties(attention_avx512.cc PROPERTIES COMPILE_OPTIONS "-O3;${avx512_flags}")
set_source_files_properties(attention_amx.cc attention_amx_decode.cc attention_avx512_bf16.cc
  PROPERTIES COMPILE_OPTIONS "-O3;${avx512_flags};-mavx512bf16")
