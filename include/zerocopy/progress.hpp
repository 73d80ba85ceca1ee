// zerocopy/progress.hpp: how a caller hears of a transfer while it runs.
// It borrows the callable, which must live as long as the transfer does.
#pragma once

#include <zerocopy/config.hpp>

#include <chrono>       // the interval
#include <concepts>     // what can be called
#include <cstdint>      // std::uint64_t
#include <memory>       // std::addressof
#include <optional>     // a total that may not be known
#include <type_traits>  // std::remove_cvref_t

namespace zerocopy::inline ZEROCOPY_ABI {

/// How far a transfer is.
struct ProgressReport {
  std::uint64_t bytes = 0;             ///< delivered so far
  std::optional<std::uint64_t> total;  ///< bytes in all, where it is known: a length, or a file's size at the start
  double bytes_per_second = 0;         ///< on average since the start
};

/// `Options::on_progress`: a callable and the shortest time between two calls of it.
///
///     transfer(file, socket, {.on_progress = {[&](const ProgressReport& p) { show(p); }, 200ms}});
///
/// It is called in the transfer's thread, between two system calls, at most once in each interval, and once more at the end.
/// So that there is a "between", calls are cut to last about 10 ms, as with a time limit; the strategy stays the same.
/// The callable must not throw (std::terminate) and must not touch the transfer's descriptors.
/// Thread safety: a value.
class Progress {
 public:
  Progress() noexcept = default;
  template <class F>
    requires(!std::same_as<std::remove_cvref_t<F>, Progress> && std::is_object_v<std::remove_reference_t<F>> &&
             std::invocable<F&, const ProgressReport&>)
  Progress(F&& callable, std::chrono::nanoseconds interval = std::chrono::milliseconds(100)) noexcept
      : callable_(const_cast<void*>(static_cast<const void*>(std::addressof(callable)))),
        call_([](void* f, const ProgressReport& report) { (*static_cast<std::remove_reference_t<F>*>(f))(report); }),
        interval_(interval) {}

  explicit operator bool() const noexcept { return call_ != nullptr; }
  void operator()(const ProgressReport& report) const noexcept { call_(callable_, report); }
  [[nodiscard]] std::chrono::nanoseconds interval() const noexcept { return interval_; }

 private:
  void* callable_ = nullptr;
  void (*call_)(void*, const ProgressReport&) = nullptr;
  std::chrono::nanoseconds interval_{};
};

}  // namespace zerocopy::inline ZEROCOPY_ABI
