// echo: a server that sends back what it gets, and a client for it.
//
//   echo serve HOST PORT     a thread for each connection; PORT 0 lets the kernel pick one, which is printed
//   echo HOST PORT           sends its standard input, writes what comes back to its standard output
//
// What the usual textbook pair gets wrong and this one does not: short writes, a client that reads only after all is sent
// (both sides then wait for ever once the buffers are full), a server that stops for one slow client, dying of SIGPIPE,
// and a client that leaves before the last byte is back.
#include <zerocopy/format.hpp>
#include <zerocopy/zerocopy.hpp>

#include <fmt/format.h>

#include <fcntl.h>   // F_DUPFD_CLOEXEC
#include <unistd.h>  // STDIN_FILENO

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

namespace zc = zerocopy;

namespace {

// A transfer wants two descriptors, so the connection gets a second one.
zc::TransferResult echo_back(zc::Socket& connection, std::error_code& ec) {
  zc::Socket back(zc::OwnedFd(::fcntl(connection.as_fd().get(), F_DUPFD_CLOEXEC, 0)), connection.type());
  return zc::transfer(connection, back, {.idle_timeout = std::chrono::minutes(5)}, ec);
}

void serve(const std::string& host, std::uint16_t port) {
  auto listener = zc::Listener::bind(host, port);
  fmt::print("listening on {}\n", listener.address());
  std::fflush(stdout);
  for (;;) {
    std::thread([connection = listener.accept()]() mutable {
      std::error_code reported_in_result;
      const zc::TransferResult result = echo_back(connection, reported_in_result);
      fmt::print("echoed {}\n", result);
      std::fflush(stdout);
    }).detach();
  }
}

int talk(const std::string& host, std::uint16_t port) {
  auto socket = zc::Socket::connect(host, port);
  // The stop token ends the wait for a silent standard input when there is nobody to send to any more.
  std::error_code sending;
  std::jthread sender([&](std::stop_token stop) {
    (void)zc::transfer(zc::BorrowedFd(STDIN_FILENO), socket, {.stop = std::move(stop)}, sending);
    std::error_code peer_is_gone_already;
    socket.shutdown(zc::Shutdown::write, peer_is_gone_already);  // the server sees the end and finishes
  });
  const zc::TransferResult received = zc::transfer(socket, zc::BorrowedFd(STDOUT_FILENO));
  sender.request_stop();
  sender.join();
  fmt::print(stderr, "got back {}\n", received);
  if (!sending) return 0;
  const bool cut_short = sending == zc::Errc::stopped;
  fmt::print(stderr, "echo: sending: {}\n", cut_short ? "the server closed the connection first" : sending.message());
  return 1;
}

std::uint16_t to_port(const char* text) { return static_cast<std::uint16_t>(std::strtoul(text, nullptr, 10)); }

}  // namespace

int main(int argc, char** argv) {
  const bool server = argc == 4 && std::string_view(argv[1]) == "serve";
  if (!server && argc != 3) {
    fmt::print(stderr, "usage: echo serve HOST PORT\n       echo HOST PORT\n");
    return 2;
  }
  try {
    if (!server) return talk(argv[1], to_port(argv[2]));
    serve(argv[2], to_port(argv[3]));
  } catch (const std::exception& error) {
    fmt::print(stderr, "echo: {}\n", error.what());
    return 1;
  }
}
