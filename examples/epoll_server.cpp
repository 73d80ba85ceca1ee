// epoll_server: sends one file to everybody who connects, all of them in one thread.
//
//   epoll_server FILE [PORT]     PORT 0, or none: the kernel picks one, which is printed
//
// Each client has a Transfer, which moves what the client's socket takes and never waits. The thread sleeps in epoll_wait
// while nobody can take more. A client that takes nothing for 30 seconds is dropped; one that leaves ends its own Transfer.
// It listens on this machine only, and reads nothing that clients send.
#include <zerocopy/format.hpp>
#include <zerocopy/zerocopy.hpp>

#include <fmt/format.h>

#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

namespace zc = zerocopy;
using Clock = std::chrono::steady_clock;

namespace {

constexpr auto patience = std::chrono::seconds(30);
constexpr auto look_round = std::chrono::seconds(1);  // how often the idle clients are looked for

// The socket comes before the Transfer that borrows it.
struct Client {
  Client(zc::Socket connection, const zc::FileRange& file)
      : socket(std::move(connection)),
        peer(socket.peer_address(gone_already)),
        transfer(file, socket, {.idle_timeout = patience}) {}

  zc::Socket socket;
  std::error_code gone_already;
  std::string peer;
  zc::Transfer transfer;
};

class Server {
 public:
  Server(const std::string& path, std::uint16_t port)
      : file_(zc::File::open(path)),
        listener_(zc::Listener::bind("127.0.0.1", port)),
        epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    if (!epoll_) throw std::system_error(errno, std::generic_category(), "epoll_create1");
    watch(listener_.as_fd().get(), EPOLLIN | EPOLLET);
    fmt::print("listening on {}\n", listener_.address());
    std::fflush(stdout);
  }

  [[noreturn]] void run() {
    for (auto next_look = Clock::now() + look_round;;) {
      std::array<epoll_event, 64> events;
      const int n = ::epoll_wait(epoll_.get(), events.data(), events.size(), clients_.empty() ? -1 : 1000);
      for (int i = 0; i < n; ++i) {
        const int fd = events[static_cast<std::size_t>(i)].data.fd;
        fd == listener_.as_fd().get() ? accept_all() : step(fd);
      }
      if (Clock::now() < next_look) continue;
      drop_the_idle();
      next_look = Clock::now() + look_round;
    }
  }

 private:
  void watch(int fd, std::uint32_t events) {
    epoll_event event{.events = events, .data = {.fd = fd}};
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
      throw std::system_error(errno, std::generic_category(), "epoll_ctl");
  }

  // Each client reads the file through a range, which has an offset of its own: the file's position is nobody's.
  // Where no descriptor is left the others wait until a client has gone: an edge, unlike a level, lets the thread sleep.
  void accept_all() {
    for (std::error_code ec;;) {
      zc::Socket socket = listener_.accept(std::chrono::nanoseconds(0), ec);
      if (ec) return;
      const int fd = socket.as_fd().get();
      clients_.try_emplace(fd, std::move(socket), file_.range(0));
      watch(fd, EPOLLOUT);
    }
  }

  // One share of bytes (Options::step_size), so that a fast client does not keep the others waiting: while the socket has
  // room, level-triggered epoll comes back to it.
  void step(int fd) {
    const auto found = clients_.find(fd);
    if (found == clients_.end() || found->second.transfer.step() != zc::Step::done) return;
    fmt::print("{}: {}\n", found->second.peer, found->second.transfer.result());
    std::fflush(stdout);
    clients_.erase(found);  // closes the socket, which epoll forgets by itself
    accept_all();
  }

  // A step after `wake_at` says done, with timed_out.
  void drop_the_idle() {
    std::vector<int> late;
    for (const auto& [fd, client] : clients_)
      if (client.transfer.wake_at() <= Clock::now()) late.push_back(fd);
    for (const int fd : late) step(fd);
  }

  zc::File file_;
  zc::Listener listener_;
  zc::OwnedFd epoll_;
  std::unordered_map<int, Client> clients_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    fmt::print(stderr, "usage: epoll_server FILE [PORT]\n");
    return 2;
  }
  try {
    const auto port = static_cast<std::uint16_t>(argc == 3 ? std::strtoul(argv[2], nullptr, 10) : 0);
    Server(argv[1], port).run();
  } catch (const std::exception& error) {
    fmt::print(stderr, "epoll_server: {}\n", error.what());
    return 1;
  }
}
