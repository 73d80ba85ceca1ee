// send_file: connects to receive_file and sends it one file.
//
//   send_file HOST PORT FILE
//
// The length goes first, 8 bytes in network byte order, so that the receiver can tell a whole file from a connection that
// broke. `more` keeps it from leaving as a packet of its own. A file that becomes shorter meanwhile is an error.
#include <zerocopy/format.hpp>
#include <zerocopy/zerocopy.hpp>

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <exception>
#include <span>

namespace zc = zerocopy;

int main(int argc, char** argv) {
  if (argc != 4) {
    fmt::print(stderr, "usage: send_file HOST PORT FILE\n");
    return 2;
  }
  try {
    auto file = zc::File::open(argv[3]);
    auto socket = zc::Socket::connect(argv[1], static_cast<std::uint16_t>(std::strtoul(argv[2], nullptr, 10)));

    const std::uint64_t size = file.size();
    std::array<std::byte, 8> header;
    for (std::size_t i = 0; i < header.size(); ++i) header[i] = static_cast<std::byte>(size >> (56 - 8 * i));
    (void)zc::transfer(std::span<const std::byte>(header), socket, {.more = size > 0});

    const zc::TransferResult result = zc::transfer(file, socket, {.length = size});
    fmt::print("sent {}\n", result);
    socket.shutdown();
    return result.reason == zc::StopReason::complete ? 0 : 1;
  } catch (const std::exception& error) {  // zc::TransferError among them: its what() says how far it came
    fmt::print(stderr, "send_file: {}\n", error.what());
    return 1;
  }
}
