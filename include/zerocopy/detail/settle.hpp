// zerocopy/detail/settle.hpp: turns what a system call (or a ring completion) returned into an outcome.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/cursor.hpp>       // Cursor
#include <zerocopy/detail/errno_table.hpp>  // verdict
#include <zerocopy/detail/outcome.hpp>      // Outcome

namespace zerocopy::inline ZEROCOPY_ABI::detail {

// The end that an EAGAIN of a hop came from, where the hop itself tells.
constexpr Side blocking_side(Place place, const Cursor& from, const Cursor& to) noexcept {
  if (place != Place::sink || is_memory(to.kind)) return Side::source;
  return is_rewindable(from.kind) ? Side::sink : Side::none;
}

// What an errno means for a strategy, as an outcome.
inline Outcome settle_error(Strategy strategy, Place place, const Cursor& from, const Cursor& to, int error) noexcept {
  // With mappings at both ends the source was just looked at: it is the sink's page that is gone.
  const bool window = strategy == Strategy::mmap_write || (strategy == Strategy::send_zerocopy && is_file(from.kind));
  const bool mapped = window || (from.kind == Kind::mapping && to.kind != Kind::mapping);
  const Side side = place == Place::sink ? Side::none : Side::source;
  switch (verdict(strategy, error, mapped)) {
    case Verdict::blocked: return Outcome::blocked(blocking_side(place, from, to));
    case Verdict::end: return Outcome::end();
    case Verdict::unsupported: return Outcome::unsupported(Cause(error), side);
    default: return Outcome::failed(Cause(error), side);
  }
}

// `n`: bytes, or a negated errno; `asked`: bytes that the call was asked for.
[[gnu::always_inline]] inline Outcome settle(Strategy strategy, Place place, const Cursor& from, const Cursor& to,
                                             sys::Count n, std::uint64_t asked) noexcept {
  if (n > 0) return Outcome::moved(static_cast<std::uint64_t>(n), place, static_cast<std::uint64_t>(n) < asked);
  return n == 0 ? Outcome::end() : settle_error(strategy, place, from, to, static_cast<int>(-n));
}

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
