#include <zerocopy/file.hpp>

#include "catch.hpp"
#include "handle_checks.hpp"

#include <linux/loop.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include <string>
#include <type_traits>
#include <utility>

namespace zc = zerocopy;
using checks::closes_on_exec, checks::stale, checks::thrown_by;

namespace {
template <class T>
concept lends_a_range = requires(T t) { std::forward<T>(t).range(0); };
template <class T>
concept lends_a_descriptor = requires(T t) { std::forward<T>(t).as_fd(); };
}  // namespace

TEST_CASE("File::open reads an existing file, close-on-exec", "[file]") {
  checks::Directory dir;
  const std::string path = dir.file("a");
  checks::write_whole(path, "hello");
  const auto file = zc::File::open(path);
  CHECK(file.size() == 5);
  CHECK(file.position() == 0);
  CHECK(closes_on_exec(file.as_fd().get()));
  CHECK((::fcntl(file.as_fd().get(), F_GETFL) & O_ACCMODE) == O_RDONLY);
  CHECK(checks::take(file.as_fd().get()) == "hello");
  CHECK(file.position() == 5);
}

TEST_CASE("File::open's twins report an error instead of throwing, and clear an old one", "[file]") {
  checks::Directory dir;
  const std::string path = dir.file("a");
  checks::write_whole(path, "hello");
  std::error_code ec = stale();
  const auto file = zc::File::open(path, ec);
  CHECK_FALSE(ec);
  CHECK(file.as_fd().get() >= 0);
  ec = stale();
  const auto writable = zc::File::open(path, {.access = zc::Access::read_write}, ec);
  CHECK_FALSE(ec);
  CHECK((::fcntl(writable.as_fd().get(), F_GETFL) & O_ACCMODE) == O_RDWR);

  const auto missing = zc::File::open(dir.path() + "/none", ec);
  CHECK(ec == std::errc::no_such_file_or_directory);
  CHECK_FALSE(static_cast<bool>(missing.as_fd()));
}

TEST_CASE("File::open names the path and the cause when it throws", "[file]") {
  const auto missing = thrown_by([] { (void)zc::File::open("/tmp/zerocopy-none"); });
  CHECK(missing.code == std::errc::no_such_file_or_directory);
  CHECK(missing.says("open '/tmp/zerocopy-none'"));
  CHECK(missing.says("No such file"));
  CHECK(thrown_by([] { (void)zc::File::open("/tmp", {.access = zc::Access::write}); }).code ==
        std::errc::is_a_directory);
  CHECK(thrown_by([] { (void)zc::File::open("/etc/hostname/x"); }).code == std::errc::not_a_directory);
}

TEST_CASE("A path with a NUL inside is invalid", "[file]") {
  const std::string path("/etc/hostname\0.txt", 18);
  CHECK(thrown_by([&] { (void)zc::File::open(path); }).code == std::errc::invalid_argument);
  CHECK(thrown_by([&] { (void)zc::File::create(path); }).code == std::errc::invalid_argument);
  CHECK(thrown_by([&] { (void)zc::File::temporary(std::string("/tmp\0x", 6)); }).code == std::errc::invalid_argument);
}

TEST_CASE("truncate without write access is refused and the file keeps its bytes", "[file]") {
  checks::Directory dir;
  const std::string path = dir.file("a");
  checks::write_whole(path, "keep me");
  CHECK(thrown_by([&] { (void)zc::File::open(path, {.truncate = true}); }).code == std::errc::invalid_argument);
  CHECK(checks::read_whole(path) == "keep me");
}

