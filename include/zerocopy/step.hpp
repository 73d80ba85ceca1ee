// zerocopy/step.hpp: what one step of a Transfer says.
#pragma once

#include <zerocopy/config.hpp>

#include <cstdint>      // std::uint8_t
#include <string_view>  // to_string

namespace zerocopy::inline ZEROCOPY_ABI {

/// Returned by `Transfer::step`.
enum class Step : std::uint8_t {
  done,        ///< the transfer has ended: `result()` says how
  progressed,  ///< the step's share of bytes has moved: step again when it suits
  blocked,     ///< an end is not ready: poll `fd()` for `events()`, then step again
};

/// The enumerator's name.
constexpr std::string_view to_string(Step step) noexcept {
  switch (step) {
    case Step::done: return "done";
    case Step::progressed: return "progressed";
    case Step::blocked: return "blocked";
  }
  return "unknown";
}

}  // namespace zerocopy::inline ZEROCOPY_ABI
