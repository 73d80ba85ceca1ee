// compare: transfer() beside hand-written loops over the same descriptors: sendfile for file to socket, copy_file_range
// for file to file, splice through a 1 MiB pipe for socket to socket. bench/run drives it; see bench/README.md.
//
//   compare [CASE [SIZE]]                 times, as ratios to the raw loop within the same round
//   compare --once CASE SIZE WHO REPS     REPS moves of one contestant, each between two getppid calls and inside the
//                                         function `measured`, for strace and callgrind to count
//
// Two clocks: `call`, until the call returns and all bytes are accepted by the sink; and `whole`, until the reader has the
// last of them. Up to 64 KiB the bytes fit into the socket's buffer, and one thread does it all: it feeds the source while
// the clocks stand, several transfers of 4 KiB to one reading of the clock, and reads the sink empty. Above, a process on
// another core feeds and reads at the same time; it discards what it reads (MSG_TRUNC), so that the sender is what limits.
#include <zerocopy/zerocopy.hpp>

#include <fmt/format.h>

#include <fcntl.h>         // splice
#include <poll.h>          // poll
#include <sched.h>         // sched_setaffinity
#include <sys/prctl.h>     // PR_SET_PDEATHSIG
#include <sys/sendfile.h>  // sendfile
#include <sys/socket.h>    // recv
#include <sys/syscall.h>   // SYS_getppid
#include <sys/wait.h>      // waitpid
#include <unistd.h>        // fork

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <numeric>
#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zc = zerocopy;

namespace {

constexpr std::uint64_t one_thread = 64 << 10;  // up to here no other process takes part
constexpr std::size_t pipe_bytes = 1 << 20;

[[noreturn]] void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

// --- the hand-written loops -------------------------------------------------------------------------------------------

void wait_for(int fd, short events) {
  pollfd end{fd, events, 0};
  ::poll(&end, 1, -1);
}

std::size_t clamp(std::uint64_t n) { return static_cast<std::size_t>(std::min<std::uint64_t>(n, 0x7ffff000)); }

void raw_sendfile(int in, int out, std::uint64_t left) {
  while (left > 0) {
    const ssize_t n = ::sendfile(out, in, nullptr, clamp(left));
    if (n > 0)
      left -= static_cast<std::uint64_t>(n);
    else if (n < 0 && errno == EAGAIN)
      wait_for(out, POLLOUT);
    else if (n == 0 || errno != EINTR)
      fail("sendfile");
  }
}

void raw_copy_file_range(int in, int out, std::uint64_t left) {
  while (left > 0) {
    const ssize_t n = ::copy_file_range(in, nullptr, out, nullptr, clamp(left), 0);
    if (n > 0)
      left -= static_cast<std::uint64_t>(n);
    else if (n == 0 || errno != EINTR)
      fail("copy_file_range");
  }
}

ssize_t raw_hop(int in, int out, std::size_t n, int waits_for, short events) {
  for (;;) {
    const ssize_t moved = ::splice(in, nullptr, out, nullptr, n, SPLICE_F_MOVE);
    if (moved > 0) return moved;
    if (moved < 0 && errno == EAGAIN)
      wait_for(waits_for, events);
    else if (moved == 0 || errno != EINTR)
      fail("splice");
  }
}

void raw_splice(int in, int pipe_in, int pipe_out, int out, std::uint64_t left) {
  while (left > 0) {
    ssize_t held = raw_hop(in, pipe_in, std::min<std::uint64_t>(left, pipe_bytes), in, POLLIN);
    left -= static_cast<std::uint64_t>(held);
    while (held > 0) held -= raw_hop(pipe_out, out, static_cast<std::size_t>(held), out, POLLOUT);
  }
}

// --- what is compared -------------------------------------------------------------------------------------------------

enum class Pair { file_socket, file_file, socket_socket };

struct Case {
  std::string_view name;
  Pair pair;
  bool blocking;
};
constexpr Case cases[] = {
    {"file-socket", Pair::file_socket, true},
    {"file-socket-nb", Pair::file_socket, false},
    {"file-file", Pair::file_file, true},
    {"socket-socket", Pair::socket_socket, true},
    {"socket-socket-nb", Pair::socket_socket, false},
};

enum class Way { raw, raw_masked, types, fds, forced };

struct Contestant {
  std::string_view name;
  Way way;
  bool guard;  // under a SigpipeGuard, which is made and ended while the clock stands
};
constexpr Contestant contestants[] = {
    {"raw", Way::raw, false},
    {"raw-again", Way::raw, false},        // how much two equal things differ here
    {"raw+mask", Way::raw_masked, false},  // what a library pays that may not ignore SIGPIPE
    {"types", Way::types, false},
    {"fds", Way::fds, false},  //
    {"types+guard", Way::types, true},
    {"fds+guard", Way::fds, true},  //
    {"forced", Way::forced, false},
    {"forced+guard", Way::forced, true},
};
constexpr std::size_t timed_contestants = 7;

constexpr std::pair<std::string_view, std::uint64_t> sizes[] = {
    {"4K", 4 << 10}, {"64K", 64 << 10}, {"1M", 1 << 20}, {"256M", 256 << 20}, {"1G", 1 << 30}};
constexpr std::size_t timed_sizes = 4;

std::pair<zc::Socket, zc::Socket> connection() {
  auto listener = zc::Listener::bind("127.0.0.1", 0);
  auto connected = zc::Socket::connect("127.0.0.1", listener.port());
  return {std::move(connected), listener.accept()};
}

std::string directory() {
  const char* dir = std::getenv("TMPDIR");
  return dir != nullptr && *dir != '\0' ? dir : "/tmp";
}

// Everything that a move needs, prepared once.
struct Stage {
  Stage(const Case& which, std::uint64_t bytes) : pair(which.pair), size(bytes) {
    std::vector<std::byte> block(std::min<std::uint64_t>(std::max(size, one_thread), 1 << 20), std::byte{'z'});
    for (std::uint64_t n = 0; n < std::max(size, one_thread) && pair != Pair::socket_socket; n += block.size())
      (void)zc::transfer(std::span<const std::byte>(block), file);
    in.first.set_blocking(true);
    in.second.set_blocking(which.blocking);
    out.first.set_blocking(which.blocking);
    out.second.set_blocking(true);
    pipe.set_capacity(pipe_bytes);
  }

