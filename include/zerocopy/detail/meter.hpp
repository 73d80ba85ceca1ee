// zerocopy/detail/meter.hpp: when it is time to tell the caller how far a transfer is.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/progress.hpp>  // Progress

#include <algorithm>  // std::max
#include <chrono>     // the interval
#include <cstdint>    // std::uint64_t
#include <optional>   // the total

namespace zerocopy::inline ZEROCOPY_ABI::detail {

class Meter {
 public:
  using Clock = std::chrono::steady_clock;

  void begin(std::optional<std::uint64_t> total) noexcept {
    start_ = last_ = Clock::now();
    total_ = total;
  }
  void tell(const Progress& progress, std::uint64_t bytes, bool at_end) noexcept {
    const Clock::time_point now = Clock::now();
    if (!at_end && now - last_ < progress.interval()) return;
    last_ = now;
    const std::chrono::duration<double> took = now - start_;
    progress({bytes, total_, static_cast<double>(bytes) / std::max(took.count(), 1e-9)});
  }

 private:
  Clock::time_point start_;
  Clock::time_point last_;
  std::optional<std::uint64_t> total_;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
