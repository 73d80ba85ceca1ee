// Transfer, held to its promise: a step never blocks whatever the descriptors' flags are, the flags stay, the bytes are exact
// wherever it is moved, dropped or finished, and an event loop of any kind carries it to its end.
// The peers of the table's pairs are this thread itself, between two steps: what a step can't take, nobody else does.
#include "catch.hpp"
#include "support/process.hpp"

#include <linux/net_tstamp.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/select.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <variant>

using namespace ends;
using zc::Step;
using zc::StopReason;
using zc::Transfer;
using zc::TransferResult;

namespace {

using Random = std::minstd_rand;
std::size_t up_to(Random& random, std::size_t most) { return random() % most + 1; }

// Aborts the program when one step lasts: SIGABRT names the test. A step that merely sleeps is seen by `slept`.
class Watchdog {
 public:
  static Watchdog& get() {
    static Watchdog dog;
    return dog;
  }
  Step step(Transfer& t) {
    rusage before{};
    rusage after{};
    ::getrusage(RUSAGE_THREAD, &before);
    const auto start = Clock::now();
    since_ = start.time_since_epoch().count();
    const Step step = t.step();
    since_ = 0;
    const auto took = Clock::now() - start;
    ::getrusage(RUSAGE_THREAD, &after);
    // Another process may take the processor (an involuntary switch); a wait is a voluntary one.
    if (after.ru_nvcsw > before.ru_nvcsw && took > 15ms) ++slept_;
    return step;
  }
  // Steps that have slept since the last question.
  int slept() { return slept_.exchange(0); }

