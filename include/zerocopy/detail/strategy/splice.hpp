// zerocopy/detail/strategy/splice.hpp: splice(2) between any two descriptors. Where one end is a pipe it moves the bytes
// directly; otherwise it fills a pipe of our own, which is drained by `drain_pipe`. SPLICE_F_NONBLOCK keeps pipes from
// blocking; a blocking socket is polled before it is read.
#pragma once

#include <zerocopy/detail/copying.hpp>  // is_ready
#include <zerocopy/detail/settle.hpp>   // settle
#include <zerocopy/detail/tools.hpp>    // Tools

namespace zerocopy::inline ZEROCOPY_ABI::detail {

inline unsigned splice_flags(bool more) noexcept {
  return SPLICE_F_MOVE | SPLICE_F_NONBLOCK | (more ? SPLICE_F_MORE : 0U);
}

struct Splice {
  static constexpr Strategy name = Strategy::splice;
  static constexpr bool raises_sigpipe = true;
  static constexpr bool pins_source = false;
  static constexpr bool pins_sink = false;

  [[gnu::always_inline]] static Outcome hop(const Cursor& from, const Cursor& to, std::uint64_t budget,
                                            Tools& tools) noexcept {
    const bool direct = from.kind == Kind::pipe || to.kind == Kind::pipe;
    const Place place = direct ? Place::sink : Place::pipe;
    if (tools.poll_before_splice && !is_ready(from.fd, POLLIN)) return not_ready(from);
    off_t in;
    off_t out;
    if (direct) {
      const sys::Count n =
          sys::splice(from.fd, from.call_offset(in), to.fd, to.call_offset(out), budget, splice_flags(tools.more));
      return settle(name, place, from, to, n, budget);
    }
    OwnPipe& pipe = tools.store().pipe;
    if (const sys::Count error = tools.store().need_pipe(); error < 0)
      return settle(name, place, from, to, error, budget);
    const std::uint64_t asked = std::min<std::uint64_t>(budget, pipe.capacity);
    const sys::Count n =
        sys::splice(from.fd, from.call_offset(in), pipe.write_end.get(), nullptr, asked, splice_flags(false));
    return settle(name, place, from, to, n, asked);
  }

 private:
  // A listening socket is ready for accept(2) only.
  static Outcome not_ready(const Cursor& from) noexcept {
    int listens = 0;
    (void)sys::get_option(from.fd, SOL_SOCKET, SO_ACCEPTCONN, listens);
    return listens != 0 ? Outcome::failed(Cause(ENOTCONN), Side::source) : Outcome::blocked(Side::source);
  }
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
