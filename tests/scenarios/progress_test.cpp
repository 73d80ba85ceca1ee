// on_progress: how often it is called, what it says, and that hearing of a transfer does not change it.
#include "catch.hpp"
#include "support/process.hpp"

#include <cmath>
#include <mutex>
#include <optional>

namespace {

using namespace ends;
using zc::Errc;
using zc::StopReason;
using zc::Strategy;

constexpr std::size_t big = std::size_t{8} << 20;

std::string name(const std::optional<Strategy>& s) { return s ? std::string(to_string(*s)) : "automatic"; }

zc::File file_of(std::span<const std::byte> bytes) { return zc::File(temporary_file(bytes)); }

// Everything that one transfer tells.
struct Listener {
  struct Call {
    zc::ProgressReport report{};
    Clock::time_point when{};
    std::thread::id thread{};
  };
  std::vector<Call> calls{};
  Clock::time_point began = Clock::now();

  void operator()(const zc::ProgressReport& report) {
    calls.push_back({report, Clock::now(), std::this_thread::get_id()});
  }
  [[nodiscard]] const zc::ProgressReport& last() const { return calls.back().report; }
  void clear() {
    calls.clear();
    began = Clock::now();
  }

  // What holds of every transfer that moved something; called right after it.
  void check(const zc::TransferResult& r, std::chrono::nanoseconds interval, std::optional<std::uint64_t> total) const {
    const auto took = Clock::now() - began;
    REQUIRE(!calls.empty());
    CHECK(last().bytes == r.delivered);
    if (interval > 0ns) CHECK(static_cast<std::int64_t>(calls.size()) <= took / interval + 1);
    std::uint64_t before = 0;
    Clock::time_point called = began;
    for (std::size_t i = 0; i < calls.size(); ++i) {
      const Call& call = calls[i];
      CHECK(call.report.bytes >= before);
      INFO("total " << (call.report.total ? std::to_string(*call.report.total) : "unknown") << ", expected "
                    << (total ? std::to_string(*total) : "unknown"));
      CHECK((call.report.total == total));
      if (total) CHECK(call.report.bytes <= *total);
      CHECK(std::isfinite(call.report.bytes_per_second));
      CHECK(call.report.bytes_per_second >= 0);
      // On average since the start, which is at or after `began`.
      const std::chrono::duration<double> so_far = call.when - began;
      const double least = static_cast<double>(call.report.bytes) / so_far.count();
      CHECK(call.report.bytes_per_second >= least * 0.9);
      CHECK(call.thread == std::this_thread::get_id());
      // The last one comes at the end whatever the interval.
      if (i + 1 < calls.size()) CHECK(call.when - called >= interval - 1ms);
      before = call.report.bytes;
      called = call.when;
    }
  }
};

// A reader that takes `step` bytes, then waits.
std::thread slow_reader(int fd, std::size_t step, std::chrono::milliseconds pause) {
  return std::thread([=] {
    while (!read_to_end(fd, step).empty()) std::this_thread::sleep_for(pause);
  });
}

}  // namespace

