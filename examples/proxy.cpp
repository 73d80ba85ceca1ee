// proxy: passes TCP connections on to another server, both directions, until both have ended.
//
//   proxy HOST PORT TO_HOST TO_PORT     a thread for each connection; PORT 0 lets the kernel pick one, which is printed
//
// relay() carries half-closes over, notices when either side dies, and sleeps while nobody sends. Its bytes go from socket
// to socket through a pipe (splice) and never enter this process.
#include <zerocopy/format.hpp>
#include <zerocopy/zerocopy.hpp>

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <thread>
#include <utility>

namespace zc = zerocopy;

namespace {

struct Target {
  std::string host;
  std::uint16_t port;
};

void pass_on(const zc::Socket& client, const Target& target) {
  std::error_code ec;
  const auto server = zc::Socket::connect(target.host, target.port, {.timeout = std::chrono::seconds(10)}, ec);
  if (ec) return fmt::print(stderr, "proxy: connect to {}:{}: {}\n", target.host, target.port, ec.message());
  const zc::RelayResult result = zc::relay(client, server, {.idle_timeout = std::chrono::minutes(5)}, ec);
  fmt::print("to the server: {}\nto the client: {}\n", result.a_to_b, result.b_to_a);
  std::fflush(stdout);
}

std::uint16_t to_port(const char* text) { return static_cast<std::uint16_t>(std::strtoul(text, nullptr, 10)); }

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    fmt::print(stderr, "usage: proxy HOST PORT TO_HOST TO_PORT\n");
    return 2;
  }
  try {
    auto listener = zc::Listener::bind(argv[1], to_port(argv[2]));
    const Target target{argv[3], to_port(argv[4])};
    fmt::print("listening on {}\n", listener.address());
    std::fflush(stdout);
    for (;;) std::thread([&target, client = listener.accept()] { pass_on(client, target); }).detach();
  } catch (const std::exception& error) {
    fmt::print(stderr, "proxy: {}\n", error.what());
    return 1;
  }
}
