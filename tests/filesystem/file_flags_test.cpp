// Files that refuse: immutable, in use as swap, sealed, append-only; as sinks and as sources.
#include "catch.hpp"
#include "support/detached_mount.hpp"
#include "support/moves.hpp"
#include "support/process.hpp"

#include <linux/fs.h>
#include <sys/swap.h>

using namespace ends;
using zc::Aliasing;
using zc::Side;
using zc::StopReason;
using zc::Strategy;

namespace {

constexpr std::size_t size = 300'000;

bool set_flag(int fd, int flag, bool on) {
  int flags = 0;
  if (::ioctl(fd, FS_IOC_GETFLAGS, &flags) != 0) return false;
  flags = on ? flags | flag : flags & ~flag;
  return ::ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0;
}

// A file that is immutable as long as this lives.
class Immutable {
 public:
  explicit Immutable(int fd) : fd_(fd), on_(set_flag(fd, FS_IMMUTABLE_FL, true)) {}
  Immutable(const Immutable&) = delete;
  Immutable& operator=(const Immutable&) = delete;
  ~Immutable() {
    if (on_) set_flag(fd_, FS_IMMUTABLE_FL, false);
  }
  [[nodiscard]] bool on() const { return on_; }

 private:
  int fd_;
  bool on_;
};

// A file that the kernel uses for swapping as long as this lives.
class Swapped {
 public:
  explicit Swapped(int fd) : path_("/proc/self/fd/" + std::to_string(fd)) {
    Bytes content(16 * 4096);
    const std::uint32_t info[3] = {1, 15, 0};  // version, last page, bad pages
    std::memcpy(content.data() + 1024, info, sizeof info);
    std::memcpy(content.data() + 4086, "SWAPSPACE2", 10);
    pwrite_all(fd, content, 0);
    checked(::fsync(fd), "fsync");
    on_ = ::swapon(path_.c_str(), 0) == 0;
    if (!on_) why_ = std::string("skipped: swapon: ") + std::strerror(errno);
  }
  Swapped(const Swapped&) = delete;
  Swapped& operator=(const Swapped&) = delete;
  ~Swapped() {
    if (on_) ::swapoff(path_.c_str());
  }
  [[nodiscard]] bool on() const { return on_; }
  [[nodiscard]] const std::string& why() const { return why_; }

 private:
  std::string path_;
  std::string why_;
  bool on_ = false;
};

template <class Run>
void on_each(Run run) {
  const TimeLimit limit(60);
  for (const auto& [type, mebibytes] : {std::pair{"ext4", 32}, {"xfs", 320}, {"btrfs", 128}}) {
    const DetachedMount mount = DetachedMount::image(type, mebibytes);
    if (!mount.ok()) {
      WARN(mount.why());
      continue;
    }
    INFO(type);
    run(mount);
  }
}

enum class From { file, range, memory, socket, pipe };
constexpr From every_source[] = {From::file, From::range, From::memory, From::socket, From::pipe};
const char* name_of(From from) {
  constexpr const char* names[] = {"file", "range", "memory", "socket", "pipe"};
  return names[static_cast<std::size_t>(from)];
}

// Moves the pattern into `to`, which refuses from `limit` on with `error`; nothing is lost, nothing is tried again.
void check_refusing(From kind, const zc::File& to, const MaybeStrategy& strategy, int error, std::uint64_t limit) {
  Moved moved;
  const zc::Options options{.strategy = strategy};
  const zc::File file{temporary_file(pattern(0, size))};
  const std::uint64_t start = position_of(to.as_fd().get());
  Bytes rest;
  if (kind == From::file) moved.result = zc::transfer(file, to, options, moved.error);
  if (kind == From::range) moved.result = zc::transfer(file.range(0), to, options, moved.error);
  if (kind == From::memory) moved.result = zc::transfer(pattern(0, size), to, options, moved.error);
  if (kind == From::socket || kind == From::pipe) {
    FdPair pair = kind == From::socket ? unix_pair() : pipe_pair();
    const Feeder feeder(std::move(pair.other), pattern(0, size));
    moved.result = zc::transfer(pair.one, to, options, moved.error);
    if (moved.result.stranded) rest = move_to(To::file, *moved.result.stranded).got;
    const Bytes unread = read_to_end(pair.one.get());
    rest.insert(rest.end(), unread.begin(), unread.end());
  }
  INFO(name_of(kind) << ", " << ends::name_of(strategy) << ": " << moved.text());
  const std::uint64_t delivered = moved.result.delivered;
  CHECK(moved.error);
  CHECK(position_of(to.as_fd().get()) == start + delivered);
  if (kind == From::file) CHECK(file.position() == delivered);
  if (kind == From::socket || kind == From::pipe) {
    CHECK(same(rest, pattern(delivered, size - delivered)));
  } else {
    CHECK(moved.result.consumed == delivered);
    CHECK_FALSE(moved.result.stranded);
  }
  if (strategy && moved.is_unavailable()) return;
  CHECK(moved.error.value() == error);
  CHECK(moved.result.side == Side::sink);
  CHECK(moved.result.reason == StopReason::failed);
  CHECK(delivered == limit);
}

}  // namespace

