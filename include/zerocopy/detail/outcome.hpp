// zerocopy/detail/outcome.hpp: what one hop did. The words that strategies, drivers and the machine share.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/result.hpp>  // Side, Cause

#include <cstdint>  // std::uint64_t

namespace zerocopy::inline ZEROCOPY_ABI::detail {

// Where a strategy's first hop puts the bytes. `sink` is a direct hop, the others fill what is in flight.
enum class Place : std::uint8_t { sink, buffer, pipe };

enum class Verdict : std::uint8_t {
  moved,        // `count` bytes, at least one (a message may be empty)
  blocked,      // on `side`; Side::none: the call can't tell which
  end,          // the source has no more
  unsupported,  // not here: the next strategy goes on at the same byte
  failed,       // for good, on `side`
};

struct Outcome {
  Verdict verdict = Verdict::end;
  Place place = Place::sink;
  Side side = Side::none;
  bool partial = false;  // fewer bytes than the hop asked for, or a failure
  Cause cause{};
  std::uint64_t count = 0;

  static constexpr Outcome moved(std::uint64_t n, Place place, bool partial = false) noexcept {
    return {Verdict::moved, place, Side::none, partial, {}, n};
  }
  static constexpr Outcome blocked(Side side) noexcept { return {Verdict::blocked, Place::sink, side, false, {}, 0}; }
  static constexpr Outcome end() noexcept { return {Verdict::end, Place::sink, Side::none, false, {}, 0}; }
  static constexpr Outcome unsupported(Cause cause, Side side = Side::none) noexcept {
    return {Verdict::unsupported, Place::sink, side, true, cause, 0};
  }
  static constexpr Outcome failed(Cause cause, Side side) noexcept {
    return {Verdict::failed, Place::sink, side, true, cause, 0};
  }
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
