// The OpenMP threads of the CPU backend: how many, how they wait, where they run.

#ifndef SWAA_KERNELS_CPU_THREADS_H_
#define SWAA_KERNELS_CPU_THREADS_H_

#include <cstdint>
#include <string>

namespace swaa::kernels::cpu {

// Call it first thing in main, before any thread or file is made. libgomp reads its environment
// before main and by default spins so long at the end of a region that, with another busy process
// on the machine, small products take ten times their time. Where GOMP_SPINCOUNT and
// OMP_WAIT_POLICY are both unset, this sets a short spin and executes the program again with the
// same arguments (the process id stays; the second time it returns at once). `threads` > 0 also
// sets OMP_NUM_THREADS where that is unset. If the program cannot be executed again, it goes on as
// it is.
void ConfigureOpenMp(int threads);

// Processors that this process may use: its affinity mask, which a control group's cpuset narrows,
// cut by the groups' quota (rounded up). `root`: as in cgroup.h.
int AvailableProcessors(const std::string& root = "");

// Makes the calling thread the master of exactly `threads` OpenMP threads, denormals flushed to
// zero in all of them. When that is every processor of its affinity mask, each thread is bound to
// its own, the master only if it is not the process's main thread (what main starts later would
// inherit it). Cheap after the first call in a thread.
void PrepareOpenMpThreads(int threads);

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_THREADS_H_
