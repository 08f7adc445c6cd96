# The model against Hugging Face transformers' log-probabilities.
swaa_test(model_parity_test
  SOURCES model_parity_test.cc
  DEPENDS swaa_checkpoint swaa_model_device
  LABELS parity)
set_tests_properties(model_parity_test PROPERTIES TIMEOUT 1800)
