// Safetensors files: headers, and what is refused.

#include "engine/checkpoint/safetensors.h"

#include <iostream>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/checkpoint/text_checks.h"
#include "tests/unit/checkpoint/gguf_builder.h"
#include "tests/unit/checkpoint/test_files.h"
#include "tests/unit/testing/seed.h"

namespace swaa {
namespace {

using ::testing::HasSubstr;

class SafetensorsTest : public ::testing::Test {
 protected:
  absl::StatusOr<StoredTensors> Parse(const std::string& bytes) {
    absl::StatusOr<std::shared_ptr<const MappedFile>> file =
        MappedFile::Open(folder_.Write("x.safetensors", bytes));
    if (!file.ok()) return file.status();
    return ParseSafetensors(*file);
  }
  static std::string File(const std::string& header, size_t data_bytes) {
    return RawString(header) + std::string(data_bytes, '\1');
  }
  TempFolder folder_;
};

constexpr const char* kGood =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
    R"("b":{"data_offsets":[24,32],"shape":[4],"dtype":"BF16"}}   )";

TEST_F(SafetensorsTest, ReadsTensors) {
  const auto tensors = Parse(File(kGood, 32));
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 2u);
  const StoredTensor& a = tensors->at("a");
  EXPECT_EQ(a.type, TensorType::kF32);
  EXPECT_EQ(a.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(a.bytes, 24);
  const StoredTensor& b = tensors->at("b");
  EXPECT_EQ(b.type, TensorType::kBf16);
  EXPECT_EQ(b.data - a.data, 24);
}

TEST_F(SafetensorsTest, RefusesMalformedFilesByName) {
  const struct {
    const char* header;
    size_t data_bytes;
    absl::StatusCode code;
    const char* message;
  } cases[] = {
      {"", 0, absl::StatusCode::kInvalidArgument, "offset 8"},
      {"{", 0, absl::StatusCode::kInvalidArgument, "parse error"},
      {"[]", 0, absl::StatusCode::kInvalidArgument, "no object"},
      {"7", 0, absl::StatusCode::kInvalidArgument, "no object"},
      {"{} {}", 0, absl::StatusCode::kInvalidArgument, "parse error"},
      {"{\"\xff\":1}", 0, absl::StatusCode::kInvalidArgument, "UTF-8"},
      {R"({"a":1})", 0, absl::StatusCode::kInvalidArgument,
       "a number is out of place in tensor 'a'"},
      {R"({"a":{"b":{}}})", 0, absl::StatusCode::kInvalidArgument, "an object is out of place"},
      {R"({"a":{"shape":[[1]]}})", 0, absl::StatusCode::kInvalidArgument,
       "an array is out of place"},
      {R"({"a":{"shape":[-1]}})", 0, absl::StatusCode::kInvalidArgument, "a negative number"},
      {R"({"a":{"shape":[1.5]}})", 0, absl::StatusCode::kInvalidArgument, "a fraction"},
      {R"({"a":{"shape":[99999999999999999999]}})", 0, absl::StatusCode::kInvalidArgument,
       "a fraction"},
      {R"({"a":{"shape":[1,1,1,1,1,1,1,1,1]}})", 0, absl::StatusCode::kInvalidArgument, "a ninth"},
      {R"({"a":{"dtype":null}})", 0, absl::StatusCode::kInvalidArgument, "null is out of place"},
      {R"({"a":{"other":"x"}})", 0, absl::StatusCode::kInvalidArgument, "a string is out of place"},
      {R"({"__metadata__":{"x":1}})", 0, absl::StatusCode::kInvalidArgument, "metadata"},
      {R"({"a":{}})", 0, absl::StatusCode::kInvalidArgument, "lacks dtype"},
      {R"({"a":{"shape":[1],"shape":[1]}})", 0, absl::StatusCode::kInvalidArgument, "shape twice"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{}})", 4,
       absl::StatusCode::kInvalidArgument, "'a' twice"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4,
       absl::StatusCode::kInvalidArgument, "1 data_offsets"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4,
       absl::StatusCode::kInvalidArgument, "data_offsets [4, 0]"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 4,
       absl::StatusCode::kInvalidArgument, "not inside the 4 bytes"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}})", 4,
       absl::StatusCode::kInvalidArgument, "not inside the 4 bytes"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4,
       absl::StatusCode::kInvalidArgument, "impossible dimension 2"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0,
       absl::StatusCode::kInvalidArgument, "impossible dimension"},
      {R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0,4]}})", 4,
       absl::StatusCode::kInvalidArgument, "takes 0 bytes, but its data_offsets hold 4"},
      {R"({"a":{"dtype":"F32","shape":[0,99999999999999999],"data_offsets":[0,0]}})", 0,
       absl::StatusCode::kInvalidArgument, "impossible dimension 99999999999999999"},
      {R"({"a":{"dtype":"F16","shape":[1],"data_offsets":[0,4]}})", 4,
       absl::StatusCode::kInvalidArgument, "takes 2 bytes, but its data_offsets hold 4"},
      {R"({"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})", 8,
       absl::StatusCode::kUnimplemented, "dtype I64"},
      {R"({"a":{"dtype":"X1","shape":[1],"data_offsets":[0,8]}})", 8,
       absl::StatusCode::kInvalidArgument, "unknown dtype 'X1'"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8,
       absl::StatusCode::kInvalidArgument, "begins at data offset 4"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
       R"("b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       8, absl::StatusCode::kInvalidArgument, "'b' begins at data offset 4"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 6,
       absl::StatusCode::kInvalidArgument, "end at data offset 4, but there are 6 bytes"},
  };
  for (const auto& bad : cases) {
    SCOPED_TRACE(bad.header);
    const auto tensors = Parse(File(bad.header, bad.data_bytes));
    ASSERT_FALSE(tensors.ok());
    EXPECT_EQ(tensors.status().code(), bad.code) << tensors.status();
    EXPECT_THAT(std::string(tensors.status().message()), HasSubstr(bad.message));
    EXPECT_THAT(std::string(tensors.status().message()), HasSubstr(folder_.File("x.safetensors")));
  }
}

