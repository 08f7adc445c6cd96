# The model against Hugging Face transformers' log-probabilities.
swaa_test(model_parity_test
  SOURCES model_parity_test.cc cpu_under_test.cc
  DEPENDS swaa_checkpoint swaa_model_device
  LABELS parity)
set_tests_properties(model_parity_test PROPERTIES TIMEOUT 1800)

# The same answer whatever else is in the batch, with the default model.
swaa_test(batch_invariance_test
  SOURCES batch_invariance_test.cc cpu_under_test.cc
  DEPENDS swaa_checkpoint swaa_model_device swaa_schedule
  LABELS parity)
