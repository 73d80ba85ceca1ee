// What other systems test of a copy from file to file, and what bit them.
#include "catch.hpp"
#include "support/process.hpp"

namespace {

using namespace ends;
using zc::Errc;
using zc::StopReason;
using zc::Strategy;

zc::File file_of(std::span<const std::byte> bytes) { return zc::File(temporary_file(bytes)); }

// Equal to what read() gives, from a file that may lie about its size.
void require_as_read(const char* path) {
  INFO(path);
  const zc::OwnedFd again(::open(path, O_RDONLY | O_CLOEXEC));
  REQUIRE(again);
  const Bytes wanted = read_to_end(again.get());
  zc::File from = zc::File::open(path);
  const zc::File to = file_of({});
  std::error_code ec;
  const auto r = zc::transfer(from, to, ec);
  CHECK_FALSE(ec);
  CHECK(r.reason == StopReason::complete);
  CHECK(r.delivered == wanted.size());
  CHECK(same(pread_all(to.as_fd().get()), wanted));

  FdPair pipe = pipe_pair();
  from.seek(0);
  Drainer drainer(pipe.one.get());
  const auto piped = zc::transfer(from, pipe.other, ec);
  pipe.other.reset();
  CHECK_FALSE(ec);
  CHECK(piped.delivered == wanted.size());
  CHECK(same(drainer.bytes(), wanted));

  Bytes memory(wanted.size() + 100);
  from.seek(0);
  const auto copied = zc::transfer(from, std::span(memory), ec);
  CHECK_FALSE(ec);
  CHECK(copied.delivered == wanted.size());
  CHECK(same(std::span(memory).first(wanted.size()), wanted));
}

}  // namespace

TEST_CASE("source start x sink start x limit: bytes and positions are right, a limit past the end reports the end") {
  const std::size_t size = 32769;
  for (const std::size_t start : {std::size_t{0}, std::size_t{100}, size}) {
    for (const std::size_t at : {std::size_t{0}, std::size_t{200}}) {
      for (const std::uint64_t limit : {zc::to_end, std::uint64_t{size - 101}, std::uint64_t{size + 7}}) {
        zc::File from = file_of(pattern(0, size));
        zc::File to = file_of({});
        from.seek(start);
        to.seek(at);
        const std::size_t had = size - start;
        const auto wanted = std::min<std::uint64_t>(limit, had);
        std::error_code ec;
        const auto r = zc::transfer(from, to, {.length = limit}, ec);
        CHECK_FALSE(ec);
        CHECK(r.delivered == wanted);
        CHECK(from.position() == start + wanted);
        CHECK(to.position() == at + wanted);
        CHECK(r.reason == (limit != zc::to_end && limit > had ? StopReason::end_of_source : StopReason::complete));
        CHECK(to.size() == (wanted == 0 ? 0 : at + wanted));
      }
    }
  }
}

TEST_CASE("a position past the end of the source: nothing moved, and no position changed") {
  zc::File from = file_of(pattern(0, 10));
  const zc::File to = file_of({});
  from.seek(1000);
  std::error_code ec;
  const auto r = zc::transfer(from, to, ec);
  CHECK_FALSE(ec);
  CHECK(r.delivered == 0);
  CHECK(from.position() == 1000);
  CHECK(to.size() == 0);
}

TEST_CASE("a sink range's length bounds what is written, and nothing is lost") {
  const zc::File to = file_of(pattern(1000, 100));
  FdPair pipe = pipe_pair();
  write_all(pipe.other.get(), pattern(0, 30));
  pipe.other.reset();
  std::error_code ec;
  auto r = zc::transfer(pipe.one, to.range(20, 10), ec);
  CHECK(r.delivered == 10);
  CHECK((r.reason == StopReason::complete || ec == Errc::sink_full));
  Bytes wanted = pread_all(to.as_fd().get());
  CHECK(wanted.size() == 100);
  CHECK(same(std::span(wanted).subspan(20, 10), pattern(0, 10)));
  CHECK(same(std::span(wanted).subspan(30), pattern(1030, 70)));
  const std::size_t held = r.stranded ? static_cast<std::size_t>(r.stranded->size()) : 0;
  CHECK(r.consumed == 10 + held);
  Bytes rest(held);
  if (held != 0) CHECK(zc::transfer(*r.stranded, std::span(rest)).delivered == held);
  const Bytes unread = read_to_end(pipe.one.get());
  rest.insert(rest.end(), unread.begin(), unread.end());
  CHECK(same(rest, pattern(10, 20)));
}