TEST_CASE("progress: at most one call in an interval and one at the end, which says all that was delivered") {
  const TimeLimit alarm(120);
  for (const bool blocking : {false, true}) {
    for (const auto& s : {std::optional<Strategy>{}, std::optional{Strategy::sendfile}, std::optional{Strategy::splice},
                          std::optional{Strategy::mmap_write}, std::optional{Strategy::read_write}}) {
      for (const auto interval : {0ns, std::chrono::nanoseconds(20ms), std::chrono::nanoseconds(1h)}) {
        INFO(name(s) << (blocking ? ", blocking" : "") << ", every " << interval.count() << " ns");
        FdPair pair = tcp_pair(20000);
        const int small = 100000;
        ::setsockopt(pair.one.get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
        set_nonblocking(pair.one.get(), !blocking);
        std::thread reader = slow_reader(pair.other.get(), 200000, 5ms);
        const zc::File from = file_of(pattern(0, 4 << 20));
        Listener listener;
        const auto r = zc::transfer(from, pair.one, {.strategy = s, .on_progress = {listener, interval}});
        listener.check(r, interval, 4 << 20);
        CHECK(r.delivered == 4 << 20);
        if (interval == std::chrono::nanoseconds(1h)) CHECK(listener.calls.size() == 1);
        if (interval == std::chrono::nanoseconds(20ms)) CHECK(listener.calls.size() >= 2);
        pair.one.reset();
        reader.join();
      }
    }
  }
}

TEST_CASE("progress: the total of lengths, files, ranges and of bounded sinks") {
  Listener listener;
  std::error_code ec;
  const auto total_of = [&](auto& from, const auto& to, std::uint64_t length) {
    listener.clear();
    const auto r = zc::transfer(from, to, {.length = length, .on_progress = {listener, 0ns}}, ec);
    REQUIRE(!listener.calls.empty());
    listener.check(r, 0ns, listener.last().total);
    return listener.last().total;
  };
  constexpr std::optional<std::uint64_t> unknown;
  for (const std::size_t size : {std::size_t{1000}, std::size_t{100000}, std::size_t{3000000}}) {
    INFO("size " << size);
    FdPair pair = unix_pair();
    Drainer drainer(pair.other.get());
    zc::File file = file_of(pattern(0, size));
    CHECK(total_of(file, pair.one, zc::to_end) == size);
    file.seek(100);
    CHECK(total_of(file, pair.one, zc::to_end) == size - 100);
    file.seek(100);
    CHECK(total_of(file, pair.one, 500) == 500);
    file.seek(100);
    CHECK(total_of(file, pair.one, size + 7) == size - 100);
    file.seek(0);
    const zc::BorrowedFd borrowed(file.as_fd().get());
    CHECK(total_of(borrowed, pair.one, zc::to_end) == size);
    const zc::FileRange middle = file.range(10, 300);
    CHECK(total_of(middle, pair.one, zc::to_end) == 300);
    CHECK(total_of(middle, pair.one, 50) == 50);
    const zc::FileRange tail = file.range(10);
    CHECK(total_of(tail, pair.one, zc::to_end) == size - 10);
    const zc::FileRange beyond = file.range(10, size);
    CHECK(total_of(beyond, pair.one, zc::to_end) == size - 10);
    const auto memory = pattern(0, size);
    CHECK(total_of(memory, pair.one, 70) == 70);
    zc::MemoryFile memory_file = zc::MemoryFile::create("progress");
    pwrite_all(memory_file.as_fd().get(), pattern(0, size), 0);
    CHECK(total_of(memory_file, pair.one, zc::to_end) == size);
    // The sink's own room bounds it.
    Bytes room(400);
    const zc::FileRange all = file.range(0);
    CHECK(total_of(all, std::span(room), zc::to_end) == 400);
    const zc::File other = file_of({});
    CHECK(total_of(all, other.range(0, 200), zc::to_end) == 200);
    pair.one.reset();
  }
  // A source that does not know how long it is.
  FdPair from = unix_pair();
  write_all(from.other.get(), pattern(0, 5000));
  ::shutdown(from.other.get(), SHUT_WR);
  FdPair to = unix_pair();
  CHECK(total_of(from.one, to.one, 100) == 100);
  CHECK(total_of(from.one, to.one, zc::to_end) == unknown);
  FdPair pipe = pipe_pair();
  write_all(pipe.other.get(), pattern(0, 5000));
  pipe.other.reset();
  CHECK(total_of(pipe.one, to.one, 100) == 100);
  CHECK(total_of(pipe.one, to.one, zc::to_end) == unknown);
  const zc::OwnedFd zero(checked(::open("/dev/zero", O_RDONLY | O_CLOEXEC), "open"));
  CHECK(total_of(zero, to.one, 100) == 100);
}

TEST_CASE("progress: stranded bytes know how many they are") {
  FdPair from = unix_pair();
  write_all(from.other.get(), pattern(0, 5000));
  const zc::OwnedFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  std::error_code ec;
  auto first = zc::transfer(from.one, full, {.length = 5000}, ec);
  REQUIRE(first.stranded);
  FdPair to = unix_pair();
  Listener listener;
  const auto r = zc::transfer(*first.stranded, to.one, {.on_progress = {listener, 0ns}}, ec);
  CHECK(r.delivered == 5000);
  REQUIRE(!listener.calls.empty());
  CHECK(listener.last().bytes == 5000);
  CHECK((!listener.last().total || *listener.last().total == 5000));
}

TEST_CASE("progress: the strategy, the trail and the bytes are the same with and without it") {
  const TimeLimit alarm(120);
  enum class To { file, range, pipe, tcp, unix_stream, blocking_tcp };
  for (const To to : {To::file, To::range, To::pipe, To::tcp, To::unix_stream, To::blocking_tcp}) {
    for (const int source : {0, 1, 2, 3, 4}) {
      INFO("sink " << static_cast<int>(to) << ", source " << source);
      std::optional<Strategy> strategy[2];
      std::vector<std::string> trail[2];
      for (const bool told : {false, true}) {
        FdPair pair = to == To::pipe ? pipe_pair() : to == To::unix_stream ? unix_pair() : tcp_pair();
        if (to == To::pipe) std::swap(pair.one, pair.other);
        set_nonblocking(pair.one.get(), to != To::blocking_tcp);
        std::optional<Drainer> drainer;
        const bool to_file = to == To::file || to == To::range;
        if (!to_file) drainer.emplace(pair.other.get());
        const zc::File sink = file_of({});
        const zc::File from = file_of(pattern(0, big));
        const zc::FileRange range = from.range(0, big);
        const zc::MappedFile mapped = zc::MappedFile::map(from);
        FdPair stream = source == 3 ? pipe_pair() : tcp_pair();
        std::optional<Feeder> feeder;
        if (source >= 3) feeder.emplace(std::move(stream.other), pattern(0, big));
        Listener listener;
        zc::Options options{};
        if (told) options.on_progress = {listener, 1ms};
        const auto move = [&](const auto& end) {
          if (to == To::file) return zc::transfer(end, sink, options);
          if (to == To::range) return zc::transfer(end, sink.range(0), options);
          return zc::transfer(end, pair.one, options);
        };
        const auto r = source == 0   ? move(from)
                       : source == 1 ? move(range)
                       : source == 2 ? move(mapped)
                                     : move(stream.one);
        CHECK(r.delivered == big);
        CHECK_FALSE(r.stranded);
        if (told && source != 2) listener.check(r, 1ms, source < 2 ? std::optional<std::uint64_t>(big) : std::nullopt);
        strategy[told ? 1 : 0] = r.strategy;
        for (const auto step : r.trail)
          trail[told ? 1 : 0].push_back(std::string(to_string(step.strategy)) + ": " + step.error.message());
        pair.one.reset();
        CHECK(same(to_file ? pread_all(sink.as_fd().get()) : drainer->bytes(), pattern(0, big)));
      }
      CHECK(strategy[0] == strategy[1]);
      CHECK(trail[0] == trail[1]);
    }
  }
}

TEST_CASE("progress: it is told while the transfer runs, and the rate is that of the reader") {
  const TimeLimit alarm(60);
  FdPair pair = unix_pair();
  // 64 KiB each 10 ms at the most: 6.5 MB/s.
  std::thread reader = slow_reader(pair.other.get(), 65536, 10ms);
  const zc::File from = file_of(pattern(0, 3 << 20));
  Listener listener;
  const auto r = zc::transfer(from, pair.one, {.on_progress = {listener, 50ms}});
  const auto took = Clock::now() - listener.began;
  listener.check(r, 50ms, 3 << 20);
  CHECK(listener.calls.size() >= static_cast<std::size_t>(took / 50ms) / 2);
  for (std::size_t i = 1; i < listener.calls.size(); ++i)
    CHECK(listener.calls[i].report.bytes_per_second < 8e6 + 300000 / 0.05);  // what is in the buffers comes at once
  const double rate = static_cast<double>(r.delivered) / std::chrono::duration<double>(took).count();
  CHECK(std::abs(listener.last().bytes_per_second - rate) < 0.1 * rate);
  pair.one.reset();
  reader.join();
}

TEST_CASE("progress: a transfer that ends early tells how far it came") {
  const TimeLimit alarm(60);
  for (const auto& s : {std::optional<Strategy>{}, std::optional{Strategy::splice}, std::optional{Strategy::mmap_write},
                        std::optional{Strategy::read_write}}) {
    for (const int how : {0, 1, 2, 3}) {
      INFO(name(s) << ", how " << how);
      FdPair pair = unix_pair();
      const zc::File from = file_of(pattern(0, big));
      Listener listener;
      zc::Options options{.strategy = s, .on_progress = {listener, 1h}};
      std::stop_source stop;
      std::thread other([&] {
        if (how < 2) return;
        std::this_thread::sleep_for(50ms);
        if (how == 2) stop.request_stop();
        if (how == 3) pair.other.reset();
      });
      if (how == 0) options.deadline = Clock::now() + 50ms;
      if (how == 1) options.idle_timeout = 50ms;
      if (how == 2) options.stop = stop.get_token();
      std::error_code ec;
      const auto r = zc::transfer(from, pair.one, options, ec);
      other.join();
      CHECK(ec == (how < 2 ? Errc::timed_out : how == 2 ? Errc::stopped : Errc::sink_closed));
      REQUIRE(listener.calls.size() == 1);
      CHECK(listener.last().bytes == r.delivered);
      CHECK(listener.last().total == big);
    }
  }
}

TEST_CASE("progress: nothing asked for or bad input is told nothing or 0 bytes") {
  const zc::File from = file_of(pattern(0, 1000));
  FdPair pair = unix_pair();
  Listener listener;
  std::error_code ec;
  std::ignore = zc::transfer(from, pair.one, {.length = 0, .on_progress = {listener, 0ns}}, ec);
  std::ignore = zc::transfer(zc::BorrowedFd(-1), pair.one, {.on_progress = {listener, 0ns}}, ec);
  std::ignore = zc::transfer(from, pair.one, {.deadline = Clock::now() - 1s, .on_progress = {listener, 0ns}}, ec);
  std::ignore = zc::transfer(file_of({}), pair.one, {.on_progress = {listener, 0ns}}, ec);
  for (const auto& call : listener.calls) CHECK(call.report.bytes == 0);
}

TEST_CASE("progress: a source without an end is told of in time, not only between giant calls") {
  // One call of 2 GiB without a cut would say nothing for a second.
  zc::File from = zc::File::temporary();
  from.resize(std::uint64_t{600} << 20);
  for (const auto& s :
       {std::optional<Strategy>{}, std::optional{Strategy::sendfile}, std::optional{Strategy::splice}}) {
    INFO(name(s));
    from.seek(0);
    const zc::File to = zc::File::temporary();
    Listener listener;
    const auto r = zc::transfer(from, to, {.strategy = s, .on_progress = {listener, 20ms}});
    CHECK(r.delivered == std::uint64_t{600} << 20);
    listener.check(r, 20ms, std::uint64_t{600} << 20);
    Clock::time_point before = listener.began;
    for (const auto& call : listener.calls) {
      CHECK(call.when - before < 500ms);
      before = call.when;
    }
  }
}

TEST_CASE("progress: the callable may use the library for other descriptors") {
  FdPair pair = tcp_pair(20000);
  Drainer drainer(pair.other.get());
  FdPair source = unix_pair();
  Feeder feeder(std::move(source.other), pattern(0, 4000000));
  std::size_t right = 0;
  std::size_t calls = 0;
  auto nested = [&](const zc::ProgressReport&) {
    FdPair from = unix_pair();
    FdPair to = unix_pair();
    write_all(from.other.get(), pattern(7, 1000));
    std::error_code ec;
    std::stop_source stop;
    const auto r =
        zc::transfer(from.one, to.one, {.strategy = Strategy::splice, .length = 1000, .stop = stop.get_token()}, ec);
    ++calls;
    if (!ec && r.delivered == 1000 && same(read_now(to.other.get()), pattern(7, 1000))) ++right;
  };
  const auto r = zc::transfer(source.one, pair.one, {.strategy = Strategy::splice, .on_progress = {nested, 0ns}});
  CHECK(r.delivered == 4000000);
  CHECK(calls > 0);
  CHECK(right == calls);
  pair.one.reset();
  CHECK(same(drainer.bytes(), pattern(0, 4000000)));
}

TEST_CASE("progress: a gather tells once in an interval, bytes over all parts, and all of them at the end") {
  const TimeLimit alarm(60);
  for (const auto interval : {0ns, std::chrono::nanoseconds(10ms), std::chrono::nanoseconds(1h)}) {
    INFO("every " << interval.count() << " ns");
    FdPair pair = tcp_pair(20000);
    std::thread reader = slow_reader(pair.other.get(), 200000, 2ms);
    const zc::File file = file_of(pattern(0, 3000000));
    FdPair from = unix_pair();
    write_all(from.other.get(), pattern(0, 500));
    from.other.reset();
    Listener listener;
    const auto r = zc::transfer(zc::gather(pattern(0, 100), file.range(5, 2000000), from.one, pattern(0, 50)), pair.one,
                                {.on_progress = {listener, interval}});
    CHECK(r.delivered == 100 + 2000000 + 500 + 50);
    listener.check(r, interval, std::nullopt);
    if (interval == std::chrono::nanoseconds(1h)) CHECK(listener.calls.size() == 1);
    pair.one.reset();
    reader.join();
  }
}

TEST_CASE("progress: a callable that asks for a stop is obeyed") {
  FdPair pair = unix_pair();
  Drainer drainer(pair.other.get());
  const zc::File from = file_of(pattern(0, big));
  std::stop_source stop;
  std::uint64_t last = 0;
  auto enough = [&](const zc::ProgressReport& now) {
    last = now.bytes;
    if (now.bytes >= 1000000) stop.request_stop();
  };
  std::error_code ec;
  const auto r =
      zc::transfer(from, pair.one, {.stop = stop.get_token(), .on_progress = {enough, 0ns}, .chunk_size = 100000}, ec);
  CHECK(ec == Errc::stopped);
  CHECK(r.delivered >= 1000000);
  CHECK(r.delivered <= 1200000);
  CHECK(last == r.delivered);
  CHECK(from.position() == r.delivered);
  pair.one.reset();
  CHECK(same(drainer.bytes(), pattern(0, static_cast<std::size_t>(r.delivered))));
}

TEST_CASE("progress: the total of memory and of a mapped file") {
  Listener listener;
  for (const std::size_t size : {std::size_t{1000}, std::size_t{3000000}}) {
    FdPair pair = unix_pair();
    Drainer drainer(pair.other.get());
    auto r = zc::transfer(pattern(0, size), pair.one, {.on_progress = {listener, 0ns}});
    listener.check(r, 0ns, size);
    const zc::MappedFile mapped = zc::MappedFile::map(file_of(pattern(0, size)));
    listener.clear();
    r = zc::transfer(mapped, pair.one, {.on_progress = {listener, 0ns}});
    listener.check(r, 0ns, size);
    listener.clear();
    const zc::File file = file_of({});
    r = zc::transfer(pattern(0, size), file, {.on_progress = {listener, 0ns}});
    listener.check(r, 0ns, size);
    listener.clear();
    pair.one.reset();
  }
}

TEST_CASE("progress: a transfer with `more` knows its whole total too") {
  FdPair pair = tcp_pair();
  Drainer drainer(pair.other.get());
  const zc::File from = file_of(pattern(0, 3000000));
  Listener listener;
  const auto r = zc::transfer(from, pair.one, {.on_progress = {listener, 0ns}, .more = true});
  CHECK(r.delivered == 3000000);
  listener.check(r, 0ns, 3000000);
  pair.one.reset();
}

TEST_CASE("progress: a gather is one transfer, with one total and one last call") {
  const TimeLimit alarm(60);
  for (const auto interval : {0ns, std::chrono::nanoseconds(10ms), std::chrono::nanoseconds(1h)}) {
    INFO("every " << interval.count() << " ns");
    FdPair pair = tcp_pair(20000);
    std::thread reader = slow_reader(pair.other.get(), 200000, 2ms);
    const zc::File file = file_of(pattern(0, 3000000));
    const zc::File other = file_of(pattern(0, 1000));
    Listener listener;
    const auto r =
        zc::transfer(zc::gather(pattern(0, 100), file.range(5, 2000000), other, pattern(0, 50), file.range(2900000)),
                     pair.one, {.on_progress = {listener, interval}});
    CHECK(r.delivered == 100 + 2000000 + 1000 + 50 + 100000);
    listener.check(r, interval, 100 + 2000000 + 1000 + 50 + 100000);
    if (interval == std::chrono::nanoseconds(1h)) CHECK(listener.calls.size() == 1);
    pair.one.reset();
    reader.join();
  }
}

TEST_CASE("progress: the total of a gather with a length, with a file alone and with a socket") {
  FdPair pair = unix_pair();
  Drainer drainer(pair.other.get());
  zc::File file = file_of(pattern(0, 1000));
  Listener listener;
  auto r = zc::transfer(zc::gather(pattern(0, 100), file), pair.one, {.length = 300, .on_progress = {listener, 0ns}});
  listener.check(r, 0ns, 300);
  listener.clear();
  file.seek(0);
  r = zc::transfer(zc::gather(file), pair.one, {.on_progress = {listener, 0ns}});
  listener.check(r, 0ns, 1000);
  FdPair from = unix_pair();
  write_all(from.other.get(), pattern(0, 500));
  from.other.reset();
  listener.clear();
  r = zc::transfer(zc::gather(pattern(0, 100), from.one), pair.one, {.on_progress = {listener, 0ns}});
  CHECK(r.delivered == 600);
  listener.check(r, 0ns, std::nullopt);
  pair.one.reset();
}
