// zerocopy/relay.hpp: both directions between two sockets, in the calling thread, until both are finished.
// It borrows the sockets; at the end both are still open, with what was carried over shut down.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/relay_run.hpp>  // RelayRun
#include <zerocopy/transfer.hpp>          // describe

#include <memory>  // RelayError is copied, its result is not
#include <string>  // its message

namespace zerocopy::inline ZEROCOPY_ABI {

/// Thrown by `relay` exactly when the result's `error` is set. `result()` is the whole result.
class RelayError : public std::system_error {
 public:
  RelayError(RelayResult result, const std::string& what)
      : std::system_error(result.error, what), result_(std::make_shared<RelayResult>(std::move(result))) {}
  [[nodiscard]] RelayResult& result() const noexcept { return *result_; }

 private:
  std::shared_ptr<RelayResult> result_;
};

namespace detail {

template <class A, class B>
RelayResult relay(const A& a, const B& b, const Options& options) noexcept {
  static_assert(source<A> && sink<A> && source<B> && sink<B>,
                "zerocopy: both ends of a relay must be sockets (Socket, BorrowedFd, or a type with endpoint_traits)");
  return RelayRun<source_kind<A>(), source_kind<B>()>(as_source(a), as_source(b), options).run();
}

}  // namespace detail

/// Moves bytes from `a` to `b` and from `b` to `a` until both directions have ended. When one side has sent its last byte
/// (its half of the connection is closed), that is carried over: the other side gets the rest and then the end
/// (shutdown(2), SHUT_WR), while the other direction goes on. A side that fails ends what flows into it; what flows out of
/// it ends as if it had closed, so that the other side always finishes. While nobody sends, the thread sleeps.
/// Options: `length` bounds each direction (the end is not carried over then), `idle_timeout` ends a relay in which neither
/// direction moves, `on_progress` counts both. Stream sockets of any family; what can't be shut down is not.
/// Errors: RelayError, exactly when `error` is set: that of the direction that failed first. A peer that resets after it
/// has got all it wanted is such an error too: look at `a_to_b` and `b_to_a`. One that closes after its last byte while
/// nothing is on its way to it is none; where the kernel tells of it at once (AF_UNIX), the direction to it ends as
/// `sink_closed`, elsewhere with the other side's end. What can't begin (a bad descriptor, one socket at both ends) moves
/// nothing and shuts nothing down.
/// Blocking: until both directions have ended; `deadline`, `idle_timeout` and `stop` end it. On sockets that block, bytes
/// are copied, since splice into them would block the other direction.
/// Thread safety: any thread; nobody else may use the sockets. Rests on: splice(2), shutdown(2). Linux 5.10.
template <class A, class B>
RelayResult relay(const A& a, const B& b, const Options& options = {}) {
  RelayResult result = detail::relay(a, b, options);
  if (result.error) {
    const std::string what = "relay between " + detail::describe(detail::as_source(a)) + " and " +
                             detail::describe(detail::as_source(b)) + ", " + std::to_string(result.a_to_b.delivered) +
                             " and " + std::to_string(result.b_to_a.delivered) + " bytes delivered";
    throw RelayError(std::move(result), what);
  }
  return result;
}

/// The same, but a failure is reported in `ec` too instead of being thrown. `ec` is cleared on success.
template <class A, class B>
RelayResult relay(const A& a, const B& b, const Options& options, std::error_code& ec) noexcept {
  RelayResult result = detail::relay(a, b, options);
  ec = result.error;
  return result;
}
template <class A, class B>
RelayResult relay(const A& a, const B& b, std::error_code& ec) noexcept {
  return relay(a, b, Options{}, ec);
}

}  // namespace zerocopy::inline ZEROCOPY_ABI
