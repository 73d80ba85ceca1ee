// FUSE files that lie about their size, and that fail in the middle, as sources and as sinks.
#include "support/fuse.hpp"
#include "catch.hpp"
#include "support/moves.hpp"
#include "support/process.hpp"

using namespace ends;
using zc::Side;
using zc::StopReason;

namespace {

constexpr std::size_t size = 200'000;
constexpr std::uint64_t fails_at = 25 * 4096;

Bytes copy_of(std::span<const std::byte> bytes) { return {bytes.begin(), bytes.end()}; }

// Pairs of the same file: one is for read(2), so that the transfer meets a file that nobody has looked at.
std::vector<FuseFile> liars(const std::vector<std::uint64_t>& sizes) {
  std::vector<FuseFile> files;
  for (const bool direct : {false, true}) {
    for (const std::uint64_t reported : sizes) {
      FuseFile file;
      file.content = copy_of(pattern(0, size));
      file.reported = reported;
      file.direct = direct;
      files.push_back(file);
      files.push_back(file);
    }
  }
  return files;
}
const std::vector<std::uint64_t> none_or_more{0, size, size + 100'000};
const std::vector<std::uint64_t> less{81'920, size / 2};

std::string describe(const FuseFile& file) {
  return "reports " + std::to_string(file.reported) + " of " + std::to_string(file.content.size()) +
         (file.direct ? ", direct" : ", cached");
}

// The promise, whatever the strategy: a prefix of what read() gives; all of it, or an error.
void check(const Moved& moved, const Bytes& expected, const MaybeStrategy& strategy) {
  CHECK(moved.result.delivered == moved.got.size());
  CHECK(moved.got.size() <= expected.size());
  CHECK(same(moved.got, std::span(expected).first(std::min(moved.got.size(), expected.size()))));
  if (!strategy) CHECK_FALSE(moved.error);
  if (!moved.error) CHECK(moved.got.size() == expected.size());
  CHECK_FALSE(moved.result.stranded);
  CHECK(moved.result.consumed == moved.result.delivered);
}

// What a mapping holds behind the end is zeros, and only the size tells where that is.
bool reads_mapping(const MaybeStrategy& strategy) {
  return strategy == zc::Strategy::mmap_write || strategy == zc::Strategy::send_zerocopy;
}

template <class Run>
void for_each_liar(const std::vector<std::uint64_t>& sizes, Run run) {
  const TimeLimit limit(30);
  const std::vector<FuseFile> files = liars(sizes);
  const Fuse fuse(files);
  if (!fuse.ok()) {
    WARN(fuse.why());
    return;
  }
  for (std::size_t i = 0; i < files.size(); i += 2) {
    INFO(describe(files[i]));
    const Bytes expected = what_read_gives(fuse.open(i).get());
    if (files[i].direct) REQUIRE(expected.size() == size);  // the server is what this test believes it is
    run(fuse, i + 1, files[i], expected);
  }
}

void check_every_sink(const std::vector<std::uint64_t>& sizes, const std::vector<MaybeStrategy>& strategies) {
  for_each_liar(sizes, [&](const Fuse& fuse, std::size_t name, const FuseFile& file, const Bytes& expected) {
    for (const To to : every_sink) {
      for (const MaybeStrategy& strategy : strategies) {
        if (strategies.size() > 2 && reads_mapping(strategy) && file.reported > size) continue;  // has its own test
        const zc::File from(fuse.open(name));
        const Moved moved = move_to(to, from, {.strategy = strategy});
        INFO("to " << name_of(to) << ", " << name_of(strategy) << ": " << moved.text());
        check(moved, expected, strategy);
        CHECK(from.position() == moved.result.delivered);
      }
    }
  });
}

void check_borrowed_and_range(const std::vector<std::uint64_t>& sizes) {
  for_each_liar(sizes, [](const Fuse& fuse, std::size_t name, const FuseFile& file, const Bytes& expected) {
    for (const To to : {To::file, To::tcp, To::pipe}) {
      for (const MaybeStrategy& strategy : file_strategies()) {
        if (reads_mapping(strategy) && file.reported > size) continue;
        const zc::OwnedFd from = fuse.open(name);
        const Moved moved = move_to(to, from, {.strategy = strategy});
        INFO("to " << name_of(to) << ", " << name_of(strategy) << ": " << moved.text());
        check(moved, expected, strategy);
        const std::size_t start = std::min<std::size_t>(4096, expected.size());
        const Moved part = move_to(to, zc::FileRange(from.as_fd(), start), {.strategy = strategy});
        INFO("a range: " << part.text());
        check(part, Bytes(expected.begin() + static_cast<std::ptrdiff_t>(start), expected.end()), strategy);
      }
    }
  });
}

// Where copy_file_range is let in.
void check_beside(const std::vector<std::uint64_t>& sizes) {
  const TimeLimit limit(30);
  std::vector<FuseFile> files = liars(sizes);
  const std::size_t first_sink = files.size();
  for (std::size_t i = 0; i < 3 * first_sink; ++i) files.push_back({.grows = true});
  const Fuse fuse(files);
  if (!fuse.ok()) {
    WARN(fuse.why());
    return;
  }
  std::size_t sink = first_sink;
  for (std::size_t i = 0; i < first_sink; i += 2) {
    const Bytes expected = what_read_gives(fuse.open(i).get());
    for (const MaybeStrategy strategy :
         {MaybeStrategy{}, MaybeStrategy{zc::Strategy::copy_file_range}, MaybeStrategy{zc::Strategy::sendfile}}) {
      const zc::File from(fuse.open(i + 1));
      const zc::File to(fuse.open(sink++));
      Moved moved;
      moved.result = zc::transfer(from, to, {.strategy = strategy}, moved.error);
      moved.got = pread_all(to.as_fd().get());
      INFO(describe(files[i]) << ", " << name_of(strategy) << ": " << moved.text());
      check(moved, expected, strategy);
      CHECK(from.position() == moved.result.delivered);
      CHECK(to.position() == moved.result.delivered);
    }
  }
}

void check_lengths(const std::vector<std::uint64_t>& sizes) {
  for_each_liar(sizes, [](const Fuse& fuse, std::size_t name, const FuseFile&, const Bytes& expected) {
    for (const To to : {To::file, To::tcp, To::pipe, To::memory}) {
      for (const std::uint64_t length : {std::uint64_t{50'000}, std::uint64_t{150'000}, std::uint64_t{250'000}}) {
        const zc::File from(fuse.open(name));
        const Moved moved = move_to(to, from, {.length = length});
        INFO("to " << name_of(to) << ", length " << length << ": " << moved.text());
        CHECK_FALSE(moved.error);
        const std::size_t n = std::min<std::size_t>(expected.size(), length);
        CHECK(moved.result.delivered == n);
        CHECK(moved.result.reason == (n == length ? StopReason::complete : StopReason::end_of_source));
        CHECK(same(moved.got, std::span(expected).first(n)));
      }
    }
  });
}

void check_failing_source(const std::vector<MaybeStrategy>& strategies) {
  const TimeLimit limit(30);
  for (const bool direct : {false, true}) {
    // A file for each transfer: what is in the page cache would not fail.
    std::vector<FuseFile> files(every_sink.size() * file_strategies().size() + 1);
    for (FuseFile& file : files) {
      file.content = copy_of(pattern(0, size));
      file.reported = size;
      file.direct = direct;
      file.read_fails_at = fails_at;
    }
    const Fuse fuse(std::move(files));
    if (!fuse.ok()) {
      WARN(fuse.why());
      return;
    }
    std::size_t next = 0;
    REQUIRE(what_read_gives(fuse.open(next++).get()).size() == fails_at);
    for (const To to : every_sink) {
      for (const MaybeStrategy& strategy : strategies) {
        const zc::File from(fuse.open(next++));
        const Moved moved = move_to(to, from, {.strategy = strategy});
        INFO((direct ? "direct" : "cached")
             << " to " << name_of(to) << ", " << name_of(strategy) << ": " << moved.text());
        CHECK(moved.result.delivered == moved.got.size());
        CHECK(same(moved.got, pattern(0, moved.got.size())));
        CHECK(moved.error);
        if (strategy && moved.is_unavailable()) continue;
        CHECK(moved.error == std::errc::io_error);
        CHECK(moved.result.delivered == fails_at);
        CHECK(moved.result.reason == StopReason::failed);
        CHECK(moved.result.side == Side::source);
        CHECK(from.position() == moved.result.delivered);
        CHECK_FALSE(moved.result.stranded);
        for (const zc::FallbackStep step : moved.result.trail) CHECK(step.error != std::errc::io_error);
      }
    }
  }
}

enum class From { file, range, memory, socket, pipe };

void check_failing_sink(const std::vector<From>& sources, const std::vector<int>& errors) {
  const TimeLimit limit(30);
  for (const int error : errors) {
    for (const bool direct : {false, true}) {
      std::vector<FuseFile> files(5 * file_strategies().size());
      for (FuseFile& file : files) file = {.grows = true, .direct = direct, .write_fails_at = fails_at, .error = error};
      const Fuse fuse(std::move(files));
      if (!fuse.ok()) {
        WARN(fuse.why());
        return;
      }
      std::size_t next = 0;
      for (const From kind : sources) {
        for (const MaybeStrategy& strategy : file_strategies()) {
          const zc::File to(fuse.open(next++));
          Moved moved;
          Bytes rest;
          const zc::Options options{.strategy = strategy};
          const zc::File file{temporary_file(pattern(0, size))};
          if (kind == From::file) moved.result = zc::transfer(file, to, options, moved.error);
          if (kind == From::range) moved.result = zc::transfer(file.range(0), to, options, moved.error);
          if (kind == From::memory) moved.result = zc::transfer(pattern(0, size), to, options, moved.error);
          if (kind == From::socket || kind == From::pipe) {
            FdPair pair = kind == From::socket ? unix_pair() : pipe_pair();
            const Feeder feeder(std::move(pair.other), pattern(0, size));
            moved.result = zc::transfer(pair.one, to, options, moved.error);
            if (moved.result.stranded) rest = move_to(To::file, *moved.result.stranded).got;
            const Bytes unread = read_to_end(pair.one.get());
            CHECK(moved.result.consumed == moved.result.delivered + rest.size());
            CHECK(moved.result.consumed + unread.size() == size);
            rest.insert(rest.end(), unread.begin(), unread.end());
          }
          moved.got = pread_all(to.as_fd().get());
          INFO(std::strerror(error) << (direct ? ", direct" : ", cached") << ", source " << static_cast<int>(kind)
                                    << ", " << name_of(strategy) << ": " << moved.text());
          CHECK(moved.error);
          CHECK(moved.got.size() == moved.result.delivered);
          CHECK(same(moved.got, pattern(0, moved.got.size())));
          if (strategy && moved.is_unavailable()) continue;
          CHECK(moved.error.value() == error);
          CHECK(moved.result.delivered == fails_at);
          CHECK(moved.result.side == Side::sink);
          CHECK(moved.result.reason == StopReason::failed);
          CHECK(to.position() == moved.result.delivered);
          if (kind == From::file) CHECK(file.position() == moved.result.delivered);
          if (kind == From::socket || kind == From::pipe) CHECK(same(rest, pattern(fails_at, size - fails_at)));
          for (const zc::FallbackStep step : moved.result.trail) CHECK(step.error.value() != error);
        }
      }
    }
  }
}

// Where sendfile and splice are ruled out, and a mapping would be the next best.
void check_limited_and_snapshot(const std::vector<std::uint64_t>& sizes) {
  for_each_liar(sizes, [](const Fuse& fuse, std::size_t name, const FuseFile&, const Bytes& expected) {
    for (const To to : every_sink) {
      for (const bool snapshot : {false, true}) {
        zc::Options options;
        if (snapshot) options.aliasing = zc::Aliasing::snapshot;
        if (!snapshot) options.deadline = Clock::now() + 10s;
        const zc::File from(fuse.open(name));
        const Moved moved = move_to(to, from, options);
        INFO("to " << name_of(to) << (snapshot ? ", snapshot: " : ", deadline: ") << moved.text());
        check(moved, expected, std::nullopt);
        CHECK(from.position() == moved.result.delivered);
      }
    }
  });
}

// Header, file, trailer.
void check_gather(const std::vector<std::uint64_t>& sizes) {
  for_each_liar(sizes, [](const Fuse& fuse, std::size_t name, const FuseFile&, const Bytes& expected) {
    for (const To to : {To::file, To::tcp, To::pipe}) {
      const zc::File from(fuse.open(name));
      const Moved moved = move_to(to, zc::gather(pattern(500'000, 100), from, pattern(600'000, 100)));
      INFO("to " << name_of(to) << ": " << moved.text());
      CHECK_FALSE(moved.error);
      CHECK(moved.result.delivered == expected.size() + 200);
      REQUIRE(moved.got.size() == expected.size() + 200);
      CHECK(same(std::span(moved.got).first(100), pattern(500'000, 100)));
      CHECK(same(std::span(moved.got).subspan(100, expected.size()), expected));
      CHECK(same(std::span(moved.got).last(100), pattern(600'000, 100)));
    }
  });
}

}  // namespace

TEST_CASE("a FUSE file that reports no size or too much gives every byte that read() gives, to every sink",
          "[filesystem][fuse]") {
  check_every_sink(none_or_more, file_strategies());
}

TEST_CASE("a FUSE file that reports no size or too much gives every byte by a descriptor and by a range",
          "[filesystem][fuse]") {
  check_borrowed_and_range(none_or_more);
}

TEST_CASE("a FUSE file that reports no size or too much gives every byte to a file beside it", "[filesystem][fuse]") {
  check_beside(none_or_more);
}

TEST_CASE("a FUSE file that reports no size or too much ends where a length ends it", "[filesystem][fuse]") {
  check_lengths(none_or_more);
}

TEST_CASE("a FUSE file that reports too little gives every byte that read() gives, to every sink",
          "[filesystem][fuse]") {
  check_every_sink(less, file_strategies());
}

TEST_CASE("a FUSE file that reports too little gives every byte by a descriptor and by a range", "[filesystem][fuse]") {
  check_borrowed_and_range(less);
}

TEST_CASE("a FUSE file that reports too little gives every byte to a file beside it", "[filesystem][fuse]") {
  check_beside(less);
}

TEST_CASE("a FUSE file that reports too little ends where a length ends it", "[filesystem][fuse]") {
  check_lengths(less);
}

TEST_CASE("a mapping of a FUSE file that reports too much is not sent with zeros behind the end",
          "[filesystem][fuse]") {
  check_every_sink({size + 100'000}, {zc::Strategy::mmap_write, zc::Strategy::send_zerocopy});
}

TEST_CASE("a FUSE source that fails in the middle: delivered is what was before, the error is the source's",
          "[filesystem][fuse]") {
  using enum zc::Strategy;
  check_failing_source({std::nullopt, copy_file_range, sendfile, splice, mmap_write, read_write, reflink});
}

TEST_CASE("a FUSE sink that fails in the middle: the error is the sink's, no other strategy is tried, nothing is lost",
          "[filesystem][fuse]") {
  check_failing_sink({From::file, From::range, From::memory, From::socket}, {ENOSPC, EIO, EDQUOT});
  check_failing_sink({From::pipe}, {ENOSPC, EDQUOT});
}

TEST_CASE("a FUSE source that fails under a zero-copy send is the source's error, not a bad address of the sink's",
          "[filesystem][fuse]") {
  check_failing_source({zc::Strategy::send_zerocopy});
}

TEST_CASE("a FUSE sink that fails with EIO behind a pipe is the sink's error", "[filesystem][fuse]") {
  check_failing_sink({From::pipe}, {EIO});
}

TEST_CASE("a FUSE file that reports no size gives every byte under a deadline, under snapshot, as a part of a gather",
          "[filesystem][fuse]") {
  check_limited_and_snapshot({0, size});
  check_gather(none_or_more);
}

TEST_CASE("a FUSE file that reports too little gives every byte as a part of a gather", "[filesystem][fuse]") {
  check_gather(less);
}

TEST_CASE("a FUSE file that reports too little or too much gives every byte under a deadline and under snapshot",
          "[filesystem][fuse]") {
  check_limited_and_snapshot(less);
  check_limited_and_snapshot({size + 100'000});
}