TEST_CASE("memory that is full: nothing beyond it is written, a file source is given back the rest") {
  zc::File from = file_of(pattern(0, 9000));
  Bytes memory(5100);
  std::error_code ec;
  const auto r = zc::transfer(from, std::span(memory).first(5000), ec);
  CHECK(r.delivered == 5000);
  CHECK(r.consumed == 5000);
  CHECK((r.reason == StopReason::complete || ec == Errc::sink_full));
  CHECK(from.position() == 5000);
  CHECK(same(std::span(memory).first(5000), pattern(0, 5000)));
  CHECK(same(std::span(memory).subspan(5000), Bytes(100)));
}

TEST_CASE("a sink opened O_APPEND, and one that fcntl made so: the data is appended") {
  for (const bool by_fcntl : {false, true}) {
    for (const std::size_t size : {std::size_t{7}, std::size_t{300000}}) {
      zc::File from = file_of(pattern(0, size));
      const zc::OwnedFd base = temporary_file(as_bytes("before "));
      zc::OwnedFd sink = reopened(base.get(), by_fcntl ? O_RDWR : O_RDWR | O_APPEND);
      if (by_fcntl) ::fcntl(sink.get(), F_SETFL, O_APPEND);
      const zc::File to{std::move(sink)};
      std::error_code ec;
      const auto r = zc::transfer(from, to, ec);
      CHECK_FALSE(ec);
      CHECK(r.delivered == size);
      const Bytes content = pread_all(base.get());
      CHECK(content.size() == 7 + size);
      CHECK(same(std::span(content).subspan(7), pattern(0, size)));
      CHECK(as_text(std::span(content).first(7)) == "before ");
    }
  }
}

TEST_CASE("an explicit sink offset with O_APPEND is invalid, and nothing is written") {
  zc::File from = file_of(pattern(0, 10));
  const zc::OwnedFd base = temporary_file(as_bytes("before"));
  const zc::OwnedFd append = reopened(base.get(), O_RDWR | O_APPEND);
  std::error_code ec;
  const auto r = zc::transfer(from, zc::FileRange(append.as_fd(), 0), ec);
  CHECK(ec == std::errc::invalid_argument);
  CHECK(r.delivered == 0);
  CHECK(r.side == zc::Side::sink);
  CHECK(from.position() == 0);
  CHECK(size_of(base.get()) == 6);
}

TEST_CASE("overlapping ranges of one file are refused, ranges that only touch are copied") {
  const zc::File file = file_of(pattern(0, 10000));
  std::error_code ec;
  auto r = zc::transfer(file.range(0, 5000), file.range(4999), ec);
  CHECK(ec == std::errc::invalid_argument);
  CHECK(ec == Errc::same_file);
  CHECK(r.delivered == 0);
  CHECK(same(pread_all(file.as_fd().get()), pattern(0, 10000)));

  // Through two descriptors of one inode too.
  const zc::OwnedFd again = reopened(file.as_fd().get(), O_RDWR);
  r = zc::transfer(file.range(0, 5000), zc::FileRange(again.as_fd(), 2000), ec);
  CHECK(ec == std::errc::invalid_argument);
  CHECK(r.delivered == 0);
  CHECK(same(pread_all(file.as_fd().get()), pattern(0, 10000)));

  r = zc::transfer(file.range(0, 5000), file.range(5000), ec);
  CHECK_FALSE(ec);
  CHECK(r.delivered == 5000);
  const Bytes now = pread_all(file.as_fd().get());
  CHECK(now.size() == 10000);
  CHECK(same(std::span(now).first(5000), pattern(0, 5000)));
  CHECK(same(std::span(now).subspan(5000), pattern(0, 5000)));

  r = zc::transfer(file.range(9000, 1000), file.range(0, 1000), ec);
  CHECK_FALSE(ec);
  CHECK(r.delivered == 1000);
}

