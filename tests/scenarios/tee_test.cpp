// transfer(source, tee(...)): every byte to every sink, whatever the ends are, and every way in which a sink or the source
// can fail on the way.
#include "catch.hpp"

#include "support/process.hpp"

#include <zerocopy/zerocopy.hpp>

#include <sys/ioctl.h>

#include <atomic>
#include <memory>
#include <optional>
#include <set>

using namespace zerocopy;
using namespace std::chrono_literals;
using ends::Bytes;
using ends::Clock;

namespace {

constexpr std::size_t kibi = 1024;
constexpr std::size_t mebi = 1024 * kibi;
constexpr std::size_t large = 3 * mebi + 7;

std::span<const std::byte> content(std::size_t n) { return ends::pattern(0, n); }
std::span<const std::byte> content(std::size_t at, std::size_t n) { return ends::pattern(at, n); }
auto in(std::chrono::nanoseconds time) { return Clock::now() + time; }

// ---- sources ----

enum class From {
  file,
  range,
  pipe,
  tcp,
  unix_stream,
  memory,
  mapping,
  memory_file,
  borrowed_file,
  borrowed_pipe,
  borrowed_tcp
};
constexpr std::array every_source{From::file,          From::range,         From::pipe,        From::tcp,
                                  From::unix_stream,   From::memory,        From::mapping,     From::memory_file,
                                  From::borrowed_file, From::borrowed_pipe, From::borrowed_tcp};
const char* name_of(From from) {
  constexpr const char* names[] = {"file",    "range", "pipe",          "tcp",           "unix",        "memory",
                                   "mapping", "memfd", "borrowed file", "borrowed pipe", "borrowed tcp"};
  return names[static_cast<std::size_t>(from)];
}

// Calls `use` with a source that holds `bytes`.
template <class Use>
void with_source(From from, std::span<const std::byte> bytes, bool blocking, Use use) {
  const auto stream = [&](ends::FdPair pair, auto wrap) {
    ends::set_nonblocking(pair.one.get(), !blocking);
    ends::Feeder feeder(std::move(pair.other), bytes);
    const auto source = wrap(std::move(pair.one));
    use(source);
  };
  const auto borrow = [](OwnedFd fd) { return fd; };
  switch (from) {
    case From::file: return use(File(ends::temporary_file(bytes)));
    case From::range: {
      Bytes all(content(5 * mebi, 100).begin(), content(5 * mebi, 100).end());
      all.insert(all.end(), bytes.begin(), bytes.end());
      all.insert(all.end(), 50, std::byte{1});
      const OwnedFd file = ends::temporary_file(all);
      return use(FileRange(file.as_fd(), 100, bytes.size()));
    }
    case From::pipe: return stream(ends::pipe_pair(), [](OwnedFd fd) { return PipeReader(std::move(fd)); });
    case From::tcp: return stream(ends::tcp_pair(), [](OwnedFd fd) { return Socket(std::move(fd)); });
    case From::unix_stream: return stream(ends::unix_pair(), [](OwnedFd fd) { return Socket(std::move(fd)); });
    case From::memory: return use(bytes);
    case From::mapping: {
      const File file(ends::temporary_file(bytes));
      return use(MappedFile::map(file));
    }
    case From::memory_file: {
      const MemoryFile file = MemoryFile::create("source");
      ends::pwrite_all(file.as_fd().get(), bytes, 0);
      return use(file);
    }
    case From::borrowed_file: {
      const OwnedFd file = ends::temporary_file(bytes);
      return use(file.as_fd());
    }
    case From::borrowed_pipe: return stream(ends::pipe_pair(), borrow);
    case From::borrowed_tcp: return stream(ends::tcp_pair(), borrow);
  }
}

// ---- sinks ----

// A sink of the library's, and what arrives there.
template <class Handle>
class Place {
 public:
  // Pipes and sockets: `pair.one` is where the library writes.
  explicit Place(ends::FdPair pair, bool blocking) : reader_(std::move(pair.other)) {
    ends::set_nonblocking(pair.one.get(), !blocking);
    sink.emplace(std::move(pair.one));
    drainer_ = std::make_unique<ends::Drainer>(reader_.get());
  }
  Bytes got() {
    sink.reset();
    return drainer_->bytes();
  }

 private:
  OwnedFd reader_;
  std::unique_ptr<ends::Drainer> drainer_;

