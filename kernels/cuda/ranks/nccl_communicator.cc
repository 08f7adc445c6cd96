// Ranks on the GPUs of one process: NCCL, and each other's memory.

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/ranks/gpu_communicator.h"
#include "kernels/cuda/ranks/nccl_library.h"
#include "kernels/ranks/rendezvous.h"

namespace swaa::kernels::cuda {
namespace {

// A call of NCCL's may itself wait for a rank that never comes.
constexpr std::chrono::seconds kCallPatience{1};

// What the ranks have in common.
class Group {
 public:
  Group(const NcclLibrary& nccl, int32_t size) : rendezvous(size), nccl_(nccl), comms_(size) {}
  ~Group() {
    Abort(absl::CancelledError("the ranks are being freed"));
    end_.join();
    if (aborted_ != nullptr) cudaFreeHost(aborted_);
  }

  absl::Status Open(std::span<const int> ordinals) {
    void* word = nullptr;
    SWAA_RETURN_IF_ERROR(
        CudaStatus(cudaHostAlloc(&word, sizeof(uint32_t), cudaHostAllocPortable), "ranks"));
    aborted_ = new (word) uint32_t(0);
    const ncclResult_t code =
        nccl_.comm_init_all(comms_.data(), static_cast<int>(comms_.size()), ordinals.data());
    if (code == ncclSuccess) return absl::OkStatus();
    comms_.clear();
    return absl::FailedPreconditionError(
        absl::StrCat("tensor_parallel_size: NCCL does not start on ", ordinals.size(),
                     " GPUs: ", nccl_.get_error_string(code),
                     "; NCCL_DEBUG=INFO makes it say more (has a container enough of /dev/shm?)"));
  }

  // Calls `enqueue` with a rank's communicator, unless they are being aborted.
  template <typename Enqueue>
  void Call(int32_t rank, const Enqueue& enqueue) {
    std::shared_lock lock(calls_);
    CheckAlive();
    const ncclResult_t code = enqueue(nccl_, comms_[rank]);
    if (code != ncclSuccess) {
      throw std::runtime_error(absl::StrCat("NCCL: ", nccl_.get_error_string(code)));
    }
  }

  // Throws once they are being aborted.
  void CheckAlive() const {
    const absl::Status status = rendezvous.status();
    if (!status.ok()) throw std::runtime_error(std::string(status.message()));
  }

  void Abort(const absl::Status& why) {
    rendezvous.Abort(why);
    if (ending_.exchange(true)) return;
    if (aborted_ != nullptr) *static_cast<volatile uint32_t*>(aborted_) = 1;
    // Not waited for: NCCL lets its kernels end at once, but waits itself until no graph holds any.
    end_ = std::thread([this] { End(); });
  }

  const uint32_t* aborted() const { return aborted_; }

  Rendezvous rendezvous;
  bool reach = false;  // each GPU reaches the others' memory
  std::mutex streams_mutex;
  std::map<int32_t, cudaStream_t> streams;  // by rank; guarded by streams_mutex

 private:
  void End() {
    // Nobody begins a call any more; one under way ends, or waits for what is aborted here.
    const bool idle = calls_.try_lock_for(kCallPatience);
    std::vector<std::jthread> threads;
    for (ncclComm_t comm : comms_) threads.emplace_back([this, comm] { nccl_.comm_abort(comm); });
    threads.clear();  // joins
    if (idle) calls_.unlock();
  }

  const NcclLibrary& nccl_;
  std::vector<ncclComm_t> comms_;
  uint32_t* aborted_ = nullptr;  // page-locked, for kernels that wait
  std::shared_timed_mutex calls_;
  std::atomic<bool> ending_ = false;
  std::thread end_;
};

class NcclCommunicator : public GpuCommunicator {
 public:
  NcclCommunicator(std::shared_ptr<Group> group, int32_t rank)
      : group_(std::move(group)), shard_{rank, group_->rendezvous.size()} {}

  Shard shard() const override { return shard_; }
  void Bind(cudaStream_t stream) override {
    stream_ = stream;
    std::lock_guard lock(group_->streams_mutex);
    group_->streams[shard_.rank] = stream;
  }
  void Leave() override {
    std::lock_guard lock(group_->streams_mutex);
    // What fails was lost before.
    for (const auto& [rank, stream] : group_->streams) cudaStreamSynchronize(stream);
    group_->streams.erase(shard_.rank);
  }
  void UseMemory(std::byte* gathered, std::byte* signals) override {
    gathered_ = reinterpret_cast<float*>(gathered);
    signals_ = reinterpret_cast<uint32_t*>(signals);
  }

