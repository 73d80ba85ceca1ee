// receive_file: waits for one send_file and stores what it sends.
//
//   receive_file HOST PORT FILE      HOST "" for every interface; PORT 0 lets the kernel pick one, which is printed
//
// FILE must not exist; it is removed again if less than the announced length arrives. A sender that is silent for 30
// seconds ends it.
#include <zerocopy/format.hpp>
#include <zerocopy/zerocopy.hpp>

#include <fmt/format.h>

#include <unistd.h>  // unlink

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <span>
#include <stdexcept>

namespace zc = zerocopy;

namespace {

constexpr auto patience = std::chrono::seconds(30);

std::uint64_t receive_length(zc::Socket& socket) {
  std::array<std::byte, 8> header{};
  const auto result =
      zc::transfer(socket, std::span<std::byte>(header), {.length = header.size(), .idle_timeout = patience});
  if (result.delivered < header.size()) throw std::runtime_error("the connection ended before the length had come");
  std::uint64_t length = 0;
  for (const std::byte b : header) length = length << 8 | static_cast<std::uint64_t>(b);
  return length;
}

void store(zc::Socket& socket, zc::File& file) {
  const std::uint64_t length = receive_length(socket);
  const zc::TransferResult result = zc::transfer(socket, file, {.length = length, .idle_timeout = patience});
  fmt::print("received {}\n", result);
  if (result.delivered < length) throw std::runtime_error(fmt::format("{} bytes were announced", length));
  file.sync_data();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    fmt::print(stderr, "usage: receive_file HOST PORT FILE\n");
    return 2;
  }
  try {
    auto listener = zc::Listener::bind(argv[1], static_cast<std::uint16_t>(std::strtoul(argv[2], nullptr, 10)));
    fmt::print("listening on {}\n", listener.address());
    std::fflush(stdout);
    auto file = zc::File::create(argv[3], {.access = zc::Access::write, .exclusive = true});
    try {
      auto socket = listener.accept();
      store(socket, file);
    } catch (...) {
      ::unlink(argv[3]);
      throw;
    }
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "receive_file: {}\n", error.what());
    return 1;
  }
}
