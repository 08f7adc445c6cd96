// What tests of experiments' storage share.

#ifndef SWAA_TESTS_UNIT_SERVER_EXPERIMENTS_STORAGE_TESTING_H_
#define SWAA_TESTS_UNIT_SERVER_EXPERIMENTS_STORAGE_TESTING_H_

#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "base/check.h"
#include "server/experiments/storage/experiment_store.h"

namespace swaa::server {

// A folder of the running test's own, which goes away with the object.
class TestFolder {
 public:
  TestFolder() {
    std::string pattern = ::testing::TempDir() + "swaa-experiments-XXXXXX";
    SWAA_CHECK(mkdtemp(pattern.data()) != nullptr) << pattern;
    path_ = pattern;
  }
  ~TestFolder() { std::filesystem::remove_all(path_); }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline std::unique_ptr<ExperimentStore> OpenStore(const ExperimentStore::Options& options) {
  absl::StatusOr<std::unique_ptr<ExperimentStore>> store = ExperimentStore::Open(options);
  SWAA_CHECK(store.ok()) << store.status().message();
  return *std::move(store);
}

// Waits for the outcome's end.
inline absl::StatusOr<int32_t> Record(ExperimentStore* store, RequestOutcomes outcomes) {
  std::promise<absl::StatusOr<int32_t>> result;
  store->RecordOutcomes(std::move(outcomes), [&](absl::StatusOr<int32_t> recorded) {
    result.set_value(std::move(recorded));
  });
  return result.get_future().get();
}

inline RequestOutcomes OutcomesOf(const std::string& request_id, std::vector<MetricValue> values) {
  return {.request_id = request_id,
          .scope = {.revision = 7, .arm = 1, .group = 3, .unit_key = 99, .end_ms = 1000},
          .at_ms = 2000,
          .values = std::move(values)};
}

}  // namespace swaa::server

#endif  // SWAA_TESTS_UNIT_SERVER_EXPERIMENTS_STORAGE_TESTING_H_