TEST_CASE("a whole file onto itself through two descriptors is refused") {
  const zc::OwnedFd base = temporary_file(pattern(0, 5000));
  const zc::File from{reopened(base.get(), O_RDONLY)};
  const zc::File to{reopened(base.get(), O_RDWR)};
  std::error_code ec;
  const auto r = zc::transfer(from, to, ec);
  CHECK(ec == std::errc::invalid_argument);
  CHECK(r.delivered == 0);
  CHECK(same(pread_all(base.get()), pattern(0, 5000)));
  // A hard end: to append a file to itself without a limit would never end.
  const zc::File append{reopened(base.get(), O_RDWR | O_APPEND)};
  const TimeLimit limit(20);
  const auto again = zc::transfer(from, append, ec);
  CHECK((ec == std::errc::invalid_argument || again.delivered == 5000));
  CHECK(size_of(base.get()) == 5000 + again.delivered);
}

TEST_CASE("proc and sysfs files are equal to what read() gives, to a file, a pipe and memory") {
  require_as_read("/proc/version");
  require_as_read("/proc/filesystems");
  require_as_read("/proc/self/cmdline");
  require_as_read("/proc/cpuinfo");
  if (::access("/sys/kernel/mm/transparent_hugepage/enabled", R_OK) == 0)
    require_as_read("/sys/kernel/mm/transparent_hugepage/enabled");
  if (::access("/sys/power/state", R_OK) == 0) require_as_read("/sys/power/state");
}

TEST_CASE("a proc file with a forced strategy: every byte, or a reason why not") {
  for (const Strategy s : {Strategy::copy_file_range, Strategy::sendfile, Strategy::splice, Strategy::mmap_write,
                           Strategy::read_write, Strategy::reflink}) {
    INFO(std::string(to_string(s)));
    const zc::OwnedFd again(::open("/proc/version", O_RDONLY | O_CLOEXEC));
    const Bytes wanted = read_to_end(again.get());
    const zc::File from = zc::File::open("/proc/version");
    const zc::File to = file_of({});
    std::error_code ec;
    const auto r = zc::transfer(from, to, {.strategy = s}, ec);
    if (ec) {
      CHECK(ec == Errc::strategy_unavailable);
      CHECK(r.delivered == 0);
      CHECK_FALSE(r.trail.empty());
      CHECK(to.size() == 0);
    } else {
      CHECK(same(pread_all(to.as_fd().get()), wanted));
    }
  }
}

TEST_CASE("2 GiB + 1 KiB, sparse with data at its end: complete") {
  const std::uint64_t size = (std::uint64_t{2} << 30) + 1024;
  const TimeLimit limit(120);
  zc::File from = zc::File::temporary();
  zc::File to = zc::File::temporary();
  from.resize(size);
  pwrite_all(from.as_fd().get(), pattern(0, 1024), size - 1024);
  // The disk would be asked for 2 GiB: sent from near its end, over the limit of one call by its offset.
  std::error_code ec;
  FdPair null{zc::OwnedFd(::open("/dev/null", O_WRONLY | O_CLOEXEC)), {}};
  const auto whole = zc::transfer(from, null.one, {.strategy = Strategy::sendfile}, ec);
  CHECK_FALSE(ec);
  CHECK(whole.delivered == size);
  CHECK(from.position() == size);
  CHECK(whole.calls >= 2);  // one call moves 0x7ffff000 bytes at most
  const auto tail = zc::transfer(from.range(size - 2048), to.range(3000000000U), ec);
  CHECK_FALSE(ec);
  CHECK(tail.delivered == 2048);
  CHECK(to.size() == 3000002048U);
  const Bytes end = pread_all(to.as_fd().get(), 3000000000U);
  CHECK(same(std::span(end).subspan(1024), pattern(0, 1024)));
  CHECK(same(std::span(end).first(1024), Bytes(1024)));
}