 private:
  Watchdog() {
    std::thread([this] {
      without_sigpipe();
      for (;;) {
        std::this_thread::sleep_for(200ms);
        const auto since = since_.load();
        if (since == 0 || Clock::now().time_since_epoch().count() - since < Clock::duration(8s).count()) continue;
        std::fputs("a step has blocked for 8 seconds\n", stderr);
        std::abort();
      }
    }).detach();
  }
  std::atomic<Clock::rep> since_ = 0;
  std::atomic<int> slept_ = 0;
};

Step step(Transfer& t) { return Watchdog::get().step(t); }

// ---- ends ----

// TCP with small segments and small buffers, so that it stalls soon and no segment is merged at the sender.
FdPair small_tcp_pair(int segment = 1000, int buffer = 16 * 1024) {
  const zc::OwnedFd listener(checked(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  const auto make_small = [&](int fd) {
    ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    ::setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  };
  make_small(listener.get());
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  checked(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), "bind");
  checked(::listen(listener.get(), 1), "listen");
  checked(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), "getsockname");
  FdPair pair;
  pair.one.reset(checked(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  make_small(pair.one.get());
  checked(::connect(pair.one.get(), reinterpret_cast<sockaddr*>(&address), size), "connect");
  pair.other.reset(checked(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC), "accept"));
  make_small(pair.other.get());
  return pair;
}
FdPair small_pipe_pair(int capacity = 4096) {
  FdPair pair = pipe_pair();
  ::fcntl(pair.one.get(), F_SETPIPE_SZ, capacity);
  return pair;
}
FdPair small_unix_pair(int type = SOCK_STREAM, int buffer = 8 * 1024) {
  FdPair pair = unix_pair(type);
  ::setsockopt(pair.one.get(), SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
  ::setsockopt(pair.other.get(), SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
  return pair;
}
FdPair fifo_pair() {
  const TempDir dir;
  const std::string path = dir / "fifo";
  checked(::mkfifo(path.c_str(), 0600), "mkfifo");
  FdPair pair;
  pair.one.reset(checked(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC), "open"));
  pair.other.reset(checked(::open(path.c_str(), O_WRONLY | O_CLOEXEC), "open"));
  ::fcntl(pair.one.get(), F_SETPIPE_SZ, 4096);
  return pair;
}
// In memory where there is such a folder, so that no disk makes a step sleep.
zc::OwnedFd memory_backed_file(std::span<const std::byte> bytes = {}) {
  zc::OwnedFd fd(checked(::memfd_create("stepping", MFD_CLOEXEC), "memfd_create"));
  pwrite_all(fd.get(), bytes, 0);
  return fd;
}

// Bytes that an earlier transfer could not deliver: in a buffer (read_write), or in a pipe (splice).
zc::Stranded stranded(zc::Strategy strategy, std::span<const std::byte> bytes) {
  const FdPair source = unix_pair();
  const FdPair full = unix_pair();
  set_nonblocking(full.one.get(), true);
  while (::write(full.one.get(), pattern().data(), 4096) > 0) continue;
  std::size_t put = 0;
  while (put < bytes.size()) {
    const ssize_t n = ::send(source.other.get(), bytes.data() + put, bytes.size() - put, MSG_DONTWAIT);
    if (n <= 0) throw std::runtime_error("a socket buffer is too small for this test");
    put += static_cast<std::size_t>(n);
  }
  zc::Socket from(zc::OwnedFd(::dup(source.one.get())));
  zc::Socket to(zc::OwnedFd(::dup(full.one.get())));
  std::error_code ec;
  TransferResult r = zc::transfer(from, to, {.strategy = strategy, .idle_timeout = 0ns}, ec);
  if (!r.stranded) throw std::runtime_error("nothing was stranded");
  return std::move(*r.stranded);
}

// ---- the table ----

enum class From {
  file,
  range,
  memory,
  mapping,
  pipe,
  fifo,
  tcp,
  unix_stream,
  datagram,
  borrowed_file,
  borrowed_pipe,
  borrowed_tcp,
  gather,
  stranded_buffer,
  stranded_pipe,
};
enum class To { file, range, pipe, fifo, tcp, unix_stream, memory, borrowed_file, borrowed_pipe, borrowed_tcp };
constexpr const char* from_names[] = {"file",          "range",        "memory", "mapping",         "pipe",
                                      "fifo",          "tcp",          "unix",   "datagram",        "borrowed file",
                                      "borrowed pipe", "borrowed tcp", "gather", "stranded buffer", "stranded pipe"};
constexpr const char* to_names[] = {"file", "range",  "pipe",          "fifo",          "tcp",
                                    "unix", "memory", "borrowed file", "borrowed pipe", "borrowed tcp"};
constexpr int froms = 15;
constexpr int tos = 10;

using Mixed = decltype(zc::gather(std::declval<std::span<const std::byte>>(), std::declval<zc::FileRange>(),
                                  std::declval<zc::PipeReader&>()));
using SourceHandle = std::variant<zc::File*, zc::FileRange, std::span<const std::byte>, zc::MappedFile*,
                                  zc::PipeReader*, zc::Socket*, zc::BorrowedFd, Mixed*, zc::Stranded*>;
using SinkHandle =
    std::variant<zc::File*, zc::FileRange, zc::PipeWriter*, zc::Socket*, std::span<std::byte>, zc::BorrowedFd>;

template <class T>
T& named(T& end) {
  return end;
}
template <class T>
T& named(T* end) {
  return *end;
}
Transfer make(const SourceHandle& from, const SinkHandle& to, const zc::Options& options) {
  return std::visit([&](auto source, auto sink) { return Transfer(named(source), named(sink), options); }, from, to);
}

// The test's source: what is fed is the pattern from 0 on.
class Source {
 public:
  Source(From kind, bool blocking, std::size_t size) : kind_(kind), total_(size) {
    const auto all = pattern(0, size);
    switch (kind) {
      case From::file:
      case From::borrowed_file:
        file_ = std::make_unique<zc::File>(memory_backed_file(all));
        if (kind == From::file) handle_ = file_.get();
        if (kind == From::borrowed_file) handle_ = zc::BorrowedFd(file_->as_fd());
        fd_ = file_->as_fd().get();
        break;
      case From::range:
        file_ = std::make_unique<zc::File>(memory_backed_file());
        fd_ = file_->as_fd().get();
        pwrite_all(fd_, all, 777);
        handle_ = file_->range(777, size);
        break;
      case From::memory: handle_ = all; break;
      case From::mapping:
        file_ = std::make_unique<zc::File>(memory_backed_file(all));
        mapping_ = std::make_unique<zc::MappedFile>(zc::MappedFile::map(*file_));
        handle_ = mapping_.get();
        break;
      case From::pipe: take(small_pipe_pair(), blocking), handle_ = reader_.get(); break;
      case From::fifo: take(fifo_pair(), blocking), handle_ = reader_.get(); break;
      case From::borrowed_pipe: take(small_pipe_pair(), blocking), handle_ = zc::BorrowedFd(fd_); break;
      case From::tcp: take(small_tcp_pair(), blocking), handle_ = socket_.get(); break;
      case From::borrowed_tcp: take(small_tcp_pair(), blocking), handle_ = zc::BorrowedFd(fd_); break;
      case From::unix_stream: take(small_unix_pair(), blocking), handle_ = socket_.get(); break;
      case From::datagram:
        take(small_unix_pair(SOCK_DGRAM), blocking);
        handle_ = socket_.get();
        length = size;  // it has no end of its own
        break;
      case From::gather:
        file_ = std::make_unique<zc::File>(memory_backed_file(pattern(0, 2 * size / 3)));
        take(small_pipe_pair(), blocking);
        fed_ = 2 * size / 3;
        mixed_ = std::make_unique<Mixed>(
            zc::gather(pattern(0, size / 3), file_->range(size / 3, fed_ - size / 3), *reader_));
        handle_ = mixed_.get();
        break;
      case From::stranded_buffer:
      case From::stranded_pipe:
        stranded_ = std::make_unique<zc::Stranded>(
            stranded(kind == From::stranded_pipe ? zc::Strategy::splice : zc::Strategy::read_write, all));
        total_ = stranded_->size();
        handle_ = stranded_.get();
        break;
    }
    if (fd_ >= 0) state_ = FdState::of(fd_);
  }

  std::uint64_t length = zc::to_end;

  [[nodiscard]] const SourceHandle& handle() const { return handle_; }
  [[nodiscard]] std::size_t total() const { return total_; }
  [[nodiscard]] bool is_rewindable() const { return !writer_ && !has_been_fed_ && !stranded_; }
  [[nodiscard]] bool is_stranded() const { return stranded_ != nullptr; }
  [[nodiscard]] const zc::Stranded& stranded_left() const { return *stranded_; }
  [[nodiscard]] bool is_as_before() const { return fd_ < 0 || FdState::of(fd_) == state_; }

  // Up to `n` bytes more, and the end after the last one.
  void feed(std::size_t n) {
    if (!writer_) return;
    const std::size_t most = kind_ == From::datagram ? 2000 : SIZE_MAX;
    has_been_fed_ = true;
    n = std::min({n, total_ - fed_, most});
    if (n > 0) {
      const ssize_t put = ::write(writer_.get(), pattern().data() + fed_, n);
      if (put > 0) fed_ += static_cast<std::size_t>(put);
    }
    if (fed_ == total_ && kind_ != From::datagram) writer_.reset();
  }
  // What was not consumed: what stands in the source now.
  Bytes rest(std::uint64_t consumed) {
    if (stranded_) return {};
    if (kind_ == From::file || kind_ == From::borrowed_file) return pread_all(fd_, position_of(fd_));
    const auto held = static_cast<std::size_t>(std::min<std::uint64_t>(consumed, total_));
    if (is_rewindable())
      return Bytes(pattern().begin() + static_cast<std::ptrdiff_t>(held),
                   pattern().begin() + static_cast<std::ptrdiff_t>(total_));
    Bytes rest;
    const std::size_t first = kind_ == From::gather ? 2 * total_ / 3 : 0;
    if (first > held)
      rest.assign(pattern().begin() + static_cast<std::ptrdiff_t>(held),
                  pattern().begin() + static_cast<std::ptrdiff_t>(first));
    const std::size_t wanted = total_ - std::max(held, first);
    set_nonblocking(fd_, true);
    const auto until = Clock::now() + patience;
    for (std::size_t got = 0; got < wanted && Clock::now() < until;) {
      feed(SIZE_MAX);
      if (!wait_for(fd_, POLLIN, Clock::now() + 1s)) break;
      const Bytes more = read_now(fd_);
      if (more.empty()) break;
      got += more.size();
      rest.insert(rest.end(), more.begin(), more.end());
    }
    return rest;
  }
  // The position that the kernel or the caller keeps; nothing where there is none.
  [[nodiscard]] std::optional<std::uint64_t> position() const {
    if (kind_ == From::file || kind_ == From::borrowed_file) return position_of(fd_);
    return std::nullopt;
  }

 private:
  void take(FdPair pair, bool blocking) {
    set_nonblocking(pair.one.get(), !blocking);
    set_nonblocking(pair.other.get(), true);
    fd_ = pair.one.get();
    const bool is_socket = option_of(fd_, SOL_SOCKET, SO_TYPE) >= 0;
    if (is_socket) socket_ = std::make_unique<zc::Socket>(std::move(pair.one));
    if (!is_socket) reader_ = std::make_unique<zc::PipeReader>(std::move(pair.one));
    writer_ = std::move(pair.other);
  }

  From kind_;
  std::size_t total_;
  std::size_t fed_ = 0;
  bool has_been_fed_ = false;
  int fd_ = -1;
  FdState state_;
  SourceHandle handle_;
  std::unique_ptr<zc::File> file_;
  std::unique_ptr<zc::MappedFile> mapping_;
  std::unique_ptr<zc::PipeReader> reader_;
  std::unique_ptr<zc::Socket> socket_;
  std::unique_ptr<Mixed> mixed_;
  std::unique_ptr<zc::Stranded> stranded_;
  zc::OwnedFd writer_;
};

// The test's sink, and what has come out of it.
class Sink {
 public:
  Sink(To kind, bool blocking, std::size_t room) : kind_(kind) {
    switch (kind) {
      case To::file:
      case To::range:
      case To::borrowed_file:
        file_ = std::make_unique<zc::File>(memory_backed_file());
        fd_ = file_->as_fd().get();
        if (kind == To::file) handle_ = file_.get();
        if (kind == To::range) handle_ = file_->range(555), offset_ = 555;
        if (kind == To::borrowed_file) handle_ = zc::BorrowedFd(fd_);
        break;
      case To::memory:
        memory_.resize(room);
        handle_ = std::span<std::byte>(memory_);
        break;
      case To::pipe: take_pipe(small_pipe_pair(), blocking), handle_ = writer_.get(); break;
      case To::fifo: take_pipe(fifo_pair(), blocking), handle_ = writer_.get(); break;
      case To::borrowed_pipe: take_pipe(small_pipe_pair(), blocking), handle_ = zc::BorrowedFd(fd_); break;
      case To::tcp: take_socket(small_tcp_pair(), blocking), handle_ = socket_.get(); break;
      case To::borrowed_tcp: take_socket(small_tcp_pair(), blocking), handle_ = zc::BorrowedFd(fd_); break;
      case To::unix_stream: take_socket(small_unix_pair(), blocking), handle_ = socket_.get(); break;
    }
    if (fd_ >= 0) state_ = FdState::of(fd_);
  }
  [[nodiscard]] const SinkHandle& handle() const { return handle_; }
  [[nodiscard]] bool is_as_before() const { return fd_ < 0 || FdState::of(fd_) == state_; }
  [[nodiscard]] bool has_peer() const { return static_cast<bool>(peer_); }

  // The peer reads up to `n` bytes of what is there.
  void drain(std::size_t n) {
    if (!peer_) return;
    std::vector<std::byte> block(n);
    const ssize_t got = ::read(peer_.get(), block.data(), n);
    if (got > 0) got_.insert(got_.end(), block.begin(), block.begin() + got);
  }
  // All that has arrived, where `delivered` bytes were promised; one more would show too.
  Bytes arrived(std::uint64_t delivered) {
    if (kind_ == To::memory) return Bytes(memory_.begin(), memory_.begin() + static_cast<std::ptrdiff_t>(delivered));
    if (!peer_) {
      const Bytes all = pread_all(fd_, offset_);
      return all;
    }
    const auto until = Clock::now() + patience;
    while (got_.size() < delivered && wait_for(peer_.get(), POLLIN, until)) {
      const std::size_t before = got_.size();
      drain(1 << 16);
      if (got_.size() == before) break;
    }
    drain(1 << 16);
    return got_;
  }

 private:
  void take_pipe(FdPair pair, bool blocking) {
    writer_ = std::make_unique<zc::PipeWriter>(std::move(pair.other));
    peer_ = std::move(pair.one);
    fd_ = writer_->as_fd().get();
    set_up(blocking);
  }
  void take_socket(FdPair pair, bool blocking) {
    socket_ = std::make_unique<zc::Socket>(std::move(pair.one));
    peer_ = std::move(pair.other);
    fd_ = socket_->as_fd().get();
    set_up(blocking);
  }
  void set_up(bool blocking) {
    set_nonblocking(fd_, !blocking);
    set_nonblocking(peer_.get(), true);
  }

  To kind_;
  int fd_ = -1;
  std::uint64_t offset_ = 0;
  FdState state_;
  SinkHandle handle_;
  std::unique_ptr<zc::File> file_;
  std::unique_ptr<zc::PipeWriter> writer_;
  std::unique_ptr<zc::Socket> socket_;
  Bytes memory_;
  zc::OwnedFd peer_;
  Bytes got_;
};

// What one run of a pair found; compared as one value, so that a million steps make few assertions.
struct Findings {
  std::set<std::string> wrong;
  void unless(bool holds, const std::string& what) {
    if (!holds) wrong.insert(what);
  }
  [[nodiscard]] std::string text() const {
    std::string all;
    for (const std::string& one : wrong) all += one + "; ";
    return all;
  }
};

enum class Ending { done, finished, dropped, moved_on };

constexpr std::size_t table_size = 30'000;

// Steps a pair while both peers stall and go on at random. Ends it at step number `last`; returns the steps that it took.
int run_pair(From from, To to, bool source_blocks, bool sink_blocks, unsigned seed, Ending ending, int last,
             Findings& found) {
  Random random(seed);
  Source source(from, source_blocks, table_size);
  Sink sink(to, sink_blocks, source.total());
  const std::size_t step_size = std::array<std::size_t, 3>{1 << 20, 2500, 10'000}[seed % 3];
  const SignalState signals = SignalState::now();
  auto t = std::make_unique<Transfer>(
      make(source.handle(), sink.handle(), {.length = source.length, .step_size = step_size}));
  found.unless(source.is_as_before() && sink.is_as_before(), "flags are changed by making it");

  int steps = 0;
  std::uint64_t delivered = 0;
  std::uint64_t consumed = 0;
  bool is_done = false;
  const auto until = Clock::now() + patience;
  while (steps < last && !is_done) {
    const Step said = step(*t);
    ++steps;
    is_done = said == Step::done;
    const TransferResult& r = t->result();
    found.unless(r.delivered >= delivered && r.consumed >= r.delivered && r.delivered <= source.total(),
                 "counts run backwards");
    found.unless(r.delivered - delivered <= step_size, "a step has moved more than step_size");
    found.unless(is_done == t->is_done() && is_done == (r.reason != StopReason::would_block), "done or not");
    found.unless((said == Step::blocked) == (t->fd() >= 0), "fd() is there after blocked only");
    found.unless(said != Step::progressed || r.delivered - delivered == step_size, "progressed without its bytes");
    found.unless(SignalState::now() == signals, "a step changes the signal state");
    if (from == From::gather || seed % 4 == 0)
      found.unless(source.is_as_before() && sink.is_as_before(), "flags are changed by a step");
    delivered = r.delivered;
    consumed = r.consumed;
    if (said == Step::blocked) {
      // The peers stall now and then: to step again then is allowed and says the same.
      if (random() % 4 != 0) source.feed(up_to(random, 7000));
      if (random() % 4 != 0) sink.drain(up_to(random, 7000));
      if (random() % 2 == 0) (void)wait_for(t->fd(), t->events(), Clock::now() + 1ms);
    }
    if (random() % 8 == 0) {  // moved into another, which held another one
      const auto nothing = std::span<const std::byte>();
      const auto nowhere = std::span<std::byte>();
      auto other = std::make_unique<Transfer>(nothing, nowhere);
      *other = std::move(*t);
      t = std::make_unique<Transfer>(std::move(*other));
    }
    if (Clock::now() > until) return found.unless(false, "does not end"), steps;
  }

  TransferResult r;
  if (ending == Ending::dropped && !is_done) {
    t.reset();
    // What was in flight is back in a source that can be rewound, and gone else.
    r.delivered = delivered;
    r.consumed = source.is_rewindable() ? delivered : consumed;
    if (from == From::gather && consumed <= 2 * source.total() / 3) r.consumed = delivered;
    found.unless(
        same(source.rest(r.consumed), pattern(r.consumed, source.total() - r.consumed)) || source.is_stranded(),
        "dropped: the source's rest");
  } else {
    r = t->finish();
    found.unless(t->is_done() && step(*t) == Step::done && t->fd() == -1 && t->events() == 0 && t->sink_fd() == -1,
                 "done is said again");
    found.unless(!t->finish().stranded, "finished twice");
    found.unless(r.delivered == delivered && (r.reason != StopReason::would_block) == is_done, "the result at the end");
    found.unless(!r.error, "error: " + r.error.message());
    if (is_done) found.unless(r.delivered == source.total() && r.reason == StopReason::complete, "not complete");
    const std::uint64_t held = r.stranded ? r.stranded->size() : 0;
    found.unless(r.consumed == r.delivered + held, "consumed - delivered is not what is stranded");
    found.unless(!source.is_rewindable() || held == 0, "stranded of a source that can be rewound");
    if (source.is_stranded()) {
      found.unless(source.stranded_left().empty(), "a Stranded that was moved from says that it has bytes");
      found.unless(r.consumed == source.total(), "bytes of a Stranded are lost");
    }
    Bytes after(held);
    if (held > 0 && ending == Ending::moved_on) {  // into another sink, by steps
      Sink second(To::unix_stream, sink_blocks, 0);
      Transfer rest(*r.stranded, *std::get<zc::Socket*>(second.handle()));
      for (int i = 0; i < 10'000 && step(rest) != Step::done; ++i) second.drain(up_to(random, 7000));
      after = second.arrived(rest.result().delivered);
      found.unless(rest.is_done() && !rest.result().error, "the other sink");
    } else if (held > 0) {
      std::error_code ec;
      found.unless(zc::transfer(*r.stranded, std::span<std::byte>(after), ec).delivered == held, "stranded delivered");
    }
    found.unless(same(after, pattern(r.delivered, held)), "stranded bytes are others");
    found.unless(
        same(source.rest(r.consumed), pattern(r.consumed, source.total() - r.consumed)) || source.is_stranded(),
        "the source's rest is another");
    if (const auto at = source.position()) found.unless(*at == r.delivered || is_done, "position of the source");
  }
  found.unless(same(sink.arrived(r.delivered), pattern(0, r.delivered)), "arrived bytes are others");
  found.unless(sink.is_as_before(), "flags of the sink are changed at the end");
  found.unless(SignalState::now() == signals, "the signal state is changed at the end");
  return steps;
}

}  // namespace

TEST_CASE("every pair by steps: none blocks, flags stay, bytes are exact wherever it is finished or dropped",
          "[stepping]") {
  const TimeLimit limit(240);
  std::ignore = Watchdog::get().slept();
  for (int f = 0; f < froms; ++f) {
    for (int s = 0; s < tos; ++s) {
      Findings found;
      std::string first;
      for (unsigned flags = 0; flags < 4; ++flags) {
        const auto run = [&](unsigned seed, Ending ending, int last) {
          const int steps = run_pair(static_cast<From>(f), static_cast<To>(s), (flags & 1) != 0, (flags & 2) != 0, seed,
                                     ending, last, found);
          if (first.empty() && !found.wrong.empty())
            first = "flags " + std::to_string(flags) + " seed " + std::to_string(seed) + " ending " +
                    std::to_string(static_cast<int>(ending)) + " at " + std::to_string(last);
          return steps;
        };
        const int steps = run(1, Ending::done, INT32_MAX);
        // Every step number where it is few, a sample where they are many.
        for (int k = 0; k <= steps; k += 1 + steps / 16) {
          run(1, static_cast<Ending>(1 + (static_cast<unsigned>(k) + flags) % 3), k);
          if (!found.wrong.empty()) break;
        }
        run(2 + flags, Ending::done, INT32_MAX);
      }
      INFO(from_names[f] << " to " << to_names[s] << ": " << first);
      CHECK(found.text() == "");
      CHECK(Watchdog::get().slept() == 0);
    }
  }
}

// ---- single promises ----

namespace {

zc::Socket socket_on(zc::OwnedFd& fd) { return zc::Socket(std::move(fd)); }
// Fills what `fd` takes without blocking; returns how many bytes that was.
std::size_t fill(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  set_nonblocking(fd, true);
  std::size_t all = 0;
  for (const std::size_t piece : {std::size_t{65536}, std::size_t{512}, std::size_t{1}})
    for (ssize_t n = 0; (n = ::write(fd, pattern().data(), piece)) > 0;) all += static_cast<std::size_t>(n);
  ::fcntl(fd, F_SETFL, flags);
  return all;
}
// Steps as a poll loop does; false when `t` does not end though its own fd() and events() are polled.
bool poll_to_end(Transfer& t, std::chrono::milliseconds patience = 10s) {
  const auto until = Clock::now() + patience;
  for (;;) {
    const Step said = step(t);
    if (said == Step::done) return true;
    if (Clock::now() > until) return false;
    if (said == Step::blocked && !wait_for(t.fd(), t.events(), until)) return false;
  }
}
void skip_zerocopy() { WARN("skipped: this kernel refuses MSG_ZEROCOPY"); }
auto past(std::chrono::nanoseconds time) { return Clock::now() + time; }

}  // namespace

TEST_CASE("step_size bounds a step over all parts of a gather, and 0 still ends", "[stepping]") {
  const zc::File file(memory_backed_file(pattern(0, 30'000)));
  const auto parts = zc::gather(pattern(0, 900), file.range(900, 100), file.range(1000, 5000), pattern(6000, 4000));
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{1}, std::size_t{999}, std::size_t{1000}, std::size_t{4096}}) {
    INFO("step_size " << size);
    Sink sink(To::unix_stream, false, 0);
    Transfer t(parts, *std::get<zc::Socket*>(sink.handle()), {.step_size = size});
    std::uint64_t before = 0;
    std::uint64_t most = 0;
    int steps = 0;
    for (; steps < 30'000 && step(t) != Step::done; ++steps) {
      most = std::max(most, t.result().delivered - before);
      before = t.result().delivered;
      sink.drain(1 << 16);
    }
    CHECK(t.is_done());
    CHECK(most <= std::max<std::size_t>(size, 1));
    CHECK(t.result().delivered == 10'000);
    CHECK(same(sink.arrived(10'000), pattern(0, 10'000)));
  }
}

TEST_CASE("a transfer whose source is silent and whose sink is nearly full waits for the source", "[stepping]") {
  // Bytes that nobody reads make an AF_UNIX sink look full long before it is. The source's end must still end it.
  for (const bool blocking : {false, true}) {
    INFO((blocking ? "blocking" : "not blocking"));
    FdPair source = pipe_pair();
    FdPair sink = unix_pair();
    set_nonblocking(source.one.get(), !blocking);
    set_nonblocking(sink.one.get(), !blocking);
    REQUIRE(::fcntl(source.one.get(), F_SETPIPE_SZ, 1 << 18) > 0);
    zc::PipeReader from(std::move(source.one));
    zc::Socket to = socket_on(sink.one);
    REQUIRE(write_all(source.other.get(), pattern(0, 60'000)));
    Transfer t(from, to);
    CHECK(step(t) == Step::blocked);
    CHECK(t.result().delivered == 60'000);
    CHECK(t.fd() == from.as_fd().get());
    CHECK(t.events() == POLLIN);
    source.other.reset();
    CHECK(wait_for(t.fd(), t.events(), past(2s)));
    CHECK(step(t) == Step::done);
    CHECK(t.result().reason == StopReason::complete);
    CHECK(same(read_now(sink.other.get()), pattern(0, 60'000)));
  }
}

TEST_CASE("fd, events and sink_fd name the end that is waited for; a dead sink is noticed behind a silent source",
          "[stepping]") {
  for (const int type : {0, 1, 2}) {
    INFO("sink " << type);
    FdPair source = unix_pair();
    set_nonblocking(source.one.get(), true);
    FdPair sink = type == 0 ? pipe_pair() : type == 1 ? unix_pair() : tcp_pair();
    if (type == 0) std::swap(sink.one, sink.other);
    set_nonblocking(sink.one.get(), true);
    const int to = sink.one.get();
    zc::Socket from = socket_on(source.one);
    const zc::BorrowedFd out(to);
    Transfer t(from, out);
    CHECK(step(t) == Step::blocked);
    CHECK(t.fd() == from.as_fd().get());
    CHECK(t.events() == POLLIN);
    CHECK(t.sink_fd() == to);
    CHECK(t.result().reason == StopReason::would_block);
    if (type == 2) reset_at_close(sink.other.get());
    sink.other.reset();
    CHECK(wait_for(t.sink_fd(), 0, past(5s)));
    CHECK(step(t) == Step::done);
    CHECK(t.result().reason == StopReason::sink_closed);
    CHECK(t.result().side == zc::Side::sink);
    CHECK(t.fd() == -1);
    CHECK(t.sink_fd() == -1);
    CHECK(step(t) == Step::done);
  }
  // A sink that is full is waited for itself.
  FdPair source = unix_pair();
  FdPair sink = pipe_pair();
  write_all(source.other.get(), pattern(0, 100));
  fill(sink.other.get());
  zc::Socket from = socket_on(source.one);
  zc::PipeWriter to(std::move(sink.other));
  Transfer t(from, to);
  CHECK(step(t) == Step::blocked);
  CHECK(t.fd() == to.as_fd().get());
  CHECK(t.events() == POLLOUT);
  CHECK(t.sink_fd() == -1);
}

TEST_CASE("a deadline, an idle timeout and a stop token end a stepped transfer at wake_at", "[stepping]") {
  for (const bool gathered : {false, true}) {
    INFO((gathered ? "gather" : "one source"));
    FdPair source = pipe_pair();
    zc::PipeReader from(std::move(source.one));
    Bytes memory(1000);
    const auto head = pattern(0, 0);
    const auto make_one = [&](const zc::Options& options) {
      if (gathered) return Transfer(zc::gather(head, from), std::span<std::byte>(memory), options);
      return Transfer(from, std::span<std::byte>(memory), options);
    };
    {
      const auto deadline = past(60ms);
      Transfer t = make_one({.deadline = deadline});
      CHECK((t.wake_at() == deadline));
      CHECK(step(t) == Step::blocked);
      CHECK((t.wake_at() == deadline));
      CHECK(Clock::now() < deadline);
      std::this_thread::sleep_until(*t.wake_at());
      CHECK(step(t) == Step::done);
      CHECK(t.result().reason == StopReason::timed_out);
      CHECK(t.result().error == std::errc::timed_out);
      CHECK(!t.wake_at());
    }
    {
      Transfer t = make_one({.idle_timeout = 60ms});
      REQUIRE(t.wake_at());
      CHECK(*t.wake_at() <= past(60ms));
      CHECK(step(t) == Step::blocked);
      const auto first = *t.wake_at();
      std::this_thread::sleep_for(30ms);
      write_all(source.other.get(), pattern(0, 10));
      CHECK(step(t) == Step::blocked);
      REQUIRE(t.wake_at());
      CHECK(*t.wake_at() >= first + 25ms);  // since the last byte
      std::this_thread::sleep_until(first + 1ms);
      CHECK(step(t) == Step::blocked);
      std::this_thread::sleep_until(*t.wake_at());
      CHECK(step(t) == Step::done);
      CHECK(t.result().reason == StopReason::timed_out);
      CHECK(t.result().delivered == 10);
    }
    {
      std::stop_source stop;
      Transfer t = make_one({.stop = stop.get_token()});
      CHECK(!t.wake_at());
      CHECK(step(t) == Step::blocked);
      stop.request_stop();
      CHECK(step(t) == Step::done);
      CHECK(t.result().reason == StopReason::stopped);
      CHECK(t.result().error == std::errc::operation_canceled);
    }
    {
      Transfer t = make_one({.deadline = past(-1s)});
      write_all(source.other.get(), pattern(0, 10));
      CHECK(step(t) == Step::done);
      CHECK(t.result().reason == StopReason::timed_out);
      CHECK(t.result().delivered == 0);
      CHECK(read_now(from.as_fd().get()).size() == 10);
    }
    {
      Transfer t = make_one({});
      CHECK(!t.wake_at());
    }
  }
}

TEST_CASE("SIGPIPE never reaches the process, the mask is as before, one that was pending stays", "[stepping]") {
  const std::string wrong = in_child([] {
    Wrong bad;
    ::signal(SIGPIPE, SIG_DFL);
    const zc::File file(memory_backed_file(pattern(0, 200'000)));
    const auto break_it = [&](int type, bool blocking, zc::Options options) {
      FdPair sink = type == 0 ? pipe_pair() : type == 1 ? unix_pair() : tcp_pair();
      if (type == 0) std::swap(sink.one, sink.other);
      set_nonblocking(sink.one.get(), !blocking);
      const zc::BorrowedFd to(sink.one.get());
      const SignalState before = SignalState::now();
      const std::string what = "sink " + std::to_string(type) + (blocking ? " blocking" : "");
      options.step_size = 1000;
      Transfer t(file.range(0), to, options);
      bad.unless(step(t) == Step::progressed, what + ": first step");
      bad.unless(SignalState::now() == before, what + ": state after a step");
      sink.other.reset();
      Step said = Step::progressed;
      for (int i = 0; i < 1000 && said == Step::progressed; ++i) {
        said = step(t);
        if (said == Step::blocked && wait_for(t.fd(), t.events(), past(1s))) said = Step::progressed;
        bad.unless(SignalState::now() == before, what + ": state after a later step");
      }
      bad.unless(said == Step::done && t.result().reason == StopReason::sink_closed, what + ": not closed");
      bad.unless(SignalState::now() == before, what + ": state at the end");
    };
    const auto all = [&] {
      for (int type = 0; type < 3; ++type)
        for (const bool blocking : {false, true})
          for (const bool limited : {false, true}) {
            zc::Options options;
            if (limited) options.deadline = past(20s);
            break_it(type, blocking, options);
            options.allow = zc::StrategySet{zc::Strategy::read_write};
            break_it(type, blocking, options);
          }
    };
    all();
    without_sigpipe();
    all();
    ::raise(SIGPIPE);
    bad.unless(zc::detail::SigpipeBlock::is_pending(), "not pending before");
    all();
    bad.unless(zc::detail::SigpipeBlock::is_pending(), "not pending after");
    return bad.text();
  });
  CHECK(wrong == "");
}

TEST_CASE("a stepped MSG_ZEROCOPY transfer is done when its completions are in", "[stepping]") {
  // The peer's receive buffer is small, the send buffer large: what is accepted is not sent yet.
  const auto run = [](const zc::Options& given, auto use) {
    FdPair pair = tcp_pair(4096);
    set_nonblocking(pair.one.get(), true);
    const int large = 4 << 20;
    ::setsockopt(pair.one.get(), SOL_SOCKET, SO_SNDBUF, &large, sizeof large);
    zc::Socket to = socket_on(pair.one);
    const FdState before = FdState::of(to.as_fd().get());
    zc::Options options = given;
    options.strategy = zc::Strategy::send_zerocopy;
    options.aliasing = zc::Aliasing::shared;
    {
      Transfer t(pattern(0, 200'000), to, options);
      use(t, pair.other.get(), to.as_fd().get());
    }
    CHECK((FdState::of(to.as_fd().get()) == before));
  };
  SECTION("it waits for them with events 0") {
    run({}, [](Transfer& t, int peer, int fd) {
      Step said = Step::progressed;
      while (said == Step::progressed) said = step(t);
      if (t.result().trail.size() > 0) return skip_zerocopy();
      REQUIRE(t.result().delivered == 200'000);
      CHECK(said == Step::blocked);
      CHECK(t.fd() == fd);
      CHECK(t.events() == 0);
      CHECK(t.result().source_in_use);
      CHECK(t.result().reason == StopReason::would_block);
      CHECK(step(t) == Step::blocked);
      Drainer drainer(peer, 200'000);
      CHECK(poll_to_end(t));
      CHECK(t.result().reason == StopReason::complete);
      CHECK(!t.result().source_in_use);
      CHECK(same(drainer.bytes(), pattern(0, 200'000)));
    });
  }
  SECTION("a deadline or an idle timeout ends that wait, and says that the memory is in use") {
    for (const bool idle : {false, true}) {
      INFO((idle ? "idle timeout" : "deadline"));
      zc::Options options;
      if (idle) options.idle_timeout = 100ms;
      if (!idle) options.deadline = past(100ms);
      run(options, [](Transfer& t, int, int) {
        Step said = Step::progressed;
        while (said == Step::progressed) said = step(t);
        if (t.result().delivered != 200'000) return skip_zerocopy();
        CHECK(said == Step::blocked);
        REQUIRE(t.wake_at());
        std::this_thread::sleep_until(*t.wake_at() + 5ms);
        CHECK(step(t) == Step::done);
        CHECK(t.result().delivered == 200'000);
        CHECK(t.result().source_in_use);
      });
    }
  }
  SECTION("finishing earlier says so too") {
    run({}, [](Transfer& t, int, int) {
      while (step(t) == Step::progressed) continue;
      if (t.result().delivered != 200'000) return skip_zerocopy();
      const TransferResult r = t.finish();
      CHECK(r.delivered == 200'000);
      CHECK(r.source_in_use);
      CHECK(!r.stranded);
    });
  }
}

TEST_CASE("a forced strategy that can't use the source's readiness ends, in steps too", "[stepping]") {
  // At an urgent mark a splice says EAGAIN though poll says readable.
  FdPair source = tcp_pair();
  FdPair sink = pipe_pair();
  write_all(source.other.get(), pattern(0, 100));
  REQUIRE(::send(source.other.get(), "!", 1, MSG_OOB) == 1);
  write_all(source.other.get(), pattern(100, 100));
  set_nonblocking(source.one.get(), true);
  zc::Socket from = socket_on(source.one);
  zc::PipeWriter to(std::move(sink.other));
  SECTION("forced: an error, no endless loop") {
    Transfer t(from, to, {.strategy = zc::Strategy::splice, .length = 200});
    Step said = Step::blocked;
    int steps = 0;
    for (; steps < 1000 && said != Step::done && wait_for(from.as_fd().get(), POLLIN, past(2s)); ++steps)
      said = step(t);
    CHECK(said == Step::done);
    CHECK(t.result().error == zc::Errc::strategy_unavailable);
  }
  SECTION("not forced: the bytes after it arrive, without a second edge") {
    Transfer t(from, to, {.length = 200});
    (void)wait_for(from.as_fd().get(), POLLIN, past(2s));
    std::this_thread::sleep_for(50ms);  // all three have arrived
    CHECK(step(t) == Step::done);
    CHECK(t.result().delivered == 200);
    CHECK(same(read_now(sink.one.get()), pattern(0, 200)));
  }
}

TEST_CASE("what is wrong with an end shows in the first step, and moves nothing", "[stepping]") {
  const zc::File file(memory_backed_file(pattern(0, 100)));
  Bytes memory(100);
  const zc::BorrowedFd closed(-1);
  Transfer a(closed, std::span<std::byte>(memory));
  CHECK(!a.is_done());
  CHECK(step(a) == Step::done);
  CHECK(a.result().error == std::errc::bad_file_descriptor);
  Transfer b(file, file);
  CHECK(step(b) == Step::done);
  CHECK(b.result().error == std::errc::invalid_argument);
  Transfer c(file.range(0), std::span<std::byte>(memory), {.strategy = zc::Strategy::splice});
  CHECK(step(c) == Step::done);
  CHECK(c.result().error == zc::Errc::strategy_unavailable);
  Transfer d(file.range(0), std::span<std::byte>(memory), {.length = 0});
  CHECK(step(d) == Step::done);
  CHECK(d.result().reason == StopReason::complete);
  CHECK(d.result().calls == 0);
  Transfer e(zc::gather(), std::span<std::byte>(memory));
  CHECK(step(e) == Step::done);
  CHECK(e.result().error == zc::Errc::empty_gather);
}

TEST_CASE("a blocking socket is stepped by copying, and the trail says why", "[stepping]") {
  const zc::File file(memory_backed_file(pattern(0, 100'000)));
  FdPair pair = unix_pair();
  zc::Socket to = socket_on(pair.one);
  Transfer t(file.range(0), to);
  Drainer drainer(pair.other.get(), 100'000);
  CHECK(poll_to_end(t));
  bool told = false;
  for (const zc::FallbackStep one : t.result().trail)
    told = told || (one.strategy == zc::Strategy::sendfile && one.error == zc::Errc::would_block_uncut);
  CHECK(told);
  CHECK(same(drainer.bytes(), pattern(0, 100'000)));
  // Where it does not block, sendfile moves them.
  FdPair second = unix_pair();
  set_nonblocking(second.one.get(), true);
  zc::Socket free = socket_on(second.one);
  Transfer u(file.range(0), free);
  Drainer other(second.other.get(), 100'000);
  CHECK(poll_to_end(u));
  CHECK(u.result().strategy == zc::Strategy::sendfile);
  CHECK(same(other.bytes(), pattern(0, 100'000)));
}

TEST_CASE("progress is told between steps and once at the end", "[stepping]") {
  const zc::File file(memory_backed_file(pattern(0, 100'000)));
  Sink sink(To::unix_stream, false, 0);
  std::vector<std::uint64_t> told;
  auto hear = [&](const zc::ProgressReport& report) { told.push_back(report.bytes); };
  Transfer t(file.range(0), *std::get<zc::Socket*>(sink.handle()),
             {.on_progress = zc::Progress(hear, 0ns), .step_size = 10'000});
  for (int i = 0; i < 1000 && step(t) != Step::done; ++i) sink.drain(1 << 16);
  REQUIRE(t.is_done());
  REQUIRE(!told.empty());
  CHECK(told.back() == 100'000);
  CHECK(std::is_sorted(told.begin(), told.end()));
  CHECK(told.size() >= 10);
}

TEST_CASE("a message of the caller's in the sink's error queue costs a step nothing, and stays", "[stepping]") {
  const zc::File file(memory_backed_file(pattern(0, 400'000)));
  FdPair pair = small_tcp_pair();
  set_nonblocking(pair.one.get(), true);
  set_nonblocking(pair.other.get(), true);
  const int fd = pair.one.get();
  const int stamp = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;
  REQUIRE(::setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &stamp, sizeof stamp) == 0);
  REQUIRE(::send(fd, "x", 1, 0) == 1);
  REQUIRE(wait_for(fd, 0, past(2s)));  // the time stamp is there: POLLERR
  const int none = 0;
  ::setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &none, sizeof none);
  zc::Socket to = socket_on(pair.one);
  Transfer t(file.range(0), to);
  Bytes got;
  for (int i = 0; i < 10'000 && got.size() <= 400'000 && step(t) != Step::done; ++i) {
    for (int again = 0; again < 4; ++again) CHECK(step(t) == Step::blocked);  // the peer stalls
    const Bytes more = read_now(pair.other.get());
    got.insert(got.end(), more.begin(), more.end());
    (void)wait_for(pair.other.get(), POLLIN, past(5ms));
  }
  const Bytes rest = read_to_end(pair.other.get(), 400'001 - got.size());
  got.insert(got.end(), rest.begin(), rest.end());
  REQUIRE(got.size() == 400'001);
  CHECK(same(std::span(got).subspan(1), pattern(0, 400'000)));
  CHECK(t.result().strategy == zc::Strategy::sendfile);
  CHECK(t.result().trail.empty());
  pollfd errors{fd, 0, 0};
  CHECK(::poll(&errors, 1, 0) == 1);
}

TEST_CASE("transfers that wait with nothing in flight share the pipes of their thread", "[stepping]") {
  in_thread([] {
    constexpr std::size_t many = 50;
    struct Relay {
      FdPair source = unix_pair();
      FdPair sink = unix_pair();
      zc::BorrowedFd from{source.one.get()};
      zc::BorrowedFd to{sink.one.get()};
      Relay() { set_nonblocking(source.one.get(), true), set_nonblocking(sink.one.get(), true); }
    };
    std::vector<Relay> relays(many);
    std::vector<Transfer> transfers;
    transfers.reserve(many);
    for (Relay& relay : relays) transfers.emplace_back(relay.from, relay.to);
    const std::size_t before = open_descriptors();
    for (std::size_t round = 0; round < 3; ++round)
      for (std::size_t i = 0; i < many; ++i) {
        write_all(relays[i].source.other.get(), pattern(i, 1000));
        CHECK(step(transfers[i]) == Step::blocked);
        CHECK(same(read_now(relays[i].sink.other.get()), pattern(i, 1000)));
      }
    CHECK(transfers[0].result().strategy == zc::Strategy::splice);
    CHECK(open_descriptors() <= before + 2);
    // One that has bytes in flight keeps its pipe: they are its own.
    fill(relays[0].sink.one.get());
    write_all(relays[0].source.other.get(), pattern(0, 1000));
    CHECK(step(transfers[0]) == Step::blocked);
    write_all(relays[1].source.other.get(), pattern(5000, 1000));
    CHECK(step(transfers[1]) == Step::blocked);
    CHECK(same(read_now(relays[1].sink.other.get()), pattern(5000, 1000)));
    CHECK(open_descriptors() <= before + 4);
    TransferResult r = transfers[0].finish();
    REQUIRE(r.stranded);
    Bytes rest(1000);
    CHECK(zc::transfer(*r.stranded, std::span<std::byte>(rest)).delivered == 1000);
    CHECK(same(rest, pattern(0, 1000)));
  });
}

// ---- event loops ----

namespace {

enum class Loop { poll, select, level, edge_source_first, edge_sink_first };
constexpr const char* loop_names[] = {"poll", "select", "level-triggered epoll", "edge-triggered epoll, source first",
                                      "edge-triggered epoll, sink first"};

// How long a loop waits for what must come: an edge that is lost shows as this, and fails.
constexpr int lost = 10'000;

// Both are level-triggered and watch what the transfer says.
bool wait_by_poll(const Transfer& t) {
  pollfd ends[2] = {{t.fd(), t.events(), 0}, {t.sink_fd(), 0, 0}};
  return ::poll(ends, 2, lost) > 0;
}
bool wait_by_select(const Transfer& t) {
  fd_set read;
  fd_set write;
  FD_ZERO(&read);
  FD_ZERO(&write);
  if (t.fd() >= FD_SETSIZE) throw std::runtime_error("too many descriptors for select");
  if ((t.events() & POLLIN) != 0) FD_SET(t.fd(), &read);
  if ((t.events() & POLLOUT) != 0) FD_SET(t.fd(), &write);
  timeval limit{lost / 1000, 0};
  return ::select(t.fd() + 1, &read, &write, nullptr, &limit) > 0;
}
bool wait_by_level(int set, const Transfer& t) {
  epoll_event event{};
  event.events = static_cast<std::uint32_t>(t.events());  // EPOLLIN and EPOLLOUT are POLLIN and POLLOUT
  checked(::epoll_ctl(set, EPOLL_CTL_ADD, t.fd(), &event), "epoll_ctl");
  const int n = ::epoll_wait(set, &event, 1, lost);
  checked(::epoll_ctl(set, EPOLL_CTL_DEL, t.fd(), nullptr), "epoll_ctl");
  return n > 0;
}
// Registered once, never looked at again: a step only after an edge.
bool run_by_edges(Transfer& t, int source, int sink, bool source_first) {
  const zc::OwnedFd set(checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1"));
  const auto watch = [&](int fd, std::uint32_t events) {
    epoll_event event{};
    event.events = events | EPOLLET;
    if (fd >= 0) checked(::epoll_ctl(set.get(), EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
  };
  if (source_first) watch(source, EPOLLIN);
  watch(sink, EPOLLOUT);
  if (!source_first) watch(source, EPOLLIN);
  for (;;) {
    epoll_event events[2];
    if (::epoll_wait(set.get(), events, 2, lost) <= 0) return false;
    Step said = Step::progressed;
    while (said == Step::progressed) said = step(t);
    if (said == Step::done) return true;
  }
}
bool run_by(Loop loop, Transfer& t, int source, int sink) {
  if (loop >= Loop::edge_source_first) return run_by_edges(t, source, sink, loop == Loop::edge_source_first);
  const zc::OwnedFd set(checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1"));
  for (;;) {
    const Step said = step(t);
    if (said == Step::done) return true;
    if (said == Step::progressed) continue;
    const bool woke = loop == Loop::poll     ? wait_by_poll(t)
                      : loop == Loop::select ? wait_by_select(t)
                                             : wait_by_level(set.get(), t);
    if (!woke) return false;
  }
}

// Naps of up to 60 us now and then, so that either side is the faster one for a while.
void nap(Random& random) {
  if (random() % 16 == 0) ::usleep(static_cast<useconds_t>(random() % 60));
}
// Writes segments of 1 to 200 bytes, and closes.
std::thread segment_writer(zc::OwnedFd fd, std::size_t bytes, unsigned seed) {
  return std::thread([fd = std::move(fd), bytes, seed]() mutable {
    without_sigpipe();
    Random random(seed);
    std::size_t most = 200;
    for (std::size_t put = 0; put < bytes;) {
      if (random() % 256 == 0) most = random() % 2 == 0 ? 200 : 3000;
      const std::size_t n = std::min(up_to(random, most), bytes - put);
      if (!write_all(fd.get(), pattern(put, n))) return;
      put += n;
      nap(random);
    }
    fd.reset();
  });
}
// Reads pieces of random size, into `got`.
std::thread piece_reader(int fd, Bytes& got, unsigned seed) {
  return std::thread([fd, &got, seed] {
    Random random(seed);
    std::array<std::byte, 8192> block;
    const auto until = Clock::now() + 2 * patience;
    while (wait_for(fd, POLLIN, until)) {
      const ssize_t n = ::read(fd, block.data(), up_to(random, block.size()));
      if (n <= 0) return;
      got.insert(got.end(), block.begin(), block.begin() + n);
      nap(random);
    }
  });
}
FdPair loop_pair(int kind) {
  return kind == 0 ? small_tcp_pair(536) : kind == 1 ? small_pipe_pair() : kind == 2 ? small_unix_pair() : fifo_pair();
}
constexpr const char* pair_names[] = {"tcp", "pipe", "unix", "fifo"};

}  // namespace

TEST_CASE("small segments through small pipes arrive by every kind of event loop, and no edge is lost", "[stepping]") {
  const TimeLimit limit(240);
  constexpr std::size_t size = 400'000;
  for (int loop = 0; loop < 5; ++loop) {
    for (int source_kind = 0; source_kind < 4; ++source_kind) {
      for (int sink_kind = 0; sink_kind < 4; ++sink_kind) {
        const auto seed = static_cast<unsigned>(loop * 16 + source_kind * 4 + sink_kind);
        const bool source_blocks = seed % 2 != 0;
        const bool sink_blocks = seed % 3 == 0;
        INFO(pair_names[source_kind] << " to " << pair_names[sink_kind] << " by " << loop_names[loop]);
        FdPair source = loop_pair(source_kind);
        FdPair sink = loop_pair(sink_kind);
        if (sink_kind == 1 || sink_kind == 3) std::swap(sink.one, sink.other);  // a pipe's `one` reads
        set_nonblocking(source.one.get(), !source_blocks);
        set_nonblocking(source.other.get(), true);
        set_nonblocking(sink.one.get(), !sink_blocks);
        const int flags[] = {::fcntl(source.one.get(), F_GETFL), ::fcntl(sink.one.get(), F_GETFL)};
        Bytes got;
        std::thread writer = segment_writer(std::move(source.other), size, seed);
        std::thread reader = piece_reader(sink.other.get(), got, seed + 1);
        // By their types, or as any descriptor.
        const zc::BorrowedFd from(source.one.get());
        const zc::BorrowedFd to(sink.one.get());
        Transfer t(from, to, {.step_size = seed % 5 == 0 ? std::size_t{1000} : std::size_t{1} << 20});
        const bool ended = run_by(static_cast<Loop>(loop), t, from.get(), to.get());
        const TransferResult r = t.finish();
        CHECK(ended);
        CHECK(flags[0] == ::fcntl(source.one.get(), F_GETFL));
        CHECK(flags[1] == ::fcntl(sink.one.get(), F_GETFL));
        source.one.reset();
        sink.one.reset();
        writer.join();
        reader.join();
        CHECK(r.delivered == size);
        CHECK(r.reason == StopReason::complete);
        CHECK(same(got, pattern(0, size)));
      }
    }
  }
}

TEST_CASE("edges are enough for a file too, and for an end that comes without a byte", "[stepping]") {
  const zc::File file(memory_backed_file(pattern(0, 3'000'000)));
  for (int sink_kind = 0; sink_kind < 4; ++sink_kind) {
    INFO("to " << pair_names[sink_kind]);
    FdPair sink = loop_pair(sink_kind);
    if (sink_kind == 1 || sink_kind == 3) std::swap(sink.one, sink.other);
    set_nonblocking(sink.one.get(), sink_kind % 2 == 0);
    Bytes got;
    std::thread reader = piece_reader(sink.other.get(), got, 7);
    const zc::BorrowedFd to(sink.one.get());
    Transfer t(file.range(0, 600'000), to);
    CHECK(run_by_edges(t, -1, to.get(), false));
    CHECK(t.finish().delivered == 600'000);
    sink.one.reset();
    reader.join();
    CHECK(same(got, pattern(0, 600'000)));
  }
  FdPair source = pipe_pair();
  Bytes memory(10);
  zc::PipeReader from(std::move(source.one));
  Transfer t(from, std::span<std::byte>(memory));
  CHECK(step(t) == Step::blocked);
  std::thread closer([&] {
    ::usleep(20'000);
    source.other.reset();
  });
  CHECK(run_by_edges(t, from.as_fd().get(), -1, true));
  closer.join();
  CHECK(t.result().reason == StopReason::complete);
}
