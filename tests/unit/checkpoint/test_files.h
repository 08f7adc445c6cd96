// Temporary folders, and reading everything that a checkpoint offers.

#ifndef SWAA_TESTS_UNIT_CHECKPOINT_TEST_FILES_H_
#define SWAA_TESTS_UNIT_CHECKPOINT_TEST_FILES_H_

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/weight_table.h"

namespace swaa {

// A folder that goes away with the object.
class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "swaa-test-XXXXXX").string();
    const char* made = mkdtemp(pattern.data());
    EXPECT_NE(made, nullptr) << pattern;
    path_ = pattern;
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

  // Returns the file's path.
  std::string Write(const std::string& name, const std::string& content) const {
    std::ofstream(File(name), std::ios::binary | std::ios::trunc) << content;
    return File(name);
  }

 private:
  std::string path_;
};

inline std::string ReadWhole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// A safetensors file taken apart, to be changed.
class SafetensorsText {
 public:
  explicit SafetensorsText(const std::string& file) {
    uint64_t length = 0;
    std::memcpy(&length, file.data(), sizeof(length));
    header_ = nlohmann::json::parse(file.substr(sizeof(length), length));
    const std::string data = file.substr(sizeof(length) + length);
    for (const auto& [name, entry] : header_.items()) {
      if (!entry.contains("data_offsets")) continue;
      const uint64_t begin = entry["data_offsets"][0], end = entry["data_offsets"][1];
      data_[name] = data.substr(begin, end - begin);
    }
  }

  const std::string& Data(const std::string& name) { return data_.at(name); }
  void Add(const std::string& name, const std::vector<int64_t>& shape, const std::string& data,
           const std::string& dtype = "F32") {
    header_[name] = {{"dtype", dtype}, {"shape", shape}};
    data_[name] = data;
  }
  void Remove(const std::string& name) {
    header_.erase(name);
    data_.erase(name);
  }
  std::string Build() {
    std::string data;
    for (const auto& [name, bytes] : data_) {
      header_[name]["data_offsets"] = {data.size(), data.size() + bytes.size()};
      data += bytes;
    }
    const std::string header = header_.dump();
    const uint64_t length = header.size();
    return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + header + data;
  }

 private:
  nlohmann::json header_;
  std::map<std::string, std::string> data_;
};

// Rows of a weight that must be there, row by row.
inline std::vector<float> ReadAll(const Checkpoint& checkpoint, WeightRole role, int32_t layer,
                                  int32_t expert = 0) {
  absl::StatusOr<WeightView> view = checkpoint.weights->Find({role, layer, expert});
  EXPECT_TRUE(view.ok()) << view.status();
  if (!view.ok()) return {};
  std::vector<float> values(view->rows * view->columns);
  view->read_rows(0, view->rows, values.data());
  return values;
}

// Touches every weight of the configuration, so that a sanitizer sees what a wrong extent would
// read. Returns the number of values.
inline int64_t ReadEverything(const Checkpoint& checkpoint) {
  int64_t count = 0;
  for (const WeightSpec& spec : WeightSpecs()) {
    for (const auto& [role, layer, expert] : WeightKeys(spec, checkpoint.config)) {
      count += static_cast<int64_t>(ReadAll(checkpoint, role, layer, expert).size());
    }
  }
  return count;
}

}  // namespace swaa

#endif  // SWAA_TESTS_UNIT_CHECKPOINT_TEST_FILES_H_
