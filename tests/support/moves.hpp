// tests/support/moves.hpp: one transfer to a sink of any kind, and what arrived there.
#pragma once

#include "support/ends.hpp"

#include <optional>

namespace ends {

enum class To { file, file_range, pipe, tcp, unix_stream, memory };
inline constexpr std::array every_sink{To::file, To::file_range, To::pipe, To::tcp, To::unix_stream, To::memory};

inline const char* name_of(To to) {
  constexpr const char* names[] = {"file", "file range", "pipe", "tcp", "unix stream", "memory"};
  return names[static_cast<std::size_t>(to)];
}
inline std::string name_of(const std::optional<zc::Strategy>& strategy) {
  return strategy ? std::string(to_string(*strategy)) : "automatic";
}

using MaybeStrategy = std::optional<zc::Strategy>;
// Automatic, and every strategy that moves bytes out of a file.
inline const std::vector<MaybeStrategy>& file_strategies() {
  using enum zc::Strategy;
  static const std::vector<MaybeStrategy> all{std::nullopt, copy_file_range, sendfile,      splice,
                                              mmap_write,   read_write,      send_zerocopy, reflink};
  return all;
}

struct Moved {
  zc::TransferResult result{};
  std::error_code error{};
  Bytes got{};

  [[nodiscard]] bool is_unavailable() const { return error == zc::Errc::strategy_unavailable; }
  // For INFO.
  [[nodiscard]] std::string text() const {
    std::string text = std::string(to_string(result.reason)) + " at " + std::string(to_string(result.side)) + ", " +
                       error.message() + ", delivered " + std::to_string(result.delivered) + ", consumed " +
                       std::to_string(result.consumed) + ", got " + std::to_string(got.size()) + " by " +
                       (result.strategy ? std::string(to_string(*result.strategy)) : "nothing");
    for (const zc::FallbackStep step : result.trail)
      text += " (" + std::string(to_string(step.strategy)) + ": " + step.error.message() + ")";
    return text;
  }
};

// `room`: of memory.
template <class From>
Moved move_to(To to, From&& from, const zc::Options& options = {}, std::size_t room = std::size_t{4} << 20) {
  Moved moved;
  switch (to) {
    case To::file: {
      const zc::File sink{temporary_file()};
      moved.result = zc::transfer(from, sink, options, moved.error);
      moved.got = pread_all(sink.as_fd().get());
      break;
    }
    case To::file_range: {
      const zc::File sink{temporary_file()};
      moved.result = zc::transfer(from, sink.range(4096), options, moved.error);
      moved.got = pread_all(sink.as_fd().get(), 4096);
      break;
    }
    case To::memory: {
      moved.got.resize(room);
      moved.result = zc::transfer(from, std::span(moved.got), options, moved.error);
      moved.got.resize(static_cast<std::size_t>(std::min<std::uint64_t>(room, moved.result.delivered)));
      break;
    }
    case To::pipe:
    case To::tcp:
    case To::unix_stream: {
      FdPair pair = to == To::pipe ? pipe_pair() : to == To::tcp ? tcp_pair() : unix_pair();
      zc::OwnedFd& writer = to == To::pipe ? pair.other : pair.one;
      Drainer drainer(to == To::pipe ? pair.one.get() : pair.other.get());
      moved.result = zc::transfer(from, writer, options, moved.error);
      writer.reset();
      moved.got = drainer.bytes();
      break;
    }
  }
  return moved;
}

// What read(2) gives, until it ends or fails.
inline Bytes what_read_gives(int fd, std::size_t block_size = 4096) {
  Bytes all;
  Bytes block(block_size);
  for (ssize_t n; (n = ::read(fd, block.data(), block.size())) > 0;)
    all.insert(all.end(), block.begin(), block.begin() + n);
  return all;
}

}  // namespace ends
