// Disks that fill up in the middle of a transfer: ext4, xfs and btrfs, from every kind of source, by every strategy.
#include "catch.hpp"
#include "support/detached_mount.hpp"
#include "support/moves.hpp"
#include "support/process.hpp"

using namespace ends;
using zc::Side;
using zc::StopReason;
using zc::Strategy;

namespace {

constexpr std::size_t room = std::size_t{1} << 20;
constexpr std::size_t size = std::size_t{5} << 20;

// A single write of more than there is room for may fail whole (large folios); one of small pieces fills the disk.
constexpr std::optional<std::size_t> chunks[] = {std::nullopt, 64 * 1024};

// What every disk that is full in the middle must have led to. `sink` began empty at position 0.
void check_full(const Moved& moved, const std::optional<std::size_t>& chunk, const zc::File& sink,
                std::span<const std::byte> source) {
  const std::uint64_t delivered = moved.result.delivered;
  CHECK(moved.error == std::errc::no_space_on_device);
  CHECK(moved.result.reason == StopReason::failed);
  CHECK(moved.result.side == Side::sink);
  if (chunk) CHECK(delivered > room / 4);
  CHECK(delivered < source.size());
  CHECK(sink.size() == delivered);
  CHECK(sink.position() == delivered);
  CHECK(same(moved.got, source.first(std::min<std::size_t>(delivered, source.size()))));
  for (const zc::FallbackStep step : moved.result.trail) CHECK(step.error != std::errc::no_space_on_device);
}

struct Disk {
  const char* type;
  int mebibytes;
};
constexpr Disk disks[] = {{"ext4", 32}, {"xfs", 320}, {"btrfs", 128}};

// Runs on each file system that can be had here.
template <class Run>
void on_each(Run run) {
  const TimeLimit limit(60);
  for (const Disk& disk : disks) {
    const DetachedMount mount = DetachedMount::image(disk.type, disk.mebibytes);
    if (!mount.ok()) {
      WARN(mount.why());
      continue;
    }
    INFO(disk.type);
    run(mount);
  }
}

// A file on `mount`, and no room for all that is to come; `fill` takes the sink.
template <class Fill>
void with_little_room(const DetachedMount& mount, Fill fill) {
  const zc::File sink(mount.temporary());
  const zc::OwnedFd filler = mount.leave_only(room);
  fill(sink);
}

std::vector<MaybeStrategy> strategies_of(std::initializer_list<Strategy> forced) {
  std::vector<MaybeStrategy> all{std::nullopt};
  for (const Strategy s : forced) all.emplace_back(s);
  return all;
}

}  // namespace

TEST_CASE("disk full, file to file: the sink holds the first delivered bytes, no other strategy is tried",
          "[filesystem][full]") {
  using enum Strategy;
  on_each([](const DetachedMount& mount) {
    for (const bool same_disk : {true, false}) {
      for (const MaybeStrategy& strategy : strategies_of({copy_file_range, sendfile, splice, mmap_write, read_write})) {
        // A clone needs no room.
        if (same_disk && (!strategy || strategy == copy_file_range)) continue;
        if (!same_disk && strategy == copy_file_range) continue;
        for (const auto& chunk : chunks) {
          const zc::Options options{.strategy = strategy, .chunk_size = chunk};
          const zc::File from(same_disk ? mount.temporary() : temporary_file());
          // Room that a file system sets aside for what is appended would come back when the disk is full.
          checked(::fallocate(from.as_fd().get(), 0, 0, off_t{size}), "fallocate");
          pwrite_all(from.as_fd().get(), pattern(0, size), 0);
          with_little_room(mount, [&](const zc::File& to) {
            Moved moved;
            moved.result = zc::transfer(from, to, options, moved.error);
            moved.got = pread_all(to.as_fd().get());
            INFO((same_disk ? "same disk, " : "") << name_of(strategy) << ": " << moved.text());
            check_full(moved, chunk, to, pattern(0, size));
            CHECK(from.position() == moved.result.delivered);
            CHECK(moved.result.consumed == moved.result.delivered);
            CHECK_FALSE(moved.result.stranded);
          });
        }
      }
    }
  });
}