  Pair pair;
  std::uint64_t size;
  zc::File file = zc::File::temporary(directory());
  zc::File copy = zc::File::temporary(directory());
  std::pair<zc::Socket, zc::Socket> in = connection();   // fed at `first`, moved from `second`
  std::pair<zc::Socket, zc::Socket> out = connection();  // moved to `first`, drained at `second`
  zc::Pipe pipe = zc::Pipe::create({.blocking = true});

  [[nodiscard]] std::uint64_t fed() const { return pair == Pair::socket_socket ? size : 0; }
  [[nodiscard]] std::uint64_t drained() const { return pair == Pair::file_file ? 0 : size; }
  void rewind() {
    if (pair == Pair::socket_socket) return;
    file.seek(0);
    if (pair == Pair::file_file) copy.seek(0);
  }

  void feed(std::uint64_t n) {
    static const std::vector<std::byte> block(256 << 10);
    while (n > 0) {
      const ssize_t sent = ::send(in.first.as_fd().get(), block.data(), std::min<std::uint64_t>(n, block.size()), 0);
      if (sent < 0) fail("send");
      n -= static_cast<std::uint64_t>(sent);
    }
  }
  void drain(std::uint64_t n) {
    static std::vector<std::byte> block(256 << 10);
    while (n > 0) {
      const ssize_t got = ::recv(out.second.as_fd().get(), block.data(), std::min<std::uint64_t>(n, block.size()), 0);
      if (got <= 0) fail("recv");
      n -= static_cast<std::uint64_t>(got);
    }
  }
};

template <class Source, class Sink>
void checked_transfer(const Source& source, const Sink& sink, const zc::Options& options) {
  const zc::TransferResult result = zc::transfer(source, sink, options);
  if (result.delivered != options.length) throw std::runtime_error("short");
}

// SIGPIPE blocked in this thread, and the mask put back: two rt_sigprocmask.
template <class Loop>
void masked(Loop loop) {
  sigset_t only;
  sigset_t before;
  sigemptyset(&only);
  sigaddset(&only, SIGPIPE);
  ::pthread_sigmask(SIG_BLOCK, &only, &before);
  loop();
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

// In its own function for each pair: what one does not need, the other does not pay.
[[gnu::noinline]] void move_file_to_socket(Way way, const Stage& s) {
  const int in = s.file.as_fd().get();
  const int out = s.out.first.as_fd().get();
  switch (way) {
    case Way::raw: return raw_sendfile(in, out, s.size);
    case Way::raw_masked: return masked([&] { raw_sendfile(in, out, s.size); });
    case Way::types: return checked_transfer(s.file, s.out.first, {.length = s.size});
    case Way::fds: return checked_transfer(zc::BorrowedFd(in), zc::BorrowedFd(out), {.length = s.size});
    case Way::forced:
      return checked_transfer(s.file, s.out.first, {.strategy = zc::Strategy::sendfile, .length = s.size});
  }
}
[[gnu::noinline]] void move_file_to_file(Way way, const Stage& s) {
  const int in = s.file.as_fd().get();
  const int out = s.copy.as_fd().get();
  switch (way) {
    case Way::raw:
    case Way::raw_masked: return raw_copy_file_range(in, out, s.size);  // files raise no SIGPIPE
    case Way::types: return checked_transfer(s.file, s.copy, {.length = s.size});
    case Way::fds: return checked_transfer(zc::BorrowedFd(in), zc::BorrowedFd(out), {.length = s.size});
    case Way::forced:
      return checked_transfer(s.file, s.copy, {.strategy = zc::Strategy::copy_file_range, .length = s.size});
  }
}
[[gnu::noinline]] void move_socket_to_socket(Way way, const Stage& s) {
  const int in = s.in.second.as_fd().get();
  const int out = s.out.first.as_fd().get();
  const auto raw = [&] { raw_splice(in, s.pipe.writer().as_fd().get(), s.pipe.reader().as_fd().get(), out, s.size); };
  switch (way) {
    case Way::raw: return raw();
    case Way::raw_masked: return masked(raw);
    case Way::types: return checked_transfer(s.in.second, s.out.first, {.length = s.size});
    case Way::fds: return checked_transfer(zc::BorrowedFd(in), zc::BorrowedFd(out), {.length = s.size});
    case Way::forced:
      return checked_transfer(s.in.second, s.out.first, {.strategy = zc::Strategy::splice, .length = s.size});
  }
}
void move(Way way, const Stage& stage) {
  switch (stage.pair) {
    case Pair::file_socket: return move_file_to_socket(way, stage);
    case Pair::file_file: return move_file_to_file(way, stage);
    case Pair::socket_socket: return move_socket_to_socket(way, stage);
  }
}

}  // namespace

// Named for callgrind's --toggle-collect.
extern "C" [[gnu::noinline]] void measured(int way, const void* stage) {
  move(static_cast<Way>(way), *static_cast<const Stage*>(stage));
}

namespace {

// --- the other end, in a process of its own ---------------------------------------------------------------------------

void run_on(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  (void)::sched_setaffinity(0, sizeof(set), &set);  // where it is refused, the kernel chooses
}

// The first and the last processor that this process may use.
std::pair<int, int> processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  (void)::sched_getaffinity(0, sizeof(set), &set);
  std::pair<int, int> found{-1, -1};
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &set)) continue;
    if (found.first < 0) found.first = cpu;
    found.second = cpu;
  }
  return found;
}

