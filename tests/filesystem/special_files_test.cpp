// Files that are made when they are read, and devices: /proc, /sys, /dev/zero, /dev/full.
#include "catch.hpp"
#include "support/moves.hpp"
#include "support/process.hpp"

using namespace ends;
using zc::Side;
using zc::StopReason;
using zc::Strategy;

namespace {

// What is the same each time it is read: small and larger than a page, of seq_file, of sysctl, of sysfs, text and binary.
const char* const files[] = {"/proc/version",
                             "/proc/filesystems",
                             "/proc/devices",
                             "/proc/self/cmdline",
                             "/proc/self/environ",
                             "/proc/self/limits",
                             "/proc/self/auxv",
                             "/proc/sys/kernel/ostype",
                             "/proc/sys/kernel/random/boot_id",
                             "/proc/sys/net/ipv4/tcp_available_congestion_control",
                             "/proc/bus/pci/devices",
                             "/proc/iomem",
                             "/sys/kernel/notes",
                             "/sys/kernel/btf/vmlinux",
                             "/sys/devices/system/cpu/online",
                             "/sys/kernel/mm/transparent_hugepage/enabled",
                             "/sys/block/loop0/queue/scheduler"};
constexpr std::size_t most = 300'000;  // of the large ones

// A process whose memory map does not change: a text of more than a page.
class Paused {
 public:
  Paused() : child_(checked(::fork(), "fork")) {
    if (child_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) ::pause();
  }
  Paused(const Paused&) = delete;
  Paused& operator=(const Paused&) = delete;
  ~Paused() {
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
  }
  [[nodiscard]] std::string maps() const { return "/proc/" + std::to_string(child_) + "/maps"; }

 private:
  pid_t child_;
};

Bytes what_read_gives_of(const std::string& path) {
  const zc::OwnedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  Bytes all = what_read_gives(fd.get(), 65536);
  all.resize(std::min(all.size(), most));
  return all;
}

template <class From>
void check_like_read(const std::string& path, To to, const From& from, const MaybeStrategy& strategy,
                     const Bytes& expected, std::uint64_t length) {
  const Moved moved = move_to(to, from, {.strategy = strategy, .length = length}, std::size_t{1} << 20);
  INFO(path << " to " << name_of(to) << ", " << name_of(strategy) << ": " << moved.text());
  CHECK(moved.got.size() == moved.result.delivered);
  CHECK(moved.got.size() <= expected.size());
  CHECK(same(moved.got, std::span(expected).first(std::min(expected.size(), moved.got.size()))));
  if (!strategy) CHECK_FALSE(moved.error);
  if (!moved.error) CHECK(moved.got.size() == expected.size());
}

}  // namespace

