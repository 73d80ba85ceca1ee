// zerocopy/detail/blocking_driver.hpp: runs a transfer to its end in the calling thread: plan, hops, waits, result.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/mover.hpp>  // Mover
#include <zerocopy/detail/wait.hpp>   // Waiter, Limits

namespace zerocopy::inline ZEROCOPY_ABI::detail {

template <Kind From, Kind To>
class BlockingDriver {
 public:
  explicit BlockingDriver(Job& job) noexcept : job_(job) {}

  // Before the first hop and between two; while waiting the waiter sees to it.
  void obey_limits() noexcept {
    if (job_.limits.stop_requested()) return job_.machine.stop(StopReason::stopped, Cause(Errc::stopped), Side::none);
    if (job_.limits.deadline_passed()) job_.machine.stop(StopReason::timed_out, Cause(Errc::timed_out), Side::none);
  }

  [[gnu::always_inline]] void run() noexcept {
    for (;;) {
      const Action action = job_.machine.next();
      if (action == Action::finish) break;
      if (action == Action::wait) {
        wait(job_.machine.waiting_for());
        continue;
      }
      if (job_.limits.limited()) {
        move_and_learn(action);
      } else {
        Mover<From, To>(job_).move(action, job_.pace.most());
      }
    }
    if (job_.tools.outstanding_sends() > 0) wait_for_completions();
  }

 private:
  // What a limited transfer learns from a hop: how fast bytes move, and that they moved.
  struct Before {
    Clock::time_point time;
    std::uint64_t bytes = 0;
  };
  Before look() const noexcept { return {Clock::now(), job_.machine.consumed() + job_.machine.delivered()}; }
  [[gnu::noinline]] void move_and_learn(Action action) noexcept {
    const Before before = look();
    Mover<From, To>(job_).move(action, job_.pace.most());
    const Before now = look();
    job_.pace.learn(now.time - before.time);
    if (now.bytes != before.bytes) job_.limits.progressed();
    if (job_.machine.next() != Action::finish) obey_limits();
  }

  void wait(Side side) noexcept {
    if (side == Side::none) side = Mover<From, To>(job_).find_blocked_side();
    const Cursor& from = job_.from;
    const Cursor& to = job_.to;
    const bool at_source = side == Side::source;
    // A sink that dies while the source is silent is noticed.
    const bool can_die = to.kind == Kind::pipe || to.kind == Kind::socket;
    const int sink = at_source && can_die && !job_.ignore_sink ? to.fd : -1;
    // Completions that are here would end every wait at once.
    if (job_.tools.outstanding_sends() > 0) job_.tools.zerocopy_sends().reap();
    const bool completions = job_.tools.outstanding_sends() > 0;
    const Woke woke = Waiter::wait(at_source ? from.fd : to.fd, at_source ? POLLIN : POLLOUT, sink,
                                   job_.machine.is_stalled(), job_.limits);
    switch (woke) {
      case Woke::ready: return job_.machine.on_ready(!completions);
      case Woke::retry: return job_.machine.on_ready(false);
      case Woke::sink_dead: return look_at_sink(to);
      case Woke::timed_out: return job_.machine.stop(StopReason::timed_out, Cause(Errc::timed_out), side);
      case Woke::stopped: return job_.machine.stop(StopReason::stopped, Cause(Errc::stopped), Side::none);
      case Woke::failed: return job_.machine.fail(Cause(errno), Side::none);
    }
  }
  void look_at_sink(const Cursor& to) noexcept {
    int error = 0;
    if (to.kind == Kind::socket) (void)sys::get_option(to.fd, SOL_SOCKET, SO_ERROR, error);
    pollfd now{to.fd, 0, 0};
    const bool hung_up = ::poll(&now, 1, 0) == 1 && (now.revents & POLLHUP) != 0;
    if (error != 0) return job_.machine.fail(Cause(error), Side::sink);
    if (to.kind == Kind::pipe || hung_up) return job_.machine.fail(Cause(EPIPE), Side::sink);
    job_.ignore_sink = true;  // a message in the socket's error queue, which is the caller's
    job_.machine.on_ready(false);
  }

  // Pages that were sent with MSG_ZEROCOPY are the caller's again when their completions are here.
  void wait_for_completions() noexcept {
    auto& sends = job_.tools.zerocopy_sends();
    bool learned = true;  // a wake-up without a completion: an error or a hang-up stands
    for (sends.reap(); sends.outstanding() > 0; sends.reap()) {
      const std::uint64_t before = sends.outstanding();
      const Woke woke = Waiter::wait(job_.to.fd, 0, -1, !learned, job_.limits);
      if (woke == Woke::timed_out || woke == Woke::stopped || woke == Woke::failed || job_.machine.side() == Side::sink)
        return;
      sends.reap();
      if (woke == Woke::ready && !learned && sends.outstanding() == before) return;  // the socket is dead
      learned = woke != Woke::ready || sends.outstanding() < before;
    }
  }

  Job& job_;
};

// Runs `job` to its end, and says what happened.
template <Kind From, Kind To>
[[gnu::always_inline]] inline TransferResult run_blocking(Job& job) noexcept {
  Planner<From, To>(job).make();
  if (job.limits.limited() && job.machine.setup.limit > 0) BlockingDriver<From, To>(job).obey_limits();
  BlockingDriver<From, To>(job).run();
  return Mover<From, To>(job).conclude();
}

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