 public:
  std::optional<Handle> sink{};  // closed before the drainer is waited for
};
ends::FdPair writer_pair() {
  ends::FdPair pair = ends::pipe_pair();
  std::swap(pair.one, pair.other);
  return pair;
}
using PipePlace = Place<PipeWriter>;
using SocketPlace = Place<Socket>;

std::string text_of(const TransferResult& r) {
  std::string text = std::string(to_string(r.reason)) + " at " + std::string(to_string(r.side)) + " '" +
                     r.error.message() + "' delivered " + std::to_string(r.delivered) + " consumed " +
                     std::to_string(r.consumed) + " stranded " + std::to_string(r.stranded ? r.stranded->size() : 0) +
                     " by " + (r.strategy ? std::string(to_string(*r.strategy)) : "nothing");
  for (const FallbackStep step : r.trail)
    text += " (" + std::string(to_string(step.strategy)) + ": " + step.error.message() + ")";
  return text;
}
std::uint64_t held(const SinkResult& sink) { return sink.stranded ? sink.stranded->size() : 0; }
std::uint64_t held(const TransferResult& r) { return r.stranded ? r.stranded->size() : 0; }
template <std::size_t N>
std::string text_of(const TeeResult<N>& r) {
  std::string text = text_of(static_cast<const TransferResult&>(r));
  text += ", failed sink " + (r.failed_sink ? std::to_string(*r.failed_sink) : std::string("none"));
  for (const SinkResult& sink : r.sinks)
    text += "; " + std::string(to_string(sink.reason)) + " '" + sink.error.message() + "' " +
            std::to_string(sink.delivered) + " + " + std::to_string(held(sink));
  return text;
}

// All of a tee that went well.
template <std::size_t N>
void check_whole(const TeeResult<N>& r, std::error_code ec, std::size_t size) {
  INFO(text_of(r));
  CHECK(!ec);
  CHECK(!r.error);
  CHECK(r.delivered == size);
  CHECK(r.consumed == size);
  CHECK(r.reason == StopReason::complete);
  CHECK(r.side == Side::none);
  CHECK(!r.stranded);
  CHECK(!r.failed_sink);
  CHECK(r.strategy.has_value() == (size > 0));
  CHECK((r.calls > 0) == (size > 0));
  for (const SinkResult& sink : r.sinks) {
    CHECK(sink.delivered == size);
    CHECK(sink.reason == StopReason::complete);
    CHECK(!sink.error);
    CHECK(!sink.stranded);
  }
}
void check_same(std::span<const std::byte> got, std::span<const std::byte> expected, const char* where) {
  INFO(where << ": " << got.size() << " of " << expected.size());
  CHECK(ends::same(got, expected));
}

// ---- the four shapes of the grid ----

struct Shape {
  bool blocking = false;
  std::size_t size = 0;
  Options options{};
};
template <class Source>
void to_one(const Source& source, const Shape& s) {
  SocketPlace socket(ends::tcp_pair(), s.blocking);
  std::error_code ec;
  check_whole(transfer(source, tee(*socket.sink), s.options, ec), ec, s.size);
  check_same(socket.got(), content(s.size), "tcp");
}
template <class Source>
void to_files(const Source& source, const Shape& s) {
  const File file(ends::temporary_file());
  const MemoryFile memory_file = MemoryFile::create("sink");
  std::error_code ec;
  check_whole(transfer(source, tee(file, memory_file), s.options, ec), ec, s.size);
  check_same(ends::pread_all(file.as_fd().get()), content(s.size), "file");
  check_same(ends::pread_all(memory_file.as_fd().get()), content(s.size), "memory file");
  CHECK(ends::position_of(file.as_fd().get()) == s.size);
}
template <class Source>
void to_bounded(const Source& source, const Shape& s) {
  const OwnedFd below = ends::temporary_file(content(6 * mebi, 300));
  const FileRange range(below.as_fd(), 300);
  File mapped_file(ends::temporary_file());
  mapped_file.resize(s.size);
  const WritableMappedFile mapping = WritableMappedFile::map(mapped_file);
  Bytes memory(s.size);
  std::error_code ec;
  check_whole(transfer(source, tee(range, mapping, std::span(memory)), s.options, ec), ec, s.size);
  check_same(ends::pread_all(below.get(), 300), content(s.size), "range");
  const Bytes whole_file = ends::pread_all(below.get());
  CHECK(ends::same(std::span(whole_file).first(300), content(6 * mebi, 300)));
  check_same(mapping.bytes(), content(s.size), "mapping");
  check_same(memory, content(s.size), "memory");
}
template <class Source>
void to_four(const Source& source, const Shape& s) {
  PipePlace pipe(writer_pair(), s.blocking);
  SocketPlace tcp(ends::tcp_pair(), s.blocking);
  SocketPlace local(ends::unix_pair(), s.blocking);
  Place<OwnedFd> borrowed(writer_pair(), s.blocking);
  std::error_code ec;
  check_whole(transfer(source, tee(*pipe.sink, *tcp.sink, *local.sink, *borrowed.sink), s.options, ec), ec, s.size);
  check_same(pipe.got(), content(s.size), "pipe");
  check_same(tcp.got(), content(s.size), "tcp");
  check_same(local.got(), content(s.size), "unix");
  check_same(borrowed.got(), content(s.size), "borrowed");
}
void run_shapes(From from, const Shape& s) {
  INFO(name_of(from) << ", " << s.size << " bytes" << (s.blocking ? ", blocking" : ""));
  with_source(from, content(s.size), s.blocking, [&](const auto& source) { to_one(source, s); });
  with_source(from, content(s.size), s.blocking, [&](const auto& source) { to_files(source, s); });
  with_source(from, content(s.size), s.blocking, [&](const auto& source) { to_bounded(source, s); });
  with_source(from, content(s.size), s.blocking, [&](const auto& source) { to_four(source, s); });
}

// ---- sinks that die ----

enum class Sort { pipe, tcp, unix_stream };
constexpr std::array every_sort{Sort::pipe, Sort::tcp, Sort::unix_stream};
const char* name_of(Sort sort) {
  constexpr const char* names[] = {"pipe", "tcp", "unix"};
  return names[static_cast<std::size_t>(sort)];
}
// Sockets with buffers that can't hold what is sent before the far end dies.
ends::FdPair pair_of(Sort sort) {
  if (sort == Sort::pipe) return writer_pair();
  ends::FdPair pair = sort == Sort::tcp ? ends::tcp_pair(256 * static_cast<int>(kibi)) : ends::unix_pair();
  const int room = 128 * static_cast<int>(kibi);
  ::setsockopt(pair.one.get(), SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
  return pair;
}

// Reads some bytes, then closes, or stops reading for as long as it lives.
class Reader {
 public:
  Reader(OwnedFd fd, std::size_t most, bool closes)
      : fd_(std::move(fd)), thread_([this, most, closes] {
          got_ = ends::read_to_end(fd_.get(), most);
          if (closes) fd_.reset();
        }) {}
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader() {
    if (thread_.joinable()) thread_.join();
  }
  // Waits until it has read what it wanted, or saw the end.
  const Bytes& got() {
    if (thread_.joinable()) thread_.join();
    return got_;
  }
  // What it has not read yet, to the end.
  Bytes whole() {
    Bytes all = got();
    const Bytes rest = ends::read_to_end(fd_.get());
    all.insert(all.end(), rest.begin(), rest.end());
    return all;
  }

 private:
  OwnedFd fd_;
  Bytes got_;
  std::thread thread_;
};

Bytes bytes_of(Stranded& stranded) {
  Bytes bytes(static_cast<std::size_t>(stranded.size()));
  const TransferResult r = transfer(stranded, std::span(bytes));
  if (r.delivered != bytes.size() || !stranded.empty()) bytes.clear();
  return bytes;
}

// Three descriptors whose far ends read all, or die or stall after so many bytes.
struct Three {
  static constexpr std::size_t all = SIZE_MAX;
  struct Plan {
    Sort sort = Sort::pipe;
    std::size_t reads = all;
    bool closes = false;
  };
  explicit Three(std::array<Plan, 3> plans, bool blocking = false) {
    for (std::size_t i = 0; i < 3; ++i) {
      ends::FdPair pair = pair_of(plans[i].sort);
      ends::set_nonblocking(pair.one.get(), !blocking);
      sinks[i] = std::move(pair.one);
      if (plans[i].reads == 0 && plans[i].closes) {
        pair.other.reset();
        readers[i] = nullptr;
      } else {
        readers[i] = std::make_unique<Reader>(std::move(pair.other), plans[i].reads, plans[i].closes);
      }
    }
  }
  std::array<std::unique_ptr<Reader>, 3> readers{};
  std::array<OwnedFd, 3> sinks{};  // closed before the readers are waited for
};

// What holds for every tee, however it ended: each sink has the first bytes of the source, what is stranded for it comes
// next, then what is stranded for all. Gives the common rest.
template <std::size_t N>
Bytes check_exact(TeeResult<N>& r, bool dead_drop_out, const std::set<std::size_t>& dead) {
  const std::uint64_t common = held(r);
  Bytes rest = r.stranded ? bytes_of(*r.stranded) : Bytes();
  check_same(rest, content(static_cast<std::size_t>(r.consumed - common), static_cast<std::size_t>(common)), "common");
  for (std::size_t i = 0; i < N; ++i) {
    SinkResult& sink = r.sinks[i];
    const std::uint64_t has = sink.delivered + held(sink);
    if (dead_drop_out && dead.count(i) != 0) {
      CHECK(has <= r.consumed - common);
    } else {
      CHECK(has == r.consumed - common);
    }
    const std::size_t n = static_cast<std::size_t>(held(sink));
    if (sink.stranded)
      check_same(bytes_of(*sink.stranded), content(static_cast<std::size_t>(sink.delivered), n), "stranded");
  }
  return rest;
}

}  // namespace

TEST_CASE("every source goes whole to one, two, three and four sinks of every kind", "[tee]") {
  const ends::TimeLimit limit(240);
  const auto run = [](From from) {
    for (const std::size_t size :
         {std::size_t{0}, std::size_t{1}, std::size_t{4095}, std::size_t{4097}, std::size_t{65537}, large})
      for (const bool blocking : {false, true}) run_shapes(from, {blocking, size, {}});
  };
  for (const From from : every_source) run(from);
}

TEST_CASE("a tee under limits, in chunks, as a snapshot and with the promise of more carries the same", "[tee]") {
  const ends::TimeLimit limit(120);
  const std::stop_source never;
  for (const From from : every_source) {
    for (const bool blocking : {false, true}) {
      run_shapes(from, {blocking, mebi + 3, {.idle_timeout = 10s, .deadline = in(60s), .stop = never.get_token()}});
      run_shapes(from, {blocking, mebi + 3, {.aliasing = Aliasing::snapshot}});
      run_shapes(from, {blocking, 70001, {.chunk_size = 1000}});
      run_shapes(from, {blocking, mebi + 3, {.allow = StrategySet{Strategy::read_write}}});
      run_shapes(from, {blocking, mebi + 3, {.dead_sink = DeadSink::go_on}});
    }
  }
  for (const From from : {From::file, From::range, From::tcp, From::memory})
    run_shapes(from, {false, mebi + 3, {.more = true}});
}

TEST_CASE("a forced strategy fetches for a tee, or is refused with nothing moved", "[tee]") {
  const ends::TimeLimit limit(60);
  for (const From from : every_source) {
    for (const Strategy strategy :
         {Strategy::reflink, Strategy::copy_file_range, Strategy::sendfile, Strategy::splice, Strategy::vmsplice,
          Strategy::mmap_write, Strategy::send_zerocopy, Strategy::read_write}) {
      INFO(name_of(from) << " by " << to_string(strategy));
      with_source(from, content(large), false, [&](const auto& source) {
        PipePlace pipe(writer_pair(), false);
        SocketPlace tcp(ends::tcp_pair(), false);
        std::error_code ec;
        const Aliasing aliasing = strategy == Strategy::vmsplice ? Aliasing::shared : Aliasing::automatic;
        auto r = transfer(source, tee(*pipe.sink, *tcp.sink), {.strategy = strategy, .aliasing = aliasing}, ec);
        INFO(text_of(r));
        if (ec) {
          CHECK(ec == Errc::strategy_unavailable);
          CHECK(r.consumed == 0);
          CHECK(r.trail.size() == 1);
          check_same(pipe.got(), {}, "pipe");
          check_same(tcp.got(), {}, "tcp");
        } else {
          CHECK(r.strategy == strategy);
          CHECK(r.trail.empty());
          check_same(pipe.got(), content(large), "pipe");
          check_same(tcp.got(), content(large), "tcp");
        }
        const bool in_memory = from == From::memory || from == From::mapping;
        if (strategy == Strategy::read_write) CHECK(!ec);
        if (strategy == Strategy::splice) CHECK(!ec == !in_memory);
        if (strategy == Strategy::vmsplice) CHECK(!ec == in_memory);
      });
    }
  }
}

TEST_CASE("a tee that may not splice makes no pipe", "[tee]") {
  const ends::TimeLimit limit(60);
  const std::vector<Options> ways{{.strategy = Strategy::read_write}, {.allow = StrategySet{Strategy::read_write}}};
  for (const Options& options : ways) {
    ends::in_thread([&] {
      const File source(ends::temporary_file(content(large)));
      const File one(ends::temporary_file());
      const File two(ends::temporary_file());
      const std::size_t before = ends::open_descriptors();
      const auto r = transfer(source, tee(one, two), options);
      CHECK(r.delivered == large);
      CHECK(ends::open_descriptors() == before);  // no pooled pipe
      check_same(ends::pread_all(two.as_fd().get()), content(large), "two");
    });
  }
}

TEST_CASE("a sink that dies is named, and nothing is lost at the others", "[tee]") {
  const ends::TimeLimit limit(120);
  enum class Source { file, tcp, pipe };
  for (const Source kind : {Source::file, Source::tcp, Source::pipe}) {
    for (const Sort sort : every_sort) {
      for (std::size_t index = 0; index < 3; ++index) {
        for (const std::size_t reads : {std::size_t{0}, 300 * kibi}) {
          for (const DeadSink mode : {DeadSink::stop, DeadSink::go_on}) {
            for (const bool blocking : {false, true}) {
              INFO(static_cast<int>(kind)
                   << " source, " << name_of(sort) << " at " << index << " after " << reads
                   << (mode == DeadSink::stop ? ", stop" : ", go on") << (blocking ? ", blocking" : ""));
              std::array<Three::Plan, 3> plans{{{Sort::pipe}, {Sort::tcp}, {Sort::unix_stream}}};
              plans[index] = {sort, reads, true};
              Three three(plans, blocking);
              OwnedFd source;
              std::unique_ptr<ends::Feeder> feeder;
              if (kind == Source::file) {
                source = ends::temporary_file(content(large));
              } else {
                ends::FdPair pair = kind == Source::tcp ? ends::tcp_pair() : ends::pipe_pair();
                source = std::move(pair.one);
                feeder = std::make_unique<ends::Feeder>(std::move(pair.other), content(large));
              }
              std::error_code ec;
              auto r = transfer(source, tee(three.sinks[0], three.sinks[1], three.sinks[2]),
                                {.deadline = in(10s), .dead_sink = mode}, ec);
              INFO(text_of(r));
              CHECK(ec == Errc::sink_closed);
              CHECK(r.reason == StopReason::sink_closed);
              CHECK(r.side == Side::sink);
              REQUIRE(r.failed_sink);
              CHECK(*r.failed_sink == index);
              CHECK(r.sinks[index].error == r.error);
              CHECK(r.sinks[index].reason == StopReason::sink_closed);
              CHECK(r.sinks[index].delivered >= reads);
              if (mode == DeadSink::go_on) CHECK(r.consumed == large);
              std::uint64_t least = large;
              for (std::size_t i = 0; i < 3; ++i) {
                if (i == index) continue;
                least = std::min(least, r.sinks[i].delivered);
                CHECK(!r.sinks[i].error);
                const bool is_complete = r.sinks[i].delivered == large;
                CHECK(r.sinks[i].reason == (is_complete ? StopReason::complete : StopReason::stopped));
                if (mode == DeadSink::go_on) CHECK(r.sinks[i].delivered == large);
              }
              CHECK(r.delivered == least);
              // The living sinks go on with what is stranded for each, for all, and the source's rest.
              const auto consumed = static_cast<std::size_t>(r.consumed);
              if (kind == Source::file) {
                CHECK(ends::position_of(source.get()) == r.consumed);
                CHECK(!r.stranded);
              }
              for (std::size_t i = 0; i < 3; ++i) {
                if (i == index || !r.sinks[i].stranded) continue;
                const TransferResult late = transfer(*r.sinks[i].stranded, three.sinks[i], {.deadline = in(5s)});
                r.sinks[i].delivered += late.delivered;
              }
              const Bytes common = check_exact(r, mode == DeadSink::go_on, {index});
              for (std::size_t i = 0; i < 3; ++i) {
                if (i == index) continue;
                three.sinks[i].reset();
                Bytes got = three.readers[i]->got();
                got.insert(got.end(), common.begin(), common.end());
                check_same(got, content(consumed), "a living sink");
              }
              check_same(ends::read_to_end(source.get()), content(consumed, large - consumed), "the source's rest");
              if (three.readers[index])
                check_same(three.readers[index]->got(), content(three.readers[index]->got().size()), "the dead one");
            }
          }
        }
      }
    }
  }
}

TEST_CASE("all sinks die: the tee ends, whatever it was to do with dead ones", "[tee]") {
  const ends::TimeLimit limit(60);
  for (const DeadSink mode : {DeadSink::stop, DeadSink::go_on}) {
    for (const bool before : {false, true}) {
      for (const bool endless : {false, true}) {
        INFO((mode == DeadSink::stop ? "stop" : "go on") << ", before " << before << ", endless " << endless);
        const std::size_t reads = before ? 0 : 200 * kibi;
        Three three({{{Sort::pipe, reads, true}, {Sort::tcp, reads * 2, true}, {Sort::unix_stream, reads * 3, true}}});
        ends::FdPair pair = ends::tcp_pair();
        ends::Feeder feeder(std::move(pair.other), content(8 * mebi));
        const OwnedFd zero(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
        std::error_code ec;
        const OwnedFd& source = endless ? zero : pair.one;
        auto r = transfer(source, tee(three.sinks[0], three.sinks[1], three.sinks[2]),
                          {.deadline = in(8s), .dead_sink = mode}, ec);
        INFO(text_of(r));
        CHECK(ec == Errc::sink_closed);
        REQUIRE(r.failed_sink);
        if (mode == DeadSink::go_on)
          for (const SinkResult& sink : r.sinks) CHECK(sink.error == Errc::sink_closed);
        if (!endless) (void)check_exact(r, mode == DeadSink::go_on, {0, 1, 2});
        pair.one.reset();
      }
    }
  }
}

TEST_CASE("a sink that dies behind a silent source is noticed", "[tee]") {
  const ends::TimeLimit limit(60);
  for (const Sort sort : every_sort) {
    for (std::size_t index = 0; index < 3; ++index) {
      INFO(name_of(sort) << " at " << index);
      std::array<Three::Plan, 3> plans{{{Sort::pipe}, {Sort::tcp}, {Sort::unix_stream}}};
      plans[index] = {sort, 1000, true};
      Three three(plans);
      ends::FdPair source = ends::unix_pair();
      REQUIRE(ends::write_all(source.other.get(), content(5000)));
      if (sort == Sort::tcp) plans[index].closes = true;  // with unread bytes: a reset
      std::error_code ec;
      const auto start = Clock::now();
      auto r = transfer(source.one, tee(three.sinks[0], three.sinks[1], three.sinks[2]), {.deadline = in(3s)}, ec);
      INFO(text_of(r));
      CHECK(Clock::now() - start < 1s);
      CHECK(ec == Errc::sink_closed);
      CHECK((r.failed_sink && *r.failed_sink == index));
      CHECK(r.consumed == 5000);
      (void)check_exact(r, false, {index});
    }
  }
}

TEST_CASE("a source that fails in the middle: every sink has what came before", "[tee]") {
  const ends::TimeLimit limit(60);
  for (const bool with_dead_sink : {false, true}) {
    for (const std::size_t size : {std::size_t{1}, std::size_t{70000}, mebi}) {
      INFO(size << " bytes, dead sink " << with_dead_sink);
      const std::size_t dead_reads = with_dead_sink ? 0 : Three::all;
      Three three({{{Sort::pipe, dead_reads, with_dead_sink}, {Sort::tcp, size}, {Sort::unix_stream, size}}});
      ends::FdPair source = ends::tcp_pair();
      std::jthread peer([&] {
        std::ignore = ends::write_all(source.other.get(), content(size));
        (void)three.readers[1]->got();  // all has arrived: the reset destroys nothing
        (void)three.readers[2]->got();
        ends::reset_at_close(source.other.get());
        source.other.reset();
      });
      std::error_code ec;
      auto r = transfer(source.one, tee(three.sinks[0], three.sinks[1], three.sinks[2]),
                        {.deadline = in(5s), .dead_sink = DeadSink::go_on}, ec);
      peer.join();
      INFO(text_of(r));
      CHECK(ec == std::errc::connection_reset);
      CHECK(r.side == Side::source);
      CHECK(r.reason == StopReason::failed);
      CHECK(r.consumed == size);
      CHECK(r.delivered == size);
      CHECK(r.failed_sink.has_value() == with_dead_sink);
      if (with_dead_sink) CHECK(r.sinks[0].error == Errc::sink_closed);
      CHECK((!r.sinks[1].stranded && !r.sinks[2].stranded));
      check_same(three.readers[2]->got(), content(size), "sink 2");
    }
  }
}

TEST_CASE("a stalled sink is named when the time is up, and all bytes are accounted for", "[tee]") {
  const ends::TimeLimit limit(120);
  enum class By { idle, deadline, stop };
  for (const By by : {By::idle, By::deadline, By::stop}) {
    for (const Sort sort : every_sort) {
      for (std::size_t index = 0; index < 3; ++index) {
        for (const bool blocking : {false, true}) {
          INFO("by " << static_cast<int>(by) << ", " << name_of(sort) << " at " << index << ", blocking " << blocking);
          std::array<Three::Plan, 3> plans{{{Sort::pipe}, {Sort::tcp}, {Sort::unix_stream}}};
          plans[index] = {sort, 1000, false};
          Three three(plans, blocking);
          const OwnedFd source = ends::temporary_file(content(8 * mebi));
          std::stop_source stop;
          Options options;
          if (by == By::idle) options.idle_timeout = 100ms;
          if (by == By::deadline) options.deadline = in(200ms);
          if (by == By::stop) options.stop = stop.get_token();
          std::jthread stopper([&] {
            if (by != By::stop) return;
            std::this_thread::sleep_for(200ms);
            stop.request_stop();
          });
          std::error_code ec;
          const auto start = Clock::now();
          auto r = transfer(source, tee(three.sinks[0], three.sinks[1], three.sinks[2]), options, ec);
          const auto took = Clock::now() - start;
          INFO(text_of(r));
          CHECK(took < (by == By::idle ? 1000ms : 300ms));
          CHECK(ec == (by == By::stop ? std::errc::operation_canceled : std::errc::timed_out));
          CHECK((r.failed_sink && *r.failed_sink == index));
          CHECK(r.side == (by == By::stop ? Side::none : Side::sink));
          CHECK(r.consumed < 8 * mebi);
          CHECK(r.delivered == r.sinks[index].delivered);
          CHECK(ends::position_of(source.get()) == r.consumed);
          CHECK(r.sinks[index].error == ec);
          CHECK(r.sinks[index].stranded.has_value());
          // The stalled one reads again: it gets its own rest, and all have the same.
          const auto consumed = static_cast<std::size_t>(r.consumed);
          for (std::size_t i = 0; i < 3; ++i) {
            if (i != index) CHECK(held(r.sinks[i]) == 0);
            std::jthread late([&] {
              if (r.sinks[i].stranded) (void)transfer(*r.sinks[i].stranded, three.sinks[i], {.deadline = in(5s)});
              three.sinks[i].reset();
            });
            check_same(three.readers[i]->whole(), content(consumed), "after all");
          }
        }
      }
    }
  }
}

TEST_CASE("a sink that blocks is named when the deadline comes between two of its bytes", "[tee]") {
  const ends::TimeLimit limit(60);
  const ends::FdPair slow = pair_of(Sort::unix_stream);
  ends::set_nonblocking(slow.one.get(), true);
  const int room = 16 * static_cast<int>(kibi);  // less than is fetched at once
  ::setsockopt(slow.one.get(), SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
  const File file(ends::temporary_file());
  const File source(ends::temporary_file(content(large)));
  const auto deadline = in(100ms);
  // Heard when both have their first bytes, before the tee waits for the slow one.
  auto hear = [&](const ProgressReport& report) {
    if (report.bytes > 0) std::this_thread::sleep_until(deadline + 1ms);
  };
  std::error_code ec;
  auto r = transfer(source, tee(file, slow.one), {.deadline = deadline, .on_progress = {hear, 1ns}}, ec);
  INFO(text_of(r));
  CHECK(ec == std::errc::timed_out);
  CHECK((r.failed_sink && *r.failed_sink == 1));
  CHECK(r.side == Side::sink);
  CHECK(r.sinks[1].delivered > 0);
  (void)check_exact(r, false, {});
}

TEST_CASE("a dead sink and then a stalled one: time is up at the stalled one", "[tee]") {
  const ends::TimeLimit limit(60);
  Three three({{{Sort::pipe, 0, true}, {Sort::tcp}, {Sort::unix_stream, 1000, false}}});
  const OwnedFd source = ends::temporary_file(content(8 * mebi));
  std::error_code ec;
  auto r = transfer(source, tee(three.sinks[0], three.sinks[1], three.sinks[2]),
                    {.idle_timeout = 100ms, .dead_sink = DeadSink::go_on}, ec);
  INFO(text_of(r));
  CHECK(ec == std::errc::timed_out);
  CHECK((r.failed_sink && *r.failed_sink == 2));
  CHECK(r.sinks[0].error == Errc::sink_closed);
  CHECK(r.sinks[2].error == Errc::timed_out);
  (void)check_exact(r, true, {0});
}

TEST_CASE("a silent source: no sink is blamed when the time is up", "[tee]") {
  const ends::TimeLimit limit(60);
  ends::FdPair source = ends::unix_pair();
  REQUIRE(ends::write_all(source.other.get(), content(5000)));
  Three three({{{Sort::pipe}, {Sort::tcp}, {Sort::unix_stream}}});
  std::error_code ec;
  auto r = transfer(source.one, tee(three.sinks[0], three.sinks[1], three.sinks[2]), {.idle_timeout = 100ms}, ec);
  INFO(text_of(r));
  CHECK(ec == std::errc::timed_out);
  CHECK(!r.failed_sink);
  CHECK(r.delivered == 5000);
  CHECK(r.consumed == 5000);
}

TEST_CASE("a tee that waits for a slow sink costs nothing", "[tee]") {
  const ends::TimeLimit limit(60);
  const auto thread_time = [] {
    timespec now{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
  };
  for (const Sort sort : every_sort) {
    for (const bool blocking : {false, true}) {
      INFO(name_of(sort) << ", blocking " << blocking);
      Three three({{{Sort::pipe}, {sort, 0, false}, {Sort::unix_stream, 0, false}}}, blocking);
      const OwnedFd source = ends::temporary_file(content(8 * mebi));
      std::error_code ec;
      ends::in_thread([&] {
        const auto before = thread_time();
        auto r = transfer(source, tee(three.sinks[0], three.sinks[1], three.sinks[2]), {.deadline = in(700ms)}, ec);
        CHECK(thread_time() - before < 30ms);
        CHECK(ec == std::errc::timed_out);
      });
    }
  }
}

TEST_CASE("a bounded sink bounds all", "[tee]") {
  const ends::TimeLimit limit(60);
  for (const From from : every_source) {
    for (const bool by_range : {false, true}) {
      for (const std::uint64_t length : {to_end, std::uint64_t{20}, std::uint64_t{10}, std::uint64_t{5}}) {
        INFO(name_of(from) << (by_range ? ", range" : ", span") << ", length " << length);
        with_source(from, content(5000), false, [&](const auto& source) {
          const File file(ends::temporary_file());
          const File below(ends::temporary_file());
          Bytes memory(10);
          std::error_code ec;
          auto r = by_range ? transfer(source, tee(file, below.range(7, 10)), {.length = length}, ec) : TeeResult<2>();
          if (!by_range) r = transfer(source, tee(file, std::span(memory)), {.length = length}, ec);
          INFO(text_of(r));
          const std::size_t expected = length == 5 ? 5 : 10;
          CHECK(r.delivered == expected);
          CHECK(r.consumed == expected);
          CHECK((r.sinks[0].delivered == expected && r.sinks[1].delivered == expected));
          CHECK((!r.stranded && held(r.sinks[0]) == 0 && held(r.sinks[1]) == 0));
          check_same(ends::pread_all(file.as_fd().get()), content(expected), "file");
          const Bytes ranged = by_range ? ends::pread_all(below.as_fd().get(), 7) : memory;
          check_same(std::span(ranged).first(expected), content(expected), "bounded");
          if (by_range) CHECK(ranged.size() == expected);
          // A source range's own length is asked for, as by a transfer to one sink.
          if (length == 20 || (length == to_end && from == From::range)) {
            CHECK(ec == Errc::sink_full);
            CHECK(r.side == Side::sink);
            CHECK((r.failed_sink && *r.failed_sink == 1));
          } else {
            CHECK(!ec);
            CHECK(r.reason == StopReason::complete);
          }
          if constexpr (std::is_same_v<std::remove_cvref_t<decltype(source)>, File>)
            CHECK(ends::position_of(source.as_fd().get()) == expected);
        });
      }
    }
  }
}

TEST_CASE("a tee says complete and end_of_source where a transfer to one sink does", "[tee]") {
  const ends::TimeLimit limit(60);
  const OwnedFd file = ends::temporary_file(content(5000));
  for (const std::uint64_t range_length : {std::uint64_t{4000}, std::uint64_t{5000}, std::uint64_t{9000}, to_end}) {
    for (const std::uint64_t length : {std::uint64_t{4000}, std::uint64_t{5000}, std::uint64_t{9000}, to_end}) {
      for (const bool copies : {false, true}) {
        INFO("range " << range_length << ", length " << length << ", copies " << copies);
        const FileRange source(file.as_fd(), 0, range_length);
        const Options options{.strategy = copies ? std::optional(Strategy::read_write) : std::nullopt,
                              .length = length};
        const File one(ends::temporary_file());
        const File two(ends::temporary_file());
        std::error_code expected_error;
        std::error_code ec;
        const TransferResult expected = transfer(source, one, options, expected_error);
        const auto r = transfer(source, tee(one, two), options, ec);
        INFO(text_of(r));
        INFO(text_of(expected));
        CHECK(ec == expected_error);
        CHECK(r.reason == expected.reason);
        CHECK(r.delivered == expected.delivered);
        CHECK(r.side == expected.side);
      }
    }
  }
  for (const std::uint64_t room : {std::uint64_t{4000}, std::uint64_t{6000}}) {
    for (const std::uint64_t length : {std::uint64_t{3000}, std::uint64_t{7000}, to_end}) {
      for (const std::uint64_t range_length : {room, std::uint64_t{5000}, to_end}) {
        INFO("room " << room << ", length " << length << ", range " << range_length);
        const FileRange source(file.as_fd(), 0, range_length);
        const File below(ends::temporary_file());
        const File other(ends::temporary_file());
        std::error_code expected_error;
        std::error_code ec;
        const TransferResult expected = transfer(source, below.range(0, room), {.length = length}, expected_error);
        const auto r = transfer(source, tee(other, below.range(0, room)), {.length = length}, ec);
        INFO(text_of(r));
        INFO(text_of(expected));
        CHECK(ec == expected_error);
        CHECK(r.reason == expected.reason);
        CHECK(r.delivered == expected.delivered);
      }
    }
  }
}

TEST_CASE("a source that is also a sink: refused where it overlaps, else it ends where it ended", "[tee]") {
  const ends::TimeLimit limit(60);
  std::error_code ec;
  SECTION("one descriptor") {
    const File file(ends::temporary_file(content(5000)));
    const File other(ends::temporary_file());
    const auto r = transfer(file, tee(other, file), ec);
    CHECK(ec == std::errc::invalid_argument);
    CHECK((r.failed_sink && *r.failed_sink == 1));
    CHECK(r.consumed == 0);
    CHECK(ends::size_of(other.as_fd().get()) == 0);
    CHECK(ends::position_of(file.as_fd().get()) == 0);
  }
  SECTION("overlapping ranges") {
    const File file(ends::temporary_file(content(5000)));
    const File other(ends::temporary_file());
    (void)transfer(file.range(0, 3000), tee(file.range(2000), other), ec);
    CHECK(ec == std::errc::invalid_argument);
    CHECK(ends::size_of(other.as_fd().get()) == 0);
  }
  SECTION("behind its own end") {
    const File file(ends::temporary_file(content(5000)));
    const File other(ends::temporary_file());
    const auto r = transfer(file, tee(other, file.range(5000)), {.deadline = in(1s)}, ec);
    INFO(text_of(r));
    CHECK(!ec);
    CHECK(r.delivered == 5000);
    CHECK(r.reason == StopReason::complete);
    CHECK(ends::size_of(file.as_fd().get()) == 10000);
    check_same(ends::pread_all(other.as_fd().get()), content(5000), "other");
    check_same(ends::pread_all(file.as_fd().get(), 5000), content(5000), "appended");
  }
  SECTION("appended to") {
    const OwnedFd file = ends::temporary_file(content(5000));
    const OwnedFd again = ends::reopened(file.get(), O_WRONLY | O_APPEND);
    const File other(ends::temporary_file());
    const auto r = transfer(file, tee(again, other), {.length = 7000, .deadline = in(1s)}, ec);
    INFO(text_of(r));
    CHECK(!ec);
    CHECK(r.reason == StopReason::end_of_source);
    CHECK(r.delivered == 5000);
    CHECK(ends::size_of(file.get()) == 10000);
  }
  SECTION("one socket") {
    ends::FdPair pair = ends::tcp_pair();
    const File other(ends::temporary_file());
    (void)transfer(pair.one, tee(pair.one, other), ec);
    CHECK(ec == std::errc::invalid_argument);
  }
}

TEST_CASE("what a tee can't begin moves nothing and names the sink", "[tee]") {
  const ends::TimeLimit limit(60);
  const File source(ends::temporary_file(content(5000)));
  const File good(ends::temporary_file());
  std::error_code ec;
  TeeResult<2> r;
  SECTION("a message socket") {
    ends::FdPair pair = ends::unix_pair(SOCK_SEQPACKET);
    r = transfer(source, tee(good, pair.one), ec);
    CHECK(ec == Errc::strategy_unavailable);
  }
  SECTION("no descriptor") {
    r = transfer(source, tee(good, BorrowedFd(-1)), ec);
    CHECK(ec == std::errc::bad_file_descriptor);
  }
  SECTION("a directory") {
    const OwnedFd folder(::open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    r = transfer(source, tee(good, folder), ec);
    CHECK(ec == std::errc::is_a_directory);
  }
  SECTION("a range of a file for appending") {
    const OwnedFd file = ends::temporary_file();
    ::fcntl(file.get(), F_SETFL, O_APPEND);
    r = transfer(source, tee(good, FileRange(file.as_fd(), 5)), ec);
    CHECK(ec == std::errc::invalid_argument);
  }
  INFO(text_of(r));
  CHECK((r.failed_sink && *r.failed_sink == 1));
  CHECK(r.side == Side::sink);
  CHECK(r.delivered == 0);
  CHECK(r.consumed == 0);
  CHECK(ends::size_of(good.as_fd().get()) == 0);
  CHECK(ends::position_of(source.as_fd().get()) == 0);
}

TEST_CASE("the order of a tee's checks: bad input, length 0, time", "[tee]") {
  const File source(ends::temporary_file(content(5000)));
  const File good(ends::temporary_file());
  std::error_code ec;
  const auto past = Clock::now() - 1s;
  (void)transfer(source, tee(good, BorrowedFd(-1)), {.length = 0, .deadline = past}, ec);
  CHECK(ec == std::errc::bad_file_descriptor);
  auto r = transfer(source, tee(good, good), {.length = 0, .deadline = past}, ec);
  CHECK(!ec);
  CHECK(r.reason == StopReason::complete);
  CHECK(r.calls == 0);
  r = transfer(source, tee(good, good), {.deadline = past}, ec);
  CHECK(ec == std::errc::timed_out);
  CHECK(r.consumed == 0);
  CHECK(!r.failed_sink);
  (void)transfer(BorrowedFd(-1), tee(good, good), ec);
  CHECK(ec == std::errc::bad_file_descriptor);
  CHECK(ends::size_of(good.as_fd().get()) == 0);
}

TEST_CASE("a sink that can't be spliced to is copied to", "[tee]") {
  const ends::TimeLimit limit(60);
  for (const From from : every_source) {
    INFO(name_of(from));
    with_source(from, content(large), false, [&](const auto& source) {
      const OwnedFd appended = ends::temporary_file(content(6 * mebi, 33));
      ::fcntl(appended.get(), F_SETFL, O_APPEND);
      const OwnedFd null(::open("/dev/null", O_WRONLY | O_CLOEXEC));
      const File file(ends::temporary_file());
      std::error_code ec;
      check_whole(transfer(source, tee(appended, null, file), ec), ec, large);
      check_same(ends::pread_all(appended.get(), 33), content(large), "appended");
      check_same(ends::pread_all(file.as_fd().get()), content(large), "file");
    });
    with_source(from, content(large), false, [&](const auto& source) {
      const OwnedFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
      const File file(ends::temporary_file());
      std::error_code ec;
      auto r = transfer(source, tee(file, full), {.dead_sink = DeadSink::go_on}, ec);
      INFO(text_of(r));
      CHECK(ec == std::errc::no_space_on_device);
      CHECK((r.failed_sink && *r.failed_sink == 1));
      CHECK(r.sinks[1].delivered == 0);
      CHECK(r.sinks[1].reason == StopReason::failed);
      CHECK(r.delivered == large);
      check_same(ends::pread_all(file.as_fd().get()), content(large), "file");
      (void)check_exact(r, true, {1});
    });
  }
}

TEST_CASE("small segments fill a tee's pipes, and nothing is lost", "[tee]") {
  const ends::TimeLimit limit(60);
  ends::FdPair source = ends::tcp_pair();
  const int on = 1;
  ::setsockopt(source.other.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  std::jthread sender([&] {
    for (std::size_t at = 0; at < mebi; at += 100)
      if (!ends::write_all(source.other.get(), content(at, std::min<std::size_t>(100, mebi - at)))) break;
    source.other.reset();
  });
  PipePlace pipe(writer_pair(), false);
  SocketPlace tcp(ends::tcp_pair(), false);
  const File file(ends::temporary_file());
  std::error_code ec;
  check_whole(transfer(source.one, tee(*pipe.sink, *tcp.sink, file), {.deadline = in(20s)}, ec), ec, mebi);
  check_same(pipe.got(), content(mebi), "pipe");
  check_same(tcp.got(), content(mebi), "tcp");
  check_same(ends::pread_all(file.as_fd().get()), content(mebi), "file");
}

TEST_CASE("memory that the kernel may still read after a shared tee is said to be in use", "[tee]") {
  const ends::TimeLimit limit(60);
  for (const Sort sort : every_sort) {
    for (const bool tee_of_two : {false, true}) {
      INFO(name_of(sort) << (tee_of_two ? ", two sinks" : ", one sink"));
      ends::FdPair one = pair_of(sort);
      ends::FdPair two = pair_of(sort);
      const auto old = content(32 * kibi);
      Bytes memory(old.begin(), old.end());
      std::error_code ec;
      TransferResult r;
      const std::span<const std::byte> source(memory);
      const Options options{.deadline = in(1s), .aliasing = Aliasing::shared};
      if (tee_of_two) {
        r = transfer(source, tee(one.one, two.one), options, ec);
      } else {
        r = transfer(source, tee(one.one), options, ec);
      }
      CHECK(!ec);
      const bool says = r.source_in_use;
      std::fill(memory.begin(), memory.end(), std::byte{0});
      one.one.reset();
      two.one.reset();
      bool kept = ends::same(ends::read_to_end(one.other.get()), old);
      if (tee_of_two) kept = ends::same(ends::read_to_end(two.other.get()), old) && kept;
      INFO("says in use " << says << ", arrived unchanged " << kept);
      CHECK((says || kept));
    }
  }
}

TEST_CASE("a snapshot tee keeps what the source held", "[tee]") {
  const ends::TimeLimit limit(60);
  for (const bool from_memory : {false, true}) {
    ends::FdPair one = ends::unix_pair();
    ends::FdPair two = ends::tcp_pair();
    Bytes memory(content(20000).begin(), content(20000).end());
    const File file(ends::temporary_file(memory));
    std::error_code ec;
    if (from_memory) {
      (void)transfer(std::span<const std::byte>(memory), tee(one.one, two.one), ec);
    } else {
      (void)transfer(file, tee(one.one, two.one), {.aliasing = Aliasing::snapshot}, ec);
    }
    std::fill(memory.begin(), memory.end(), std::byte{0});
    ends::pwrite_all(file.as_fd().get(), memory, 0);
    one.one.reset();
    two.one.reset();
    check_same(ends::read_to_end(one.other.get()), content(20000), "unix");
    check_same(ends::read_to_end(two.other.get()), content(20000), "tcp");
  }
}

TEST_CASE("TeeError carries the whole TeeResult, and is a TransferError", "[tee]") {
  const ends::TimeLimit limit(60);
  Three three({{{Sort::pipe}, {Sort::tcp, 0, true}, {Sort::unix_stream}}});
  const File source(ends::temporary_file(content(large)));
  bool thrown = false;
  try {
    (void)transfer(source, tee(three.sinks[0], three.sinks[1], three.sinks[2]));
  } catch (const TransferError& error) {
    thrown = true;
    CHECK(error.code() == Errc::sink_closed);
    CHECK(error.result().consumed == ends::position_of(source.as_fd().get()));
    const auto* full = dynamic_cast<const TeeError<3>*>(&error);
    REQUIRE(full != nullptr);
    CHECK(full->result().failed_sink == std::optional<std::size_t>(1));
    CHECK(full->result().error == error.code());
    CHECK(full->result().consumed == error.result().consumed);
    CHECK(std::string(error.what()).find("sink 1") != std::string::npos);
    (void)check_exact(full->result(), false, {1});
  }
  CHECK(thrown);
}

TEST_CASE("on_progress of a tee tells what every sink has, and ends with delivered", "[tee]") {
  const ends::TimeLimit limit(60);
  for (const bool slow : {false, true}) {
    std::uint64_t last = 0;
    std::size_t heard = 0;
    bool rising = true;
    bool never_more = true;
    std::atomic<std::uint64_t> read{0};
    auto hear = [&](const ProgressReport& report) {
      rising = rising && report.bytes >= last;
      // The slow one has what was read, what its socket holds, and no more.
      if (slow) never_more = never_more && report.bytes <= read + 512 * kibi;
      last = report.bytes;
      ++heard;
    };
    ends::FdPair pair = ends::unix_pair();
    ends::set_nonblocking(pair.one.get(), true);
    const File file(ends::temporary_file());
    const File source(ends::temporary_file(content(large)));
    std::jthread reader([&] {
      Bytes block(32 * kibi);
      for (;;) {
        if (slow) std::this_thread::sleep_for(300us);
        const ssize_t n = ::read(pair.other.get(), block.data(), block.size());
        if (n <= 0) break;
        read += static_cast<std::uint64_t>(n);
      }
    });
    std::error_code ec;
    const auto r = transfer(source, tee(file, pair.one), {.on_progress = {hear, 1ns}}, ec);
    pair.one.reset();
    reader.join();
    CHECK(!ec);
    CHECK(last == r.delivered);
    CHECK(heard > 2);
    CHECK(rising);
    CHECK(never_more);
  }
  // One that ends early tells what was delivered, not what was fetched.
  std::uint64_t last = 0;
  auto hear = [&](const ProgressReport& report) { last = report.bytes; };
  Three three({{{Sort::pipe}, {Sort::tcp}, {Sort::unix_stream, 1000, false}}});
  const File source(ends::temporary_file(content(large)));
  std::error_code ec;
  const auto r = transfer(source, tee(three.sinks[0], three.sinks[1], three.sinks[2]),
                          {.idle_timeout = 100ms, .on_progress = {hear, 1ns}}, ec);
  CHECK(ec == std::errc::timed_out);
  CHECK(last == r.delivered);
}

TEST_CASE("a tee leaves flags, options and signals as they were", "[tee]") {
  const ends::TimeLimit limit(60);
  for (const bool blocking : {false, true}) {
    for (const bool dies : {false, true}) {
      Three three({{{Sort::pipe}, {Sort::tcp}, {Sort::unix_stream, dies ? 1000 : Three::all, dies}}}, blocking);
      ends::FdPair source = ends::tcp_pair();
      ends::Feeder feeder(std::move(source.other), content(large));
      const auto before = std::array{ends::FdState::of(source.one.get()), ends::FdState::of(three.sinks[0].get()),
                                     ends::FdState::of(three.sinks[1].get()), ends::FdState::of(three.sinks[2].get())};
      const ends::SignalState signals = ends::SignalState::now();
      std::error_code ec;
      (void)transfer(source.one, tee(three.sinks[0], three.sinks[1], three.sinks[2]), {.deadline = in(10s)}, ec);
      CHECK(bool(ec) == dies);
      const auto after = std::array{ends::FdState::of(source.one.get()), ends::FdState::of(three.sinks[0].get()),
                                    ends::FdState::of(three.sinks[1].get()), ends::FdState::of(three.sinks[2].get())};
      CHECK(before == after);
      CHECK(signals == ends::SignalState::now());
      source.one.reset();
      for (OwnedFd& sink : three.sinks) sink.reset();
    }
  }
}

TEST_CASE("no SIGPIPE of a tee reaches the process, and one that was pending stays", "[tee]") {
  for (const bool pending : {false, true}) {
    const std::string wrong = ends::in_child([&]() -> std::string {
      ends::Wrong bad;
      ::signal(SIGPIPE, SIG_DFL);
      if (pending) {
        ends::without_sigpipe();
        ::pthread_kill(::pthread_self(), SIGPIPE);
      }
      for (const Sort sort : every_sort) {
        for (const bool blocking : {false, true}) {
          Three three({{{sort, 0, true}, {sort, 0, true}, {sort, 0, true}}}, blocking);
          const File source(ends::temporary_file(content(large)));
          const ends::SignalState before = ends::SignalState::now();
          std::error_code ec;
          (void)transfer(source, tee(three.sinks[0], three.sinks[1], three.sinks[2]), {.dead_sink = DeadSink::go_on},
                         ec);
          bad.unless(ec == Errc::sink_closed, ec.message());
          bad.unless(before == ends::SignalState::now(), "the signals changed");
        }
      }
      return bad.text();
    });
    INFO(wrong);
    CHECK(wrong.empty());
  }
}

TEST_CASE("64 failed tees leave no descriptor and no dirty pipe behind", "[tee]") {
  const ends::TimeLimit limit(60);
  const std::size_t before = ends::open_descriptors();
  ends::in_thread([&] {
    for (std::size_t i = 0; i < 64; ++i) {
      std::array<Three::Plan, 3> plans{{{Sort::pipe}, {Sort::tcp}, {Sort::unix_stream}}};
      plans[i % 3] = {every_sort[i % 3], i % 2 == 0 ? 0U : 100U * static_cast<unsigned>(kibi), true};
      Three three(plans, i % 5 == 4);
      ends::FdPair source = ends::unix_pair();
      ends::Feeder feeder(std::move(source.other), content(mebi));
      std::error_code ec;
      auto r = transfer(source.one, tee(three.sinks[0], three.sinks[1], three.sinks[2]),
                        {.dead_sink = i % 4 < 2 ? DeadSink::stop : DeadSink::go_on}, ec);
      CHECK(ec == Errc::sink_closed);
      if (i % 8 == 0) (void)check_exact(r, i % 4 >= 2, {i % 3});
      source.one.reset();
      for (OwnedFd& sink : three.sinks) sink.reset();
    }
    run_shapes(From::tcp, {false, large, {}});
    CHECK(ends::open_descriptors() < before + 16);
  });
  CHECK(ends::open_descriptors() == before);
}

TEST_CASE("a tee goes on without pipes, with small ones, and where splice or tee is refused", "[tee]") {
  const ends::TimeLimit limit(120);
  // From a file, a pipe and a socket into a file, memory and a socket.
  const auto whole = []() -> std::string {
    ends::Wrong wrong;
    for (const int kind : {0, 1, 2}) {
      OwnedFd source;
      std::unique_ptr<ends::Feeder> feeder;
      if (kind == 0) {
        source = ends::temporary_file(content(large));
      } else {
        ends::FdPair pair = kind == 1 ? ends::unix_pair() : ends::tcp_pair();
        source = std::move(pair.one);
        feeder = std::make_unique<ends::Feeder>(std::move(pair.other), content(large));
      }
      const OwnedFd file = ends::temporary_file();
      Bytes memory(large);
      ends::FdPair local = ends::unix_pair();
      ends::set_nonblocking(local.one.get(), true);
      ends::Drainer drainer(local.other.get());
      std::error_code ec;
      auto r = transfer(source, tee(file, std::span(memory), local.one), {.deadline = in(20s)}, ec);
      local.one.reset();
      wrong.unless(!ec, text_of(r));
      wrong.unless(r.delivered == large && r.consumed == large, "counts: " + text_of(r));
      wrong.unless(ends::same(ends::pread_all(file.get()), content(large)), "file");
      wrong.unless(ends::same(memory, content(large)), "memory");
      wrong.unless(ends::same(drainer.bytes(), content(large)), "socket");
    }
    return wrong.text();
  };
  const auto refused = [&](const std::vector<long>& calls, int error) {
    const std::string wrong = ends::in_child([&] {
      ends::refuse(calls, error);
      return whole();
    });
    INFO(calls.front() << " refused with " << std::strerror(error) << ": " << wrong);
    CHECK(wrong.empty());
  };
  for (const int error : {EPERM, ENOSYS, EINVAL}) {
    refused({SYS_splice}, error);
    refused({SYS_tee}, error);
    refused({SYS_splice, SYS_tee}, error);
  }
  refused({SYS_tee}, EAGAIN);
  refused({SYS_tee}, ENOMEM);
  refused({SYS_splice, SYS_tee, SYS_sendfile, SYS_copy_file_range}, EPERM);
  refused({SYS_pipe2}, EMFILE);
  const std::string small = ends::in_child([&]() -> std::string {
    ends::become_nobody();
    std::vector<ends::FdPair> quota;
    for (int i = 0; i < 70; ++i) {
      quota.push_back(ends::pipe_pair());
      (void)::fcntl(quota.back().one.get(), F_SETPIPE_SZ, 1 << 20);
    }
    return whole();
  });
  INFO(small);
  CHECK(small.empty());
  // No descriptor is left but for one pipe: a tee needs four.
  const std::string few = ends::in_child([&]() -> std::string {
    const OwnedFd source = ends::temporary_file(content(large));
    const OwnedFd one = ends::temporary_file();
    const OwnedFd two = ends::temporary_file();
    for (const rlim_t left : {0U, 2U, 3U, 5U}) {
      ::lseek(source.get(), 0, SEEK_SET);
      ::lseek(one.get(), 0, SEEK_SET);
      ::lseek(two.get(), 0, SEEK_SET);
      const rlimit most{static_cast<rlim_t>(two.get()) + 1 + left, 4096};
      ::setrlimit(RLIMIT_NOFILE, &most);
      std::error_code ec;
      ends::in_thread([&] { (void)transfer(source, tee(one, two), ec); });
      const rlimit again{1024, 4096};
      ::setrlimit(RLIMIT_NOFILE, &again);
      if (ec) return std::to_string(left) + " left: " + ec.message();
      if (!ends::same(ends::pread_all(one.get()), content(large))) return "one";
      if (!ends::same(ends::pread_all(two.get()), content(large))) return "two";
    }
    return {};
  });
  INFO(few);
  CHECK(few.empty());
}

TEST_CASE("one of the sinks is slow: all get everything", "[tee]") {
  const ends::TimeLimit limit(60);
  for (std::size_t index = 0; index < 3; ++index) {
    for (const bool blocking : {false, true}) {
      INFO(index << ", blocking " << blocking);
      std::array<ends::FdPair, 3> pairs{pair_of(Sort::pipe), pair_of(Sort::tcp), pair_of(Sort::unix_stream)};
      for (ends::FdPair& pair : pairs) ends::set_nonblocking(pair.one.get(), !blocking);
      std::array<Bytes, 3> got;
      std::vector<std::jthread> readers;
      for (std::size_t i = 0; i < 3; ++i)
        readers.emplace_back([&, i] {
          Bytes block(i == index ? 7001 : 256 * kibi);
          for (;;) {
            if (i == index && got[i].size() < 700 * kibi) std::this_thread::sleep_for(500us);
            const ssize_t n = ::read(pairs[i].other.get(), block.data(), block.size());
            if (n <= 0) break;
            got[i].insert(got[i].end(), block.begin(), block.begin() + n);
          }
        });
      ends::FdPair source = ends::tcp_pair();
      ends::Feeder feeder(std::move(source.other), content(large));
      std::error_code ec;
      check_whole(transfer(source.one, tee(pairs[0].one, pairs[1].one, pairs[2].one), ec), ec, large);
      for (ends::FdPair& pair : pairs) pair.one.reset();
      readers.clear();
      for (const Bytes& bytes : got) check_same(bytes, content(large), "sink");
    }
  }
}
