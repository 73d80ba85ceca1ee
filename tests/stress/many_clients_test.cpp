// A thousand clients in one thread: each reads one file at its own pace through a Transfer of its own. What arrives is
// right, a transfer costs less than 2 KiB of heap, and the thread sleeps while nobody can take more. The clients live in a
// child process, so that their descriptors and their time are not the server's.
#include "catch.hpp"
#include "support/process.hpp"

#include <sys/epoll.h>
#include <sys/resource.h>

#include <algorithm>
#include <memory>
#include <new>

namespace {

thread_local bool counting = false;
thread_local std::size_t allocated = 0;  // bytes, freed ones too

void* counted(std::size_t size) {
  if (counting) allocated += size;
  return std::malloc(size == 0 ? 1 : size);
}

}  // namespace

// NOLINTBEGIN: replacements
[[gnu::noinline]] void* operator new(std::size_t size) {
  if (void* p = counted(size)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new[](std::size_t size) {
  if (void* p = counted(size)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return counted(size); }
[[gnu::noinline]] void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return counted(size); }
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, const std::nothrow_t&) noexcept { std::free(p); }
// NOLINTEND

namespace {

using namespace ends;
using zc::Step;
using zc::Transfer;

constexpr int clients = 1000;
constexpr std::size_t file_size = 1 << 20;
constexpr std::size_t rate = 100'000;  // bytes per second and client
constexpr auto tick = 100ms;

// True if this process may have so many descriptors open, after asking for them.
bool may_open(rlim_t descriptors) {
  rlimit limit{};
  checked(::getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
  if (limit.rlim_cur >= descriptors) return true;
  limit.rlim_cur = std::min(descriptors, limit.rlim_max);
  return ::setrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur >= descriptors;
}

struct Client {
  zc::OwnedFd fd;
  std::size_t got = 0;
  bool is_done = false;
};
// What the clients do: connect, read nothing until a byte comes from `go`, then `rate` bytes a second each. Each byte is
// compared with the file's. Returns what is wrong.
std::string be_the_clients(const sockaddr_in& address, int go) {
  std::vector<Client> all(clients);
  const int buffer = 32 * 1024;
  for (Client& client : all) {
    client.fd.reset(checked(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    ::setsockopt(client.fd.get(), SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    checked(::connect(client.fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), "connect");
  }
  char byte = 0;
  if (::read(go, &byte, 1) != 1) return "the server has gone";
  const auto start = Clock::now();
  std::size_t done = 0;
  std::vector<std::byte> block(64 * 1024);
  for (auto next = start; done < all.size(); next += tick) {
    std::this_thread::sleep_until(next);
    const auto took = std::chrono::duration<double>(Clock::now() - start + tick).count();
    if (took > 60) return "the clients have waited for a minute";
    const auto allowed = static_cast<std::size_t>(took * static_cast<double>(rate));
    for (Client& client : all) {
      while (!client.is_done && client.got < allowed) {
        const std::size_t most = std::min(block.size(), allowed - client.got);
        const ssize_t n = ::recv(client.fd.get(), block.data(), most, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) break;
        if (n < 0) return std::string("recv: ") + std::strerror(errno);
        if (n == 0) {
          if (client.got != file_size) return "a client got " + std::to_string(client.got) + " bytes";
          client.is_done = true;
          ++done;
          break;
        }
        const auto part = std::span<const std::byte>(block).first(static_cast<std::size_t>(n));
        if (client.got + part.size() > file_size || !same(part, pattern(client.got, part.size())))
          return "wrong bytes at " + std::to_string(client.got);
        client.got += part.size();
      }
    }
  }
  return {};
}

double cpu_seconds() {
  rusage used{};
  ::getrusage(RUSAGE_THREAD, &used);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

struct Served {
  zc::Socket socket{zc::OwnedFd()};
  std::unique_ptr<Transfer> transfer;
};

}  // namespace

TEST_CASE("a thousand slow clients of one thread get the right bytes, and it sleeps while none can take more",
          "[stepping][stress]") {
  if (!may_open(2 * clients + 200)) {
    WARN("skipped: this process may not open " << 2 * clients + 200 << " descriptors");
    return;
  }
  const TimeLimit limit(120);
  const zc::File file(temporary_file(pattern(0, file_size)));
  const zc::FileRange whole = file.range(0);
  const zc::OwnedFd listener(checked(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  // Small buffers, else the kernel would take half a file before a client reads.
  const int buffer = 32 * 1024;
  ::setsockopt(listener.get(), SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  checked(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), "bind");
  checked(::listen(listener.get(), clients), "listen");
  checked(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), "getsockname");
  std::ignore = pattern();  // made once, before the child is

  FdPair report = pipe_pair();
  FdPair go = pipe_pair();
  const pid_t child = checked(::fork(), "fork");
  if (child == 0) {
    ::alarm(100);
    go.other.reset();
    std::string wrong;
    try {
      wrong = be_the_clients(address, go.one.get());
    } catch (const std::exception& e) {
      wrong = e.what();
    }
    std::ignore = ::write(report.other.get(), wrong.data(), wrong.size());
    ::_exit(wrong.empty() ? 0 : 1);
  }
  report.other.reset();

  const zc::OwnedFd set(checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1"));
  std::vector<Served> served(clients);
  std::size_t heap = 0;
  const auto serve = [&](Served& one) {
    const std::size_t before = allocated;
    counting = true;
    one.transfer = std::make_unique<Transfer>(whole, one.socket);
    counting = false;
    epoll_event event{};
    // Every other one by its edges only.
    event.events = EPOLLOUT | ((&one - served.data()) % 2 != 0 ? std::uint32_t{EPOLLET} : 0U);
    event.data.ptr = &one;
    checked(::epoll_ctl(set.get(), EPOLL_CTL_ADD, one.socket.as_fd().get(), &event), "epoll_ctl");
    heap = std::max(heap, allocated - before);
  };
  for (Served& one : served) {
    const int fd = checked(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK), "accept");
    one.socket = zc::Socket(zc::OwnedFd(fd));
    serve(one);
  }
  const std::size_t open_before = open_descriptors();

  // Steps whoever is ready until `until`, or all are done.
  std::size_t waits = 0;
  std::size_t steps = 0;
  int done = 0;
  std::size_t wrong_ends = 0;
  std::size_t heap_in_steps = 0;
  const auto loop = [&](Clock::time_point until) {
    std::array<epoll_event, 64> events;
    while (done < clients) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
      if (left <= 0) return;
      ++waits;
      const int n = checked(::epoll_wait(set.get(), events.data(), 64, static_cast<int>(left)), "epoll_wait");
      for (int i = 0; i < n; ++i) {
        Served& one = *static_cast<Served*>(events[static_cast<std::size_t>(i)].data.ptr);
        const std::size_t before = allocated;
        counting = true;
        Step said = Step::progressed;
        while (said == Step::progressed) said = one.transfer->step(), ++steps;
        counting = false;
        heap_in_steps += allocated - before;
        if (said != Step::done) continue;
        const zc::TransferResult r = one.transfer->finish();
        const bool is_right = r.delivered == file_size && r.reason == zc::StopReason::complete &&
                              r.strategy == zc::Strategy::sendfile && r.trail.empty();
        wrong_ends += is_right ? 0 : 1;
        one.transfer.reset();
        std::ignore = std::exchange(one.socket, zc::Socket(zc::OwnedFd()));
        ++done;
      }
    }
  };

  // While the clients read nothing: the first buffers are filled, then there is nothing to do.
  for (std::size_t last = 1; steps != std::exchange(last, steps);) loop(Clock::now() + 300ms);
  const double cpu_before = cpu_seconds();
  const std::size_t waits_before = waits;
  const std::size_t steps_before = steps;
  loop(Clock::now() + 400ms);
  const double idle_cpu = cpu_seconds() - cpu_before;
  const std::size_t idle_waits = waits - waits_before;
  const std::size_t idle_steps = steps - steps_before;
  CHECK(done == 0);
  CHECK(open_descriptors() == open_before);  // no pipe, no bell

  // Now they read, 100 MB/s in all.
  REQUIRE(::write(go.other.get(), "!", 1) == 1);
  const auto start = Clock::now();
  loop(Clock::now() + 60s);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const double cpu = cpu_seconds() - cpu_before;

  std::string wrong(1000, '\0');
  const ssize_t told = ::read(report.one.get(), wrong.data(), wrong.size());
  wrong.resize(static_cast<std::size_t>(std::max<ssize_t>(told, 0)));
  if (done < clients) ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(wrong == "");
  CHECK(status == 0);
  CHECK(done == clients);
  CHECK(wrong_ends == 0);
  // The object itself is in it.
  CHECK(heap > 0);
  CHECK(heap < 2048);
  CHECK(heap_in_steps == 0);
  // Nobody could take more: not a step, no wake-up but the last one, no time.
  CHECK(idle_steps == 0);
  CHECK(idle_waits <= 2);
  CHECK(idle_cpu < 0.02);
  // The clients set the pace: a wake-up has bytes to move, and a step ends in one call that says "no more".
  CHECK(seconds > 8);
  CHECK(steps < clients * (file_size / 4096));
  std::printf("%zu bytes of heap per transfer; %.1f s, %.2f s of processor time, %zu steps, %zu waits; idle: %.4f s\n",
              heap, seconds, cpu, steps, waits, idle_cpu);
}
