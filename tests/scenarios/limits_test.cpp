// Time limits and cancellation: every pair, every strategy, both kinds of descriptors, against peers that stop. Each ends
// within 100 ms of its limit with an exact result, and leaves both descriptors as they were.
#include "catch.hpp"
#include "support/process.hpp"

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>

#include <pty.h>
#include <termios.h>

namespace {

using namespace ends;
using zc::Errc;
using zc::Side;
using zc::StopReason;
using zc::Strategy;

constexpr auto limit_of_a_case = 40ms;
constexpr auto allowed_lateness = 100ms;
constexpr std::size_t big = std::size_t{8} << 20;
constexpr std::size_t start = 1000;  // where a file source begins
constexpr std::size_t some = 1000;   // what a silent source says before it is silent

const std::optional<Strategy> every_strategy[] = {
    std::nullopt,       Strategy::reflink,   Strategy::copy_file_range, Strategy::sendfile,
    Strategy::splice,   Strategy::vmsplice,  Strategy::mmap_write,      Strategy::send_zerocopy,
    Strategy::io_uring, Strategy::direct_io, Strategy::read_write};

std::string name(const std::optional<Strategy>& s) { return s ? std::string(to_string(*s)) : "automatic"; }

enum class Limit { deadline, idle, stop };
constexpr Limit every_limit[] = {Limit::deadline, Limit::idle, Limit::stop};
const char* name(Limit limit) { return limit == Limit::deadline ? "deadline" : limit == Limit::idle ? "idle" : "stop"; }

enum class End { file, range, memory, mapped, pipe, fifo, tcp, unix_stream, tty };
const char* name(End end) {
  constexpr const char* names[] = {"file", "range", "memory", "mapped", "pipe", "fifo", "tcp", "unix", "tty"};
  return names[static_cast<std::size_t>(end)];
}
bool is_file(End end) { return end == End::file || end == End::range; }
bool is_rewindable(End end) { return is_file(end) || end == End::memory || end == End::mapped; }
bool is_socket(End end) { return end == End::tcp || end == End::unix_stream; }

// Both ends of a FIFO without a name, both blocking.
FdPair fifo_pair() {
  const TempDir dir;
  const std::string path = dir / "fifo";
  checked(::mkfifo(path.c_str(), 0600), "mkfifo");
  FdPair pair;
  pair.one.reset(checked(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC), "open"));
  pair.other.reset(checked(::open(path.c_str(), O_WRONLY | O_CLOEXEC), "open"));
  set_nonblocking(pair.one.get(), false);
  return pair;
}
// A raw terminal: `one` is the tty, `other` the master, which never blocks.
FdPair tty_pair() {
  int master = -1;
  int slave = -1;
  checked(::openpty(&master, &slave, nullptr, nullptr, nullptr), "openpty");
  FdPair pair{zc::OwnedFd(slave), zc::OwnedFd(master)};
  termios raw{};
  ::tcgetattr(slave, &raw);
  ::cfmakeraw(&raw);
  ::tcsetattr(slave, TCSANOW, &raw);
  set_nonblocking(master, true);
  return pair;
}
FdPair pair_of(End end) {
  switch (end) {
    case End::pipe: return pipe_pair();
    case End::fifo: return fifo_pair();
    case End::tcp: return tcp_pair(20000);
    case End::tty: return tty_pair();
    default: return unix_pair();
  }
}

// After `patience`, unless the case has ended before, frees a transfer that hangs, so that a defect is a failure of one
// case and not the end of the program.
class Watchdog {
 public:
  Watchdog(std::chrono::milliseconds time, std::function<void()> free_it)
      : thread_([this, time, f = std::move(free_it)] {
          std::unique_lock lock(mutex_);
          if (!ended_.wait_for(lock, time, [this] { return over_; })) f();
        }) {}
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;
  ~Watchdog() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    ended_.notify_one();
    thread_.join();
  }

 private:
  std::mutex mutex_;
  std::condition_variable ended_;
  bool over_ = false;
  std::thread thread_;
};