  void KeepTogether(bool together) override { together_ = together; }
  void Meet() override {
    if (!together_) return;
    const absl::Status status = Agree(0).status();
    if (!status.ok()) throw std::runtime_error(std::string(status.message()));
  }

  void AllReduce(void* values, int64_t count, DataType type) override {
    Meet();
    group_->Call(shard_.rank, [&](const NcclLibrary& nccl, ncclComm_t comm) {
      return nccl.all_reduce(values, values, count,
                             type == DataType::kF32 ? ncclFloat32 : ncclBfloat16, ncclSum, comm,
                             stream_);
    });
    Meet();
  }

  void GatherColumns(const GatherColumnsParams& p) override {
    Meet();
    const int64_t most = MostColumns(p.columns, shard_.size);
    group_->Call(shard_.rank, [&](const NcclLibrary& nccl, ncclComm_t comm) {
      return nccl.all_gather(p.mine, gathered_, p.rows * most, ncclFloat32, comm, stream_);
    });
    PlaceColumns(
        {.gathered = gathered_, .all = p.all, .rows = p.rows, .columns = p.columns, .most = most},
        {.stream = stream_, .programmatic = false});
    Meet();
  }

  const RankBuffers* Peers(const Bf16* mine) override {
    if (!group_->reach || !SumNormServes(shard_.size)) return nullptr;
    group_->CheckAlive();
    Meet();
    const auto found = peers_.find(mine);
    if (found != peers_.end()) return &found->second;
    RankBuffers& all = peers_[mine];
    all = {.rank = shard_.rank, .size = shard_.size, .aborted = group_->aborted()};
    OfAllRanks(mine, all.buffers);
    OfAllRanks(signals_, all.signals);
    return &all;
  }

  absl::Status status() const override { return group_->rendezvous.status(); }
  absl::StatusOr<int64_t> Agree(absl::StatusOr<int64_t> mine) override {
    return group_->rendezvous.Agree(shard_.rank, std::move(mine));
  }
  void Abort(const absl::Status& why) override { group_->Abort(why); }

 private:
  // Every rank's address in place of its own.
  template <typename Address>
  void OfAllRanks(Address mine, Address* all) {
    const auto met = group_->rendezvous.Meet(shard_.rank, mine);
    if (!met.ok()) throw std::runtime_error(std::string(met.status().message()));
    for (int32_t rank = 0; rank < shard_.size; ++rank) {
      all[rank] = static_cast<Address>(const_cast<void*>((*met)[rank]));
    }
    group_->rendezvous.Part();
  }

  const std::shared_ptr<Group> group_;
  const Shard shard_;
  cudaStream_t stream_ = nullptr;
  bool together_ = false;
  float* gathered_ = nullptr;
  uint32_t* signals_ = nullptr;
  std::map<const Bf16*, RankBuffers> peers_;
};

// Whether every one of them reaches the memory of all others, from now on.
absl::StatusOr<bool> OpenMemory(std::span<const int> ordinals) {
  for (const int from : ordinals) {
    for (const int to : ordinals) {
      int can = 1;
      if (from != to) {
        SWAA_RETURN_IF_ERROR(CudaStatus(cudaDeviceCanAccessPeer(&can, from, to), "ranks"));
      }
      if (can == 0) return false;
    }
  }
  for (const int from : ordinals) {
    SWAA_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(from), "ranks"));
    for (const int to : ordinals) {
      if (from == to) continue;
      const cudaError_t code = cudaDeviceEnablePeerAccess(to, 0);
      if (code == cudaErrorPeerAccessAlreadyEnabled) {
        cudaGetLastError();  // the next check of a launch would find it
      } else {
        SWAA_RETURN_IF_ERROR(CudaStatus(code, "ranks"));
      }
    }
  }
  return true;
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<GpuCommunicator>>> MakeGpuCommunicators(
    std::span<const int> ordinals) {
  SWAA_ASSIGN_OR_RETURN(const NcclLibrary* nccl, LoadNccl());
  const auto group = std::make_shared<Group>(*nccl, static_cast<int32_t>(ordinals.size()));
  SWAA_ASSIGN_OR_RETURN(group->reach, OpenMemory(ordinals));
  SWAA_RETURN_IF_ERROR(group->Open(ordinals));
  std::vector<std::unique_ptr<GpuCommunicator>> ranks;
  for (size_t rank = 0; rank < ordinals.size(); ++rank) {
    ranks.push_back(std::make_unique<NcclCommunicator>(group, static_cast<int32_t>(rank)));
  }
  return ranks;
}

}  // namespace swaa::kernels::cuda
