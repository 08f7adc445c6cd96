// The log of exposures: whole lines, whatever happens to the file.

#include "server/experiments/storage/exposure_log.h"

#include <fstream>
#include <sstream>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/unit/server/experiments/storage_testing.h"

namespace swaa::server {
namespace {

Exposure SomeExposure(const std::string& request_id) {
  return {.at_ms = 1'769'850'900'123,
          .experiment_id = "exp",
          .variation_id = "window",
          .unit_key = 0xab,
          .revision = ~uint64_t{0},
          .request_id = request_id};
}

std::vector<std::string> Lines(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

std::unique_ptr<ExposureLog> OpenLog(const std::string& path, size_t max_waiting = 100) {
  absl::StatusOr<std::unique_ptr<ExposureLog>> log = ExposureLog::Open(path, max_waiting);
  SWAA_CHECK(log.ok()) << log.status().message();
  return *std::move(log);
}

TEST(ExposureLogTest, ALineIsJson) {
  const std::string line = ExposureLine(SomeExposure("r\"\n\xff"));
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  EXPECT_EQ(line,
            "{\"timestamp\":\"2026-01-31T09:15:00.123Z\",\"experiment_id\":\"exp\","
            "\"variation_id\":\"window\",\"unit_key\":\"00000000000000ab\","
            "\"revision\":\"ffffffffffffffff\",\"request_id\":\"r\\\"\\n\\ufffd\"}\n");
}

TEST(ExposureLogTest, AppendsAfterAnUnfinishedLine) {
  const TestFolder folder;
  const std::string path = folder.File("exposures.jsonl");
  std::ofstream(path) << "{\"timest";
  OpenLog(path)->Write(SomeExposure("a"));
  const std::vector<std::string> lines = Lines(path);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[1] + "\n", ExposureLine(SomeExposure("a")));
}

TEST(ExposureLogTest, BeginsAnewWhenTheFileIsMoved) {
  const TestFolder folder;
  const std::string path = folder.File("exposures.jsonl");
  const auto log = OpenLog(path);
  const auto wait_for = [](const std::string& file) {
    while (Lines(file).empty()) std::this_thread::yield();
  };
  log->Write(SomeExposure("a"));
  wait_for(path);
  std::filesystem::rename(path, path + ".1");
  log->Write(SomeExposure("b"));
  wait_for(path);
  EXPECT_EQ(Lines(path + ".1").size(), 1u);
  EXPECT_EQ(nlohmann::json::parse(Lines(path)[0])["request_id"], "b");
  EXPECT_EQ(log->dropped(), 0);
}

TEST(ExposureLogTest, WhatCannotBeWrittenIsCounted) {
  EXPECT_FALSE(ExposureLog::Open("/dev/null/log").ok());
  // A device that is always full.
  const auto log = OpenLog("/dev/full", 10);
  for (int i = 0; i < 1000; ++i) log->Write(SomeExposure("a"));
  while (log->dropped() < 1000) std::this_thread::yield();
  EXPECT_EQ(log->dropped(), 1000);
}

}  // namespace
}  // namespace swaa::server
