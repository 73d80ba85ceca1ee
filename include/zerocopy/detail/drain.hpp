// zerocopy/detail/drain.hpp: the hops of bytes in flight: buffer to sink, pipe to sink, pipe to buffer.
#pragma once

#include <zerocopy/detail/copying.hpp>          // write_to
#include <zerocopy/detail/settle.hpp>           // settle
#include <zerocopy/detail/strategy/splice.hpp>  // splice_flags

namespace zerocopy::inline ZEROCOPY_ABI::detail {

inline Outcome settle_drain(Strategy strategy, sys::Count n, std::uint64_t asked) noexcept {
  Outcome outcome = settle(strategy, Place::sink, Cursor{}, Cursor{}, n, asked);
  if (outcome.verdict != Verdict::moved) outcome.side = Side::sink;
  return outcome;
}

inline Outcome drain_buffer(const Cursor& to, std::uint64_t budget, Tools& tools, bool more) noexcept {
  InFlight& store = tools.store();
  const sys::Count n = write_to(to, store.buffer.get() + store.begin, budget, tools, more);
  if (n == 0 && budget == 0) return Outcome::moved(0, Place::sink);  // an empty message
  return settle_drain(Strategy::read_write, n, budget);
}

inline Outcome drain_pipe(const Cursor& to, std::uint64_t budget, Tools& tools, bool more) noexcept {
  off_t out;
  const sys::Count n =
      sys::splice(tools.store().pipe.read_end.get(), nullptr, to.fd, to.call_offset(out), budget, splice_flags(more));
  return settle_drain(Strategy::splice, n, budget);
}

// Behind what the buffer holds already: of a message that is sent in one call.
inline Outcome spill(std::uint64_t budget, Tools& tools) noexcept {
  InFlight& store = tools.store();
  if (const sys::Count error = store.need_buffer(); error < 0) return Outcome::failed(Cause(ENOMEM), Side::none);
  const std::uint64_t asked = std::min<std::uint64_t>(budget, buffer_size - store.end);
  if (asked == 0) return Outcome::failed(Cause(EMSGSIZE), Side::sink);
  const sys::Count n = sys::read(store.pipe.read_end.get(), store.buffer.get() + store.end, asked);
  return n > 0 ? Outcome::moved(static_cast<std::uint64_t>(n), Place::buffer)
               : Outcome::failed(Cause(n < 0 ? static_cast<int>(-n) : EIO), Side::none);
}

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
