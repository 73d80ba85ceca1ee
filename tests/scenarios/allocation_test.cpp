// A transfer allocates nothing once its thread's pipe is warm. The counting operator new is the program's; it counts
// only in the thread and the moments that ask for it.
#include "catch.hpp"
#include "support/ends.hpp"

#include <new>

namespace {

thread_local bool counting = false;
thread_local std::size_t allocations = 0;

void* counted(std::size_t size) {
  if (counting) ++allocations;
  return std::malloc(size == 0 ? 1 : size);
}

}  // namespace

// NOLINTBEGIN: replacements
[[gnu::noinline]] void* operator new(std::size_t size) {
  if (void* p = counted(size)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new[](std::size_t size) {
  if (void* p = counted(size)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return counted(size); }
[[gnu::noinline]] void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return counted(size); }
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, const std::nothrow_t&) noexcept { std::free(p); }
// NOLINTEND

TEST_CASE("a transfer allocates nothing on the heap once the thread's pipe is warm") {
  using namespace ends;
  using zc::Strategy;
  const zc::File from{temporary_file(pattern(0, 12000))};
  const zc::File to{temporary_file()};
  Bytes memory(12000);
  for (const auto& s : {std::optional<Strategy>{}, std::optional{Strategy::sendfile}, std::optional{Strategy::splice},
                        std::optional{Strategy::mmap_write}, std::optional{Strategy::read_write},
                        std::optional{Strategy::copy_file_range}}) {
    INFO((s ? std::string(to_string(*s)) : std::string("automatic")));
    for (const bool limited : {false, true}) {
      for (int round = 0; round < 2; ++round) {
        FdPair pair = unix_pair();
        set_nonblocking(pair.one.get(), true);
        FdPair source = unix_pair();
        write_all(source.other.get(), pattern(0, 5000));
        zc::Options options{.strategy = s};
        std::stop_source stop;
        if (limited) {
          options.deadline = Clock::now() + 10s;
          options.stop = stop.get_token();
        }
        std::error_code ec;
        allocations = 0;
        counting = round == 1;
        std::ignore = zc::transfer(from.range(0), to.range(0), options, ec);
        std::ignore = zc::transfer(from.range(0), pair.one, options, ec);
        std::ignore = zc::transfer(source.one, to.range(0), {.strategy = s, .length = 5000}, ec);
        std::ignore = zc::transfer(from.range(0), std::span(memory), options, ec);
        std::ignore = zc::transfer(std::span<const std::byte>(memory).first(1000), pair.one, options, ec);
        counting = false;
        CHECK(allocations == 0);
      }
    }
  }
}
