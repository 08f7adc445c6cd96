# The oracle of attention tests.
swaa_library(swaa_kernels_reference_attention SOURCES attention.cc DEPENDS swaa_base)
