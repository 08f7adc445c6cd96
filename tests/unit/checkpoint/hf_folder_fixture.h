// Copies of the tiny models' folders, to be spoiled. tests/data/tiny-llama is a single file of F32,
// tiny-llama-sharded three of BF16 with an output matrix of its own and Llama 3's rope scaling.

#ifndef SWAA_TESTS_UNIT_CHECKPOINT_HF_FOLDER_FIXTURE_H_
#define SWAA_TESTS_UNIT_CHECKPOINT_HF_FOLDER_FIXTURE_H_

#include <filesystem>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/checkpoint/checkpoint.h"
#include "tests/unit/checkpoint/test_files.h"

namespace swaa {

inline constexpr const char* kTiny = "tests/data/tiny-llama";
inline constexpr const char* kSharded = "tests/data/tiny-llama-sharded";

class HfFolderTest : public ::testing::Test {
 protected:
  void Copy(const std::string& from) {
    for (const auto& entry : std::filesystem::directory_iterator(from)) {
      std::filesystem::copy_file(entry.path(), folder_.File(entry.path().filename().string()),
                                 std::filesystem::copy_options::overwrite_existing);
    }
  }
  absl::StatusOr<Checkpoint> Load(LoadFormat format = LoadFormat::kAuto) {
    return LoadCheckpoint(folder_.path(), format);
  }
  nlohmann::json ReadJson(const std::string& name) {
    return nlohmann::json::parse(ReadWhole(folder_.File(name)));
  }
  void ExpectRefusal(absl::StatusCode code, const std::string& message) {
    const auto checkpoint = Load();
    ASSERT_FALSE(checkpoint.ok());
    EXPECT_EQ(checkpoint.status().code(), code) << checkpoint.status();
    EXPECT_THAT(std::string(checkpoint.status().message()), ::testing::HasSubstr(message));
    EXPECT_THAT(std::string(checkpoint.status().message()), ::testing::HasSubstr(folder_.path()));
  }
  TempFolder folder_;
};

}  // namespace swaa

#endif  // SWAA_TESTS_UNIT_CHECKPOINT_HF_FOLDER_FIXTURE_H_
