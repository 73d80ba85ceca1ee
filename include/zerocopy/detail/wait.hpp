// zerocopy/detail/wait.hpp: the one place that waits, and the time limits that it obeys.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/cursor.hpp>   // Cursor
#include <zerocopy/detail/outcome.hpp>  // Side, Cause
#include <zerocopy/detail/pool.hpp>     // fork_generation
#include <zerocopy/options.hpp>         // deadline, idle timeout, stop token

#include <sys/epoll.h>    // a wait that a standing POLLERR does not end
#include <sys/eventfd.h>  // what a stop token rings

#include <chrono>    // time limits
#include <optional>  // the stop callback

namespace zerocopy::inline ZEROCOPY_ABI::detail {

using Clock = std::chrono::steady_clock;

// The limits of one transfer. A transfer without limits never reads the clock.
class Limits {
 public:
  explicit Limits(const Options& options) noexcept
      : options_(&options), limited_(options.deadline || options.idle_timeout || options.stop.stop_possible()) {
    if (limited_) progressed();
  }

  [[nodiscard]] bool limited() const noexcept { return limited_; }
  [[nodiscard]] const std::stop_token& stop() const noexcept { return options_->stop; }
  [[nodiscard]] bool stop_requested() const noexcept { return limited_ && options_->stop.stop_requested(); }
  void progressed() noexcept {
    if (options_->idle_timeout) last_byte_ = Clock::now();
  }
  // The moment at which waiting ends, if there is one.
  [[nodiscard]] std::optional<Clock::time_point> end() const noexcept {
    std::optional<Clock::time_point> end = options_->deadline;
    if (options_->idle_timeout) {
      const auto idle = *options_->idle_timeout;
      const bool far = idle > std::chrono::hours(24 * 365);  // the sum must not overflow
      const auto idle_end = last_byte_ + (far ? std::chrono::hours(24 * 365) : idle);
      if (!end || idle_end < *end) end = std::chrono::time_point_cast<Clock::duration>(idle_end);
    }
    return end;
  }
  [[nodiscard]] bool deadline_passed() const noexcept {
    return options_->deadline && Clock::now() >= *options_->deadline;
  }

 private:
  const Options* options_;
  bool limited_;
  Clock::time_point last_byte_;  // or the start; with an idle timeout only
};

enum class Woke : std::uint8_t { ready, retry, timed_out, stopped, sink_dead, failed };

// An eventfd per thread, made at the first wait that has a stop token.
inline int stop_bell() noexcept {
  struct Bell {
    OwnedFd fd;
    unsigned generation = 0;
  };
  thread_local Bell bell;
  const unsigned now = fork_generation();
  if (!bell.fd || bell.generation != now) bell = {OwnedFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), now};
  return bell.fd.get();
}

class Waiter {
 public:
  // A missing wake-up (AF_UNIX after the peer's shutdown) is made good by trying again so often.
  static constexpr std::chrono::milliseconds longest{1000};
  // No descriptor was left for the bell of a stop token: it is looked at so often.
  static constexpr std::chrono::milliseconds without_bell{50};

  // Waits until `events` of `fd` are there. `sink`: looked at for its death meanwhile, -1 for none. `stalled`: the last
  // readiness moved nothing, so that a standing POLLERR is the caller's message, not an error.
  static Woke wait(int fd, short events, int sink, bool stalled, const Limits& limits) noexcept {
    if (!limits.stop().stop_possible()) return poll_once(fd, events, sink, -1, stalled, limits);
    const int bell = stop_bell();
    if (bell < 0) return poll_once(fd, events, sink, -1, stalled, limits);
    std::uint64_t rings = 0;
    (void)sys::read(bell, &rings, sizeof(rings));
    const std::stop_callback ring(limits.stop(), [bell] {
      const std::uint64_t one = 1;
      (void)sys::write(bell, &one, sizeof(one));
    });
    return poll_once(fd, events, sink, bell, stalled, limits);
  }

 private:
  static Woke poll_once(int fd, short events, int sink, int bell, bool stalled, const Limits& limits) noexcept {
    if (limits.stop_requested()) return Woke::stopped;
    // Only the ends in use: poll refuses more entries than RLIMIT_NOFILE.
    pollfd ends[3] = {{fd, events, 0}, {-1, 0, 0}, {-1, 0, 0}};
    nfds_t used = 1;
    const pollfd* const at_sink = &ends[used];
    if (sink >= 0) ends[used++] = {sink, 0, 0};
    if (bell >= 0) ends[used++] = {bell, POLLIN, 0};
    const int timeout = milliseconds(limits, limits.stop().stop_possible() && bell < 0 ? without_bell : longest);
    int n = ::poll(ends, used, timeout);
    if (n < 0 && errno != EINTR) return Woke::failed;
    if (n == 1 && stalled && ends[0].revents == POLLERR) n = edge_wait(ends[0], bell, timeout);
    if (limits.stop_requested()) return Woke::stopped;
    if (n > 0 && ends[0].revents != 0) return Woke::ready;
    if (n > 0 && sink >= 0 && at_sink->revents != 0) return Woke::sink_dead;
    if (const auto end = limits.end(); end && Clock::now() >= *end) return Woke::timed_out;
    return Woke::retry;
  }

  // Waits for an edge on `end`, or for the bell.
  static int edge_wait(pollfd& end, int bell, int timeout) noexcept {
    const OwnedFd set(::epoll_create1(EPOLL_CLOEXEC));
    if (!set) return 0;
    epoll_event event{static_cast<std::uint32_t>(end.events) | EPOLLET, {}};
    (void)::epoll_ctl(set.get(), EPOLL_CTL_ADD, end.fd, &event);
    // The first event is that of being added: what is ready now, and the standing error.
    if (::epoll_wait(set.get(), &event, 1, 0) == 1 && (event.events & ~std::uint32_t{EPOLLERR}) != 0) return 1;
    pollfd both[2] = {{set.get(), POLLIN, 0}, {bell, POLLIN, 0}};
    const int n = ::poll(both, bell >= 0 ? 2 : 1, timeout);
    end.revents = both[0].revents;
    return n;
  }

  static int milliseconds(const Limits& limits, std::chrono::milliseconds most) noexcept {
    const auto end = limits.end();
    if (!end) return static_cast<int>(most.count());
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*end - Clock::now());
    return static_cast<int>(std::clamp(left, std::chrono::milliseconds(0), most).count());
  }
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
