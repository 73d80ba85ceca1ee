// Who may still see the source's pages after the return: snapshot, shared, and sources that can't change.
#include "catch.hpp"
#include "support/process.hpp"

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <optional>

namespace {

using namespace ends;
using zc::Aliasing;
using zc::Errc;
using zc::StopReason;
using zc::Strategy;

std::string name(const std::optional<Strategy>& s) { return s ? std::string(to_string(*s)) : "automatic"; }

enum class To { tcp, unix_stream, pipe };
constexpr To every_sink[] = {To::tcp, To::unix_stream, To::pipe};
const char* name(To to) { return to == To::tcp ? "tcp" : to == To::unix_stream ? "unix" : "pipe"; }

// `one` is written to, nobody reads `other` yet; 60,000 bytes fit.
FdPair sink_of(To to) {
  if (to == To::tcp) return tcp_pair();
  if (to == To::unix_stream) return unix_pair();
  FdPair pair = pipe_pair();
  std::swap(pair.one, pair.other);
  return pair;
}
constexpr std::size_t size = 60000;

const std::optional<Strategy> every_strategy[] = {std::nullopt,         Strategy::sendfile,      Strategy::splice,
                                                  Strategy::mmap_write, Strategy::send_zerocopy, Strategy::read_write};

void overwrite(int fd) { pwrite_all(fd, pattern(500000, size), 0); }

bool set_immutable(int fd, bool on) {
  int flags = 0;
  if (::ioctl(fd, FS_IOC_GETFLAGS, &flags) != 0) return false;
  flags = on ? flags | FS_IMMUTABLE_FL : flags & ~FS_IMMUTABLE_FL;
  return ::ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0;
}

// Files on the disk and in memory share their pages alike.
struct Place {
  const char* what;
  zc::OwnedFd file;
};
std::vector<Place> places() {
  std::vector<Place> all;
  all.push_back({"/tmp", temporary_file(pattern(0, size))});
  if (::access("/dev/shm", W_OK) == 0) all.push_back({"/dev/shm", temporary_file(pattern(0, size), "/dev/shm")});
  all.push_back({"memfd", zc::OwnedFd(checked(::memfd_create("aliasing", MFD_CLOEXEC), "memfd_create"))});
  pwrite_all(all.back().file.get(), pattern(0, size), 0);
  return all;
}

}  // namespace

TEST_CASE("snapshot: what is done to the source after the return never shows at the receiver") {
  for (const To to : every_sink) {
    for (const auto& s : every_strategy) {
      for (const int source : {0, 1, 2, 3}) {
        for (const int change : {0, 1, 2, 3}) {
          for (Place& place : places()) {
            INFO(place.what << " to " << name(to) << ", " << name(s) << ", source " << source << ", change " << change);
            FdPair pair = sink_of(to);
            const int fd = place.file.get();
            ::lseek(fd, 0, SEEK_SET);
            const zc::Options options{.strategy = s, .aliasing = Aliasing::snapshot};
            std::error_code ec;
            zc::TransferResult r;
            std::optional<zc::MappedFile> mapped;
            if (source == 0) r = zc::transfer(zc::BorrowedFd(fd), pair.one, options, ec);
            if (source == 1) r = zc::transfer(zc::FileRange(zc::BorrowedFd(fd), 0, size), pair.one, options, ec);
            if (source == 2) {
              mapped.emplace(zc::MappedFile::map(zc::FileRange(zc::BorrowedFd(fd), 0, size)));
              r = zc::transfer(*mapped, pair.one, options, ec);
            }
            if (source == 3)
              r = zc::transfer(zc::gather(zc::FileRange(zc::BorrowedFd(fd), 0, 30000),
                                          zc::FileRange(zc::BorrowedFd(fd), 30000, 30000)),
                               pair.one, options, ec);
            if (s && ec == Errc::strategy_unavailable) {
              CHECK(r.delivered == 0);
              continue;
            }
            CHECK_FALSE(ec);
            REQUIRE(r.delivered == size);
            CHECK_FALSE(r.source_in_use);
            if (change == 0) overwrite(fd);
            if (change == 1) CHECK(::ftruncate(fd, 0) == 0);
            if (change == 2) CHECK(::ftruncate(fd, 4097) == 0);
            if (change == 3) {
              void* const memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
              REQUIRE(memory != MAP_FAILED);
              std::memset(memory, 'x', size);
              ::munmap(memory, size);
            }
            pair.one.reset();
            CHECK(same(read_to_end(pair.other.get()), pattern(0, size)));
          }
        }
      }
    }
  }
}