TEST_CASE("an immutable file as a sink that was opened before: the error of write(2), nothing moved",
          "[filesystem][immutable]") {
  on_each([](const DetachedMount& mount) {
    const zc::File to(mount.temporary(pattern(0, 1000)));
    const Immutable immutable(to.as_fd().get());
    if (!immutable.on()) {
      WARN("skipped: FS_IOC_SETFLAGS is refused");
      return;
    }
    if (::pwrite(to.as_fd().get(), "x", 1, 0) == 1) {
      WARN("skipped: this file system lets a descriptor that was opened before write");
      return;
    }
    REQUIRE(errno == EPERM);
    for (const From kind : every_source)
      for (const MaybeStrategy& strategy : file_strategies()) check_refusing(kind, to, strategy, EPERM, 0);
    CHECK(same(pread_all(to.as_fd().get()), pattern(0, 1000)));
  });
}

TEST_CASE("an immutable source under snapshot keeps sendfile and splice where the file system keeps its word",
          "[filesystem][immutable]") {
  on_each([](const DetachedMount& mount) {
    const zc::File from(mount.temporary(pattern(0, size)));
    {
      const Immutable immutable(from.as_fd().get());
      // A descriptor that was opened before may still write, as on xfs and btrfs: then the bytes are copied.
      if (!immutable.on()) {
        WARN("skipped: FS_IOC_SETFLAGS is refused");
        return;
      }
      const std::byte same_byte = pattern(0, 1)[0];
      const bool keeps_its_word = ::pwrite(from.as_fd().get(), &same_byte, 1, 0) != 1;
      for (const To to : every_sink) {
        for (const MaybeStrategy& strategy : file_strategies()) {
          const Moved moved = move_to(to, from.range(0), {.strategy = strategy, .aliasing = Aliasing::snapshot});
          INFO(ends::name_of(to) << ", " << ends::name_of(strategy) << ": " << moved.text());
          if (strategy && moved.is_unavailable()) {
            CHECK(moved.result.delivered == 0);
            CHECK_FALSE((keeps_its_word && strategy == Strategy::sendfile && to == To::tcp));
            continue;
          }
          CHECK_FALSE(moved.error);
          CHECK(same(moved.got, pattern(0, size)));
          const bool is_stream = to == To::tcp || to == To::unix_stream || to == To::pipe;
          if (strategy || !is_stream) continue;
          const Strategy shares = to == To::pipe ? Strategy::splice : Strategy::sendfile;
          CHECK((moved.result.strategy == shares) == keeps_its_word);
        }
      }
    }
    // Not immutable any more: the pages are not shared.
    const Moved moved = move_to(To::tcp, from.range(0), {.aliasing = Aliasing::snapshot});
    CHECK_FALSE(moved.error);
    CHECK(moved.result.strategy != Strategy::sendfile);
    CHECK(same(moved.got, pattern(0, size)));
    const Moved forced =
        move_to(To::tcp, from.range(0), {.strategy = Strategy::sendfile, .aliasing = Aliasing::snapshot});
    CHECK(forced.is_unavailable());
    CHECK(forced.got.empty());
  });
}

