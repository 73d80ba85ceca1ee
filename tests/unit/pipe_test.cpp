#include <zerocopy/pipe.hpp>

#include "catch.hpp"
#include "handle_checks.hpp"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <bit>
#include <cerrno>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace zc = zerocopy;
using checks::stale, checks::thrown_by;

namespace {
const std::size_t page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));

std::size_t pipe_max_size() { return std::stoul(checks::read_whole("/proc/sys/fs/pipe-max-size")); }

template <class T>
concept lends_a_descriptor = requires(T t) { std::forward<T>(t).as_fd(); };
}  // namespace

TEST_CASE("A pipe is non-blocking and close-on-exec from birth", "[pipe]") {
  auto pipe = zc::Pipe::create();
  for (const int end : {pipe.reader().as_fd().get(), pipe.writer().as_fd().get()}) {
    CHECK(checks::is_non_blocking(end));
    CHECK(checks::closes_on_exec(end));
  }
  char byte = 0;
  errno = 0;
  CHECK(::read(pipe.reader().as_fd().get(), &byte, 1) == -1);
  CHECK(errno == EAGAIN);
  CHECK(checks::put(pipe.writer().as_fd().get(), "through"));
  CHECK(pipe.readable_bytes() == 7);
  CHECK(pipe.reader().readable_bytes() == 7);
  CHECK(checks::take(pipe.reader().as_fd().get()) == "through");
  CHECK(pipe.readable_bytes() == 0);
}

TEST_CASE("A pipe can be made blocking, and each end on its own", "[pipe]") {
  auto pipe = zc::Pipe::create({.blocking = true});
  CHECK_FALSE(checks::is_non_blocking(pipe.reader().as_fd().get()));
  CHECK_FALSE(checks::is_non_blocking(pipe.writer().as_fd().get()));
  CHECK(checks::closes_on_exec(pipe.writer().as_fd().get()));
  pipe.reader().set_blocking(false);
  CHECK(checks::is_non_blocking(pipe.reader().as_fd().get()));
  CHECK_FALSE(checks::is_non_blocking(pipe.writer().as_fd().get()));
  std::error_code ec = stale();
  pipe.writer().set_blocking(false, ec);
  CHECK_FALSE(ec);
  pipe.writer().set_blocking(true, ec);
  CHECK_FALSE(checks::is_non_blocking(pipe.writer().as_fd().get()));
}

TEST_CASE("set_capacity returns what the kernel gave, rounded up to a power of two", "[pipe]") {
  auto pipe = zc::Pipe::create();
  CHECK(pipe.set_capacity(1) == page);
  CHECK(pipe.capacity() == page);
  CHECK(pipe.set_capacity(0) == page);
  CHECK(pipe.set_capacity(5 * page) == 8 * page);
  CHECK(pipe.reader().capacity() == 8 * page);
  CHECK(pipe.writer().capacity() == 8 * page);
  CHECK(pipe.writer().set_capacity(16 * page) == 16 * page);
  std::error_code ec = stale();
  CHECK(pipe.set_capacity(2 * page, ec) == 2 * page);
  CHECK_FALSE(ec);
  CHECK(pipe.capacity(ec) == 2 * page);
  CHECK(zc::Pipe::create({.capacity = 32 * page}).capacity() == 32 * page);
}

TEST_CASE("set_capacity above pipe-max-size gives the largest that is granted", "[pipe]") {
  auto pipe = zc::Pipe::create();
  const std::size_t max = pipe_max_size();
  const std::size_t given = pipe.set_capacity(64 * max);
  CHECK(std::has_single_bit(given));
  CHECK(given >= max);  // more for CAP_SYS_RESOURCE
  CHECK(pipe.capacity() == given);
  auto huge = zc::Pipe::create();
  std::error_code ec = stale();
  CHECK(huge.set_capacity(SIZE_MAX, ec) >= max);
  CHECK_FALSE(ec);
}

TEST_CASE("set_capacity below the contents is busy and changes nothing", "[pipe]") {
  auto pipe = zc::Pipe::create({.capacity = 8 * page});
  const std::string text = checks::pattern(3 * page);
  REQUIRE(checks::put(pipe.writer().as_fd().get(), text));
  const auto busy = thrown_by([&] { pipe.set_capacity(page); });
  CHECK(busy.code == std::errc::device_or_resource_busy);
  CHECK(busy.says("to " + std::to_string(page) + " bytes"));
  CHECK(pipe.capacity() == 8 * page);
  std::error_code ec;
  CHECK(pipe.set_capacity(page, ec) == 8 * page);
  CHECK(ec == std::errc::device_or_resource_busy);
  CHECK(pipe.set_capacity(4 * page) == 4 * page);
  CHECK(pipe.readable_bytes() == 3 * page);
  CHECK(checks::take(pipe.reader().as_fd().get()) == text);
}