TEST_CASE("snapshot: forced strategies that share pages say so, and nothing is delivered") {
  for (const To to : every_sink) {
    for (const Strategy s : {Strategy::sendfile, Strategy::splice}) {
      if (to == To::pipe && s == Strategy::sendfile) continue;
      FdPair pair = sink_of(to);
      const zc::OwnedFd from = temporary_file(pattern(0, size));
      std::error_code ec;
      const auto r = zc::transfer(from, pair.one, {.strategy = s, .aliasing = Aliasing::snapshot}, ec);
      CHECK(ec == Errc::strategy_unavailable);
      CHECK(r.delivered == 0);
      REQUIRE(r.trail.size() == 1);
      CHECK((*r.trail.begin()).error == Errc::snapshot_needed);
      CHECK(position_of(from.get()) == 0);
      CHECK(read_now(pair.other.get()).empty());
    }
  }
}

TEST_CASE("snapshot: under a limit, in chunks and with progress too") {
  const auto hear = [](const zc::ProgressReport&) {};
  for (const To to : every_sink) {
    for (const bool blocking : {false, true}) {
      FdPair pair = sink_of(to);
      if (to == To::pipe) CHECK(::fcntl(pair.one.get(), F_SETPIPE_SZ, 1 << 18) > 0);  // chunks leave pages half empty
      set_nonblocking(pair.one.get(), !blocking);
      const zc::OwnedFd from = temporary_file(pattern(0, size));
      std::error_code ec;
      const auto r = zc::transfer(from, pair.one,
                                  {.deadline = Clock::now() + 10s,
                                   .on_progress = {hear, 0ns},
                                   .aliasing = Aliasing::snapshot,
                                   .more = true,
                                   .chunk_size = 7000},
                                  ec);
      CHECK(r.delivered == size);
      overwrite(from.get());
      pair.one.reset();
      CHECK(same(read_to_end(pair.other.get()), pattern(0, size)));
    }
  }
}

TEST_CASE("snapshot: a transfer that times out shares nothing of what it delivered") {
  for (const To to : every_sink) {
    FdPair pair = sink_of(to);
    const zc::OwnedFd from = temporary_file(pattern(0, std::size_t{8} << 20));
    const int small = 65536;
    if (to != To::pipe) ::setsockopt(pair.one.get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    std::error_code ec;
    const auto r = zc::transfer(from, pair.one, {.deadline = Clock::now() + 50ms, .aliasing = Aliasing::snapshot}, ec);
    CHECK(ec == Errc::timed_out);
    CHECK(::ftruncate(from.get(), 0) == 0);
    pair.one.reset();
    CHECK(same(read_to_end(pair.other.get()), pattern(0, static_cast<std::size_t>(r.delivered))));
  }
}

TEST_CASE("shared and automatic: a file goes the zero-copy way, and its bytes arrive") {
  for (const To to : every_sink) {
    for (const Aliasing aliasing : {Aliasing::automatic, Aliasing::shared}) {
      FdPair pair = sink_of(to);
      const zc::OwnedFd from = temporary_file(pattern(0, size));
      const auto r = zc::transfer(from, pair.one, {.aliasing = aliasing});
      CHECK(r.strategy == (to == To::pipe ? Strategy::splice : Strategy::sendfile));
      CHECK(r.delivered == size);
      pair.one.reset();
      CHECK(same(read_to_end(pair.other.get()), pattern(0, size)));
    }
  }
}

TEST_CASE("snapshot: a memfd sealed against writing and shrinking keeps sendfile and splice, however it is named") {
  for (const To to : every_sink) {
    for (const int how : {0, 1, 2}) {
      for (const bool limited : {false, true}) {
        INFO(name(to) << ", how " << how);
        zc::MemoryFile from = zc::MemoryFile::create("sealed");
        pwrite_all(from.as_fd().get(), pattern(0, size), 0);
        from.seal({.shrink = true, .write = true});
        FdPair pair = sink_of(to);
        zc::Options options{.aliasing = Aliasing::snapshot};
        if (limited) options.deadline = Clock::now() + 10s;
        std::error_code ec;
        zc::TransferResult r;
        if (how == 0) r = zc::transfer(from, pair.one, options, ec);
        if (how == 1) r = zc::transfer(from.range(0, size), pair.one, options, ec);
        if (how == 2) r = zc::transfer(from.as_fd(), pair.one, options, ec);
        CHECK_FALSE(ec);
        CHECK(r.strategy == (to == To::pipe ? Strategy::splice : Strategy::sendfile));
        CHECK(r.trail.empty());
        CHECK(r.delivered == size);
        pair.one.reset();
        CHECK(same(read_to_end(pair.other.get()), pattern(0, size)));
      }
    }
  }
}

TEST_CASE("snapshot: seals that leave a way to change the bytes do not count") {
  for (const zc::Seals seals : {zc::Seals{.write = true}, zc::Seals{.shrink = true, .grow = true},
                                zc::Seals{.shrink = true, .future_write = true}}) {
    for (const To to : every_sink) {
      zc::MemoryFile from = zc::MemoryFile::create("half");
      pwrite_all(from.as_fd().get(), pattern(0, size), 0);
      // A mapping from before F_SEAL_FUTURE_WRITE still writes.
      void* memory = MAP_FAILED;
      if (!seals.write) memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, from.as_fd().get(), 0);
      from.seal(seals);
      FdPair pair = sink_of(to);
      const auto r = zc::transfer(from, pair.one, {.aliasing = Aliasing::snapshot});
      CHECK(r.delivered == size);
      if (memory != MAP_FAILED) {
        std::memset(memory, 'x', size);
        ::munmap(memory, size);
      }
      if (!seals.shrink) CHECK(::ftruncate(from.as_fd().get(), 5000) == 0);
      pair.one.reset();
      CHECK(same(read_to_end(pair.other.get()), pattern(0, size)));
    }
  }
}