TEST_CASE("a sink offset past its end: a hole, then the data") {
  const zc::File from = file_of(pattern(0, 5000));
  const zc::File to = file_of(as_bytes("abc"));
  CHECK(zc::transfer(from, to.range(100000)).delivered == 5000);
  const Bytes now = pread_all(to.as_fd().get());
  REQUIRE(now.size() == 105000);
  CHECK(same(std::span(now).subspan(3, 99997), Bytes(99997)));
  CHECK(same(std::span(now).subspan(100000), pattern(0, 5000)));
}

TEST_CASE("a source range leaves the position, a File moves it") {
  zc::File from = file_of(pattern(0, 5000));
  zc::File to = file_of({});
  from.seek(17);
  CHECK(zc::transfer(from.range(1000, 500), to).delivered == 500);
  CHECK(from.position() == 17);
  CHECK(to.position() == 500);
  CHECK(zc::transfer(from, to.range(0), {.length = 100}).delivered == 100);
  CHECK(from.position() == 117);
  CHECK(to.position() == 500);
}

TEST_CASE("a range past the end from the start is end_of_source, not truncation") {
  const zc::File from = file_of(pattern(0, 5000));
  for (const std::uint64_t offset : {std::uint64_t{4000}, std::uint64_t{5000}, std::uint64_t{6000}}) {
    const zc::File to = file_of({});
    std::error_code ec;
    const auto r = zc::transfer(from.range(offset, 3000), to, ec);
    CHECK_FALSE(ec);
    CHECK(r.reason == StopReason::end_of_source);
    CHECK(r.delivered == (offset < 5000 ? 5000 - offset : 0));
  }
}

TEST_CASE("reflink forced where it can't: an error, and no half-made file; automatic copies") {
  zc::File from = file_of(pattern(0, 100000));
  const zc::MemoryFile to = zc::MemoryFile::create("sink");
  std::error_code ec;
  const auto r = zc::transfer(from, to, {.strategy = Strategy::reflink}, ec);
  CHECK(ec == Errc::strategy_unavailable);
  CHECK(ec == std::errc::operation_not_supported);
  CHECK(r.reason == StopReason::failed);
  CHECK(r.delivered == 0);
  REQUIRE(r.trail.size() == 1);
  CHECK(r.trail[0].strategy == Strategy::reflink);
  CHECK(to.size() == 0);
  CHECK(from.position() == 0);
  CHECK(zc::transfer(from, to).delivered == 100000);
}

