// zerocopy/error.hpp: the conditions that the library itself reports, as an error_code enum.
// What the kernel reports stays in std::system_category with its errno; it is never translated.
#pragma once

#include <zerocopy/config.hpp>

#include <cerrno>        // the errnos that are compared with
#include <string>        // what a category's message is made of
#include <system_error>  // std::error_code

namespace zerocopy::inline ZEROCOPY_ABI {

/// The library's own conditions. Each equals the std::errc named beside it:
/// `error == std::errc::timed_out` and `error == Errc::timed_out` are both true of the same error.
enum class Errc : int {
  source_truncated = 1,  ///< io_error: the source became shorter while it was being read
  timed_out,             ///< timed_out: the deadline or the idle timeout passed
  stopped,               ///< operation_canceled: the stop token was asked to stop
  strategy_unavailable,  ///< operation_not_supported: the forced strategy can't serve this pair; the trail says why
  lease_unavailable,     ///< resource_unavailable_try_again: no lease could be taken
  lease_broken,          ///< operation_canceled: somebody wants to change the leased file
  sink_closed,           ///< broken_pipe: nobody will read what is sent; EPIPE and ECONNRESET equal it too
  sink_full,             ///< no_space_on_device: a memory sink or a sink range holds no more bytes
  same_file,             ///< invalid_argument: source and sink are one descriptor, or overlapping ranges of one file
  offset_with_append,    ///< invalid_argument: an explicit sink offset, but the file is open with O_APPEND
  offset_overflow,       ///< invalid_argument: offset + length is more than a file offset can hold
  empty_gather,          ///< invalid_argument: a gather without any part
  snapshot_needed,       ///< operation_not_supported: the strategy shares pages, the options ask for a snapshot
  would_block_uncut,     ///< operation_would_block: the call can't be cut short on this blocking descriptor
  not_allowed,           ///< operation_not_permitted: Options::allow leaves this strategy out
  not_for_this_pair,     ///< operation_not_supported: the strategy never serves this kind of source and sink
  end_not_seen,          ///< io_error: the strategy reported an end where the source has more (a pseudo-file)
  socket_option_in_use,  ///< device_or_resource_busy: the caller uses SO_ZEROCOPY or the error queue of this socket
  // Why explain() passes a strategy over; a transfer never fails with these. All operation_not_supported.
  only_when_forced,     ///< it stands behind read_write, which serves everything: Options::strategy can force it
  another_forced,       ///< Options::strategy names another one
  not_worth_it,         ///< for so few bytes it costs more than copying
  cannot_promise_more,  ///< Options::more: it would end with a partial packet, and the source is short
  nothing_to_move,      ///< the length is 0, or the sink is full: no strategy runs
};

}  // namespace zerocopy::inline ZEROCOPY_ABI

template <>
struct std::is_error_code_enum<zerocopy::Errc> : std::true_type {};

namespace zerocopy::inline ZEROCOPY_ABI {

namespace detail {

class ErrorCategory final : public std::error_category {
 public:
  const char* name() const noexcept override { return "zerocopy"; }

  std::string message(int value) const override {
    switch (static_cast<Errc>(value)) {
      case Errc::source_truncated: return "the source became shorter during the transfer";
      case Errc::timed_out: return "the time limit passed";
      case Errc::stopped: return "stopped by the stop token";
      case Errc::strategy_unavailable: return "no strategy that the options allow can serve this source and sink";
      case Errc::lease_unavailable: return "no lease could be taken on the file";
      case Errc::lease_broken: return "somebody wants to change the leased file";
      case Errc::sink_closed: return "nobody reads the sink any more";
      case Errc::sink_full: return "the sink holds no more bytes";
      case Errc::same_file: return "source and sink are the same descriptor or overlap in one file";
      case Errc::offset_with_append:
        return "a sink offset was given, but the file is open with O_APPEND and Linux would append";
      case Errc::offset_overflow: return "offset plus length is more than a file offset can hold";
      case Errc::empty_gather: return "a gather needs at least one part";
      case Errc::snapshot_needed: return "this strategy shares pages with the source, a snapshot was asked for";
      case Errc::would_block_uncut: return "this call can't be cut short on a blocking descriptor";
      case Errc::not_allowed: return "left out by Options::allow";
      case Errc::not_for_this_pair: return "never serves this kind of source and sink";
      case Errc::end_not_seen: return "an end was reported where the source has more bytes";
      case Errc::socket_option_in_use: return "the caller uses SO_ZEROCOPY or the error queue of this socket";
      case Errc::only_when_forced: return "only when it is forced, or read_write is not allowed";
      case Errc::another_forced: return "another strategy is forced";
      case Errc::not_worth_it: return "does not pay for so few bytes";
      case Errc::cannot_promise_more: return "can't say that more follows";
      case Errc::nothing_to_move: return "there is nothing to move";
    }
    return "unknown zerocopy error " + std::to_string(value);
  }

  std::error_condition default_error_condition(int value) const noexcept override {
    switch (static_cast<Errc>(value)) {
      case Errc::source_truncated:
      case Errc::end_not_seen: return std::errc::io_error;
      case Errc::timed_out: return std::errc::timed_out;
      case Errc::stopped:
      case Errc::lease_broken: return std::errc::operation_canceled;
      case Errc::strategy_unavailable:
      case Errc::snapshot_needed:
      case Errc::not_for_this_pair:
      case Errc::only_when_forced:
      case Errc::another_forced:
      case Errc::not_worth_it:
      case Errc::cannot_promise_more:
      case Errc::nothing_to_move: return std::errc::operation_not_supported;
      case Errc::lease_unavailable: return std::errc::resource_unavailable_try_again;
      case Errc::sink_closed: return std::errc::broken_pipe;
      case Errc::sink_full: return std::errc::no_space_on_device;
      case Errc::same_file:
      case Errc::offset_with_append:
      case Errc::offset_overflow:
      case Errc::empty_gather: return std::errc::invalid_argument;
      case Errc::would_block_uncut: return std::errc::operation_would_block;
      case Errc::not_allowed: return std::errc::operation_not_permitted;
      case Errc::socket_option_in_use: return std::errc::device_or_resource_busy;
    }
    return {value, *this};
  }
};

inline std::error_code system_error_code(int error) noexcept { return {error, std::system_category()}; }

// The factories' error report: every factory that can fail is written once, with an error_code,
// and its throwing twin ends here.
[[noreturn]] inline void throw_error(std::error_code error, const std::string& what) {
  throw std::system_error(error, what);
}

}  // namespace detail

/// The category of `Errc`. Thread safety: any thread.
inline const std::error_category& error_category() noexcept {
  static const detail::ErrorCategory category;
  return category;
}

inline std::error_code make_error_code(Errc e) noexcept { return {static_cast<int>(e), error_category()}; }

/// An error_code equals an Errc when it is that Errc, or the system's own error for the same thing:
/// EPIPE and ECONNRESET equal `sink_closed`.
inline bool operator==(const std::error_code& code, Errc e) noexcept {
  if (code.category() == error_category()) return code.value() == static_cast<int>(e);
  const bool from_kernel = code.category() == std::system_category() || code.category() == std::generic_category();
  return from_kernel && e == Errc::sink_closed && (code.value() == EPIPE || code.value() == ECONNRESET);
}

}  // namespace zerocopy::inline ZEROCOPY_ABI
