// zerocopy/result.hpp: what a transfer says about itself, and the exception that carries it.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/in_flight.hpp>  // the storage of stranded bytes
#include <zerocopy/error.hpp>             // Errc
#include <zerocopy/strategy.hpp>          // Strategy

#include <array>         // the trail's places
#include <cstddef>       // std::size_t
#include <cstdint>       // std::uint64_t
#include <memory>        // TransferError is copied, its result is not
#include <optional>      // strategy, stranded
#include <string>        // TransferError's message
#include <string_view>   // to_string
#include <system_error>  // std::system_error

namespace zerocopy::inline ZEROCOPY_ABI {

/// Why a transfer ended.
enum class StopReason : std::uint8_t {
  complete,          ///< all that was asked for; without a length: all that the source had
  end_of_source,     ///< the source ended before the length that was asked for; not an error
  would_block,       ///< from a single step only
  stopped,           ///< by the stop token
  timed_out,         ///< the deadline or the idle timeout passed
  source_truncated,  ///< the source became shorter during the transfer
  lease_broken,      ///< somebody wants to change the leased file
  sink_closed,       ///< nobody reads the sink any more: EPIPE or ECONNRESET
  failed,            ///< `error` says what
};

/// The enumerator's name.
constexpr std::string_view to_string(StopReason r) noexcept {
  switch (r) {
    case StopReason::complete: return "complete";
    case StopReason::end_of_source: return "end_of_source";
    case StopReason::would_block: return "would_block";
    case StopReason::stopped: return "stopped";
    case StopReason::timed_out: return "timed_out";
    case StopReason::source_truncated: return "source_truncated";
    case StopReason::lease_broken: return "lease_broken";
    case StopReason::sink_closed: return "sink_closed";
    case StopReason::failed: return "failed";
  }
  return "unknown";
}

/// The end of a transfer that an error came from.
enum class Side : std::uint8_t { none, source, sink };

/// The enumerator's name.
constexpr std::string_view to_string(Side s) noexcept {
  switch (s) {
    case Side::none: return "none";
    case Side::source: return "source";
    case Side::sink: return "sink";
  }
  return "unknown";
}

namespace detail {

// The cause of a failure in four bytes: an errno, or an Errc. Turned into an error_code where one is shown.
class Cause {
 public:
  constexpr Cause() noexcept = default;
  constexpr explicit Cause(int error) noexcept : value_(static_cast<std::int16_t>(error)), own_(false) {}
  constexpr explicit Cause(Errc error) noexcept : value_(static_cast<std::int16_t>(error)), own_(true) {}

  [[nodiscard]] std::error_code code() const noexcept {
    return own_ ? make_error_code(static_cast<Errc>(value_)) : system_error_code(value_);
  }
  [[nodiscard]] constexpr bool is(int error) const noexcept { return !own_ && value_ == error; }
  constexpr explicit operator bool() const noexcept { return value_ != 0; }
  friend constexpr bool operator==(Cause, Cause) noexcept = default;

 private:
  // Trivial, so that a trail costs nothing until a step is added: write Cause{} for none.
  std::int16_t value_;
  bool own_;
};

struct StrandedAccess;  // lets a transfer deliver from a Stranded

}  // namespace detail

/// One strategy that was tried and left, with the reason.
struct FallbackStep {
  Strategy strategy{};
  std::error_code error;
};

/// The strategies that were tried and left, in order: a range of FallbackStep. Fixed capacity, no allocation.
class FallbackTrail {
 public:
  class iterator {
   public:
    using value_type = FallbackStep;
    using difference_type = std::ptrdiff_t;

    constexpr iterator() noexcept = default;
    constexpr iterator(const FallbackTrail* trail, std::size_t at) noexcept : trail_(trail), at_(at) {}
    FallbackStep operator*() const noexcept { return (*trail_)[at_]; }
    constexpr iterator& operator++() noexcept { return ++at_, *this; }
    constexpr iterator operator++(int) noexcept { return {trail_, at_++}; }
    friend constexpr bool operator==(iterator a, iterator b) noexcept { return a.at_ == b.at_; }

   private:
    const FallbackTrail* trail_ = nullptr;
    std::size_t at_ = 0;
  };

  constexpr FallbackTrail() noexcept {}  // not defaulted: the places stay as they are until they are used