TEST_CASE("disk full, copy_file_range without a clone: the sink holds the first delivered bytes",
          "[filesystem][full]") {
  on_each([](const DetachedMount& mount) {
    const zc::File from(mount.temporary());
    checked(::fallocate(from.as_fd().get(), 0, 0, off_t{size}), "fallocate");
    pwrite_all(from.as_fd().get(), pattern(0, size), 0);
    for (const MaybeStrategy& strategy : strategies_of({Strategy::copy_file_range})) {
      for (const auto& chunk : chunks) {
        const zc::Options options{.strategy = strategy, .chunk_size = chunk};
        with_little_room(mount, [&](const zc::File& to) {
          // A sink that does not begin at a block can't be cloned to.
          pwrite_all(to.as_fd().get(), pattern(0, 100), 0);
          ::lseek(to.as_fd().get(), 100, SEEK_SET);
          Moved moved;
          moved.result = zc::transfer(from.range(101), to, options, moved.error);
          moved.got = pread_all(to.as_fd().get(), 100);
          INFO(name_of(strategy) << ": " << moved.text());
          CHECK(moved.error == std::errc::no_space_on_device);
          CHECK(moved.result.side == Side::sink);
          if (chunk) CHECK(moved.result.delivered > room / 4);
          CHECK(to.position() == 100 + moved.result.delivered);
          CHECK(moved.got.size() == moved.result.delivered);
          CHECK(same(moved.got, pattern(101, moved.got.size())));
          for (const zc::FallbackStep step : moved.result.trail) CHECK(step.error != std::errc::no_space_on_device);
        });
      }
    }
  });
}

TEST_CASE("disk full, socket or pipe to file: what left the source and did not arrive is delivered elsewhere",
          "[filesystem][full]") {
  on_each([](const DetachedMount& mount) {
    for (const char* source : {"unix", "tcp", "pipe"}) {
      for (const MaybeStrategy& strategy : strategies_of({Strategy::splice, Strategy::read_write})) {
        for (const bool range : {false, true}) {
          const std::optional<std::size_t> chunk = range ? chunks[0] : chunks[1];
          const zc::Options options{.strategy = strategy, .chunk_size = chunk};
          with_little_room(mount, [&](const zc::File& to) {
            FdPair pair = source == std::string("unix")  ? unix_pair()
                          : source == std::string("tcp") ? tcp_pair()
                                                         : pipe_pair();
            const Feeder feeder(std::move(pair.other), pattern(0, size));
            Moved moved;
            if (range) {
              moved.result = zc::transfer(pair.one, to.range(0), options, moved.error);
              ::lseek(to.as_fd().get(), static_cast<off_t>(moved.result.delivered), SEEK_SET);
            } else {
              moved.result = zc::transfer(pair.one, to, options, moved.error);
            }
            moved.got = pread_all(to.as_fd().get());
            INFO(source << (range ? " to a range, " : ", ") << name_of(strategy) << ": " << moved.text());
            check_full(moved, chunk, to, pattern(0, size));
            Bytes rest;
            if (moved.result.stranded) {
              const Moved rescued = move_to(To::file, *moved.result.stranded);
              CHECK_FALSE(rescued.error);
              CHECK(moved.result.stranded->empty());
              rest = rescued.got;
            }
            CHECK(rest.size() == moved.result.consumed - moved.result.delivered);
            const Bytes unread = read_to_end(pair.one.get());
            rest.insert(rest.end(), unread.begin(), unread.end());
            CHECK(moved.result.delivered + rest.size() == size);
            CHECK(same(rest, pattern(moved.got.size(), size - moved.got.size())));
          });
        }
      }
    }
  });
}