TEST_CASE("reflink on xfs and btrfs shares the extents, head and tail that are not aligned are copied") {
  for (const char* type : {"xfs", "btrfs"}) {
    if (!is_root()) {
      WARN("skipped: only root can mount");
      return;
    }
    const Mount mount = Mount::image(type, type == std::string("xfs") ? 320 : 160);
    if (!mount.ok()) {
      WARN(mount.why());
      continue;
    }
    INFO(type);
    for (const std::size_t size : {std::size_t{4096}, std::size_t{1000000}}) {
      zc::File from{temporary_file(pattern(0, size), mount.path())};
      zc::File to{temporary_file({}, mount.path())};
      std::error_code ec;
      const auto r = zc::transfer(from, to, {.strategy = Strategy::reflink}, ec);
      CHECK_FALSE(ec);
      CHECK(r.delivered == size);
      CHECK(r.strategy == Strategy::reflink);
      CHECK(from.position() == size);
      CHECK(to.position() == size);
      CHECK(same(pread_all(to.as_fd().get()), pattern(0, size)));
    }
    for (const std::size_t start : {std::size_t{0}, std::size_t{1}, std::size_t{4096}}) {
      for (const std::size_t n : {std::size_t{1}, std::size_t{4096}, std::size_t{70000}}) {
        zc::File from{temporary_file(pattern(0, 200000), mount.path())};
        zc::File to{temporary_file(pattern(1000000, 150000), mount.path())};
        from.seek(start);
        to.seek(start);
        std::error_code ec;
        const auto r = zc::transfer(from, to, {.length = n}, ec);
        CHECK_FALSE(ec);
        CHECK(r.delivered == n);
        const Bytes now = pread_all(to.as_fd().get());
        REQUIRE(now.size() == 150000);
        CHECK(same(std::span(now).subspan(start, n), pattern(start, n)));
        CHECK(same(std::span(now).subspan(start + n), pattern(1000000 + start + n, 150000 - start - n)));
        // Forced: all of it, or unavailable with nothing changed.
        zc::File other{temporary_file(pattern(1000000, 150000), mount.path())};
        const auto forced = zc::transfer(from.range(start, n), other.range(start), {.strategy = Strategy::reflink}, ec);
        const Bytes then = pread_all(other.as_fd().get());
        if (ec) {
          CHECK(ec == Errc::strategy_unavailable);
          CHECK(forced.delivered == 0);
          CHECK(same(then, pattern(1000000, 150000)));
        } else {
          CHECK(forced.strategy == Strategy::reflink);
          CHECK(same(then, now));
        }
      }
    }
  }
}

TEST_CASE("disk full: reported once with what arrived, no other strategy is tried") {
  if (!is_root()) {
    WARN("skipped: only root can mount");
    return;
  }
  const Mount mount = Mount::tmpfs("size=1m");
  if (!mount.ok()) {
    WARN(mount.why());
    return;
  }
  for (const auto& strategy :
       {std::optional<Strategy>{}, std::optional{Strategy::sendfile}, std::optional{Strategy::splice},
        std::optional{Strategy::mmap_write}, std::optional{Strategy::read_write}}) {
    INFO((strategy ? std::string(to_string(*strategy)) : std::string("automatic")));
    zc::File from = file_of(pattern(0, std::size_t{2} << 20));
    zc::File to{temporary_file({}, mount.path())};
    std::error_code ec;
    const auto r = zc::transfer(from, to, {.strategy = strategy}, ec);
    CHECK(ec == std::errc::no_space_on_device);
    CHECK(r.reason == StopReason::failed);
    CHECK(r.side == zc::Side::sink);
    CHECK(r.delivered > 0);
    CHECK(r.delivered == r.consumed);
    CHECK(from.position() == r.delivered);
    CHECK(to.position() == r.delivered);
    CHECK(to.size() == r.delivered);
    CHECK_FALSE(r.stranded);
    CHECK(same(pread_all(to.as_fd().get()), pattern(0, static_cast<std::size_t>(r.delivered))));
    for (const zc::FallbackStep step : r.trail) CHECK(step.error != std::errc::no_space_on_device);
  }
}

TEST_CASE("disk full with a pipe as the source: what left it and did not arrive is stranded, and delivered elsewhere") {
  if (!is_root()) {
    WARN("skipped: only root can mount");
    return;
  }
  const Mount mount = Mount::tmpfs("size=1m");
  if (!mount.ok()) {
    WARN(mount.why());
    return;
  }
  const std::size_t size = std::size_t{3} << 20;
  for (const auto& strategy :
       {std::optional<Strategy>{}, std::optional{Strategy::splice}, std::optional{Strategy::read_write}}) {
    INFO((strategy ? std::string(to_string(*strategy)) : std::string("automatic")));
    FdPair socket = unix_pair();
    Feeder feeder(std::move(socket.other), pattern(0, size));
    zc::File to{temporary_file({}, mount.path())};
    std::error_code ec;
    auto r = zc::transfer(socket.one, to, {.strategy = strategy}, ec);
    CHECK(ec == std::errc::no_space_on_device);
    CHECK(to.size() == r.delivered);
    const auto held = r.stranded ? r.stranded->size() : 0;
    CHECK(r.consumed == r.delivered + held);
    CHECK(to.position() == r.delivered);
    Bytes all = pread_all(to.as_fd().get());
    const zc::File rescue = file_of({});
    if (r.stranded) {
      CHECK(zc::transfer(*r.stranded, rescue).delivered == held);
      CHECK(r.stranded->empty());
    }
    CHECK_FALSE(zc::transfer(socket.one, rescue.range(held)).error);
    const Bytes rest = pread_all(rescue.as_fd().get());
    all.insert(all.end(), rest.begin(), rest.end());
    CHECK(same(all, pattern(0, size)));
  }
}

