#include <zerocopy/memory_file.hpp>

#include <zerocopy/mapped_file.hpp>

#include "catch.hpp"
#include "handle_checks.hpp"

#include <cerrno>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

namespace zc = zerocopy;
using checks::stale, checks::thrown_by;

namespace {
template <class T>
concept lends_a_range = requires(T t) { std::forward<T>(t).range(0); };
}  // namespace

TEST_CASE("A MemoryFile is made with zero bytes of the size asked for, close-on-exec", "[memory_file]") {
  auto file = zc::MemoryFile::create("some name", 5);
  CHECK(file.size() == 5);
  CHECK(file.position() == 0);
  CHECK(checks::closes_on_exec(file.as_fd().get()));
  CHECK(checks::take(file.as_fd().get()) == std::string(5, '\0'));
  CHECK(file.position() == 5);
  file.seek(1);
  CHECK(checks::put(file.as_fd().get(), "xyz"));
  file.seek(0);
  CHECK(checks::take(file.as_fd().get()) == std::string("\0xyz\0", 5));
  CHECK(zc::MemoryFile::create("empty").size() == 0);
  CHECK(file.seals() == zc::Seals{});

  std::error_code ec = stale();
  auto twin = zc::MemoryFile::create("twin", 7, ec);
  CHECK_FALSE(ec);
  CHECK(twin.size(ec) == 7);
  twin.resize(3, ec);
  CHECK_FALSE(ec);
  twin.seek(2, ec);
  CHECK(twin.position(ec) == 2);
  CHECK(zc::MemoryFile::create("twin", ec).size() == 0);
}

TEST_CASE("A MemoryFile's name is at most 249 bytes without a NUL", "[memory_file]") {
  CHECK(zc::MemoryFile::create(std::string(249, 'n')).size() == 0);
  CHECK(thrown_by([] { (void)zc::MemoryFile::create(std::string(250, 'n')); }).code == std::errc::invalid_argument);
  const auto with_nul = thrown_by([] { (void)zc::MemoryFile::create(std::string("a\0b", 3)); });
  CHECK(with_nul.code == std::errc::invalid_argument);
  CHECK(with_nul.says("make a memory file 'a"));
}

TEST_CASE("A MemoryFile too large to be is not made", "[memory_file]") {
  std::error_code ec;
  const auto file = zc::MemoryFile::create("huge", UINT64_MAX, ec);
  CHECK(ec == std::errc::file_too_large);
  CHECK_FALSE(static_cast<bool>(file.as_fd()));
}

TEST_CASE("seal() makes size and bytes final", "[memory_file]") {
  auto file = zc::MemoryFile::create("sealed", 4);
  REQUIRE(checks::put(file.as_fd().get(), "1234"));
  file.seal();
  CHECK(file.seals() == zc::Seals{.shrink = true, .grow = true, .write = true, .seal = true});
  errno = 0;
  CHECK(::pwrite(file.as_fd().get(), "x", 1, 0) == -1);
  CHECK(errno == EPERM);
  CHECK(thrown_by([&] { file.resize(3); }).code == std::errc::operation_not_permitted);
  CHECK(thrown_by([&] { file.resize(5); }).code == std::errc::operation_not_permitted);
  CHECK(thrown_by([&] { file.seal({.future_write = true}); }).code == std::errc::operation_not_permitted);
  file.seek(0);
  CHECK(checks::take(file.as_fd().get()) == "1234");
}

TEST_CASE("Single seals stop only what they name", "[memory_file]") {
  auto file = zc::MemoryFile::create("part sealed", 4);
  file.seal({.shrink = true});
  CHECK(file.seals() == zc::Seals{.shrink = true});
  file.resize(8);
  CHECK(checks::put(file.as_fd().get(), "abc"));
  std::error_code ec;
  file.resize(7, ec);
  CHECK(ec == std::errc::operation_not_permitted);
  CHECK(file.size() == 8);
  file.seal({.grow = true}, ec);
  CHECK_FALSE(ec);
  file.resize(9, ec);
  CHECK(ec == std::errc::operation_not_permitted);
  CHECK(file.seals(ec) == zc::Seals{.shrink = true, .grow = true});
}

TEST_CASE("Sealing against writes is refused while a writable mapping lives, and works after", "[memory_file]") {
  auto file = zc::MemoryFile::create("mapped", 4096);
  auto mapping = std::optional(zc::WritableMappedFile::map(file));
  const auto refused = thrown_by([&] { file.seal(); });
  CHECK(refused.code == std::errc::device_or_resource_busy);
  CHECK(refused.says("mapping"));
  CHECK(file.seals() == zc::Seals{});
  std::error_code ec;
  file.seal(ec);
  CHECK(ec == std::errc::device_or_resource_busy);
  mapping->bytes()[0] = std::byte{'!'};
  mapping.reset();
  file.seal(ec);
  CHECK_FALSE(ec);
  CHECK(checks::text_of(zc::MappedFile::map(file).bytes().first(1)) == "!");
}

TEST_CASE("future_write leaves an existing mapping writable and stops everything else", "[memory_file]") {
  auto file = zc::MemoryFile::create("shared", 4096);
  const auto mapping = zc::WritableMappedFile::map(file);
  std::error_code ec;
  file.seal({.future_write = true}, ec);
  if (ec == std::errc::invalid_argument) {
    WARN("skipped: F_SEAL_FUTURE_WRITE needs Linux 5.1");
    return;
  }
  REQUIRE_FALSE(ec);
  mapping.bytes()[0] = std::byte{'w'};
  CHECK(checks::take(file.as_fd().get(), 1) == "w");
  CHECK(::pwrite(file.as_fd().get(), "x", 1, 0) == -1);
  CHECK(thrown_by([&] { (void)zc::WritableMappedFile::map(file); }).code == std::errc::operation_not_permitted);
}

TEST_CASE("What is no memfd has no seals", "[memory_file]") {
  zc::MemoryFile file(zc::OwnedFd(::open("/etc/hostname", O_RDONLY | O_CLOEXEC)));
  CHECK(thrown_by([&] { (void)file.seals(); }).code == std::errc::invalid_argument);
  std::error_code ec;
  file.seal(ec);
  CHECK((ec == std::errc::operation_not_permitted || ec == std::errc::invalid_argument));
  CHECK(file.seals(ec) == zc::Seals{});
  CHECK(ec == std::errc::invalid_argument);
  const zc::MemoryFile closed{zc::OwnedFd()};
  CHECK(thrown_by([&] { (void)closed.seals(); }).code == std::errc::bad_file_descriptor);
}

TEST_CASE("A MemoryFile that moves takes its descriptor along, and release gives it up", "[memory_file]") {
  auto first = zc::MemoryFile::create("moved", 3);
  const int number = first.as_fd().get();
  zc::MemoryFile second(std::move(first));
  CHECK_FALSE(static_cast<bool>(first.as_fd()));
  first = std::move(second);
  CHECK(first.as_fd().get() == number);
  CHECK(first.range(1, 2).as_fd().get() == number);
  CHECK(first.range(1, 2).offset() == 1);
  CHECK(first.range(1).length() == zc::to_end);
  const zc::OwnedFd fd = std::move(first).release();
  CHECK(fd.get() == number);
  STATIC_REQUIRE(lends_a_range<zc::MemoryFile&>);
  STATIC_REQUIRE_FALSE(lends_a_range<zc::MemoryFile>);
  STATIC_REQUIRE(std::is_nothrow_move_assignable_v<zc::MemoryFile>);
}
