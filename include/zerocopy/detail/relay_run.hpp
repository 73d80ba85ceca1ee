// zerocopy/detail/relay_run.hpp: two stepped jobs and one wait: what `relay` runs.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/driver.hpp>  // Driver
#include <zerocopy/sigpipe_guard.hpp>  // SigpipeGuard

#include <utility>  // std::exchange

namespace zerocopy::inline ZEROCOPY_ABI {

/// What a relay did, by direction.
struct [[nodiscard]] RelayResult {
  TransferResult a_to_b;
  TransferResult b_to_a;
  std::error_code error;  ///< of the direction that failed first; none where a side closed that had got everything
};

namespace detail {

template <Kind A, Kind B>
class RelayRun {
 public:
  RelayRun(const Cursor& a, const Cursor& b, const Options& options) noexcept
      : options_(options), limits_(options), inner_(options), a_to_b_(inner_, a, b), b_to_a_(inner_, b, a) {}
  RelayRun(const RelayRun&) = delete;
  RelayRun& operator=(const RelayRun&) = delete;

  RelayResult run() noexcept {
    const SigpipeGuard guard;
    a_to_b_.driver().begin();
    b_to_a_.driver().begin();
    if (options_.on_progress) meter_.begin(std::nullopt);
    refuse();
    if (options_.length > 0) obey_limits();
    while (!a_to_b_.is_done || !b_to_a_.is_done) {
      watched_.used = 0;
      const std::uint64_t before = moved();
      bool goes_on = step(a_to_b_, result_.a_to_b);
      goes_on = step(b_to_a_, result_.b_to_a) || goes_on;
      if (moved() != before) tell_progress();
      if (moved() != before || goes_on) woken_in_vain_ = 0;
      obey_limits();
      if (!goes_on && watched_.used > 0) wait();
    }
    if (options_.on_progress) meter_.tell(options_.on_progress, moved(), true);
    if (is_closed_at_end(result_.a_to_b, result_.b_to_a) || is_closed_at_end(result_.b_to_a, result_.a_to_b))
      result_.error.clear();
    return std::move(result_);
  }

 private:
  template <Kind From, Kind To>
  struct Direction {
    Direction(const Options& options, const Cursor& from, const Cursor& to) noexcept
        : job(
              options, [&] { return from; }, [&] { return to; }) {
      job.stepped = true;
      job.sink_is_source = true;
    }
    Job job;
    bool is_done = false;

    [[nodiscard]] Driver<From, To> driver() noexcept { return Driver<From, To>(job); }
  };
  // The limits and the progress are those of both directions together.
  struct Inner : Options {
    explicit Inner(const Options& all) noexcept {
      strategy = all.strategy;
      allow = all.allow;
      length = all.length;
      chunk_size = all.chunk_size;
      more = all.more;
    }
  };
  static constexpr std::uint64_t turn = 1024 * 1024;  // bytes of one direction before it is the other's turn

  // What can't begin in one direction begins in neither: nothing is moved, nothing is shut down.
  void refuse() noexcept {
    const Cause cause = a_to_b_.job.machine.cause() ? a_to_b_.job.machine.cause() : b_to_a_.job.machine.cause();
    if (cause) stop(StopReason::failed, cause);
  }
  // A side that has sent its end and closed while nothing was on its way to it, which AF_UNIX tells at once, is no failure.
  static bool is_closed_at_end(const TransferResult& to_it, const TransferResult& from_it) noexcept {
    return to_it.reason == StopReason::sink_closed && to_it.consumed == to_it.delivered && !from_it.error;
  }

  // Whether there is more to do before waiting.
  template <Kind From, Kind To>
  bool step(Direction<From, To>& direction, TransferResult& result) noexcept {
    if (direction.is_done) return false;
    std::uint64_t share = turn;
    const Step step = direction.driver().step(share);
    if (step == Step::blocked) {
      const Watch watch = direction.driver().watch();
      watched_.add(watch.fd, watch.events);
      if (watch.other >= 0) watched_.add(watch.other, 0);
    }
    if (step == Step::done) finish(direction, result);
    return step != Step::blocked;
  }
  template <Kind From, Kind To>
  void finish(Direction<From, To>& direction, TransferResult& result) noexcept {
    direction.is_done = true;
    result = Mover<From, To>(direction.job).conclude();
    if (result.error && !result_.error) result_.error = result.error;
    // The end of what one side sends, or that it can't send any more, is carried over.
    const bool by_length = result.reason == StopReason::complete && result.delivered == options_.length;
    if (!by_length && result.side != Side::sink) ::shutdown(direction.job.to.fd, SHUT_WR);
  }
  [[nodiscard]] std::uint64_t moved() const noexcept {
    return a_to_b_.job.machine.delivered() + b_to_a_.job.machine.delivered();
  }
  void tell_progress() noexcept {
    limits_.progressed();
    if (options_.on_progress) meter_.tell(options_.on_progress, moved(), false);
  }

  void wait() noexcept {
    switch (Waiter::wait(watched_, woken_in_vain_, limits_)) {
      case Woke::ready: return void(++woken_in_vain_);
      case Woke::retry: return;
      case Woke::timed_out: return stop(StopReason::timed_out, Cause(Errc::timed_out));
      case Woke::stopped: return stop(StopReason::stopped, Cause(Errc::stopped));
      case Woke::failed: return stop(StopReason::failed, Cause(errno));
    }
  }
  void obey_limits() noexcept {
    if (limits_.stop_requested()) return stop(StopReason::stopped, Cause(Errc::stopped));
    if (limits_.limited() && limits_.deadline_passed()) stop(StopReason::timed_out, Cause(Errc::timed_out));
  }
  // Both directions, where they are: nothing is shut down.
  void stop(StopReason reason, Cause cause) noexcept {
    stop(a_to_b_, result_.a_to_b, reason, cause);
    stop(b_to_a_, result_.b_to_a, reason, cause);
  }
  template <Kind From, Kind To>
  void stop(Direction<From, To>& direction, TransferResult& result, StopReason reason, Cause cause) noexcept {
    if (std::exchange(direction.is_done, true)) return;
    direction.job.machine.stop(reason, cause, Side::none);
    result = Mover<From, To>(direction.job).conclude();
    if (!result_.error) result_.error = result.error;
  }

  const Options& options_;
  Limits limits_;
  Inner inner_;
  Direction<A, B> a_to_b_;
  Direction<B, A> b_to_a_;
  Watched<2> watched_;
  Meter meter_;
  RelayResult result_;
  int woken_in_vain_ = 0;
};

}  // namespace detail

}  // namespace zerocopy::inline ZEROCOPY_ABI