struct Order {
  std::uint64_t feed;
  std::uint64_t drain;
};

// Feeds and drains at once, as far as both sockets allow without blocking.
void obey(Stage& stage, Order order) {
  static const std::vector<std::byte> block(256 << 10);
  const int feeder = stage.in.first.as_fd().get();
  const int drainer = stage.out.second.as_fd().get();
  while (order.feed > 0 || order.drain > 0) {
    pollfd ends[] = {{order.feed > 0 ? feeder : -1, POLLOUT, 0}, {order.drain > 0 ? drainer : -1, POLLIN, 0}};
    ::poll(ends, 2, -1);
    if (ends[0].revents != 0) {
      const ssize_t n = ::send(feeder, block.data(), std::min<std::uint64_t>(order.feed, block.size()), MSG_DONTWAIT);
      if (n > 0) order.feed -= static_cast<std::uint64_t>(n);
    }
    if (ends[1].revents != 0) {
      const ssize_t n = ::recv(drainer, nullptr, clamp(order.drain), MSG_TRUNC | MSG_DONTWAIT);
      if (n == 0) return;
      if (n > 0) order.drain -= static_cast<std::uint64_t>(n);
    }
  }
}

class OtherEnd {
 public:
  explicit OtherEnd(Stage& stage) : pid_(::fork()) {
    if (pid_ < 0) fail("fork");
    if (pid_ > 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    run_on(processors().second);
    Order order{};
    while (::read(theirs_.as_fd().get(), &order, sizeof(order)) == sizeof(order)) {
      obey(stage, order);
      (void)!::write(theirs_.as_fd().get(), "", 1);
    }
    ::_exit(0);
  }
  OtherEnd(const OtherEnd&) = delete;
  OtherEnd& operator=(const OtherEnd&) = delete;
  ~OtherEnd() {
    std::error_code already_gone;
    ours_.shutdown(zc::Shutdown::both, already_gone);
    ::waitpid(pid_, nullptr, 0);
  }

  void start(Order order) { (void)!::write(ours_.as_fd().get(), &order, sizeof(order)); }
  void finish() {
    char done = 0;
    if (::read(ours_.as_fd().get(), &done, 1) != 1) throw std::runtime_error("the other end died");
  }

 private:
  static std::pair<zc::Socket, zc::Socket> blocking_pair() {
    auto ends = zc::Socket::pair();
    ends.first.set_blocking(true);
    ends.second.set_blocking(true);
    return ends;
  }
  std::pair<zc::Socket, zc::Socket> ends_ = blocking_pair();
  zc::Socket& ours_ = ends_.first;
  zc::Socket& theirs_ = ends_.second;
  pid_t pid_;
};

// --- times ------------------------------------------------------------------------------------------------------------

using Clock = std::chrono::steady_clock;

// Nanoseconds of one move.
struct Took {
  double call = 0;
  double whole = 0;
};
Took time_of(const Contestant& who, Stage& stage, OtherEnd& other) {
  const std::uint64_t batch = std::max<std::uint64_t>(one_thread / stage.size, 1);
  const bool alone = stage.size <= one_thread;
  stage.rewind();
  if (alone)
    stage.feed(stage.fed() * batch);
  else
    other.start({stage.fed(), stage.drained()});
  std::optional<zc::SigpipeGuard> guard;
  if (who.guard) guard.emplace();
  const auto start = Clock::now();
  for (std::uint64_t i = 0; i < batch; ++i) measured(static_cast<int>(who.way), &stage);
  const auto returned = Clock::now();
  if (alone)
    stage.drain(stage.drained() * batch);
  else if (stage.drained() > 0)
    other.finish();
  const auto arrived = Clock::now();
  if (!alone && stage.drained() == 0) other.finish();
  const auto each = [&](auto time) {
    return static_cast<double>(std::chrono::nanoseconds(time).count()) / static_cast<double>(batch);
  };
  return {each(returned - start), each(arrived - start)};
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// The rounds in `blocks` parts: the median of all, and the lowest and highest median of a part.
struct Spread {
  double middle, low, high;
};
Spread spread(const std::vector<double>& values) {
  const std::size_t blocks = std::min<std::size_t>(values.size(), 10);
  std::vector<double> medians;
  for (std::size_t b = 0; b < blocks; ++b) {
    const auto at = [&](std::size_t i) {
      return values.begin() + static_cast<std::ptrdiff_t>(i * values.size() / blocks);
    };
    medians.push_back(median(std::vector<double>(at(b), at(b + 1))));
  }
  return {median(values), *std::min_element(medians.begin(), medians.end()),
          *std::max_element(medians.begin(), medians.end())};
}

void compare(const Case& which, std::string_view size_name, std::uint64_t size) {
  Stage stage(which, size);
  OtherEnd other(stage);
  run_on(processors().first);
  const std::size_t rounds = size <= one_thread ? 3000 : size <= (1 << 20) ? 500 : 15;
  const std::size_t warm_up = rounds / 10 + 1;
  struct Series {
    std::vector<double> us, call, whole;
  };
  std::array<Series, timed_contestants> series;
  std::array<std::size_t, timed_contestants> order;
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::minstd_rand random;
  for (std::size_t round = 0; round < rounds + warm_up; ++round) {
    std::array<Took, timed_contestants> took{};
    std::shuffle(order.begin(), order.end(), random);  // nobody always follows the same one
    for (const std::size_t who : order) took[who] = time_of(contestants[who], stage, other);
    for (std::size_t who = 0; who < timed_contestants && round >= warm_up; ++who) {
      series[who].us.push_back(took[who].call / 1e3);
      series[who].call.push_back(took[who].call / took[0].call);
      series[who].whole.push_back(took[who].whole / took[0].whole);
    }
  }
  for (std::size_t who = 0; who < timed_contestants; ++who) {
    const Spread call = spread(series[who].call);
    const Spread whole = spread(series[who].whole);
    fmt::print("{:<17} {:<5} {:<12} {:>11.2f} {:>7.3f} {:>7.3f} {:>7.3f} {:>7.3f} {:>7.3f} {:>7.3f}\n", which.name,
               size_name, contestants[who].name, median(series[who].us), call.middle, call.low, call.high, whole.middle,
               whole.low, whole.high);
  }
  std::fflush(stdout);
}

// --- counting by others -----------------------------------------------------------------------------------------------

void once(const Case& which, std::uint64_t size, const Contestant& who, int repetitions) {
  Stage stage(which, size);
  OtherEnd other(stage);
  std::optional<zc::SigpipeGuard> guard;
  if (who.guard) guard.emplace();
  for (int i = -1; i < repetitions; ++i) {
    stage.rewind();
    const bool fits = size <= one_thread;
    other.start({stage.fed(), fits ? 0 : stage.drained()});
    if (fits) other.finish();
    if (i < 0) {
      move(who.way, stage);  // set-up that is made once a process
    } else {
      ::syscall(SYS_getppid);
      measured(static_cast<int>(who.way), &stage);
      ::syscall(SYS_getppid);
    }
    if (fits) other.start({0, stage.drained()});  // also with nothing to drain
    other.finish();
  }
}

template <class List>
const auto& find(const List& list, std::string_view name, auto key) {
  const auto found =
      std::find_if(std::begin(list), std::end(list), [&](const auto& item) { return key(item) == name; });
  if (found == std::end(list)) throw std::invalid_argument(fmt::format("'{}' is not known here", name));
  return *found;
}
constexpr auto by_name = [](const auto& item) { return item.name; };
constexpr auto by_first = [](const auto& item) { return item.first; };

void run(std::span<char*> arguments) {
  if (arguments.size() == 5 && std::string_view(arguments[0]) == "--once")
    return once(find(cases, arguments[1], by_name), find(sizes, arguments[2], by_first).second,
                find(contestants, arguments[3], by_name), std::atoi(arguments[4]));
  if (arguments.size() > 2) throw std::invalid_argument("usage: compare [CASE [SIZE]] | --once CASE SIZE WHO REPS");
  fmt::print("{:<17} {:<5} {:<12} {:>11} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}\n", "case", "size", "who", "us", "call",
             "low", "high", "whole", "low", "high");
  for (const Case& which : cases)
    for (const auto& [name, size] : std::span(sizes).first(timed_sizes))
      if ((arguments.empty() || which.name == arguments[0]) && (arguments.size() < 2 || name == arguments[1]))
        compare(which, name, size);
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // as servers do; the raw loops need it
  try {
    run(std::span(argv + 1, static_cast<std::size_t>(argc - 1)));
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "compare: {}\n", error.what());
    return 1;
  }
}
