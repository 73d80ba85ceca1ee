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

// The limits of one transfer. A transfer without limits and without progress to tell never reads the clock.
class Limits {
 public:
  explicit Limits(const Options& options) noexcept
      : options_(&options), paced_(are_in(options) || options.on_progress) {
    if (paced_) progressed();
  }

  // Whether calls are kept short, since there is something to see to between two of them.
  [[nodiscard]] bool paced() const noexcept { return paced_; }
  [[nodiscard]] bool limited() const noexcept { return paced_ && are_in(*options_); }
  [[nodiscard]] const std::stop_token& stop() const noexcept { return options_->stop; }
  [[nodiscard]] bool stop_requested() const noexcept { return paced_ && options_->stop.stop_requested(); }
  void progressed() noexcept {
    if (options_->idle_timeout) last_byte_ = Clock::now();
  }
  // The moment at which waiting ends, if there is one.
  [[nodiscard]] std::optional<Clock::time_point> end() const noexcept {
    std::optional<Clock::time_point> end = options_->deadline;
    if (options_->idle_timeout) {
      const auto idle = *options_->idle_timeout;
      constexpr std::chrono::nanoseconds year = std::chrono::hours(24 * 365);  // the sum must not overflow
      const auto idle_end = last_byte_ + std::clamp(idle, std::chrono::nanoseconds(0), year);
      if (!end || idle_end < *end) end = std::chrono::time_point_cast<Clock::duration>(idle_end);
    }
    return end;
  }
  [[nodiscard]] bool deadline_passed() const noexcept {
    return options_->deadline && Clock::now() >= *options_->deadline;
  }

 private:
  static bool are_in(const Options& options) noexcept {
    return options.deadline || options.idle_timeout || options.stop.stop_possible();
  }

  const Options* options_;
  bool paced_;
  Clock::time_point last_byte_;  // or the start; with an idle timeout only
};

enum class Woke : std::uint8_t { ready, retry, timed_out, stopped, failed };

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

// What one wait watches: descriptors with the events that are waited for, 0 for their death only.
template <std::size_t Most>
struct Watched {
  pollfd ends[Most + 1];  // the last one for the bell of a stop token
  nfds_t used = 0;

  // Two waits for one descriptor are one.
  void add(int fd, short events) noexcept {
    for (nfds_t i = 0; i < used; ++i)
      if (ends[i].fd == fd) return void(ends[i].events = static_cast<short>(ends[i].events | events));
    ends[used++] = {fd, events, 0};
  }
  [[nodiscard]] short seen(int fd) const noexcept {
    for (nfds_t i = 0; i < used; ++i)
      if (ends[i].fd == fd) return ends[i].revents;
    return 0;
  }
};

class Waiter {
 public:
  // A missing wake-up (AF_UNIX after the peer's shutdown) is made good by trying again so often.
  static constexpr std::chrono::milliseconds longest{1000};
  // No descriptor was left for the bell of a stop token: it is looked at so often.
  static constexpr std::chrono::milliseconds without_bell{50};

  // Waits until one of the events is there, and says so in `revents`. `stalls`: so often in a row readiness moved nothing;
  // a standing POLLERR is then the caller's message, not an error.
  template <std::size_t Most>
  static Woke wait(Watched<Most>& watched, int stalls, const Limits& limits) noexcept {
    return wait(watched.ends, watched.used, stalls, limits);
  }

 private:
  static Woke wait(pollfd* ends, nfds_t used, int stalls, const Limits& limits) noexcept {
    if (!limits.stop().stop_possible()) return poll_once(ends, used, -1, stalls, limits);
    const int bell = stop_bell();
    if (bell < 0) return poll_once(ends, used, -1, stalls, limits);
    std::uint64_t rings = 0;
    (void)sys::read(bell, &rings, sizeof(rings));
    const std::stop_callback ring(limits.stop(), [bell] {
      const std::uint64_t one = 1;
      (void)sys::write(bell, &one, sizeof(one));
    });
    return poll_once(ends, used, bell, stalls, limits);
  }

  static Woke poll_once(pollfd* ends, nfds_t used, int bell, int stalls, const Limits& limits) noexcept {
    if (limits.stop_requested()) return Woke::stopped;
    // Only the ends in use: poll refuses more entries than RLIMIT_NOFILE.
    if (bell >= 0) ends[used] = {bell, POLLIN, 0};
    const nfds_t all = used + (bell >= 0 ? 1 : 0);
    const int timeout = milliseconds(limits, limits.stop().stop_possible() && bell < 0 ? without_bell : longest);
    int n = ::poll(ends, all, timeout);
    if (n < 0 && errno != EINTR) return Woke::failed;
    if (n > 0 && stalls > 0 && is_standing_error(ends, used)) n = edge_wait(ends, used, bell, timeout);
    if (n > 0 && stalls > most_idle_wakes) pause(bell, std::min(timeout, longest_pause));
    if (limits.stop_requested()) return Woke::stopped;
    // Readiness that moves nothing does not put the end of the wait off.
    if (stalls > 0 && is_over(limits)) return Woke::timed_out;
    for (nfds_t i = 0; n > 0 && i < used; ++i)
      if (ends[i].revents != 0) return Woke::ready;
    return is_over(limits) ? Woke::timed_out : Woke::retry;
  }
  static bool is_over(const Limits& limits) noexcept {
    const auto end = limits.end();
    return end && Clock::now() >= *end;
  }
  // A socket under a memory limit can be ready all the time and take nothing: it is asked 100 times a second.
  static constexpr int most_idle_wakes = 8;
  static constexpr int longest_pause = 10;  // milliseconds
  static void pause(int bell, int time) noexcept {
    pollfd only{bell, POLLIN, 0};
    (void)::poll(&only, 1, time);  // poll passes over a descriptor of -1
  }
  static bool is_standing_error(const pollfd* ends, nfds_t used) noexcept {
    for (nfds_t i = 0; i < used; ++i)
      if ((ends[i].revents & ~POLLERR) != 0) return false;
    return true;
  }

  // Waits for an edge on one of the ends, or for the bell.
  static int edge_wait(pollfd* ends, nfds_t used, int bell, int timeout) noexcept {
    const OwnedFd set(::epoll_create1(EPOLL_CLOEXEC));
    if (!set) return 0;
    for (nfds_t i = 0; i < used; ++i) {
      epoll_event event{static_cast<std::uint32_t>(ends[i].events) | EPOLLET, {}};
      event.data.u64 = i;
      (void)::epoll_ctl(set.get(), EPOLL_CTL_ADD, ends[i].fd, &event);
      ends[i].revents = 0;
    }
    // The first events are those of being added: what is ready now, and the standing errors.
    epoll_event event;
    for (nfds_t i = 0; i < used && ::epoll_wait(set.get(), &event, 1, 0) == 1; ++i) {
      const std::uint32_t news = event.events & ~std::uint32_t{EPOLLERR};
      ends[event.data.u64].revents = static_cast<short>(news);
      if (news != 0) return 1;
    }
    pollfd both[2] = {{set.get(), POLLIN, 0}, {bell, POLLIN, 0}};
    const int n = ::poll(both, bell >= 0 ? 2 : 1, timeout);
    if (both[0].revents != 0) ends[0].revents = POLLERR;  // whichever it was: its call is tried again
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
