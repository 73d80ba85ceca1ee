// zerocopy/detail/in_flight.hpp: the storage of bytes that have left the source and not reached the sink.
// An ordered pair: first what is in the buffer, then what is in the pipe. How many bytes each holds is counted by the
// machine; this owns the storage, takes it from the thread's pool at first use and gives it back when it is clean.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/pool.hpp>  // OwnPipe, Buffer

#include <cstddef>  // std::byte
#include <utility>  // std::exchange

namespace zerocopy::inline ZEROCOPY_ABI::detail {

struct InFlight {
  Buffer buffer;
  std::size_t begin = 0;  // the buffer's bytes are at [begin, end)
  std::size_t end = 0;
  OwnPipe pipe;

  InFlight() noexcept = default;
  InFlight(InFlight&& other) noexcept
      : buffer(std::move(other.buffer)),
        begin(std::exchange(other.begin, 0)),
        end(std::exchange(other.end, 0)),
        pipe(std::move(other.pipe)) {}
  InFlight& operator=(InFlight&& other) noexcept {
    buffer = std::move(other.buffer);
    begin = std::exchange(other.begin, 0);
    end = std::exchange(other.end, 0);
    pipe = std::move(other.pipe);
    return *this;
  }
  ~InFlight() = default;  // what was not given back to the pool is closed

  // 0, or a negated errno.
  sys::Count need_buffer() noexcept {
    if (!buffer) buffer = Pool::take_buffer();
    return buffer ? 0 : -ENOMEM;
  }
  sys::Count need_pipe() noexcept { return pipe ? 0 : Pool::take(pipe); }

  void put_into_buffer(std::uint64_t n) noexcept { end += n; }
  void take_from_buffer(std::uint64_t n) noexcept {
    begin += n;
    if (begin == end) begin = end = 0;
  }

  // `piped` bytes are still in the pipe: only an empty one may be used again.
  [[gnu::always_inline]] void recycle(std::uint64_t piped) noexcept {
    if (buffer || pipe) recycle_used(piped);
  }

 private:
  void recycle_used(std::uint64_t piped) noexcept {
    if (buffer) Pool::give_back(std::move(buffer));
    begin = end = 0;
    if (!pipe) return;
    if (piped == 0) Pool::give_back(std::move(pipe));
    pipe = OwnPipe{};
  }
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