TEST_CASE("snapshot: an immutable file keeps sendfile and splice where nothing can write to it any more") {
  const zc::OwnedFd file = temporary_file(pattern(0, size));
  if (!set_immutable(file.get(), true)) {
    WARN("skipped: no immutable files here (CAP_LINUX_IMMUTABLE and a file system that has the flag)");
    return;
  }
  const std::byte same_byte = pattern(0, 1)[0];
  if (::pwrite(file.get(), &same_byte, 1, 0) == 1) {
    WARN("skipped: this file system lets a descriptor that was open before write");
    set_immutable(file.get(), false);
    return;
  }
  for (const To to : every_sink) {
    FdPair pair = sink_of(to);
    ::lseek(file.get(), 0, SEEK_SET);
    const auto r = zc::transfer(file, pair.one, {.aliasing = Aliasing::snapshot});
    CHECK(r.strategy == (to == To::pipe ? Strategy::splice : Strategy::sendfile));
    CHECK(r.delivered == size);
    pair.one.reset();
    CHECK(same(read_to_end(pair.other.get()), pattern(0, size)));
  }
  CHECK(set_immutable(file.get(), false));
}

TEST_CASE("memory: automatic is a snapshot, whatever the sink and the size") {
  for (const To to : every_sink) {
    for (const std::size_t n : {std::size_t{1}, std::size_t{4096}, std::size_t{16384}, size}) {
      for (const Aliasing aliasing : {Aliasing::automatic, Aliasing::snapshot}) {
        FdPair pair = sink_of(to);
        Bytes memory(pattern(0, n).begin(), pattern(0, n).end());
        const auto r = zc::transfer(std::span<const std::byte>(memory), pair.one, {.aliasing = aliasing});
        CHECK(r.delivered == n);
        CHECK(r.strategy == Strategy::read_write);
        CHECK(r.calls == 1);
        CHECK_FALSE(r.source_in_use);
        std::fill(memory.begin(), memory.end(), std::byte{0});
        pair.one.reset();
        CHECK(same(read_to_end(pair.other.get()), pattern(0, n)));
      }
      for (const Strategy s : {Strategy::vmsplice, Strategy::send_zerocopy}) {
        FdPair pair = sink_of(to);
        std::error_code ec;
        const auto r = zc::transfer(pattern(0, n), pair.one, {.strategy = s}, ec);
        CHECK(ec == Errc::strategy_unavailable);
        CHECK(r.delivered == 0);
        CHECK(read_now(pair.other.get()).empty());
      }
    }
  }
}

