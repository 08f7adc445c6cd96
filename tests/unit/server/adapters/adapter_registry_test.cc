// Which adapters are loaded, which are in memory, and when they go.

#include "server/adapters/adapter_registry.h"

#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/generate/errors.h"

namespace swaa::server {
namespace {

using ::testing::HasSubstr;

constexpr char kField[] = "recipe.lora_name";

class FakeWeights : public DeviceAdapter {
 public:
  explicit FakeWeights(std::atomic<int>* alive) : alive_(alive) { ++*alive_; }
  ~FakeWeights() override { --*alive_; }
  int64_t bytes() const override { return 1; }

 private:
  std::atomic<int>* alive_;
};

class AdapterRegistryTest : public ::testing::Test {
 protected:
  AdapterRegistry Make(int32_t max_resident, std::vector<std::string> roots = {}) {
    return AdapterRegistry(
        {.roots = std::move(roots), .max_resident = max_resident},
        [this](const std::string& folder, bool) -> absl::StatusOr<AdapterContent> {
          ++reads_[folder];
          if (broken_.contains(folder)) return absl::InvalidArgumentError(folder + " is broken");
          return AdapterContent{.weights = std::make_shared<FakeWeights>(&alive_), .rank = 4};
        });
  }

  std::atomic<int> alive_{0};
  std::map<std::string, int> reads_;
  std::set<std::string> broken_;
};

TEST_F(AdapterRegistryTest, LoadingTwiceIsLoadingOnce) {
  AdapterRegistry registry = Make(4);
  ASSERT_TRUE(registry.Load("a", "/x").ok());
  const auto again = registry.Load("a", "/x");
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->rank, 4u);
  EXPECT_EQ(reads_["/x"], 1);
  const absl::Status other = registry.Load("a", "/y").status();
  EXPECT_EQ(other.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(other.message()), HasSubstr("/x"));
  // The same folder under another name is another adapter.
  ASSERT_TRUE(registry.Load("b", "/x").ok());
  EXPECT_NE((*registry.Acquire("a", kField))->load, (*registry.Acquire("b", kField))->load);
  EXPECT_EQ(registry.Names(), "a, b");
  EXPECT_EQ(registry.List().size(), 2u);
}

TEST_F(AdapterRegistryTest, NamesAndPathsAreChecked) {
  AdapterRegistry registry = Make(4);
  for (const std::string& name : {std::string(), std::string("a,b"), std::string("a b"),
                                  std::string(129, 'a'), std::string("a\n")}) {
    EXPECT_EQ(registry.Load(name, "/x").status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(registry.Load("org/model:v1.2_x-y", "/x").ok());
  for (const std::string& path : {std::string(), std::string(5000, 'a'), std::string("/x\0y", 4)}) {
    EXPECT_EQ(registry.Load("a", path).status().code(), absl::StatusCode::kInvalidArgument);
  }
  broken_.insert("/broken");
  EXPECT_FALSE(registry.Load("a", "/broken").ok());
  EXPECT_FALSE(registry.Has("a"));
  EXPECT_EQ(registry.Acquire("a", kField).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(AdapterRegistryTest, TheLeastRecentlyUsedGoesAndComesBack) {
  AdapterRegistry registry = Make(2);
  ASSERT_TRUE(registry.Load("a", "/a").ok());
  ASSERT_TRUE(registry.Load("b", "/b").ok());
  const uint64_t first_load = (*registry.Acquire("a", kField))->load;
  ASSERT_TRUE(registry.Load("c", "/c").ok());  // b goes
  EXPECT_EQ(alive_, 2);
  EXPECT_EQ(registry.resident(), 2);
  EXPECT_TRUE(registry.Has("b"));
  EXPECT_EQ((*registry.Acquire("a", kField))->load, first_load);
  ASSERT_TRUE(registry.Acquire("b", kField).ok());  // c goes
  EXPECT_EQ(reads_["/b"], 2);
  EXPECT_EQ(reads_["/a"], 1);
  // Another load of the same adapter.
  ASSERT_TRUE(registry.Acquire("c", kField).ok());  // a goes
  EXPECT_NE((*registry.Acquire("a", kField))->load, first_load);
  EXPECT_EQ(alive_, 2);
  broken_.insert("/c");
  ASSERT_TRUE(registry.Acquire("b", kField).ok());  // c goes
  const absl::Status gone = registry.Acquire("c", kField).status();
  EXPECT_EQ(gone.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(gone.message()), HasSubstr("/c is broken"));
}

TEST_F(AdapterRegistryTest, WhatRequestsHoldIsNeverEvicted) {
  AdapterRegistry registry = Make(2);
  ASSERT_TRUE(registry.Load("a", "/a").ok());
  ASSERT_TRUE(registry.Load("b", "/b").ok());
  AdapterHandle a = *registry.Acquire("a", kField);
  const AdapterHandle b = *registry.Acquire("b", kField);
  const absl::Status full = registry.Load("c", "/c").status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(full), "loras_in_use");
  EXPECT_THAT(std::string(full.message()), HasSubstr("lora.max_resident"));
  a.reset();
  EXPECT_TRUE(registry.Load("c", "/c").ok());
  EXPECT_EQ(reads_["/b"], 1);
  EXPECT_EQ(b->name, "b");
}

TEST_F(AdapterRegistryTest, UnloadingWaitsForItsRequests) {
  AdapterRegistry registry = Make(1);
  ASSERT_TRUE(registry.Load("a", "/a").ok());
  AdapterHandle request = *registry.Acquire("a", kField);
  int unloaded = 0;
  ASSERT_TRUE(registry.Unload("a", [&] { ++unloaded; }).ok());
  EXPECT_EQ(unloaded, 0);
  EXPECT_FALSE(registry.Has("a"));
  EXPECT_EQ(registry.Acquire("a", kField).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(registry.Unload("a", [&] { ++unloaded; }).code(), absl::StatusCode::kNotFound);
  // Its weights still count.
  EXPECT_EQ(registry.Load("a", "/other").status().code(), absl::StatusCode::kResourceExhausted);
  request.reset();
  EXPECT_EQ(unloaded, 1);
  EXPECT_EQ(alive_, 0);
  ASSERT_TRUE(registry.Load("a", "/other").ok());
  ASSERT_TRUE(registry.Unload("a", [&] { ++unloaded; }).ok());
  EXPECT_EQ(unloaded, 2);
  EXPECT_EQ(alive_, 0);
}

TEST_F(AdapterRegistryTest, PathsStayBelowTheRoots) {
  namespace fs = std::filesystem;
  std::string pattern = (fs::temp_directory_path() / "swaa-test-XXXXXX").string();
  ASSERT_NE(mkdtemp(pattern.data()), nullptr);
  const fs::path top = pattern;
  fs::create_directories(top / "root" / "tuned");
  fs::create_directories(top / "root-of-others" / "tuned");
  fs::create_directory_symlink(top / "root-of-others" / "tuned", top / "root" / "link");
  fs::create_directory_symlink(top / "root" / "tuned", top / "root" / "inner");
  AdapterRegistry registry = Make(8, {(top / "root").string()});
  EXPECT_TRUE(registry.LoadBelowRoots("a", (top / "root" / "tuned").string()).ok());
  EXPECT_TRUE(registry.LoadBelowRoots("b", "tuned").ok());
  EXPECT_TRUE(registry.LoadBelowRoots("c", "inner").ok());
  std::set<std::string> messages;
  for (const std::string& path :
       {(top / "root-of-others" / "tuned").string(), (top / "root" / "link").string(),
        (top / "root" / ".." / "root-of-others" / "tuned").string(),
        std::string("../root-of-others/tuned"), std::string("link"), std::string("/etc"),
        std::string("/no/such/folder"), (top / "root").string(), std::string(".")}) {
    const absl::Status status = registry.LoadBelowRoots("d", path).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << path << " " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("lora.roots"));
  }
  AdapterRegistry closed = Make(8);
  const absl::Status status = closed.LoadBelowRoots("a", "/x").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(reads_.size(), 2u);
  fs::remove_all(top);
}

TEST_F(AdapterRegistryTest, ManyThreadsShareIt) {
  AdapterRegistry registry = Make(3);
  std::atomic<int> unloaded{0}, wanted{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 300; ++i) {
        const std::string name = std::string(1, static_cast<char>('a' + (i * 7 + t) % 6));
        (void)registry.Load(name, "/" + name);
        const auto handle = registry.Acquire(name, kField);
        if (handle.ok() && i % 3 == 0 && registry.Unload(name, [&] { ++unloaded; }).ok()) ++wanted;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(unloaded, wanted);
  EXPECT_GT(wanted, 0);
  EXPECT_EQ(alive_, registry.resident());
  EXPECT_LE(alive_, 3);
}

}  // namespace
}  // namespace swaa::server
