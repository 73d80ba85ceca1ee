// Descriptors that are opened O_DIRECT: unaligned heads, tails and memory are the library's business, the flag stays.
#include "catch.hpp"
#include "support/detached_mount.hpp"
#include "support/moves.hpp"
#include "support/process.hpp"

using namespace ends;
using zc::StopReason;
using zc::Strategy;

namespace {

constexpr std::size_t size = 1'000'001;

template <class Run>
void on_each(Run run) {
  const TimeLimit limit(60);
  for (const auto& [type, mebibytes] : {std::pair{"ext4", 48}, {"xfs", 320}, {"btrfs", 128}}) {
    const DetachedMount mount = DetachedMount::image(type, mebibytes);
    if (!mount.ok()) {
      WARN(mount.why());
      continue;
    }
    INFO(type);
    run(mount);
  }
}

// Opened a second time, with a position of its own.
zc::File direct_file(const zc::OwnedFd& file) {
  zc::File direct(reopened(file.get(), O_RDWR | O_DIRECT));
  REQUIRE((::fcntl(direct.as_fd().get(), F_GETFL) & O_DIRECT) != 0);
  return direct;
}

struct Piece {
  std::uint64_t start;
  std::uint64_t length;
};
// Aligned and not, at the head, at the tail and at both.
constexpr Piece pieces[] = {
    {0, zc::to_end},       {0, 4096},         {0, 100},           {0, 500'000}, {1, 100},    {1, zc::to_end},
    {511, 100'000},        {4096, 8192},      {4096, zc::to_end}, {4095, 2},    {100, 4096}, {999'000, zc::to_end},
    {999'424, zc::to_end}, {size, zc::to_end}};

std::uint64_t expected_length(const Piece& piece) {
  return std::min(piece.length, size - std::min<std::uint64_t>(piece.start, size));
}

void check_source(const std::vector<To>& sinks, const std::vector<MaybeStrategy>& strategies) {
  on_each([&](const DetachedMount& mount) {
    const zc::OwnedFd file = mount.temporary(pattern(0, size));
    checked(::fsync(file.get()), "fsync");
    for (const Piece& piece : pieces) {
      for (const To to : sinks) {
        for (const MaybeStrategy& strategy : strategies) {
          for (const bool range : {false, true}) {
            const zc::File from = direct_file(file);
            ::lseek(from.as_fd().get(), static_cast<off_t>(piece.start), SEEK_SET);
            const zc::Options options{.strategy = strategy, .length = range ? zc::to_end : piece.length};
            const Moved moved =
                range ? move_to(to, from.range(piece.start, piece.length), options) : move_to(to, from, options);
            INFO((range ? "a range of " : "") << piece.length << " at " << piece.start << " to " << name_of(to) << ", "
                                              << name_of(strategy) << ": " << moved.text());
            CHECK((::fcntl(from.as_fd().get(), F_GETFL) & O_DIRECT) != 0);
            CHECK(from.position() == (range ? piece.start : piece.start + moved.result.delivered));
            CHECK(same(moved.got, pattern(std::min<std::uint64_t>(piece.start, size), moved.got.size())));
            CHECK(moved.got.size() == moved.result.delivered);
            if (strategy && moved.is_unavailable()) continue;  // it may find out late
            CHECK_FALSE(moved.error);
            CHECK(moved.result.delivered == expected_length(piece));
          }
        }
      }
    }
  });
}

enum class From { file, memory, socket, pipe };
constexpr From every_source[] = {From::file, From::memory, From::socket, From::pipe};

void check_sink(const std::vector<MaybeStrategy>& strategies, bool aligned) {
  on_each([&](const DetachedMount& mount) {
    for (const Piece& piece : pieces) {
      if (piece.start > 500'000 || (piece.start % 4096 == 0) != aligned) continue;
      const std::uint64_t n = std::min<std::uint64_t>(piece.length, 300'001);
      for (const From kind : every_source) {
        for (const MaybeStrategy& strategy : strategies) {
          const zc::OwnedFd file = mount.temporary(pattern(2'000'000, 200'000));
          const zc::File to = direct_file(file);
          ::lseek(to.as_fd().get(), static_cast<off_t>(piece.start), SEEK_SET);
          Moved moved;
          const zc::Options options{.strategy = strategy, .length = n};
          const zc::File source{temporary_file(pattern(0, n))};
          if (kind == From::file) moved.result = zc::transfer(source, to, options, moved.error);
          if (kind == From::memory) moved.result = zc::transfer(pattern(0, n), to, options, moved.error);
          if (kind == From::socket || kind == From::pipe) {
            FdPair pair = kind == From::socket ? unix_pair() : pipe_pair();
            const Feeder feeder(std::move(pair.other), pattern(0, n));
            moved.result = zc::transfer(pair.one, to, options, moved.error);
            pair.one.reset();
          }
          const std::uint64_t delivered = moved.result.delivered;
          INFO(n << " at " << piece.start << " from " << static_cast<int>(kind) << ", " << name_of(strategy) << ": "
                 << moved.text());
          CHECK((::fcntl(to.as_fd().get(), F_GETFL) & O_DIRECT) != 0);
          CHECK(to.position() == piece.start + delivered);
          // Read by the other descriptor: around what was delivered nothing changed.
          Bytes expected(pattern(2'000'000, 200'000).begin(), pattern(2'000'000, 200'000).end());
          if (expected.size() < piece.start + delivered) expected.resize(piece.start + delivered);
          std::ranges::copy(pattern(0, delivered), expected.begin() + static_cast<std::ptrdiff_t>(piece.start));
          CHECK(same(pread_all(file.get()), expected));
          if (strategy && moved.is_unavailable()) continue;
          CHECK_FALSE(moved.error);
          CHECK(delivered == n);
        }
      }
    }
  });
}

}  // namespace

TEST_CASE("an O_DIRECT source: right bytes at any offset and length, flag kept, position right",
          "[filesystem][direct]") {
  using enum Strategy;
  check_source({To::file, To::file_range, To::pipe, To::tcp, To::unix_stream},
               {std::nullopt, copy_file_range, sendfile, splice, mmap_write, reflink});
}

TEST_CASE("an O_DIRECT source is read by read_write and into memory at any offset and length", "[filesystem][direct]") {
  check_source({To::file, To::file_range, To::pipe, To::tcp}, {Strategy::read_write});
  check_source({To::memory}, {std::nullopt, Strategy::read_write});
}

TEST_CASE("an O_DIRECT sink at aligned positions: right bytes, flag kept, position right", "[filesystem][direct]") {
  check_sink(file_strategies(), true);
}

TEST_CASE("an O_DIRECT sink at unaligned positions: right bytes, flag kept, position right", "[filesystem][direct]") {
  check_sink(file_strategies(), false);
}

TEST_CASE("O_DIRECT at both ends: the whole file and an unaligned part of it", "[filesystem][direct]") {
  on_each([](const DetachedMount& mount) {
    const zc::OwnedFd source = mount.temporary(pattern(0, size));
    checked(::fsync(source.get()), "fsync");
    for (const Piece& piece : pieces) {
      const zc::OwnedFd sink = mount.temporary();
      const zc::File from = direct_file(source);
      const zc::File to = direct_file(sink);
      ::lseek(from.as_fd().get(), static_cast<off_t>(piece.start), SEEK_SET);
      Moved moved;
      moved.result = zc::transfer(from, to, {.length = piece.length}, moved.error);
      moved.got = pread_all(sink.get());
      INFO(piece.length << " at " << piece.start << ": " << moved.text());
      CHECK_FALSE(moved.error);
      CHECK(moved.result.delivered == expected_length(piece));
      CHECK(same(moved.got, pattern(std::min<std::uint64_t>(piece.start, size), expected_length(piece))));
      CHECK((::fcntl(from.as_fd().get(), F_GETFL) & O_DIRECT) != 0);
      CHECK((::fcntl(to.as_fd().get(), F_GETFL) & O_DIRECT) != 0);
      CHECK(from.position() == piece.start + moved.result.delivered);
      CHECK(to.position() == moved.result.delivered);
    }
  });
}