struct Case {
  End from{};
  End to{};
  std::optional<Strategy> strategy{};
  Limit limit{};
  bool blocking = false;
  bool typed = false;  // Socket, PipeReader, ... instead of BorrowedFd
  bool cork = false;
  std::chrono::microseconds send_timeout{0};  // the caller's own SO_SNDTIMEO
  std::size_t send_buffer = 0;                // 0: the default

  [[nodiscard]] std::string text() const {
    return std::string(name(from)) + " to " + name(to) + ", " + name(strategy) + ", " + name(limit) +
           (blocking ? ", blocking" : ", non-blocking") + (typed ? ", typed" : "") + (cork ? ", corked" : "") +
           (send_timeout.count() != 0 ? ", own SO_SNDTIMEO" : "") + (send_buffer != 0 ? ", small SO_SNDBUF" : "");
  }
};

struct Report {
  std::size_t cases = 0;
  std::size_t unavailable = 0;
  std::vector<std::string> failures{};
  std::chrono::nanoseconds worst{0};
  std::string worst_case{};

  void unless(bool holds, const Case& c, const std::string& what) {
    if (!holds) failures.push_back(c.text() + ": " + what);
  }
  void late(std::chrono::nanoseconds by, const Case& c) {
    if (by > worst) worst = by, worst_case = c.text();
  }
  void require(const char* what) const {
    std::string text;
    for (std::size_t i = 0; i < failures.size() && i < 40; ++i) text += "\n  " + failures[i];
    std::printf("%s: %zu cases, %zu strategies unavailable, %zu failures, worst lateness %.1f ms (%s)\n", what, cases,
                unavailable, failures.size(), static_cast<double>(worst.count()) / 1e6, worst_case.c_str());
    CHECK(cases > unavailable);
    INFO(text);
    CHECK(failures.empty());
  }
};

// What the library is given, with its other end.
struct Ends {
  FdPair pair{};
  zc::OwnedFd file{};  // of a source or a sink that is a file
  Bytes memory{};      // of a sink that is memory
  std::optional<zc::FileRange> range{};
  std::optional<zc::MappedFile> mapped{};
  std::optional<zc::WritableMappedFile> writable{};
  std::optional<zc::Socket> socket{};
  std::optional<zc::PipeReader> reader{};
  std::optional<zc::PipeWriter> writer{};
  std::optional<zc::File> typed_file{};
  int fd = -1;  // what the library is given
};

template <class Sink>
zc::TransferResult run_from(const Case& c, Ends& from, const Sink& to, const zc::Options& options,
                            std::error_code& ec) {
  if (from.socket) return zc::transfer(*from.socket, to, options, ec);
  if (from.reader) return zc::transfer(*from.reader, to, options, ec);
  if (from.typed_file) return zc::transfer(*from.typed_file, to, options, ec);
  if (from.range) return zc::transfer(*from.range, to, options, ec);
  if (from.mapped) return zc::transfer(*from.mapped, to, options, ec);
  if (c.from == End::memory) return zc::transfer(pattern(start, big), to, options, ec);
  return zc::transfer(zc::BorrowedFd(from.fd), to, options, ec);
}
zc::TransferResult run(const Case& c, Ends& from, Ends& to, const zc::Options& options, std::error_code& ec) {
  if (to.socket) return run_from(c, from, *to.socket, options, ec);
  if (to.writer) return run_from(c, from, *to.writer, options, ec);
  if (to.range) return run_from(c, from, *to.range, options, ec);
  if (to.writable) return run_from(c, from, *to.writable, options, ec);
  if (c.to == End::memory) return run_from(c, from, std::span(to.memory), options, ec);
  return run_from(c, from, zc::BorrowedFd(to.fd), options, ec);
}

// Hands the library's end of the pair to a handle, where the case asks for types.
void make_typed(Ends& end, End kind, bool is_source) {
  if (is_socket(kind)) end.socket.emplace(std::move(end.pair.one));
  if (kind == End::pipe && is_source) end.reader.emplace(std::move(end.pair.one));
  if (kind == End::pipe && !is_source) end.writer.emplace(std::move(end.pair.one));
  if (kind == End::file && is_source) end.typed_file.emplace(std::move(end.file));
}

