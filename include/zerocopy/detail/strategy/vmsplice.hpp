// zerocopy/detail/strategy/vmsplice.hpp: vmsplice(2), the pages of memory become the content of a pipe. Into a pipe it is
// direct, elsewhere a pipe of our own is filled and drained. The pages are shared until the reader has them.
#pragma once

#include <zerocopy/detail/readable.hpp>  // readable
#include <zerocopy/detail/settle.hpp>    // settle

namespace zerocopy::inline ZEROCOPY_ABI::detail {

struct Vmsplice {
  static constexpr Strategy name = Strategy::vmsplice;
  static constexpr bool raises_sigpipe = true;
  static constexpr bool pins_source = false;
  static constexpr bool pins_sink = false;

  static Outcome hop(const Cursor& from, const Cursor& to, std::uint64_t budget, Tools& tools) noexcept {
    const bool direct = to.kind == Kind::pipe;
    const Place place = direct ? Place::sink : Place::pipe;
    const Readable bytes = readable(from, budget, tools);
    if (bytes.size <= 0) return settle(name, place, from, to, bytes.size, budget);
    if (!direct) {
      if (const sys::Count error = tools.store().need_pipe(); error < 0)
        return settle(name, place, from, to, error, budget);
    }
    const int out = direct ? to.fd : tools.store().pipe.write_end.get();
    const sys::Count n = sys::vmsplice(out, bytes.data, static_cast<std::uint64_t>(bytes.size), SPLICE_F_NONBLOCK);
    return settle(name, place, from, to, n, static_cast<std::uint64_t>(bytes.size));
  }
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