TEST_CASE("Each option of File::open reaches the kernel", "[file]") {
  checks::Directory dir;
  const std::string path = dir.file("a");
  const auto made = zc::File::open(path, {.access = zc::Access::write, .create = true, .mode = 0600});
  struct stat status {};
  REQUIRE(::fstat(made.as_fd().get(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  CHECK(checks::put(made.as_fd().get(), "one"));

  const auto again =
      thrown_by([&] { (void)zc::File::open(path, {.access = zc::Access::write, .create = true, .exclusive = true}); });
  CHECK(again.code == std::errc::file_exists);

  const auto appending = zc::File::open(path, {.access = zc::Access::write, .append = true});
  CHECK(checks::put(appending.as_fd().get(), "two"));
  CHECK(checks::read_whole(path) == "onetwo");

  const auto emptied = zc::File::open(path, {.access = zc::Access::write, .truncate = true});
  CHECK(emptied.size() == 0);

  std::error_code ec;
  const auto direct = zc::File::open(path, {.direct = true}, ec);
  if (ec == std::errc::invalid_argument) {
    WARN("skipped: this file system has no O_DIRECT");
  } else {
    CHECK((::fcntl(direct.as_fd().get(), F_GETFL) & O_DIRECT) != 0);
  }
}

TEST_CASE("File::create makes a file or empties one, to read and write", "[file]") {
  checks::Directory dir;
  const std::string path = dir.file("a");
  checks::write_whole(path, "old bytes");
  auto file = zc::File::create(path);
  CHECK(file.size() == 0);
  CHECK(closes_on_exec(file.as_fd().get()));
  CHECK(checks::put(file.as_fd().get(), "new"));
  file.seek(0);
  CHECK(checks::take(file.as_fd().get()) == "new");

  CHECK(thrown_by([&] { (void)zc::File::create(path, {.exclusive = true}); }).code == std::errc::file_exists);
  CHECK(checks::read_whole(path) == "new");
  const auto only_write = zc::File::create(path, {.access = zc::Access::write});
  CHECK((::fcntl(only_write.as_fd().get(), F_GETFL) & O_ACCMODE) == O_WRONLY);

  std::error_code ec = stale();
  const auto other = zc::File::create(dir.file("b"), ec);
  CHECK_FALSE(ec);
  CHECK(other.size() == 0);
  const auto nowhere = zc::File::create(dir.path() + "/none/b", ec);
  CHECK(ec == std::errc::no_such_file_or_directory);
  CHECK_FALSE(static_cast<bool>(nowhere.as_fd()));
  const auto thrown = thrown_by([&] { (void)zc::File::create(dir.path() + "/none/b"); });
  CHECK(thrown.says("create '" + dir.path() + "/none/b'"));
}

TEST_CASE("File::temporary leaves no name behind", "[file]") {
  checks::Directory dir;
  {
    const auto file = zc::File::temporary(dir.path());
    CHECK(closes_on_exec(file.as_fd().get()));
    CHECK(checks::put(file.as_fd().get(), "bytes"));
    CHECK(file.size() == 5);
    struct stat status {};
    REQUIRE(::fstat(file.as_fd().get(), &status) == 0);
    CHECK(status.st_nlink == 0);
    CHECK((status.st_mode & 0777) == 0600);
    CHECK(::rmdir(dir.path().c_str()) == 0);  // it is empty
    REQUIRE(::mkdir(dir.path().c_str(), 0700) == 0);
  }
  std::error_code ec = stale();
  const auto in_tmp = zc::File::temporary(ec);
  CHECK_FALSE(ec);
  CHECK(in_tmp.size() == 0);
  const auto nowhere = zc::File::temporary(dir.path() + "/none", ec);
  CHECK(ec == std::errc::no_such_file_or_directory);
  CHECK_FALSE(static_cast<bool>(nowhere.as_fd()));
  CHECK(thrown_by([&] { (void)zc::File::temporary(dir.path() + "/none"); }).says("/none'"));
  CHECK(thrown_by([&] { (void)zc::File::temporary("/etc/hostname"); }).code == std::errc::not_a_directory);
}

TEST_CASE("resize cuts and lengthens, and the position stays", "[file]") {
  auto file = zc::File::temporary();
  REQUIRE(checks::put(file.as_fd().get(), "0123456789"));
  file.resize(4);
  CHECK(file.size() == 4);
  CHECK(file.position() == 10);
  file.resize(6);
  file.seek(0);
  CHECK(checks::take(file.as_fd().get()) == std::string("0123\0\0", 6));

  CHECK(thrown_by([&] { file.resize(UINT64_MAX); }).code == std::errc::file_too_large);
  auto read_only = zc::File::open("/etc/hostname");
  std::error_code ec;
  read_only.resize(0, ec);
  CHECK(ec == std::errc::invalid_argument);
  CHECK(thrown_by([&] { read_only.resize(3); }).says("to 3 bytes"));
  file.resize(1, ec);
  CHECK_FALSE(ec);
}

TEST_CASE("seek and position go from the start, past the end too", "[file]") {
  auto file = zc::File::temporary();
  file.seek(5'000'000'000);
  CHECK(file.position() == 5'000'000'000);
  CHECK(file.size() == 0);
  CHECK(thrown_by([&] { file.seek(zc::to_end); }).code == std::errc::invalid_argument);
  CHECK(file.position() == 5'000'000'000);
  std::error_code ec = stale();
  file.seek(7, ec);
  CHECK_FALSE(ec);
  CHECK(file.position(ec) == 7);

  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const zc::OwnedFd keep(ends[1]);
  zc::File pipe{zc::OwnedFd(ends[0])};
  CHECK(thrown_by([&] { (void)pipe.position(); }).code == std::errc::invalid_seek);
  CHECK(thrown_by([&] { pipe.seek(0); }).code == std::errc::invalid_seek);
  CHECK(thrown_by([&] { pipe.advise(0, 10, zc::Advice::normal); }).code == std::errc::invalid_seek);
}

TEST_CASE("sync, sync_data and advise work on a file and report a closed one", "[file]") {
  const auto file = zc::File::temporary();
  REQUIRE(checks::put(file.as_fd().get(), "bytes"));
  file.sync();
  file.sync_data();
  for (const auto advice : {zc::Advice::normal, zc::Advice::sequential, zc::Advice::random, zc::Advice::will_need,
                            zc::Advice::dont_need, zc::Advice::no_reuse}) {
    file.advise(0, zc::to_end, advice);
    file.advise(3, 0, advice);
  }
  CHECK(thrown_by([&] { file.advise(1, INT64_MAX, zc::Advice::normal); }).code == zc::Errc::offset_overflow);

  const zc::File closed{zc::OwnedFd()};
  std::error_code ec;
  closed.sync(ec);
  CHECK(ec == std::errc::bad_file_descriptor);
  closed.sync_data(ec);
  CHECK(ec == std::errc::bad_file_descriptor);
  closed.advise(0, 1, zc::Advice::random, ec);
  CHECK(ec == std::errc::bad_file_descriptor);
  CHECK(closed.size(ec) == 0);
  CHECK(ec == std::errc::bad_file_descriptor);
  CHECK(thrown_by([&] { (void)closed.size(); }).says("size of descriptor -1"));
  CHECK(thrown_by([&] { closed.sync(); }).code == std::errc::bad_file_descriptor);
  CHECK(thrown_by([&] { closed.sync_data(); }).code == std::errc::bad_file_descriptor);
}

TEST_CASE("A File that moves takes its descriptor along, and release gives it up", "[file]") {
  auto first = zc::File::temporary();
  const int number = first.as_fd().get();
  zc::File second(std::move(first));
  CHECK_FALSE(static_cast<bool>(first.as_fd()));
  CHECK(second.as_fd().get() == number);
  first = std::move(second);
  CHECK(first.as_fd().get() == number);
  const zc::OwnedFd fd = std::move(first).release();
  CHECK(fd.get() == number);
  CHECK_FALSE(static_cast<bool>(first.as_fd()));
  CHECK(checks::is_open(number));
}

TEST_CASE("A range is a value with the descriptor, the offset and the length", "[file]") {
  const auto file = zc::File::temporary();
  const zc::FileRange part = file.range(10, 20);
  CHECK(part.as_fd().get() == file.as_fd().get());
  CHECK(part.offset() == 10);
  CHECK(part.length() == 20);
  CHECK(file.range(10).length() == zc::to_end);
  CHECK(file.position() == 0);
}

TEST_CASE("Temporaries lend neither a descriptor nor a range", "[file]") {
  STATIC_REQUIRE(lends_a_range<const zc::File&>);
  STATIC_REQUIRE_FALSE(lends_a_range<zc::File>);
  STATIC_REQUIRE_FALSE(lends_a_range<const zc::File>);
  STATIC_REQUIRE_FALSE(lends_a_descriptor<zc::File>);
  STATIC_REQUIRE_FALSE(std::is_copy_constructible_v<zc::File>);
  STATIC_REQUIRE(std::is_nothrow_move_constructible_v<zc::File>);
  STATIC_REQUIRE(std::is_nothrow_move_assignable_v<zc::File>);
}

TEST_CASE("The size of a block device is its capacity, and its position stays", "[file]") {
  // A loop device over 1 MiB; LO_FLAGS_AUTOCLEAR takes it away with its last descriptor.
  auto backing = zc::File::temporary();
  backing.resize(1U << 20);
  std::error_code ec;
  const auto control = zc::File::open("/dev/loop-control", {.access = zc::Access::read_write}, ec);
  const int number = ec ? -1 : ::ioctl(control.as_fd().get(), LOOP_CTL_GET_FREE);
  auto device = zc::File::open("/dev/loop" + std::to_string(number), {.access = zc::Access::read_write}, ec);
  loop_config config{};
  config.fd = static_cast<__u32>(backing.as_fd().get());
  config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
  if (ec || ::ioctl(device.as_fd().get(), LOOP_CONFIGURE, &config) != 0) {
    WARN("skipped: no loop device can be had here");
    return;
  }
  device.seek(512);
  CHECK(device.size() == 1U << 20);
  CHECK(device.position() == 512);
}

TEST_CASE("Where a file system has no O_TMPFILE, a temporary file is made by name and unlinked", "[file]") {
  // The message queue file system is one that has none, and mounts without a disk.
  checks::Directory dir;
  const pid_t child = ::fork();
  if (child == 0) {
    const bool mounted = ::unshare(CLONE_NEWNS | CLONE_NEWIPC) == 0 &&
                         ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                         ::mount("none", dir.path().c_str(), "mqueue", 0, nullptr) == 0;
    if (!mounted) ::_exit(77);
    const int refused = ::open(dir.path().c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (refused >= 0 || errno != EOPNOTSUPP) ::_exit(77);
    std::error_code ec;
    const auto file = zc::File::temporary(dir.path(), ec);
    struct stat status {};
    const bool good =
        !ec && ::fstat(file.as_fd().get(), &status) == 0 && status.st_nlink == 0 && closes_on_exec(file.as_fd().get());
    ::_exit(good ? 0 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) {
    WARN("skipped: no file system without O_TMPFILE can be mounted here");
    return;
  }
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("A user without permission gets permission_denied", "[file]") {
  if (::geteuid() != 0) {
    const auto thrown = thrown_by([] { (void)zc::File::open("/etc/shadow"); });
    CHECK(thrown.code == std::errc::permission_denied);
    return;
  }
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setuid(65534) != 0) ::_exit(2);
    std::error_code ec;
    (void)zc::File::open("/etc/shadow", ec);
    ::_exit(ec == std::errc::permission_denied ? 0 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
}