Ends source_of(const Case& c) {
  Ends from;
  if (c.from == End::memory) return from;
  if (is_rewindable(c.from)) {
    from.file = temporary_file(pattern(0, start + big));
    from.fd = from.file.get();
    ::lseek(from.fd, start, SEEK_SET);
    const zc::FileRange range(zc::BorrowedFd(from.fd), start, big);
    if (c.from == End::range) from.range.emplace(range);
    if (c.from == End::mapped) from.mapped.emplace(zc::MappedFile::map(range));
  } else {
    from.pair = pair_of(c.from);
    from.fd = from.pair.one.get();
    set_nonblocking(from.fd, !c.blocking);
  }
  if (c.typed) make_typed(from, c.from, true);
  return from;
}
Ends sink_of(const Case& c) {
  Ends to;
  if (c.to == End::memory) {
    to.memory.resize(big);
  } else if (is_rewindable(c.to)) {
    to.file = temporary_file();
    to.fd = to.file.get();
    if (c.to == End::range) to.range.emplace(zc::BorrowedFd(to.fd), 0);
    if (c.to == End::mapped) {
      checked(::ftruncate(to.fd, big), "ftruncate");
      const zc::File file(reopened(to.fd, O_RDWR));
      to.writable.emplace(zc::WritableMappedFile::map(file));
    }
  } else {
    to.pair = pair_of(c.to);
    if (c.to == End::pipe || c.to == End::fifo) std::swap(to.pair.one, to.pair.other);
    to.fd = to.pair.one.get();
    set_nonblocking(to.fd, !c.blocking);
    if (c.send_buffer != 0) {
      const int size = static_cast<int>(c.send_buffer);
      ::setsockopt(to.fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    }
    if (c.send_timeout.count() != 0) {
      const timeval time{0, static_cast<suseconds_t>(c.send_timeout.count())};
      ::setsockopt(to.fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
    }
    const int on = c.cork ? 1 : 0;
    if (c.to == End::tcp) ::setsockopt(to.fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on);
  }
  if (c.typed) make_typed(to, c.to, false);
  return to;
}

// What reached the sink; at least `n` bytes are waited for.
Bytes arrived(const Case& c, Ends& to, std::size_t n) {
  if (c.to == End::memory) return {to.memory.begin(), to.memory.begin() + static_cast<std::ptrdiff_t>(n)};
  if (c.to == End::mapped) {
    Bytes all = pread_all(to.fd);
    all.resize(n);
    return all;
  }
  if (is_file(c.to)) return pread_all(to.fd);
  Bytes got = read_to_end(to.pair.other.get(), n);
  if (c.to != End::tty) {
    to.pair.one.reset();
    to.socket.reset();
    to.writer.reset();
  }
  const Bytes rest = c.to == End::tty ? read_now(to.pair.other.get()) : read_to_end(to.pair.other.get());
  got.insert(got.end(), rest.begin(), rest.end());
  return got;
}

struct Ended {
  zc::TransferResult result{};
  std::error_code error{};
  std::chrono::nanoseconds took{0};
  std::chrono::nanoseconds late{0};  // behind its limit; for an idle timeout: behind its start
};

// One transfer under the case's limit.
Ended run_limited(const Case& c, Ends& from, Ends& to) {
  zc::Options options{.strategy = c.strategy};
  if (c.strategy == Strategy::vmsplice || c.strategy == Strategy::send_zerocopy)
    options.aliasing = zc::Aliasing::shared;
  std::stop_source stop;
  std::optional<Clock::time_point> stopped_at;
  std::optional<Watchdog> stopper;
  const auto began = Clock::now();
  if (c.limit == Limit::deadline) options.deadline = began + limit_of_a_case;
  if (c.limit == Limit::idle) options.idle_timeout = limit_of_a_case;
  if (c.limit == Limit::stop) {
    options.stop = stop.get_token();
    stopper.emplace(limit_of_a_case, [&] {
      stopped_at = Clock::now();
      stop.request_stop();
    });
  }
  Ended ended;
  ended.result = run(c, from, to, options, ended.error);
  const auto end = Clock::now();
  stopper.reset();
  ended.took = end - began;
  ended.late = c.limit == Limit::stop ? (stopped_at ? end - *stopped_at : 0ns) : ended.took - limit_of_a_case;
  return ended;
}

// The counts, and where every byte is.
void check_bytes(const Case& c, Ends& from, Ends& to, zc::TransferResult& r, std::span<const std::byte> content,
                 Report& report) {
  const Bytes got = arrived(c, to, static_cast<std::size_t>(r.delivered));
  report.unless(same(got, content.subspan(0, static_cast<std::size_t>(r.delivered))), c,
                "the sink has " + std::to_string(got.size()) + " bytes or other ones, delivered says " +
                    std::to_string(r.delivered));
  const std::size_t held = r.stranded ? r.stranded->size() : 0;
  report.unless(r.consumed == r.delivered + held, c, "consumed is not delivered and stranded");
  if (is_rewindable(c.from)) {
    report.unless(held == 0, c, "stranded bytes of a source that can be rewound");
    if (from.fd >= 0)
      report.unless(position_of(from.fd) == start + (c.from == End::file ? r.delivered : 0), c, "source position");
    return;
  }
  if (held > 0) {
    Bytes memory(held);
    std::error_code ec;
    const auto rest = zc::transfer(*r.stranded, std::span(memory), ec);
    report.unless(!ec && rest.delivered == held, c, "the stranded bytes could not be delivered");
    report.unless(same(memory, content.subspan(static_cast<std::size_t>(r.delivered), held)), c, "stranded bytes");
  }
  // The source's next byte follows.
  const std::size_t next = std::min<std::size_t>(500, content.size() - static_cast<std::size_t>(r.consumed));
  const Bytes follows = read_to_end(from.fd, next);
  report.unless(same(follows, content.subspan(static_cast<std::size_t>(r.consumed), next)), c,
                "the source does not go on where `consumed` says");
}

bool check_ending(const Case& c, const Ended& ended, Report& report) {
  const zc::TransferResult& r = ended.result;
  if (c.strategy && ended.error == Errc::strategy_unavailable) {
    ++report.unavailable;
    report.unless(r.delivered == 0 && r.consumed == 0, c, "unavailable, but it moved bytes");
    report.unless(!r.trail.empty(), c, "unavailable, without a reason");
    return false;
  }
  const bool stop = c.limit == Limit::stop;
  report.unless(r.reason == (stop ? StopReason::stopped : StopReason::timed_out), c,
                "reason " + std::string(to_string(r.reason)) + ", " + ended.error.message());
  report.unless(ended.error == (stop ? Errc::stopped : Errc::timed_out), c, "error " + ended.error.message());
  report.unless(ended.error == (stop ? std::errc::operation_canceled : std::errc::timed_out), c, "std::errc");
  report.unless(ended.error == r.error, c, "result.error");
  report.unless(ended.took >= limit_of_a_case - 1ms, c, "ended before its limit");
  if (c.strategy && r.delivered > 0) report.unless(r.strategy == c.strategy, c, "another strategy moved the bytes");
  return true;
}

// A peer that does not read: everything fills up, then nothing moves.
Ended stalled_sink(const Case& c, Report& report) {
  Ends from = source_of(c);
  Ends to = sink_of(c);
  const std::span<const std::byte> content = pattern(start, big);
  std::optional<Feeder> feeder;
  if (!is_rewindable(c.from)) feeder.emplace(std::move(from.pair.other), content);
  const FdState from_before = FdState::of(from.fd);
  const FdState to_before = FdState::of(to.fd);
  const SignalState signals = SignalState::now();
  Ended ended;
  {
    const Watchdog dog(2s, [&] { std::ignore = read_to_end(to.pair.other.get(), big); });
    ended = run_limited(c, from, to);
  }
  report.unless(from_before == FdState::of(from.fd), c, "the source's flags or options changed");
  report.unless(to_before == FdState::of(to.fd), c, "the sink's flags or options changed");
  report.unless(signals == SignalState::now(), c, "signal mask or pending signals changed");
  if (check_ending(c, ended, report)) {
    report.unless(ended.result.delivered > 0, c, "nothing delivered");
    check_bytes(c, from, to, ended.result, content, report);
  }
  from.pair.one.reset();
  from.socket.reset();
  from.reader.reset();
  return ended;
}

// A source that says a few bytes and then nothing, open as it is.
Ended silent_source(const Case& c, Report& report) {
  Ends from = source_of(c);
  Ends to = sink_of(c);
  const std::span<const std::byte> content = pattern(start, some);
  if (!write_all(from.pair.other.get(), content)) report.unless(false, c, "the source could not be filled");
  const FdState from_before = FdState::of(from.fd);
  const FdState to_before = FdState::of(to.fd);
  const SignalState signals = SignalState::now();
  Ended ended;
  {
    const Watchdog dog(2s, [&] {
      if (is_socket(c.from)) ::shutdown(from.pair.other.get(), SHUT_RDWR);
      from.pair.other.reset();
    });
    ended = run_limited(c, from, to);
  }
  report.unless(from_before == FdState::of(from.fd), c, "the source's flags or options changed");
  report.unless(to_before == FdState::of(to.fd), c, "the sink's flags or options changed");
  report.unless(signals == SignalState::now(), c, "signal mask or pending signals changed");
  if (check_ending(c, ended, report)) {
    report.unless(ended.result.delivered == some, c, "delivered " + std::to_string(ended.result.delivered));
    check_bytes(c, from, to, ended.result, content, report);
  }
  return ended;
}

// A machine that is busy can hold any thread: a case that is late is tried again, and is a failure if it is late twice.
template <class Run>
void run_case(const Case& c, Report& report, Run one) {
  ++report.cases;
  Ended ended = one(c, report);
  if (ended.late > allowed_lateness) ended = one(c, report);
  report.late(ended.late, c);
  report.unless(
      ended.late <= allowed_lateness, c,
      "late by " + std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(ended.late).count()) + " ms");
}

template <class Use>
void each(std::initializer_list<End> from, std::initializer_list<End> to, Use use) {
  for (const End f : from)
    for (const End t : to)
      for (const auto& s : every_strategy)
        for (const Limit limit : every_limit)
          for (const bool blocking : {false, true})
            use(Case{.from = f, .to = t, .strategy = s, .limit = limit, .blocking = blocking});
}

}  // namespace