  [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }
  [[nodiscard]] constexpr bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] constexpr iterator begin() const noexcept { return {this, 0}; }
  [[nodiscard]] constexpr iterator end() const noexcept { return {this, size_}; }
  /// `at` is below size().
  [[nodiscard]] FallbackStep operator[](std::size_t at) const noexcept {
    return {steps_[at].strategy, steps_[at].cause.code()};
  }

  /// Each strategy stands once: what another part of a gather tried too is not repeated.
  constexpr void append(const FallbackTrail& other) noexcept {
    for (std::size_t i = 0; i < other.size_; ++i) {
      bool known = false;
      for (std::size_t j = 0; j < size_; ++j) known = known || steps_[j].strategy == other.steps_[i].strategy;
      if (!known) add(other.steps_[i].strategy, other.steps_[i].cause);
    }
  }
  constexpr void add(Strategy strategy, detail::Cause cause) noexcept {
    if (size_ < strategy_count) steps_[size_++] = {strategy, cause};
  }

 private:
  struct Step {
    Strategy strategy;
    detail::Cause cause;
  };
  std::array<Step, strategy_count> steps_;  // the first size_ of them
  std::uint8_t size_ = 0;
};

/// Bytes that have left a source which can't be rewound, and did not arrive: they are here, in order.
/// `transfer(stranded, sink)` delivers them; as an lvalue it shrinks by what was delivered. Move-only.
/// Destroying it destroys the bytes. Thread safety: distinct objects are independent.
class Stranded {
 public:
  Stranded() noexcept = default;
  Stranded(detail::InFlight store, std::uint64_t buffered, std::uint64_t piped) noexcept
      : store_(std::move(store)), buffered_(buffered), piped_(piped) {}
  Stranded(Stranded&& other) noexcept
      : store_(std::move(other.store_)),
        buffered_(std::exchange(other.buffered_, 0)),
        piped_(std::exchange(other.piped_, 0)) {}
  Stranded& operator=(Stranded&& other) noexcept {
    store_ = std::move(other.store_);
    buffered_ = std::exchange(other.buffered_, 0);
    piped_ = std::exchange(other.piped_, 0);
    return *this;
  }
  ~Stranded() { store_.recycle(piped_); }

  /// Bytes.
  [[nodiscard]] std::uint64_t size() const noexcept { return buffered_ + piped_; }
  [[nodiscard]] bool empty() const noexcept { return size() == 0; }

 private:
  friend struct detail::StrandedAccess;

  detail::InFlight store_;
  std::uint64_t buffered_ = 0;
  std::uint64_t piped_ = 0;
};

/// What happened. `consumed - delivered` bytes are in `stranded`, always.
struct [[nodiscard]] TransferResult {
  std::uint64_t delivered = 0;               ///< bytes that reached the sink: the first ones of the source
  std::uint64_t consumed = 0;                ///< bytes that left the source
  StopReason reason = StopReason::complete;  ///< why it ended
  std::error_code error;                     ///< the cause where the reason is an error
  Side side = Side::none;                    ///< where the error came from
  std::optional<Strategy> strategy;          ///< the one that moved the last byte
  FallbackTrail trail;                       ///< strategies tried and left
  std::uint64_t calls = 0;                   ///< system calls that moved data
  std::optional<Stranded> stranded;          ///< bytes that left the source and did not arrive
  bool source_in_use = false;                ///< with Aliasing::shared from memory: the kernel still reads it
};

/// Thrown by `transfer` exactly when the result's `error` is set. `result()` is the whole result.
class TransferError : public std::system_error {
 public:
  TransferError(TransferResult result, const std::string& what)
      : std::system_error(result.error, what), result_(std::make_shared<TransferResult>(std::move(result))) {}

  /// Shared by the copies of the exception. Stranded bytes may be moved out of it.
  [[nodiscard]] TransferResult& result() const noexcept { return *result_; }

 protected:
  TransferError(std::shared_ptr<TransferResult> result, const std::string& what)
      : std::system_error(result->error, what), result_(std::move(result)) {}

 private:
  std::shared_ptr<TransferResult> result_;  // exceptions are copied, stranded bytes are not
};

}  // namespace zerocopy::inline ZEROCOPY_ABI