TEST_F(SafetensorsTest, RefusesLengthsBeyondTheFile) {
  for (const uint64_t length :
       {uint64_t{3}, uint64_t{100'000'001}, ~uint64_t{0}, ~uint64_t{0} - 7}) {
    const auto tensors = Parse(Raw(length) + "{}");
    EXPECT_TRUE(absl::IsInvalidArgument(tensors.status())) << length;
    EXPECT_THAT(std::string(tensors.status().message()), HasSubstr("offset 0: a header of"));
  }
}

TEST_F(SafetensorsTest, DeepNestingIsRefusedAtOnce) {
  EXPECT_FALSE(Parse(File(std::string(1 << 20, '['), 0)).ok());
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
  EXPECT_FALSE(Parse(File(objects, 0)).ok());
}

TEST_F(SafetensorsTest, MessagesAreTextWhateverTheFile) {
  const absl::Status status = Parse(File("{\"\xFF\": 1}", 0)).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_TRUE(IsValidUtf8(std::string(status.message()))) << status;
}

TEST_F(SafetensorsTest, RefusesEveryTruncation) {
  const std::string whole = File(kGood, 32);
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto tensors = Parse(whole.substr(0, size));
    ASSERT_TRUE(absl::IsInvalidArgument(tensors.status())) << size << tensors.status();
  }
}

TEST_F(SafetensorsTest, SurvivesFlippedBytes) {
  const std::string whole = File(kGood, 32);
  const uint32_t seed = testing::Seed();
  std::cout << "seed " << seed << std::endl;
  std::mt19937 random(seed);
  int sound = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string bytes = whole;
    const int flips = 1 + static_cast<int>(random() % 2);
    for (int i = 0; i < flips; ++i) {
      bytes[random() % (bytes.size() - 32)] = static_cast<char>(random() % 256);
    }
    const auto tensors = Parse(bytes);
    if (!tensors.ok()) continue;
    ++sound;
    for (const auto& [name, tensor] : *tensors) {
      std::vector<float> values(tensor.bytes / InfoOf(tensor.type).block_bytes);
      DequantizeRow(tensor.type, tensor.data, static_cast<int64_t>(values.size()), values.data());
      ASSERT_LE(FileOffset(tensor) + tensor.bytes, static_cast<int64_t>(bytes.size()))
          << "seed " << seed << " round " << round;
    }
  }
  EXPECT_GT(sound, 0) << "seed " << seed;
}

}  // namespace
}  // namespace swaa