TEST_CASE("a peer that does not read, from files and memory: every limit, every strategy, blocking or not") {
  const TimeLimit alarm(280);
  Report report;
  each({End::file, End::range, End::mapped, End::memory}, {End::pipe, End::fifo, End::tcp, End::unix_stream},
       [&](const Case& c) { run_case(c, report, stalled_sink); });
  report.require("files to stalled sinks");
}

TEST_CASE("a peer that does not read, from pipes and sockets: every limit, every strategy, blocking or not") {
  const TimeLimit alarm(280);
  Report report;
  each({End::pipe, End::tcp, End::unix_stream}, {End::pipe, End::fifo, End::tcp, End::unix_stream},
       [&](const Case& c) { run_case(c, report, stalled_sink); });
  report.require("streams to stalled sinks");
}

TEST_CASE("a source that is silent: every limit, every strategy, blocking or not") {
  const TimeLimit alarm(280);
  Report report;
  each({End::pipe, End::fifo, End::tcp, End::unix_stream},
       {End::file, End::range, End::memory, End::mapped, End::pipe, End::tcp, End::unix_stream},
       [&](const Case& c) { run_case(c, report, silent_source); });
  report.require("silent sources");
}

TEST_CASE("the same limits with the library's own types") {
  const TimeLimit alarm(280);
  Report report;
  each({End::file, End::pipe, End::unix_stream}, {End::pipe, End::tcp, End::unix_stream}, [&](Case c) {
    c.typed = true;
    run_case(c, report, stalled_sink);
    if (!is_rewindable(c.from)) run_case(c, report, silent_source);
  });
  report.require("typed ends");
}
