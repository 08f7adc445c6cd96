swaa_test(ranks_test SOURCES ranks_test.cc DEPENDS swaa_ranks LABELS threads)