TEST_CASE("/proc and /sys files are equal to what read() gives, at every sink, by every strategy or an error",
          "[filesystem][proc]") {
  const TimeLimit limit(30);
  const Paused child;
  std::vector<std::string> paths(std::begin(files), std::end(files));
  paths.push_back(child.maps());
  for (const std::string& path : paths) {
    if (::access(path.c_str(), R_OK) != 0) continue;  // not on every kernel
    const Bytes expected = what_read_gives_of(path);
    if (expected.empty()) continue;
    for (const To to : every_sink) {
      for (const MaybeStrategy& strategy : file_strategies()) {
        const std::uint64_t length = expected.size() == most ? most : zc::to_end;
        check_like_read(path, to, zc::File::open(path), strategy, expected, length);
        const zc::OwnedFd borrowed(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        check_like_read(path, to, borrowed, strategy, expected, length);
      }
    }
  }
}

TEST_CASE("a sysctl file goes into memory of any size, though the kernel refuses reads of 4 MiB with ENOMEM",
          "[filesystem][proc]") {
  const Bytes expected = what_read_gives_of("/proc/sys/kernel/ostype");
  for (const std::size_t room : {std::size_t{1} << 20, std::size_t{4} << 20, std::size_t{16} << 20}) {
    const Moved moved = move_to(To::memory, zc::File::open("/proc/sys/kernel/ostype"), {}, room);
    INFO(room << ": " << moved.text());
    CHECK_FALSE(moved.error);
    CHECK(same(moved.got, expected));
  }
}

TEST_CASE("a part of a /proc or /sys file by range and by length is equal to what pread() gives",
          "[filesystem][proc]") {
  const TimeLimit limit(30);
  for (const char* path : {"/proc/iomem", "/proc/filesystems", "/sys/kernel/notes", "/proc/self/limits",
                           "/sys/kernel/btf/vmlinux", "/proc/version"}) {
    std::error_code missing;
    const zc::File from = zc::File::open(path, missing);
    if (missing) continue;
    for (const std::uint64_t start : {std::uint64_t{1}, std::uint64_t{100}, std::uint64_t{4096}}) {
      Bytes expected(200);
      const ssize_t n = ::pread(from.as_fd().get(), expected.data(), expected.size(), static_cast<off_t>(start));
      expected.resize(static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
      for (const To to : every_sink) {
        for (const MaybeStrategy& strategy : file_strategies())
          check_like_read(path, to, from.range(start, 200), strategy, expected, zc::to_end);
      }
    }
  }
}

TEST_CASE("/dev/zero gives zeros as many as are asked for, to every sink", "[filesystem][devices]") {
  const TimeLimit limit(30);
  const std::size_t n = 1'000'003;
  for (const To to : every_sink) {
    for (const MaybeStrategy& strategy : file_strategies()) {
      for (const bool borrowed : {false, true}) {
        const zc::File file = zc::File::open("/dev/zero");
        const zc::Options options{.strategy = strategy, .length = n};
        const Moved moved = borrowed ? move_to(to, file.as_fd(), options) : move_to(to, file, options);
        INFO(name_of(to) << ", " << name_of(strategy) << ": " << moved.text());
        CHECK(same(moved.got, Bytes(moved.result.delivered)));
        if (!strategy) CHECK_FALSE(moved.error);
        if (!moved.error) CHECK(moved.result.delivered == n);
        if (!moved.error) CHECK(moved.result.reason == StopReason::complete);
      }
    }
  }
}

TEST_CASE("/dev/full as a sink: ENOSPC at the sink, what left a stream is stranded", "[filesystem][devices]") {
  const TimeLimit limit(30);
  enum class From { file, range, memory, socket, pipe, mapping };
  const std::size_t n = 100'000;
  for (const From kind : {From::file, From::range, From::memory, From::socket, From::pipe, From::mapping}) {
    for (const MaybeStrategy& strategy : file_strategies()) {
      for (const bool borrowed : {false, true}) {
        const zc::File device = zc::File::open("/dev/full", {.access = zc::Access::write});
        const zc::File file{temporary_file(pattern(0, n))};
        Moved moved;
        Bytes rest;
        const zc::Options options{.strategy = strategy};
        const auto run = [&](auto& from) {
          moved.result = borrowed ? zc::transfer(from, device.as_fd(), options, moved.error)
                                  : zc::transfer(from, device, options, moved.error);
        };
        if (kind == From::file) run(file);
        if (kind == From::range) {
          const zc::FileRange range = file.range(0);
          run(range);
        }
        if (kind == From::memory) {
          const std::span<const std::byte> memory = pattern(0, n);
          run(memory);
        }
        if (kind == From::mapping) {
          const zc::MappedFile mapping = zc::MappedFile::map(file);
          run(mapping);
        }
        if (kind == From::socket || kind == From::pipe) {
          FdPair pair = kind == From::socket ? unix_pair() : pipe_pair();
          const Feeder feeder(std::move(pair.other), pattern(0, n));
          run(pair.one);
          if (moved.result.stranded) rest = move_to(To::file, *moved.result.stranded).got;
          CHECK(moved.result.consumed == rest.size());
          const Bytes unread = read_to_end(pair.one.get());
          rest.insert(rest.end(), unread.begin(), unread.end());
        }
        INFO("source " << static_cast<int>(kind) << ", " << name_of(strategy) << ": " << moved.text());
        CHECK(moved.error);
        CHECK(moved.result.delivered == 0);
        CHECK(file.position() == 0);
        if (kind == From::socket || kind == From::pipe) {
          CHECK(same(rest, pattern(0, n)));
        } else {
          CHECK(moved.result.consumed == 0);
        }
        if (strategy && moved.is_unavailable()) continue;
        CHECK(moved.error == std::errc::no_space_on_device);
        CHECK(moved.result.side == Side::sink);
        CHECK(moved.result.reason == StopReason::failed);
      }
    }
  }
}
