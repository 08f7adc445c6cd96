// The threads that do what gRPC's callback threads and the engine's thread must not.

#include "server/generate/worker_pool.h"

#include <utility>

#include "base/check.h"

namespace swaa::server {

WorkerPool::WorkerPool(const Options& options) : options_(options) {
  SWAA_CHECK_GE(options.threads, 2);
  threads_.reserve(options.threads);
  for (int i = 0; i < options.threads; ++i) threads_.emplace_back([this] { Work(); });
}

WorkerPool::~WorkerPool() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::PostStreaming(std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    streaming_.push_back(std::move(task));
  }
  changed_.notify_one();
}

bool WorkerPool::TryPostAdmission(std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    if (admissions_.size() >= options_.max_queued_admissions) return false;
    admissions_.push_back(std::move(task));
  }
  changed_.notify_one();
  return true;
}

bool WorkerPool::MayAdmit() const {
  return !admissions_.empty() && admissions_running_ < options_.threads - 1;
}

bool WorkerPool::HasWork() const { return !streaming_.empty() || MayAdmit() || stopping_; }

void WorkerPool::Work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return HasWork(); });
    std::function<void()> task;
    const bool admission = streaming_.empty() && MayAdmit();
    if (!streaming_.empty()) {
      task = std::move(streaming_.front());
      streaming_.pop_front();
    } else if (admission) {
      task = std::move(admissions_.front());
      admissions_.pop_front();
      ++admissions_running_;
    } else {
      return;  // stopping; admissions that remain are for the threads that are at one now
    }
    lock.unlock();
    task();
    task = nullptr;  // what it held goes before the lock is taken again
    lock.lock();
    if (admission) --admissions_running_;
  }
}

}  // namespace swaa::server