TEST_CASE("memory shared by vmsplice: source_in_use until the pipe is drained") {
  FdPair pair = sink_of(To::pipe);
  std::error_code ec;
  auto r = zc::transfer(pattern(0, size), pair.one, {.strategy = Strategy::vmsplice, .aliasing = Aliasing::shared}, ec);
  CHECK_FALSE(ec);
  CHECK(r.delivered == size);
  CHECK(r.strategy == Strategy::vmsplice);
  CHECK(r.source_in_use);
  CHECK(same(read_to_end(pair.other.get(), size), pattern(0, size)));
  // A deadline that comes first says so too.
  r = zc::transfer(pattern(0, std::size_t{1} << 20), pair.one,
                   {.strategy = Strategy::vmsplice, .deadline = Clock::now() + 50ms, .aliasing = Aliasing::shared}, ec);
  CHECK(ec == Errc::timed_out);
  CHECK(r.delivered > 0);
  CHECK(r.source_in_use);
  CHECK(same(read_to_end(pair.other.get(), static_cast<std::size_t>(r.delivered)),
             pattern(0, static_cast<std::size_t>(r.delivered))));
  // Automatic with shared chooses it by itself.
  FdPair other = sink_of(To::pipe);
  r = zc::transfer(pattern(0, size), other.one, {.aliasing = Aliasing::shared}, ec);
  CHECK(r.source_in_use == (r.strategy == Strategy::vmsplice));
}

TEST_CASE("memory shared by vmsplice into a socket or a file is in use as long as it is") {
  for (const To to : {To::tcp, To::unix_stream}) {
    INFO(name(to));
    FdPair pair = sink_of(to);
    std::error_code ec;
    const auto r =
        zc::transfer(pattern(0, size), pair.one, {.strategy = Strategy::vmsplice, .aliasing = Aliasing::shared}, ec);
    if (ec == Errc::strategy_unavailable) continue;
    CHECK(r.delivered == size);
    CHECK(r.source_in_use);  // nothing tells when a socket's reader has the pages
    pair.one.reset();
    CHECK(same(read_to_end(pair.other.get()), pattern(0, size)));
  }
  const zc::OwnedFd file = temporary_file();
  const auto r = zc::transfer(pattern(0, size), file, {.strategy = Strategy::vmsplice, .aliasing = Aliasing::shared});
  CHECK(r.delivered == size);
  CHECK_FALSE(r.source_in_use);
  CHECK(same(pread_all(file.get()), pattern(0, size)));
}

TEST_CASE("memory shared by MSG_ZEROCOPY: not in use after a transfer that went to its end") {
  FdPair pair = tcp_pair();
  Drainer drainer(pair.other.get());
  Bytes memory(pattern(0, std::size_t{4} << 20).begin(), pattern(0, std::size_t{4} << 20).end());
  std::error_code ec;
  const auto r = zc::transfer(std::span<const std::byte>(memory), pair.one,
                              {.strategy = Strategy::send_zerocopy, .aliasing = Aliasing::shared}, ec);
  CHECK_FALSE(ec);
  CHECK(r.delivered == memory.size());
  CHECK_FALSE(r.source_in_use);
  std::fill(memory.begin(), memory.end(), std::byte{0});
  pair.one.reset();
  CHECK(same(drainer.bytes(), pattern(0, memory.size())));
}

TEST_CASE("MSG_ZEROCOPY into a peer that does not read: the deadline ends it, and source_in_use is no lie") {
  const TimeLimit alarm(60);
  FdPair pair = tcp_pair(20000);
  Bytes memory(pattern(0, std::size_t{8} << 20).begin(), pattern(0, std::size_t{8} << 20).end());
  std::error_code ec;
  const auto began = Clock::now();
  const auto r =
      zc::transfer(std::span<const std::byte>(memory), pair.one,
                   {.strategy = Strategy::send_zerocopy, .deadline = began + 100ms, .aliasing = Aliasing::shared}, ec);
  CHECK(Clock::now() - began < 200ms);
  CHECK(ec == Errc::timed_out);
  CHECK(r.delivered > 0);
  if (!r.source_in_use) std::fill(memory.begin(), memory.end(), std::byte{0});
  pair.one.reset();
  CHECK(same(read_to_end(pair.other.get()), pattern(0, static_cast<std::size_t>(r.delivered))));
}