TEST_CASE("disk full, memory and a gather to file: the counts are exact over all parts", "[filesystem][full]") {
  on_each([](const DetachedMount& mount) {
    for (const auto& chunk : chunks) {
      const zc::Options options{.chunk_size = chunk};
      with_little_room(mount, [&](const zc::File& to) {
        Moved moved;
        moved.result = zc::transfer(pattern(0, size), to, options, moved.error);
        moved.got = pread_all(to.as_fd().get());
        INFO("memory: " << moved.text());
        check_full(moved, chunk, to, pattern(0, size));
        CHECK(moved.result.consumed == moved.result.delivered);
      });
      with_little_room(mount, [&](const zc::File& to) {
        const std::size_t head = 300'001;
        const zc::File middle{temporary_file(pattern(0, head + 3'000'000))};
        const auto parts = zc::gather(pattern(0, head), middle.range(head, 3'000'000),
                                      pattern(head + 3'000'000, size - head - 3'000'000));
        Moved moved;
        moved.result = zc::transfer(parts, to, options, moved.error);
        moved.got = pread_all(to.as_fd().get());
        INFO("gather: " << moved.text());
        check_full(moved, chunk, to, pattern(0, size));
        CHECK(moved.result.consumed == moved.result.delivered);
      });
    }
  });
}

TEST_CASE("disk full, then room: the transfer goes on where it ended", "[filesystem][full]") {
  on_each([](const DetachedMount& mount) {
    const zc::File from{temporary_file(pattern(0, size))};
    const zc::File to(mount.temporary());
    {
      const zc::OwnedFd filler = mount.leave_only(room);
      std::error_code ec;
      const zc::TransferResult r = zc::transfer(from, to, ec);
      CHECK(ec == std::errc::no_space_on_device);
      CHECK(r.delivered < size);
    }
    checked(::syncfs(to.as_fd().get()), "syncfs");
    std::error_code ec;
    const zc::TransferResult rest = zc::transfer(from, to, ec);
    CHECK_FALSE(ec);
    CHECK(rest.reason == StopReason::complete);
    CHECK(same(pread_all(to.as_fd().get()), pattern(0, size)));
  });
}

TEST_CASE("disk full under a mapped sink: an error at the sink and no SIGBUS, what was delivered is there",
          "[filesystem][full]") {
  on_each([](const DetachedMount& mount) {
    for (const char* source : {"memory", "mapping", "file", "unix", "tcp", "pipe"}) {
      const std::string name = source;
      const zc::File to(mount.temporary());
      checked(::ftruncate(to.as_fd().get(), off_t{size}), "ftruncate");  // all of it a hole
      const zc::WritableMappedFile sink = zc::WritableMappedFile::map(to);
      const zc::File file{temporary_file(pattern(0, size))};
      const zc::OwnedFd filler = mount.leave_only(room);
      FdPair pair = name == "pipe" ? pipe_pair() : name == "tcp" ? tcp_pair() : unix_pair();
      std::optional<Feeder> feeder;
      if (name == "pipe" || name == "unix" || name == "tcp") feeder.emplace(std::move(pair.other), pattern(0, size));
      Moved moved;
      if (name == "memory") moved.result = zc::transfer(pattern(0, size), sink, moved.error);
      if (name == "mapping") moved.result = zc::transfer(zc::MappedFile::map(file), sink, moved.error);
      if (name == "file") moved.result = zc::transfer(file, sink, moved.error);
      if (feeder) moved.result = zc::transfer(pair.one, sink, moved.error);
      const std::uint64_t delivered = moved.result.delivered;
      if (feeder) {
        Bytes rest;
        if (moved.result.stranded) rest = move_to(To::memory, *moved.result.stranded).got;
        CHECK(moved.result.consumed == delivered + rest.size());
        const Bytes unread = read_to_end(pair.one.get());
        rest.insert(rest.end(), unread.begin(), unread.end());
        CHECK(same(rest, pattern(delivered, size - delivered)));
      }
      moved.got = pread_all(to.as_fd().get());
      INFO(source << ": " << moved.text());
      CHECK(moved.error);
      CHECK(moved.result.side == Side::sink);
      CHECK(moved.result.reason == StopReason::failed);
      CHECK(delivered < size);
      REQUIRE(moved.got.size() == size);
      CHECK(same(std::span(moved.got).first(delivered), pattern(0, delivered)));
      if (name == "file") CHECK(file.position() == delivered);
    }
  });
}
