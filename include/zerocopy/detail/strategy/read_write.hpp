// zerocopy/detail/strategy/read_write.hpp: read(2) and write(2) through a buffer. Works everywhere; what it says is final.
// A memory end needs no buffer: one call moves the bytes.
#pragma once

#include <zerocopy/detail/copying.hpp>   // read_from, write_to
#include <zerocopy/detail/readable.hpp>  // readable
#include <zerocopy/detail/settle.hpp>    // settle

namespace zerocopy::inline ZEROCOPY_ABI::detail {

struct ReadWrite {
  static constexpr Strategy name = Strategy::read_write;
  static constexpr bool raises_sigpipe = false;
  static constexpr bool pins_source = false;
  static constexpr bool pins_sink = false;

  static Outcome hop(const Cursor& from, const Cursor& to, std::uint64_t budget, Tools& tools) noexcept {
    if (is_memory(from.kind)) return from_memory(from, to, budget, tools);
    if (from.kind == Kind::messages) return receive(from, to, tools);
    if (is_memory(to.kind)) {
      const std::uint64_t asked = sys::clamp(std::min(budget, to.left));
      return settle(name, Place::sink, from, to, read_from(from, to.data, asked, tools), asked);
    }
    return fill(from, to, budget, tools);
  }

 private:
  static Outcome from_memory(const Cursor& from, const Cursor& to, std::uint64_t budget, Tools& tools) noexcept {
    const Readable bytes = readable(from, budget, tools);
    if (bytes.size <= 0) return settle(name, Place::sink, from, to, bytes.size, budget);
    const auto asked = static_cast<std::uint64_t>(bytes.size);
    // From mapping to memory the kernel copies too: a page that is gone is an error, not SIGBUS.
    const sys::Count n = from.kind == Kind::mapping && is_memory(to.kind)
                             ? sys::copy_memory(to.data, bytes.data, asked)
                             : write_to(to, bytes.data, asked, tools, tools.more);
    return settle(name, Place::sink, from, to, n, asked);
  }

  static Outcome fill(const Cursor& from, const Cursor& to, std::uint64_t budget, Tools& tools) noexcept {
    InFlight& store = tools.store();
    if (const sys::Count error = store.need_buffer(); error < 0)
      return settle(name, Place::buffer, from, to, error, budget);
    const std::uint64_t asked = std::min<std::uint64_t>(budget, buffer_size - store.end);
    if (asked == 0) return Outcome::failed(Cause(EMSGSIZE), Side::sink);  // only a message is collected so far
    const sys::Count n = read_from(from, store.buffer.get() + store.end, asked, tools);
    return settle(name, Place::buffer, from, to, n, asked);
  }

  // One message. Nothing is read of one that would not fit; an empty one is not the end.
  static Outcome receive(const Cursor& from, const Cursor& to, Tools& tools) noexcept {
    InFlight& store = tools.store();
    if (const sys::Count error = store.need_buffer(); error < 0)
      return settle(name, Place::buffer, from, to, error, buffer_size);
    if (from.large_messages) {
      const sys::Count size = sys::recv(from.fd, nullptr, 0, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
      if (size > static_cast<sys::Count>(buffer_size)) return Outcome::failed(Cause(EMSGSIZE), Side::source);
    }
    const sys::Count n = read_from(from, store.buffer.get(), buffer_size, tools);
    if ((n == 0 || n == -EAGAIN) && is_shut_down(from.fd)) return Outcome::end();
    if (n == 0) return Outcome::moved(0, Place::buffer);
    return settle(name, Place::buffer, from, to, n, static_cast<std::uint64_t>(n > 0 ? n : 0));
  }
  static bool is_shut_down(int fd) noexcept {
    pollfd end{fd, POLLRDHUP, 0};
    int queued = 0;
    return ::poll(&end, 1, 0) == 1 && (end.revents & (POLLRDHUP | POLLHUP)) != 0 &&
           ::ioctl(fd, FIONREAD, &queued) == 0 && queued == 0;
  }
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
