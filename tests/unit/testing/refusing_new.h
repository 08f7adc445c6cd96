// Allocation functions of a test program that refuses memory: included by its one source, which
// says what is refused. The forms that do not throw are the standard library's, and ask these.

#ifndef SWAA_TESTS_UNIT_TESTING_REFUSING_NEW_H_
#define SWAA_TESTS_UNIT_TESTING_REFUSING_NEW_H_

#include <cstddef>
#include <cstdlib>
#include <new>

namespace swaa::testing {

// Whether the allocation that is asked for now fails. Called on any thread; may allocate only where
// it bears to be called again for that.
bool RefusesAllocation();

}  // namespace swaa::testing

// Not inlined: the compiler would see that what new returns goes to free.
[[gnu::noinline]] void* operator new(size_t bytes) {
  if (swaa::testing::RefusesAllocation()) throw std::bad_alloc();
  if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}
void* operator new[](size_t bytes) { return operator new(bytes); }
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { operator delete(memory); }
void operator delete[](void* memory) noexcept { operator delete(memory); }
void operator delete[](void* memory, size_t) noexcept { operator delete(memory); }

#endif  // SWAA_TESTS_UNIT_TESTING_REFUSING_NEW_H_