TEST_CASE("a swap file as a sink: ETXTBSY at the sink, nothing moved", "[filesystem][swap]") {
  const TimeLimit limit(30);
  const DetachedMount mount = DetachedMount::image("ext4", 32);
  if (!mount.ok()) {
    WARN(mount.why());
    return;
  }
  const zc::File to(mount.open("swap", O_CREAT | O_RDWR));  // one without a name is refused
  const Swapped swapped(to.as_fd().get());
  if (!swapped.on()) {
    WARN(swapped.why());
    return;
  }
  const Bytes before = pread_all(to.as_fd().get());
  for (const From kind : every_source)
    for (const MaybeStrategy& strategy : file_strategies()) check_refusing(kind, to, strategy, ETXTBSY, 0);
  CHECK(same(pread_all(to.as_fd().get()), before));
}

TEST_CASE("a swap file as a source gives what read() gives, to every sink", "[filesystem][swap]") {
  const TimeLimit limit(30);
  const DetachedMount mount = DetachedMount::image("ext4", 32);
  if (!mount.ok()) {
    WARN(mount.why());
    return;
  }
  const zc::File from(mount.open("swap", O_CREAT | O_RDWR));
  const Swapped swapped(from.as_fd().get());
  if (!swapped.on()) {
    WARN(swapped.why());
    return;
  }
  const Bytes expected = pread_all(from.as_fd().get());
  for (const To to : every_sink) {
    const Moved moved = move_to(to, from.range(0));
    INFO(ends::name_of(to) << ": " << moved.text());
    CHECK_FALSE(moved.error);
    CHECK(same(moved.got, expected));
  }
}

TEST_CASE("a swap file as a source is copied to a file beside it, where copy_file_range says ETXTBSY of the source",
          "[filesystem][swap]") {
  const TimeLimit limit(30);
  const DetachedMount mount = DetachedMount::image("ext4", 32);
  if (!mount.ok()) {
    WARN(mount.why());
    return;
  }
  const zc::File from(mount.open("swap", O_CREAT | O_RDWR));
  const Swapped swapped(from.as_fd().get());
  if (!swapped.on()) {
    WARN(swapped.why());
    return;
  }
  const zc::File to(mount.temporary());
  Moved moved;
  moved.result = zc::transfer(from.range(0), to, moved.error);
  INFO(moved.text());
  CHECK_FALSE(moved.error);
  CHECK(same(pread_all(to.as_fd().get()), pread_all(from.as_fd().get())));
}