TEST_CASE("Past the user's quota set_capacity leaves a small pipe as it is", "[pipe]") {
  const std::size_t soft = std::stoul(checks::read_whole("/proc/sys/fs/pipe-user-pages-soft"));
  if (soft == 0 || soft > 100'000 || ::geteuid() != 0) {
    WARN("skipped: needs root, to become a user who has used nothing of a pipe-user-pages-soft quota");
    return;
  }
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setgid(64123) != 0 || ::setuid(64123) != 0) ::_exit(77);
    std::vector<zc::Pipe> pipes;
    std::error_code ec;
    std::size_t pages = 0;
    while (pages <= soft) {
      pipes.push_back(zc::Pipe::create({.capacity = pipe_max_size()}, ec));
      if (ec) ::_exit(2);
      pages += pipes.back().capacity() / page;
      if (pipes.back().capacity() <= 2 * page) break;  // the quota is used up
    }
    auto small = zc::Pipe::create(ec);
    if (ec) ::_exit(3);
    const std::size_t before = small.capacity(ec);
    if (before > 2 * page) ::_exit(4);
    if (small.set_capacity(1U << 20, ec) != before || ec) ::_exit(5);
    if (small.capacity() != before) ::_exit(6);
    if (!checks::put(small.writer().as_fd().get(), "works")) ::_exit(7);
    ::_exit(checks::take(small.reader().as_fd().get()) == "works" ? 0 : 8);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) {
    WARN("skipped: can't become another user here");
    return;
  }
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("close ends one side at once", "[pipe]") {
  auto pipe = zc::Pipe::create();
  REQUIRE(checks::put(pipe.writer().as_fd().get(), "last"));
  const int number = pipe.writer().as_fd().get();
  pipe.writer().close();
  CHECK_FALSE(checks::is_open(number));
  CHECK_FALSE(static_cast<bool>(pipe.writer().as_fd()));
  CHECK(checks::take(pipe.reader().as_fd().get()) == "last");
  char byte = 0;
  CHECK(::read(pipe.reader().as_fd().get(), &byte, 1) == 0);  // the end
  pipe.writer().close();                                      // again is harmless
}

TEST_CASE("The ends can be moved out of a pipe", "[pipe]") {
  auto pipe = zc::Pipe::create();
  const int in = pipe.reader().as_fd().get();
  const int out = pipe.writer().as_fd().get();
  zc::PipeReader reader = std::move(pipe).reader();
  zc::PipeWriter writer = std::move(pipe).writer();
  CHECK(reader.as_fd().get() == in);
  CHECK(writer.as_fd().get() == out);
  CHECK_FALSE(static_cast<bool>(pipe.reader().as_fd()));
  CHECK_FALSE(static_cast<bool>(pipe.writer().as_fd()));

  zc::Pipe again(std::move(reader), std::move(writer));
  zc::Pipe moved = std::move(again);
  CHECK(moved.reader().as_fd().get() == in);
  const zc::OwnedFd fd = std::move(moved).reader().release();
  CHECK(fd.get() == in);
  const zc::Pipe& constant = moved;
  CHECK(constant.writer().as_fd().get() == out);
  STATIC_REQUIRE(std::is_nothrow_move_constructible_v<zc::Pipe>);
  STATIC_REQUIRE(std::is_nothrow_move_assignable_v<zc::PipeReader>);
  STATIC_REQUIRE_FALSE(std::is_copy_constructible_v<zc::PipeReader>);
  STATIC_REQUIRE_FALSE(lends_a_descriptor<zc::PipeReader>);
  STATIC_REQUIRE_FALSE(lends_a_descriptor<zc::PipeWriter>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<zc::PipeReader, zc::PipeWriter>);
}

TEST_CASE("A FIFO's ends are pipe ends, and keep their flags", "[pipe]") {
  checks::Directory dir;
  const std::string path = dir.file("fifo");
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  zc::PipeReader reader(zc::OwnedFd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)));
  zc::PipeWriter writer(zc::OwnedFd(::open(path.c_str(), O_WRONLY | O_CLOEXEC)));
  CHECK(checks::is_non_blocking(reader.as_fd().get()));
  CHECK_FALSE(checks::is_non_blocking(writer.as_fd().get()));
  CHECK(checks::put(writer.as_fd().get(), "named"));
  CHECK(reader.readable_bytes() == 5);
  CHECK(reader.capacity() == writer.capacity());
}

TEST_CASE("What is no pipe, or closed, is a bad descriptor", "[pipe]") {
  zc::PipeReader file(zc::OwnedFd(::open("/etc/hostname", O_RDONLY | O_CLOEXEC)));
  CHECK(thrown_by([&] { (void)file.capacity(); }).code == std::errc::bad_file_descriptor);
  CHECK(thrown_by([&] { file.set_capacity(4096); }).code == std::errc::bad_file_descriptor);
  zc::PipeReader closed{zc::OwnedFd()};
  std::error_code ec;
  CHECK(closed.readable_bytes(ec) == 0);
  CHECK(ec == std::errc::bad_file_descriptor);
  CHECK(closed.capacity(ec) == 0);
  CHECK(ec == std::errc::bad_file_descriptor);
  CHECK(closed.set_capacity(4096, ec) == 0);
  CHECK(ec == std::errc::bad_file_descriptor);
  CHECK(thrown_by([&] { (void)closed.readable_bytes(); }).says("descriptor -1"));
  CHECK(thrown_by([&] { closed.set_blocking(true); }).code == std::errc::bad_file_descriptor);
}

TEST_CASE("Without free descriptor numbers no pipe is made", "[pipe]") {
  rlimit old{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &old) == 0);
  rlimit low = old;
  low.rlim_cur = 0;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &low) == 0);
  std::error_code ec;
  zc::Pipe none = zc::Pipe::create(ec);
  const auto thrown = thrown_by([] { (void)zc::Pipe::create(); });
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &old) == 0);
  CHECK(ec == std::errc::too_many_files_open);
  CHECK_FALSE(static_cast<bool>(none.reader().as_fd()));
  CHECK(thrown.code == std::errc::too_many_files_open);
  CHECK(thrown.says("make a pipe"));
}