TEST_CASE("a file-size limit gives EFBIG, with what arrived") {
  const std::string wrong = in_child([] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{100000, 100000};
    zc::File from = file_of(pattern(0, 300000));
    zc::File to = file_of({});
    ::setrlimit(RLIMIT_FSIZE, &limit);
    std::error_code ec;
    const auto r = zc::transfer(from, to, ec);
    Wrong w;
    w.unless(ec == std::errc::file_too_large, "not EFBIG but " + ec.message());
    w.unless(r.delivered == 100000 && to.size() == 100000, "delivered " + std::to_string(r.delivered));
    w.unless(from.position() == 100000 && to.position() == 100000, "positions");
    w.unless(r.side == zc::Side::sink, "side");
    return w.text();
  });
  CHECK(wrong == "");
}

TEST_CASE("a seccomp filter that refuses the fast calls with EPERM: the next way is taken") {
  for (const int error : {EPERM, ENOSYS, EACCES}) {
    const std::string wrong = in_child([error] {
      zc::File from = file_of(pattern(0, 300000));
      zc::File to = file_of({});
      FdPair socket = unix_pair();
      refuse({SYS_sendfile, SYS_splice, SYS_copy_file_range, SYS_ioctl, SYS_vmsplice, SYS_tee}, error);
      Wrong w;
      std::error_code ec;
      auto r = zc::transfer(from, to, ec);
      w.unless(!ec && r.delivered == 300000, "file to file: " + ec.message());
      w.unless(same(pread_all(to.as_fd().get()), pattern(0, 300000)), "content");
      from.seek(0);
      Drainer drainer(socket.other.get());
      r = zc::transfer(from, socket.one, ec);
      w.unless(!ec && r.delivered == 300000, "file to socket: " + ec.message());
      socket.one.reset();
      w.unless(same(drainer.bytes(), pattern(0, 300000)), "what the socket's peer got");
      FdPair pipe = pipe_pair();
      write_all(pipe.other.get(), pattern(0, 5000));
      pipe.other.reset();
      r = zc::transfer(pipe.one, to.range(0), ec);
      w.unless(!ec && r.delivered == 5000, "pipe to file: " + ec.message());
      r = zc::transfer(from.range(0), to.range(0), {.strategy = Strategy::sendfile}, ec);
      w.unless(ec == Errc::strategy_unavailable, "sendfile forced: " + ec.message());
      return w.text();
    });
    CHECK(wrong == "");
  }
}

TEST_CASE("no mmap and no fast call: read and write remain") {
  const std::string wrong = in_child([] {
    zc::File from = file_of(pattern(0, 300000));
    zc::File to = file_of({});
    std::error_code warm;
    Bytes memory(1000);
    std::ignore = zc::transfer(from, std::span(memory), warm);
    from.seek(0);
    refuse({SYS_sendfile, SYS_splice, SYS_copy_file_range, SYS_pipe2}, EPERM);
    std::error_code ec;
    const auto r = zc::transfer(from, to, ec);
    Wrong w;
    w.unless(!ec && r.delivered == 300000, ec.message());
    w.unless(same(pread_all(to.as_fd().get()), pattern(0, 300000)), "content");
    return w.text();
  });
  CHECK(wrong == "");
}