TEST_CASE("snapshot: file to file is a copy or a shared extent, and later writes do not show") {
  for (const auto& s : {std::optional<Strategy>{}, std::optional{Strategy::copy_file_range},
                        std::optional{Strategy::sendfile}, std::optional{Strategy::splice}}) {
    const zc::OwnedFd from = temporary_file(pattern(0, size));
    const zc::OwnedFd to = temporary_file();
    std::error_code ec;
    const auto r = zc::transfer(from, to, {.strategy = s, .aliasing = Aliasing::snapshot}, ec);
    if (ec == Errc::strategy_unavailable) continue;
    CHECK(r.delivered == size);
    overwrite(from.get());
    CHECK(same(pread_all(to.get()), pattern(0, size)));
  }
}

TEST_CASE("snapshot costs a bounded number of calls") {
  FdPair pair = unix_pair();
  Drainer drainer(pair.other.get());
  const zc::OwnedFd from = temporary_file(pattern(0, std::size_t{8} << 20));
  const auto r = zc::transfer(from, pair.one, {.aliasing = Aliasing::snapshot});
  CHECK(r.delivered == std::size_t{8} << 20);
  CHECK(r.calls <= (std::size_t{8} << 20) / 4096);  // no call for less than a page
  pair.one.reset();
  CHECK(same(drainer.bytes(), pattern(0, std::size_t{8} << 20)));
}

TEST_CASE("more: the last packet is held back until the next transfer, and never loses bytes; no cork is left") {
  for (const auto& s : every_strategy) {
    for (const bool blocking : {false, true}) {
      for (const bool limited : {false, true}) {
        for (const std::size_t n : {std::size_t{100}, std::size_t{65536}, std::size_t{200000}, std::size_t{1000000}}) {
          INFO(name(s) << (blocking ? ", blocking" : "") << (limited ? ", limited " : " ") << n);
          FdPair pair = tcp_pair();
          Drainer drainer(pair.other.get());
          set_nonblocking(pair.one.get(), !blocking);
          const FdState before = FdState::of(pair.one.get());
          const zc::OwnedFd from = temporary_file(pattern(0, n + 50));
          zc::Options options{.strategy = s, .length = n, .more = true};
          if (limited) options.deadline = Clock::now() + 10s;
          std::error_code ec;
          const auto r = zc::transfer(from, pair.one, options, ec);
          CHECK_FALSE(ec);
          CHECK(r.delivered == n);
          CHECK(before == FdState::of(pair.one.get()));
          CHECK(zc::transfer(from, pair.one).delivered == 50);
          CHECK(before == FdState::of(pair.one.get()));
          pair.one.reset();
          CHECK(same(drainer.bytes(), pattern(0, n + 50)));
        }
      }
    }
  }
}

TEST_CASE("snapshot: an immutable file that an open descriptor can still write to is copied") {
  // ext4 refuses a descriptor that was open before; tmpfs, xfs and btrfs let it write.
  std::vector<std::pair<std::string, std::string>> folders{{"/tmp", "/tmp"}, {"/dev/shm", "/dev/shm"}};
  const Mount xfs = Mount::image("xfs", 320);
  const Mount btrfs = Mount::image("btrfs", 320);
  for (const Mount* const mount : {&xfs, &btrfs}) {
    if (mount->ok())
      folders.emplace_back(mount == &xfs ? "xfs" : "btrfs", mount->path());
    else
      WARN(mount->why());
  }
  for (const auto& [what, folder] : folders) {
    for (const To to : every_sink) {
      INFO(what << " to " << name(to));
      const zc::OwnedFd writer = temporary_file(pattern(0, size), folder);
      const zc::OwnedFd file = reopened(writer.get(), O_RDONLY);
      if (!set_immutable(writer.get(), true)) {
        WARN("skipped: no immutable files on " << what);
        break;
      }
      FdPair pair = sink_of(to);
      const auto r = zc::transfer(file, pair.one, {.aliasing = Aliasing::snapshot});
      CHECK(r.delivered == size);
      const bool written = ::pwrite(writer.get(), pattern(500000, size).data(), size, 0) > 0;
      if (written) std::ignore = ::ftruncate(writer.get(), 100);
      pair.one.reset();
      CHECK(same(read_to_end(pair.other.get()), pattern(0, size)));
      CHECK(set_immutable(writer.get(), false));
    }
  }
}
