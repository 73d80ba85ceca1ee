// Time limits and cancellation: every pair, every strategy, both kinds of descriptors, against peers that stop. Each ends
// within 100 ms of its limit with an exact result, and leaves both descriptors as they were.
#include "catch.hpp"
#include "support/process.hpp"

#include <atomic>
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
  std::chrono::nanoseconds late{0};  // behind its limit
  bool hung = false;
};

// Frees a transfer that hangs at this end.
void hang_up(End kind, Ends& end) {
  if (is_socket(kind)) ::shutdown(end.pair.other.get(), SHUT_RDWR);
  end.pair.other.reset();
}

// One transfer under the case's limit.
void run_limited(const Case& c, Ends& from, Ends& to, Ended& ended) {
  zc::Options options{.strategy = c.strategy};
  if (c.strategy == Strategy::vmsplice || c.strategy == Strategy::send_zerocopy)
    options.aliasing = zc::Aliasing::shared;
  std::stop_source stop;
  std::optional<Clock::time_point> stopped_at;
  std::optional<Watchdog> stopper;
  const auto began = Clock::now();
  auto last_byte = began;
  std::uint64_t delivered = 0;
  const auto watch = [&](const zc::ProgressReport& now) {
    if (now.bytes != std::exchange(delivered, now.bytes)) last_byte = Clock::now();
  };
  if (c.limit == Limit::deadline) options.deadline = began + limit_of_a_case;
  if (c.limit == Limit::idle) {
    options.idle_timeout = limit_of_a_case;
    options.on_progress = {watch, 0ns};
  }
  if (c.limit == Limit::stop) {
    options.stop = stop.get_token();
    stopper.emplace(limit_of_a_case, [&] {
      stopped_at = Clock::now();
      stop.request_stop();
    });
  }
  ended.result = run(c, from, to, options, ended.error);
  const auto end = Clock::now();
  stopper.reset();
  ended.took = end - began;
  if (c.limit == Limit::deadline) ended.late = ended.took - limit_of_a_case;
  if (c.limit == Limit::idle) ended.late = end - last_byte - limit_of_a_case;
  if (c.limit == Limit::stop && stopped_at) ended.late = end - *stopped_at;
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
    const Watchdog dog(1s, [&] { hang_up(c.to, to), ended.hung = true; });
    run_limited(c, from, to, ended);
  }
  if (ended.hung) {
    report.unless(false, c, "hangs");
    return ended;
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
    const Watchdog dog(1s, [&] { hang_up(c.from, from), ended.hung = true; });
    run_limited(c, from, to, ended);
  }
  if (ended.hung) {
    report.unless(false, c, "hangs");
    return ended;
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
  if (ended.late > allowed_lateness && !ended.hung) ended = one(c, report);
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

namespace {

// What the receiver of one more transfer would notice: how long one took, and what this thread's CPU did meanwhile.
std::chrono::nanoseconds cpu_of_this_thread() {
  timespec used{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  return std::chrono::seconds(used.tv_sec) + std::chrono::nanoseconds(used.tv_nsec);
}

// Does `f` once more where it took too long the first time: another program may have had the CPU.
template <class F>
std::chrono::nanoseconds shortest_of_two(std::chrono::nanoseconds most, F f) {
  const auto first = f();
  return first <= most ? first : std::min(first, f());
}

std::chrono::milliseconds in_ms(std::chrono::nanoseconds time) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(time);
}

}  // namespace

TEST_CASE(
    "sendfile and splice really run into a blocking socket under a limit: big and small buffers, corked, with the "
    "caller's own SO_SNDTIMEO") {
  const TimeLimit alarm(280);
  Report report;
  for (const End to : {End::tcp, End::unix_stream})
    for (const Strategy s : {Strategy::sendfile, Strategy::splice})
      for (const Limit limit : every_limit)
        for (const std::size_t buffer : {std::size_t{0}, std::size_t{4096}, std::size_t{100000}})
          for (const auto own : {0us, 5000us, 300000us})
            for (const bool cork : {false, true}) {
              if ((cork && to != End::tcp) || (own == 300000us && buffer != 0)) continue;
              const Case c{.from = End::file,
                           .to = to,
                           .strategy = s,
                           .limit = limit,
                           .blocking = true,
                           .cork = cork,
                           .send_timeout = own,
                           .send_buffer = buffer};
              run_case(c, report, stalled_sink);
            }
  report.require("cut calls");
  CHECK(report.unavailable == 0);
}

TEST_CASE("a limit on a blocking socket does not change the strategy that is chosen") {
  for (const bool tcp : {true, false}) {
    for (const bool blocking : {true, false}) {
      INFO((tcp ? "tcp" : "unix") << (blocking ? ", blocking" : ""));
      std::optional<Strategy> used[2];
      std::size_t trail[2];
      for (const bool limited : {false, true}) {
        FdPair pair = tcp ? tcp_pair() : unix_pair();
        set_nonblocking(pair.one.get(), !blocking);
        Drainer drainer(pair.other.get());
        const zc::File from(temporary_file(pattern(0, big)));
        zc::Options options{};
        if (limited) options.deadline = Clock::now() + 20s;
        const auto r = zc::transfer(from, pair.one, options);
        pair.one.reset();
        CHECK(r.delivered == big);
        CHECK(same(drainer.bytes(), pattern(0, big)));
        used[limited ? 1 : 0] = r.strategy;
        trail[limited ? 1 : 0] = r.trail.size();
      }
      CHECK(used[0] == Strategy::sendfile);
      CHECK(used[1] == used[0]);
      CHECK(trail[1] == trail[0]);
    }
  }
}

TEST_CASE("a second writer that keeps a blocking socket full, and a reader that drips: the deadline holds") {
  const TimeLimit alarm(120);
  for (const bool tcp : {true, false}) {
    for (const auto& s : {std::optional<Strategy>{}, std::optional{Strategy::sendfile}, std::optional{Strategy::splice},
                          std::optional{Strategy::mmap_write}}) {
      const auto once = [&] {
        FdPair pair = tcp ? tcp_pair(20000) : unix_pair();
        std::atomic<bool> over{false};
        std::thread writer([&] {
          without_sigpipe();
          const auto block = pattern(0, 8192);
          while (!over && wait_for(pair.one.get(), POLLOUT, Clock::now() + 1s))
            std::ignore = ::send(pair.one.get(), block.data(), block.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        });
        std::thread reader([&] {
          Bytes block(tcp ? 16384 : 4096);
          while (!over) {
            std::ignore = ::recv(pair.other.get(), block.data(), block.size(), MSG_DONTWAIT);
            std::this_thread::sleep_for(12ms);
          }
          std::ignore = read_to_end(pair.other.get());
        });
        const zc::File from(temporary_file(pattern(0, big)));
        std::error_code ec;
        const auto began = Clock::now();
        const auto r = zc::transfer(from, pair.one, {.strategy = s, .deadline = began + 200ms}, ec);
        const auto took = Clock::now() - began;
        over = true;
        writer.join();
        pair.one.reset();
        reader.join();
        CHECK(ec == Errc::timed_out);
        CHECK(from.position() == r.delivered);
        return std::chrono::nanoseconds(took);
      };
      INFO(name(s) << (tcp ? " to tcp" : " to unix"));
      const auto took = shortest_of_two(300ms, once);
      CHECK(in_ms(took).count() <= 300);
    }
  }
}

TEST_CASE("a tty that nobody reads, or that is silent: every limit, blocking or not") {
  const TimeLimit alarm(280);
  Report report;
  const auto copies = [](const Case& c) { return c.strategy != Strategy::sendfile && c.strategy != Strategy::splice; };
  each({End::file, End::memory, End::mapped, End::pipe, End::unix_stream}, {End::tty}, [&](const Case& c) {
    if (copies(c)) run_case(c, report, stalled_sink);
  });
  each({End::tty}, {End::file, End::memory, End::pipe, End::tcp, End::unix_stream}, [&](const Case& c) {
    if (copies(c)) run_case(c, report, silent_source);
  });
  report.require("ttys");
}

TEST_CASE("a tty whose output is stopped by ^S: the limit holds, and what was delivered is there after ^Q") {
  const TimeLimit alarm(60);
  for (const bool blocking : {false, true}) {
    FdPair pair = tty_pair();
    set_nonblocking(pair.one.get(), !blocking);
    CHECK(::tcflow(pair.one.get(), TCOOFF) == 0);
    const zc::File from(temporary_file(pattern(0, 10000)));
    std::error_code ec;
    const auto began = Clock::now();
    zc::TransferResult r;
    {
      const Watchdog dog(2s, [&] { ::tcflow(pair.one.get(), TCOON); });
      r = zc::transfer(from, pair.one, {.deadline = began + 100ms}, ec);
    }
    CHECK(Clock::now() - began < 200ms);
    CHECK(ec == Errc::timed_out);
    CHECK(from.position() == r.delivered);
    CHECK(::tcflow(pair.one.get(), TCOON) == 0);
    const Bytes got = read_now(pair.other.get());
    CHECK(same(got, pattern(0, static_cast<std::size_t>(r.delivered))));
  }
}

TEST_CASE("a deadline that is past moves nothing, whatever the pair, the strategy and the descriptors") {
  const TimeLimit alarm(120);
  std::vector<std::string> wrong;
  const auto try_it = [&](const Case& c) {
    Ends from = source_of(c);
    Ends to = sink_of(c);
    if (!is_rewindable(c.from)) CHECK(write_all(from.pair.other.get(), pattern(start, some)));
    const FdState before = FdState::of(to.fd);
    const auto aliasing = c.from == End::memory ? zc::Aliasing::shared : zc::Aliasing::automatic;
    std::error_code ec;
    const auto r = run(c, from, to, {.strategy = c.strategy, .deadline = Clock::now() - 1ns, .aliasing = aliasing}, ec);
    if (c.strategy && ec == Errc::strategy_unavailable) return;
    Wrong w;
    w.unless(ec == Errc::timed_out && ec == std::errc::timed_out, ec.message());
    w.unless(r.reason == StopReason::timed_out, "reason");
    w.unless(r.delivered == 0 && r.consumed == 0 && r.calls == 0 && !r.stranded && !r.strategy, "something moved");
    w.unless(before == FdState::of(to.fd), "options");
    if (is_rewindable(c.from) && from.fd >= 0) w.unless(position_of(from.fd) == start, "source position");
    if (!is_rewindable(c.from)) w.unless(read_now(from.fd).size() == some, "the source was read");
    if (is_file(c.to))
      w.unless(size_of(to.fd) == 0, "the sink grew");
    else if (!is_rewindable(c.to))
      w.unless(read_now(to.pair.other.get()).empty(), "the receiver got bytes");
    if (!w.text().empty()) wrong.push_back(c.text() + ": " + w.text());
  };
  for (const End f : {End::file, End::range, End::memory, End::mapped, End::pipe, End::tcp, End::unix_stream})
    for (const End t : {End::file, End::range, End::pipe, End::tcp, End::unix_stream, End::tty})
      for (const auto& s : every_strategy)
        for (const bool blocking : {false, true}) try_it({.from = f, .to = t, .strategy = s, .blocking = blocking});
  std::string text;
  for (const std::string& line : wrong) text += "\n  " + line;
  CHECK(text == "");
}

TEST_CASE("a deadline that is past, a gather and stranded bytes: nothing moves") {
  FdPair pair = unix_pair();
  const zc::File file(temporary_file(pattern(0, 1000)));
  std::error_code ec;
  const auto past = Clock::now() - 1s;
  auto r =
      zc::transfer(zc::gather(pattern(0, 10), file.range(0, 100), pattern(0, 10)), pair.one, {.deadline = past}, ec);
  CHECK(ec == Errc::timed_out);
  CHECK(r.delivered == 0);
  CHECK(r.calls == 0);
  CHECK(read_now(pair.other.get()).empty());

  FdPair from = unix_pair();
  write_all(from.other.get(), pattern(0, 5000));
  const zc::OwnedFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  r = zc::transfer(from.one, full, {.length = 5000}, ec);
  REQUIRE(r.stranded);
  const auto late = zc::transfer(*r.stranded, pair.one, {.deadline = past}, ec);
  CHECK(ec == Errc::timed_out);
  CHECK(late.delivered == 0);
  CHECK(late.consumed == 0);
  CHECK(r.stranded->size() == 5000);
  CHECK(read_now(pair.other.get()).empty());
}

TEST_CASE("order of checks: bad input, then length 0, then the deadline and the stop") {
  std::stop_source stopped;
  stopped.request_stop();
  FdPair pair = unix_pair();
  const zc::File file(temporary_file(pattern(0, 1000)));
  const zc::OwnedFd folder(checked(::open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open"));
  const zc::OwnedFd append = reopened(file.as_fd().get(), O_WRONLY | O_APPEND);
  const Clock::time_point past = Clock::now() - 1s;
  for (const std::uint64_t length : {std::uint64_t{0}, std::uint64_t{100}, zc::to_end}) {
    for (const bool stop : {false, true}) {
      zc::Options options{.length = length};
      if (stop)
        options.stop = stopped.get_token();
      else
        options.deadline = past;
      INFO("length " << length << (stop ? ", stop" : ", deadline"));
      std::error_code ec;
      // Bad input is said whatever the length and the time.
      std::ignore = zc::transfer(zc::BorrowedFd(-1), pair.one, options, ec);
      CHECK(ec == std::errc::bad_file_descriptor);
      std::ignore = zc::transfer(file, zc::BorrowedFd(-1), options, ec);
      CHECK(ec == std::errc::bad_file_descriptor);
      std::ignore = zc::transfer(folder, pair.one, options, ec);
      CHECK(ec == std::errc::is_a_directory);
      std::ignore = zc::transfer(file, file, options, ec);
      CHECK(ec == std::errc::invalid_argument);
      std::ignore = zc::transfer(pair.one, pair.one, options, ec);
      CHECK(ec == std::errc::invalid_argument);
      std::ignore = zc::transfer(pattern(0, 10), zc::FileRange(append.as_fd(), 0), options, ec);
      CHECK(ec == std::errc::invalid_argument);
      std::ignore = zc::transfer(zc::FileRange(file.as_fd(), INT64_MAX, 10), pair.one, options, ec);
      CHECK(ec == std::errc::invalid_argument);
      // Then length 0, which is complete without a call, then the time.
      const auto r = zc::transfer(file, pair.one, options, ec);
      CHECK(r.calls == 0);
      CHECK(r.delivered == 0);
      if (length == 0) {
        CHECK_FALSE(ec);
        CHECK(r.reason == StopReason::complete);
      } else {
        CHECK(ec == (stop ? Errc::stopped : Errc::timed_out));
      }
      const auto g = zc::transfer(zc::gather(pattern(0, 10), file), pair.one, options, ec);
      CHECK(g.reason == (length == 0 ? StopReason::complete : stop ? StopReason::stopped : StopReason::timed_out));
    }
  }
  CHECK(file.position() == 0);
  CHECK(read_now(pair.other.get()).empty());
}

TEST_CASE("stopped before the start: nothing moves, whatever the strategy") {
  std::stop_source stop;
  stop.request_stop();
  for (const End to : {End::file, End::pipe, End::tcp}) {
    for (const auto& s : every_strategy) {
      INFO(name(to) << " " << name(s));
      const Case c{.from = End::file, .to = to, .strategy = s, .blocking = true};
      Ends from = source_of(c);
      Ends sink = sink_of(c);
      std::error_code ec;
      const auto r = run(c, from, sink, {.strategy = s, .stop = stop.get_token()}, ec);
      CHECK(r.delivered == 0);
      CHECK(r.calls == 0);
      CHECK((ec == Errc::stopped || (s && ec == Errc::strategy_unavailable)));
      CHECK(position_of(from.fd) == start);
    }
  }
}

TEST_CASE("a stop and a deadline during a long copy from file to file: at once, exact, by every strategy") {
  const TimeLimit alarm(120);
  constexpr std::uint64_t size = std::uint64_t{512} << 20;
  zc::File from = zc::File::temporary();
  from.resize(size);
  // Marks that show where the copy is.
  for (std::uint64_t at = 0; at < size; at += 1 << 20) pwrite_all(from.as_fd().get(), pattern(at >> 20, 16), at);
  std::chrono::nanoseconds worst{0};
  for (const bool range : {false, true}) {
    for (const auto& s :
         {std::optional<Strategy>{}, std::optional{Strategy::copy_file_range}, std::optional{Strategy::sendfile},
          std::optional{Strategy::splice}, std::optional{Strategy::mmap_write}, std::optional{Strategy::read_write}}) {
      if (range && s == Strategy::sendfile) continue;  // it has no output offset
      for (const bool by_stop : {false, true}) {
        INFO(name(s) << (range ? " range" : "") << (by_stop ? ", stop" : ", deadline"));
        const auto once = [&] {
          from.seek(0);
          const zc::File to = zc::File::temporary();
          std::stop_source stop;
          std::optional<Watchdog> stopper;
          Clock::time_point limit = Clock::now() + 20ms;
          zc::Options options{.strategy = s};
          if (by_stop) {
            options.stop = stop.get_token();
            stopper.emplace(20ms, [&] { limit = Clock::now(), stop.request_stop(); });
          } else {
            options.deadline = limit;
          }
          std::error_code ec;
          const auto r =
              range ? zc::transfer(from.range(0), to.range(0), options, ec) : zc::transfer(from, to, options, ec);
          const auto end = Clock::now();
          stopper.reset();
          CHECK(ec == (by_stop ? Errc::stopped : Errc::timed_out));
          CHECK(r.delivered > 0);
          CHECK(r.delivered < size);
          CHECK(r.consumed == r.delivered);
          CHECK_FALSE(r.stranded);
          CHECK(size_of(to.as_fd().get()) == r.delivered);
          CHECK(from.position() == (range ? 0 : r.delivered));
          CHECK(to.position() == (range ? 0 : r.delivered));
          bool right = true;
          for (std::uint64_t at = 0; at + 16 <= r.delivered; at += 1 << 20) {
            Bytes mark(16);
            right = right && ::pread(to.as_fd().get(), mark.data(), 16, static_cast<off_t>(at)) == 16 &&
                    same(mark, pattern(at >> 20, 16));
          }
          CHECK(right);
          return std::chrono::nanoseconds(end - limit);
        };
        const auto late = shortest_of_two(allowed_lateness, once);
        worst = std::max(worst, late);
        CHECK(in_ms(late).count() <= 100);
      }
    }
  }
  std::printf("a long copy: worst lateness %lld ms\n", static_cast<long long>(in_ms(worst).count()));
}

TEST_CASE("the idle timeout starts again with each byte: a slow but steady peer passes") {
  const TimeLimit alarm(120);
  for (const End kind : {End::pipe, End::fifo, End::tcp, End::unix_stream, End::tty}) {
    for (const auto& s :
         {std::optional<Strategy>{}, std::optional{Strategy::splice}, std::optional{Strategy::read_write}}) {
      if (kind == End::tty && s == Strategy::splice) continue;
      INFO("from " << name(kind) << " " << name(s));
      const Case c{.from = kind, .to = End::file, .strategy = s, .blocking = true};
      Ends from = source_of(c);
      std::thread feeder([&] {
        for (std::size_t i = 0; i < 8; ++i) {
          std::this_thread::sleep_for(40ms);
          std::ignore = write_all(from.pair.other.get(), pattern(i, 1));
        }
      });
      const zc::File to(temporary_file());
      std::error_code ec;
      const auto began = Clock::now();
      const auto r = zc::transfer(zc::BorrowedFd(from.fd), to, {.strategy = s, .idle_timeout = 200ms}, ec);
      const auto took = Clock::now() - began;
      feeder.join();
      CHECK(ec == Errc::timed_out);
      CHECK(r.delivered == 8);
      CHECK(took >= 320ms + 190ms);
      CHECK(in_ms(took).count() <= 320 + 200 + 100 + 150);  // the feeder's own delays
      CHECK(same(pread_all(to.as_fd().get()), pattern(0, 8)));
    }
  }
}

TEST_CASE("the idle timeout starts again with each byte that a slow reader takes") {
  const TimeLimit alarm(120);
  for (const End kind : {End::pipe, End::fifo, End::tcp, End::unix_stream}) {
    for (const auto& s : {std::optional<Strategy>{}, std::optional{Strategy::sendfile}, std::optional{Strategy::splice},
                          std::optional{Strategy::mmap_write}, std::optional{Strategy::read_write}}) {
      if (s == Strategy::sendfile && !is_socket(kind)) continue;
      INFO("to " << name(kind) << " " << name(s));
      const Case c{.from = End::file, .to = kind, .strategy = s, .blocking = true, .send_buffer = 65536};
      Ends to = sink_of(c);
      constexpr std::size_t size = 1 << 20;
      const zc::File from(temporary_file(pattern(0, size)));
      Bytes got;
      std::thread reader([&] {
        while (got.size() < size) {
          const Bytes more = read_to_end(to.pair.other.get(), std::min<std::size_t>(65536, size - got.size()));
          if (more.empty()) break;
          got.insert(got.end(), more.begin(), more.end());
          std::this_thread::sleep_for(30ms);
        }
      });
      std::error_code ec;
      const auto began = Clock::now();
      const auto r = zc::transfer(from, zc::BorrowedFd(to.fd), {.strategy = s, .idle_timeout = 250ms}, ec);
      const auto took = Clock::now() - began;
      to.pair.one.reset();
      reader.join();
      CHECK_FALSE(ec);
      CHECK(r.delivered == size);
      CHECK(took > 250ms);
      CHECK(same(got, pattern(0, size)));
    }
  }
}

TEST_CASE("waiting costs no CPU: blocking or not, with a stop token or a deadline") {
  const TimeLimit alarm(120);
  for (const bool stalled : {false, true}) {
    for (const End kind : {End::pipe, End::fifo, End::tcp, End::unix_stream, End::tty}) {
      for (const bool blocking : {false, true}) {
        INFO((stalled ? "file to " : "to file from ") << name(kind) << (blocking ? ", blocking" : ""));
        const Case c{.from = stalled ? End::file : kind, .to = stalled ? kind : End::file, .blocking = blocking};
        Ends from = source_of(c);
        Ends to = sink_of(c);
        std::stop_source stop;
        std::error_code ec;
        // Filled first, so that only the wait is measured.
        std::ignore = run(c, from, to, {.deadline = Clock::now() + 100ms}, ec);
        const auto before = cpu_of_this_thread();
        const auto r = run(c, from, to, {.deadline = Clock::now() + 300ms, .stop = stop.get_token()}, ec);
        const auto used = cpu_of_this_thread() - before;
        CHECK(ec == Errc::timed_out);
        CHECK(r.delivered < big);
        CHECK(in_ms(used).count() <= 30);
      }
    }
  }
}

TEST_CASE("signals that interrupt every call change neither the limit nor the bytes") {
  const TimeLimit alarm(60);
  struct sigaction act {};
  struct sigaction before {};
  act.sa_handler = [](int) {};  // without SA_RESTART
  ::sigaction(SIGUSR1, &act, &before);
  for (const bool tcp : {true, false}) {
    for (const auto& s : {std::optional<Strategy>{}, std::optional{Strategy::splice},
                          std::optional{Strategy::mmap_write}, std::optional{Strategy::read_write}}) {
      INFO(name(s) << (tcp ? " to tcp" : " to unix"));
      FdPair pair = tcp ? tcp_pair(20000) : unix_pair();
      const zc::File from(temporary_file(pattern(0, big)));
      const pthread_t self = ::pthread_self();
      std::atomic<bool> over{false};
      std::thread pest([&] {
        while (!over) {
          ::pthread_kill(self, SIGUSR1);
          std::this_thread::sleep_for(2ms);
        }
      });
      std::error_code ec;
      const auto began = Clock::now();
      const auto r = zc::transfer(from, pair.one, {.strategy = s, .deadline = began + 200ms}, ec);
      const auto took = Clock::now() - began;
      over = true;
      pest.join();
      CHECK(ec == Errc::timed_out);
      CHECK(took >= 199ms);
      CHECK(in_ms(took).count() <= 300);
      CHECK(from.position() == r.delivered);
      pair.one.reset();
      CHECK(same(read_to_end(pair.other.get()), pattern(0, static_cast<std::size_t>(r.delivered))));
    }
  }
  ::sigaction(SIGUSR1, &before, nullptr);
}

TEST_CASE("no descriptor left for the wake-up of a stop token: it is obeyed within 100 ms all the same") {
  const std::string wrong = in_child([] {
    Wrong w;
    FdPair silent = unix_pair();
    FdPair to = unix_pair();
    std::vector<zc::OwnedFd> used;
    const rlimit files{200, 200};
    ::setrlimit(RLIMIT_NOFILE, &files);
    for (zc::OwnedFd fd(::dup(0)); fd; fd.reset(::dup(0))) used.push_back(std::move(fd));
    std::stop_source stop;
    Clock::time_point stopped_at;
    zc::TransferResult r;
    std::error_code ec;
    {
      const Watchdog stopper(100ms, [&] { stopped_at = Clock::now(), stop.request_stop(); });
      r = zc::transfer(silent.one, to.one, {.stop = stop.get_token()}, ec);
      w.unless(Clock::now() - stopped_at <= 100ms, "late");
    }
    w.unless(ec == Errc::stopped, ec.message());
    w.unless(r.consumed == 0, "consumed");
    return w.text();
  });
  CHECK(wrong == "");
}

TEST_CASE("stranded bytes into a sink that is full: the limit holds, and they shrink by what was delivered") {
  const TimeLimit alarm(60);
  for (const Strategy filler : {Strategy::splice, Strategy::read_write}) {
    for (const End kind : {End::pipe, End::tcp, End::unix_stream}) {
      for (const Limit limit : every_limit) {
        for (const bool blocking : {false, true}) {
          INFO(name(filler) << " to " << name(kind) << " " << name(limit) << (blocking ? ", blocking" : ""));
          FdPair from = unix_pair();
          FdPair dead = unix_pair();
          dead.other.reset();
          Feeder feeder(std::move(from.other), pattern(0, 200000));
          feeder.join();  // fits into the socket, or ends here
          std::error_code ec;
          auto first = zc::transfer(from.one, dead.one, {.strategy = filler}, ec);
          REQUIRE(first.stranded);
          const std::size_t held = first.stranded->size();
          REQUIRE(held > 10000);
          const Case c{.to = kind, .limit = limit, .blocking = blocking, .send_buffer = 4608};
          Ends to = sink_of(c);
          if (kind == End::pipe) ::fcntl(to.fd, F_SETPIPE_SZ, 4096);
          zc::Options options{};
          std::stop_source stop;
          std::optional<Watchdog> stopper;
          const auto began = Clock::now();
          if (limit == Limit::deadline) options.deadline = began + 50ms;
          if (limit == Limit::idle) options.idle_timeout = 50ms;
          if (limit == Limit::stop) {
            options.stop = stop.get_token();
            stopper.emplace(50ms, [&] { stop.request_stop(); });
          }
          const auto r = zc::transfer(*first.stranded, zc::BorrowedFd(to.fd), options, ec);
          const auto took = Clock::now() - began;
          stopper.reset();
          if (!ec) continue;  // the sink had room for all of it
          // A TCP that probes a full peer moves a byte now and then, and an idle timeout starts again.
          CHECK(in_ms(took).count() <= (limit == Limit::idle ? 800 : 150));
          CHECK(ec == (limit == Limit::stop ? Errc::stopped : Errc::timed_out));
          CHECK(r.delivered + first.stranded->size() == held);
          CHECK_FALSE(r.stranded);
          const Bytes got = arrived(c, to, static_cast<std::size_t>(r.delivered));
          CHECK(same(got, pattern(0, static_cast<std::size_t>(r.delivered))));
          Bytes rest(first.stranded->size());
          CHECK(zc::transfer(*first.stranded, std::span(rest)).delivered == rest.size());
          CHECK(same(rest, pattern(static_cast<std::size_t>(r.delivered), rest.size())));
        }
      }
    }
  }
}

TEST_CASE("a gather into a peer that does not read: the limit holds, the counts are over all parts, no cork is left") {
  const TimeLimit alarm(60);
  const auto before = pattern(0, 100000);
  const auto file_part = pattern(100000, 4000000);
  const auto after = pattern(4100000, 1000000);
  for (const End kind : {End::pipe, End::tcp, End::unix_stream}) {
    for (const Limit limit : every_limit) {
      for (const bool blocking : {false, true}) {
        for (const std::size_t read_first : {std::size_t{0}, std::size_t{2000000}, std::size_t{4200000}}) {
          INFO("to " << name(kind) << " " << name(limit) << (blocking ? ", blocking" : "") << " after " << read_first);
          const Case c{.to = kind, .limit = limit, .blocking = blocking, .send_buffer = 200000};
          Ends to = sink_of(c);
          const FdState state = FdState::of(to.fd);
          const zc::File file(temporary_file(file_part));
          Bytes got;
          std::thread reader([&] { got = read_to_end(to.pair.other.get(), read_first); });
          zc::Options options{};
          std::stop_source stop;
          std::optional<Watchdog> stopper;
          const auto began = Clock::now();
          if (limit == Limit::deadline) options.deadline = began + 100ms;
          if (limit == Limit::idle) options.idle_timeout = 100ms;
          if (limit == Limit::stop) {
            options.stop = stop.get_token();
            stopper.emplace(100ms, [&] { stop.request_stop(); });
          }
          std::error_code ec;
          const auto r = zc::transfer(zc::gather(before, file, after), zc::BorrowedFd(to.fd), options, ec);
          const auto took = Clock::now() - began;
          stopper.reset();
          reader.join();
          CHECK(ec == (limit == Limit::stop ? Errc::stopped : Errc::timed_out));
          CHECK(in_ms(took).count() <= 300);
          CHECK(r.consumed == r.delivered);
          CHECK(state == FdState::of(to.fd));
          const std::uint64_t of_file =
              std::clamp<std::uint64_t>(r.delivered, before.size(), before.size() + file_part.size()) - before.size();
          CHECK(file.position() == of_file);
          const Bytes rest = arrived(c, to, static_cast<std::size_t>(r.delivered) - got.size());
          got.insert(got.end(), rest.begin(), rest.end());
          CHECK(same(got, pattern(0, static_cast<std::size_t>(r.delivered))));
        }
      }
    }
  }
}

TEST_CASE("message sockets: a full sink and a silent source obey the limits, whole messages only") {
  const TimeLimit alarm(60);
  for (const int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
    for (const Limit limit : every_limit) {
      for (const bool blocking : {false, true}) {
        INFO((type == SOCK_DGRAM ? "datagrams" : "seqpacket") << " " << name(limit) << (blocking ? ", blocking" : ""));
        for (const bool as_sink : {true, false}) {
          FdPair pair = unix_pair(type);
          set_nonblocking(pair.one.get(), !blocking);
          if (as_sink)
            while (::send(pair.one.get(), "full", 4, MSG_DONTWAIT) == 4) {
            }
          else
            CHECK(::send(pair.other.get(), "one", 3, 0) == 3);
          zc::Options options{};
          std::stop_source stop;
          std::optional<Watchdog> stopper;
          const auto began = Clock::now();
          if (limit == Limit::deadline) options.deadline = began + 50ms;
          if (limit == Limit::idle) options.idle_timeout = 50ms;
          if (limit == Limit::stop) {
            options.stop = stop.get_token();
            stopper.emplace(50ms, [&] { stop.request_stop(); });
          }
          const zc::File file(temporary_file(as_sink ? pattern(0, 1000) : pattern(0, 0)));
          std::error_code ec;
          const auto r =
              as_sink ? zc::transfer(file, pair.one, options, ec) : zc::transfer(pair.one, file, options, ec);
          const auto took = Clock::now() - began;
          stopper.reset();
          CHECK(in_ms(took).count() <= 150);
          CHECK(ec == (limit == Limit::stop ? Errc::stopped : Errc::timed_out));
          CHECK(r.delivered == (as_sink ? 0 : 3));
          CHECK(r.consumed == r.delivered);
          CHECK(file.position() == r.delivered);
        }
      }
    }
  }
}

TEST_CASE("extreme limits: none is reached, or at once, and none overflows") {
  const zc::File file(temporary_file(pattern(0, 1000)));
  FdPair pair = unix_pair();
  std::error_code ec;
  const auto r = zc::transfer(
      file, pair.one, {.idle_timeout = std::chrono::nanoseconds::max(), .deadline = Clock::time_point::max()}, ec);
  CHECK_FALSE(ec);
  CHECK(r.delivered == 1000);
  CHECK(read_now(pair.other.get()).size() == 1000);
  // A wait with limits that far away is a wait: the byte that comes later ends it.
  std::thread later([&] {
    std::this_thread::sleep_for(50ms);
    std::ignore = write_all(pair.other.get(), pattern(0, 10));
  });
  const zc::File to(temporary_file());
  const auto waited = zc::transfer(
      pair.one, to,
      {.length = 10, .idle_timeout = std::chrono::nanoseconds::max(), .deadline = Clock::time_point::max()}, ec);
  later.join();
  CHECK_FALSE(ec);
  CHECK(waited.delivered == 10);
  for (const auto idle : {0ns, -1ns, std::chrono::nanoseconds(-24h)}) {
    const auto began = Clock::now();
    const auto none = zc::transfer(pair.one, to, {.idle_timeout = idle}, ec);
    CHECK(ec == Errc::timed_out);
    CHECK(none.delivered == 0);
    CHECK(Clock::now() - began < 100ms);
  }
  std::ignore = zc::transfer(pair.one, to, {.deadline = Clock::time_point::min()}, ec);
  CHECK(ec == Errc::timed_out);
}

TEST_CASE("a blocking socket whose peer dies under a limit: its options are as before") {
  for (const bool tcp : {true, false}) {
    for (const Strategy s : {Strategy::sendfile, Strategy::splice}) {
      FdPair pair = tcp ? tcp_pair(20000) : unix_pair();
      const zc::File from(temporary_file(pattern(0, big)));
      const FdState before = FdState::of(pair.one.get());
      const SignalState signals = SignalState::now();
      std::thread killer([&] {
        std::ignore = read_to_end(pair.other.get(), 300000);
        if (tcp) reset_at_close(pair.other.get());
        pair.other.reset();
      });
      std::error_code ec;
      const auto r = zc::transfer(from, pair.one, {.strategy = s, .deadline = Clock::now() + 10s}, ec);
      killer.join();
      CHECK(ec == Errc::sink_closed);
      CHECK(r.delivered >= 300000);
      CHECK(from.position() == r.delivered);
      CHECK(before == FdState::of(pair.one.get()));
      CHECK(signals == SignalState::now());
    }
  }
}

TEST_CASE("a blocking tty that waits for more bytes than there are (VMIN, VTIME): the limit holds") {
  const TimeLimit alarm(60);
  for (const auto& s : {std::optional<Strategy>{}, std::optional{Strategy::read_write}}) {
    for (const int vtime : {0, 10}) {
      INFO(name(s) << ", VTIME " << vtime);
      FdPair pair = tty_pair();
      termios slow{};
      ::tcgetattr(pair.one.get(), &slow);
      slow.c_cc[VMIN] = 255;
      slow.c_cc[VTIME] = static_cast<cc_t>(vtime);
      ::tcsetattr(pair.one.get(), TCSANOW, &slow);
      CHECK(write_all(pair.other.get(), pattern(0, 3)));
      const zc::File to(temporary_file());
      std::error_code ec;
      const auto began = Clock::now();
      zc::TransferResult r;
      {
        const Watchdog dog(3s, [&] { pair.other.reset(); });
        r = zc::transfer(pair.one, to, {.strategy = s, .deadline = began + 100ms}, ec);
      }
      CHECK(in_ms(Clock::now() - began).count() <= 200);
      CHECK(ec == Errc::timed_out);
      CHECK(same(pread_all(to.as_fd().get()), pattern(0, static_cast<std::size_t>(r.delivered))));
    }
  }
}

TEST_CASE("a tty under a limit: a forced sendfile or splice ends in time, or says that it can't") {
  const TimeLimit alarm(280);
  Report report;
  for (const bool blocking : {false, true})
    for (const Strategy s : {Strategy::sendfile, Strategy::splice}) {
      for (const End from : {End::file, End::pipe, End::unix_stream})
        run_case({.from = from, .to = End::tty, .strategy = s, .blocking = blocking}, report, stalled_sink);
      for (const End to : {End::file, End::pipe, End::unix_stream})
        run_case({.from = End::tty, .to = to, .strategy = s, .blocking = blocking}, report, silent_source);
    }
  report.require("ttys, forced");
}

TEST_CASE("an idle timeout as short as the type allows is one that has passed") {
  FdPair pair = unix_pair();
  const zc::File to(temporary_file());
  std::error_code ec;
  const auto began = Clock::now();
  std::ignore = zc::transfer(pair.one, to, {.idle_timeout = std::chrono::nanoseconds::min()}, ec);
  CHECK(ec == Errc::timed_out);
  CHECK(Clock::now() - began < 100ms);
}

TEST_CASE("a socket that poll calls ready and that says EAGAIN: every limit holds, without a spin") {
  // Seen under a memory cgroup's socket limit; here a filter says EAGAIN.
  for (const bool from_file : {false, true}) {
    for (const Limit limit : every_limit) {
      INFO((from_file ? "a file, " : "memory, ") << name(limit));
      const std::string wrong = in_child([&] {
        Wrong w;
        const zc::OwnedFd file = temporary_file(pattern(0, 1000));
        FdPair pair = unix_pair();
        refuse({SYS_sendto, SYS_sendfile, SYS_splice}, EAGAIN);
        zc::Options options{};
        std::stop_source stop;
        std::optional<Watchdog> stopper;
        const auto began = Clock::now();
        if (limit == Limit::deadline) options.deadline = began + 200ms;
        if (limit == Limit::idle) options.idle_timeout = 200ms;
        if (limit == Limit::stop) {
          options.stop = stop.get_token();
          stopper.emplace(200ms, [&] { stop.request_stop(); });
        }
        ::alarm(3);
        const auto before = cpu_of_this_thread();
        std::error_code ec;
        const auto r = from_file ? zc::transfer(file, pair.one, options, ec)
                                 : zc::transfer(pattern(0, 1000), pair.one, options, ec);
        const auto used = in_ms(cpu_of_this_thread() - before);
        const auto took = in_ms(Clock::now() - began);
        stopper.reset();
        w.unless(ec == (limit == Limit::stop ? Errc::stopped : Errc::timed_out), ec.message());
        w.unless(took.count() <= 300, "took " + std::to_string(took.count()) + " ms");
        w.unless(used.count() <= 40, "spins: " + std::to_string(used.count()) + " ms of CPU");
        w.unless(r.delivered == 0 && r.consumed == 0, "counts");
        return w.text();
      });
      CHECK(wrong == "");
    }
  }
}