TEST_CASE("a sealed memfd as a sink: EPERM at the sink, what fits is there", "[filesystem][seals]") {
  const TimeLimit limit(30);
  struct Seals {
    int bits;
    std::uint64_t limit;
  };
  // Sealed against growing, what is inside can be overwritten.
  for (const Seals seals : {Seals{F_SEAL_WRITE, 0}, Seals{F_SEAL_FUTURE_WRITE, 0}, Seals{F_SEAL_GROW, 25 * 4096},
                            Seals{F_SEAL_GROW | F_SEAL_SHRINK, 8'192}}) {
    for (const From kind : every_source) {
      for (const MaybeStrategy& strategy : file_strategies()) {
        const zc::File to(zc::OwnedFd(checked(::memfd_create("sink", MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd")));
        const std::uint64_t old = seals.limit == 0 ? 1000 : seals.limit;
        pwrite_all(to.as_fd().get(), pattern(400'000, old), 0);
        checked(::fcntl(to.as_fd().get(), F_ADD_SEALS, seals.bits), "F_ADD_SEALS");
        INFO("seals " << seals.bits);
        check_refusing(kind, to, strategy, EPERM, seals.limit);
        const Bytes now = pread_all(to.as_fd().get());
        const std::uint64_t delivered = position_of(to.as_fd().get());
        REQUIRE(now.size() == old);
        CHECK(same(std::span(now).first(delivered), pattern(0, delivered)));
        CHECK(same(std::span(now).subspan(delivered), pattern(400'000 + delivered, old - delivered)));
      }
    }
  }
}

TEST_CASE("a sealed memfd as a source goes to every sink by every strategy, under snapshot too",
          "[filesystem][seals]") {
  const TimeLimit limit(30);
  zc::MemoryFile from(zc::OwnedFd(checked(::memfd_create("source", MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd")));
  pwrite_all(from.as_fd().get(), pattern(0, size), 0);
  checked(::fcntl(from.as_fd().get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), "seal");
  for (const Aliasing aliasing : {Aliasing::automatic, Aliasing::snapshot}) {
    for (const To to : every_sink) {
      for (const MaybeStrategy& strategy : file_strategies()) {
        ::lseek(from.as_fd().get(), 0, SEEK_SET);
        const Moved moved = move_to(to, from, {.strategy = strategy, .aliasing = aliasing});
        INFO(ends::name_of(to) << ", " << ends::name_of(strategy) << ": " << moved.text());
        if (strategy && moved.is_unavailable()) {
          CHECK(moved.result.delivered == 0);
          continue;
        }
        CHECK_FALSE(moved.error);
        CHECK(same(moved.got, pattern(0, size)));
        CHECK(position_of(from.as_fd().get()) == size);
        if (!strategy && to == To::tcp) CHECK(moved.result.strategy == Strategy::sendfile);
      }
    }
  }
}

TEST_CASE("an append-only sink, by flag of the file, of open and of fcntl: appended, whatever the strategy",
          "[filesystem][append]") {
  const TimeLimit limit(30);
  for (const bool later : {false, true}) {
    for (const From kind : every_source) {
      for (const MaybeStrategy& strategy : file_strategies()) {
        const zc::OwnedFd keep = temporary_file(pattern(400'000, 1000));
        zc::OwnedFd opened = reopened(keep.get(), later ? O_RDWR : O_RDWR | O_APPEND);
        const zc::File to(std::move(opened));
        if (later) ::fcntl(to.as_fd().get(), F_SETFL, ::fcntl(to.as_fd().get(), F_GETFL) | O_APPEND);
        ::lseek(to.as_fd().get(), 10, SEEK_SET);
        const FdState before = FdState::of(to.as_fd().get());
        const zc::File file{temporary_file(pattern(0, size))};
        Moved moved;
        const zc::Options options{.strategy = strategy};
        Bytes rest;
        if (kind == From::file) moved.result = zc::transfer(file, to, options, moved.error);
        if (kind == From::range) moved.result = zc::transfer(file.range(0), to, options, moved.error);
        if (kind == From::memory) moved.result = zc::transfer(pattern(0, size), to, options, moved.error);
        if (kind == From::socket || kind == From::pipe) {
          FdPair pair = kind == From::socket ? unix_pair() : pipe_pair();
          const Feeder feeder(std::move(pair.other), pattern(0, size));
          moved.result = zc::transfer(pair.one, to, options, moved.error);
          if (moved.result.stranded) rest = move_to(To::file, *moved.result.stranded).got;
          const Bytes unread = read_to_end(pair.one.get());
          rest.insert(rest.end(), unread.begin(), unread.end());
        }
        INFO(name_of(kind) << (later ? ", by fcntl, " : ", ") << ends::name_of(strategy) << ": " << moved.text());
        CHECK(FdState::of(to.as_fd().get()) == before);
        const Bytes now = pread_all(to.as_fd().get());
        REQUIRE(now.size() == 1000 + moved.result.delivered);
        CHECK(same(std::span(now).first(1000), pattern(400'000, 1000)));
        CHECK(same(std::span(now).subspan(1000), pattern(0, moved.result.delivered)));
        if (kind == From::socket || kind == From::pipe)
          CHECK(same(rest, pattern(moved.result.delivered, size - moved.result.delivered)));
        if (!strategy) CHECK_FALSE(moved.error);
        if (!moved.error) {
          CHECK(moved.result.delivered == size);
          CHECK(to.position() == 1000 + size);
        } else {
          CHECK(moved.is_unavailable());
          CHECK(file.position() == moved.result.delivered);
        }
      }
    }
  }
}
