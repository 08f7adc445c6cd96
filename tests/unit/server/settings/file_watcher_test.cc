// Files that are rewritten, replaced, linked and removed.

#include "server/settings/file_watcher.h"

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "absl/time/clock.h"

namespace swaa::server {
namespace {

namespace fs = std::filesystem;

class FileWatcherTest : public ::testing::Test {
 protected:
  FileWatcherTest() {
    std::string name = (fs::temp_directory_path() / "watch-XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~FileWatcherTest() override { fs::remove_all(folder_); }

  static void Write(const fs::path& path, const std::string& text) { std::ofstream(path) << text; }
  void Watch(absl::Duration patience) {
    watcher_ = std::make_unique<FileWatcher>(
        (folder_ / "file").string(), [this](bool triggered) { ++(triggered ? asked_ : changed_); },
        patience);
  }
  bool Await(const std::atomic<int>& count, int value) {
    const absl::Time until = absl::Now() + absl::Minutes(2);
    while (count < value && absl::Now() < until) absl::SleepFor(absl::Milliseconds(5));
    return count == value;
  }

  fs::path folder_;
  std::atomic<int> changed_{0};
  std::atomic<int> asked_{0};
  std::unique_ptr<FileWatcher> watcher_;
};

TEST_F(FileWatcherTest, SeesWritingAndReplacingAtOnce) {
  Write(folder_ / "file", "a");
  Watch(absl::Hours(1));
  Write(folder_ / "file", "bb");
  EXPECT_TRUE(Await(changed_, 1));
  Write(folder_ / "other", "ccc");
  fs::rename(folder_ / "other", folder_ / "file");
  EXPECT_TRUE(Await(changed_, 2));
  Write(folder_ / "unrelated", "d");
  watcher_->Trigger();
  EXPECT_TRUE(Await(asked_, 1));
  EXPECT_EQ(changed_, 2);
}

TEST_F(FileWatcherTest, SeesAFolderSwappedBehindALink) {
  // As Kubernetes mounts a ConfigMap.
  for (const char* version : {"v1", "v2"}) {
    fs::create_directory(folder_ / version);
    Write(folder_ / version / "file", version);
  }
  fs::create_symlink("v1", folder_ / "data");
  fs::create_symlink("data/file", folder_ / "file");
  Watch(absl::Hours(1));
  fs::create_symlink("v2", folder_ / "data_new");
  fs::rename(folder_ / "data_new", folder_ / "data");
  EXPECT_TRUE(Await(changed_, 1));
}

TEST_F(FileWatcherTest, AFileThatIsBeingWrittenIsLeftAlone) {
  Write(folder_ / "file", "whole");
  Watch(absl::Milliseconds(20));
  {
    std::ofstream writer(folder_ / "file");  // truncated
    writer << "half" << std::flush;
    // Polls and events of other files come and go.
    for (int i = 0; i < 10; ++i) {
      Write(folder_ / "other", std::to_string(i));
      absl::SleepFor(absl::Milliseconds(20));
    }
    EXPECT_EQ(changed_, 0);
    writer << " and the rest";
  }
  EXPECT_TRUE(Await(changed_, 1));
  absl::SleepFor(absl::Milliseconds(100));
  EXPECT_EQ(changed_, 1);
}

TEST_F(FileWatcherTest, FindsWithinPatienceWhatNobodyTellsOf) {
  fs::create_directory(folder_ / "elsewhere");
  Write(folder_ / "elsewhere" / "file", "a");
  fs::create_symlink("elsewhere/file", folder_ / "file");
  Watch(absl::Milliseconds(20));
  // At once: what is written in two parts may be seen twice.
  Write(folder_ / "elsewhere" / "new", "bb");
  fs::rename(folder_ / "elsewhere" / "new", folder_ / "elsewhere" / "file");
  EXPECT_TRUE(Await(changed_, 1));
  fs::remove(folder_ / "elsewhere" / "file");
  absl::SleepFor(absl::Milliseconds(100));
  EXPECT_EQ(changed_, 1) << "a file that is gone is no change";
}

}  // namespace
}  // namespace swaa::server
