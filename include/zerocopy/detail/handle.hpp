// zerocopy/detail/handle.hpp: what the handles share: errno into an error_code, the throwing twin made from the
// other one, flags of a descriptor, and the wait of the few handle calls that wait. It owns nothing.
#pragma once

#include <zerocopy/config.hpp>
#include <zerocopy/error.hpp>  // Errc, throw_error

#include <fcntl.h>     // fcntl
#include <poll.h>      // ppoll
#include <sys/stat.h>  // static_assert on off_t
#include <time.h>      // timespec

#include <algorithm>     // std::max, std::min
#include <cerrno>        // errno
#include <chrono>        // time limits
#include <optional>      // no time limit
#include <string>        // messages, paths
#include <system_error>  // std::error_code
#include <type_traits>   // std::invoke_result_t

namespace zerocopy::inline ZEROCOPY_ABI::detail {

static_assert(sizeof(off_t) == 8, "zerocopy needs 64-bit file offsets: compile with -D_FILE_OFFSET_BITS=64");

// Calls again while a signal interrupts. Not for close, and not for connect on TCP.
template <class Call>
auto uninterrupted(Call call) noexcept {
  for (;;) {
    const auto result = call();
    if (result != -1 || errno != EINTR) return result;
  }
}

// errno becomes `ec` if the call just made returned -1; else `ec` is cleared.
template <class Result>
Result checked(Result result, std::error_code& ec) noexcept {
  if (result == Result{-1})
    ec = system_error_code(errno);
  else
    ec.clear();
  return result;
}

// The throwing twin of `call(ec)`; what() says what was tried on what, and runs on failure only.
template <class Call, class What>
auto or_throw(Call call, What what) -> std::invoke_result_t<Call, std::error_code&> {
  std::error_code ec;
  if constexpr (std::is_void_v<std::invoke_result_t<Call, std::error_code&>>) {
    call(ec);
    if (ec) throw_error(ec, what());
  } else {
    auto result = call(ec);
    if (ec) throw_error(ec, what());
    return result;
  }
}

// For messages: `size of descriptor 5`.
inline std::string on_descriptor(const char* what, int fd) {
  std::string text = what;
  text += " descriptor ";
  return text += std::to_string(fd);
}

// The kernel would stop reading at the NUL and open another path than the one that was given.
inline bool is_c_string(const std::string& s) noexcept { return s.find('\0') == std::string::npos; }

inline void set_blocking(int fd, bool blocking, std::error_code& ec) noexcept {
  const int old = checked(::fcntl(fd, F_GETFL), ec);
  if (ec) return;
  const int wanted = blocking ? old & ~O_NONBLOCK : old | O_NONBLOCK;
  if (wanted != old) checked(::fcntl(fd, F_SETFL, wanted), ec);
}

// A point in time after which a call stops waiting; none without a limit, or with one that the clock can't hold.
using Deadline = std::optional<std::chrono::steady_clock::time_point>;

inline Deadline deadline_after(std::optional<std::chrono::nanoseconds> timeout) noexcept {
  using Clock = std::chrono::steady_clock;
  if (!timeout) return std::nullopt;
  const Clock::time_point now = Clock::now();
  if (*timeout >= Clock::time_point::max() - now) return std::nullopt;
  return now + std::max(*timeout, std::chrono::nanoseconds::zero());
}

inline std::optional<std::chrono::nanoseconds> time_left(Deadline deadline) noexcept {
  if (!deadline) return std::nullopt;
  return std::max<std::chrono::nanoseconds>(*deadline - std::chrono::steady_clock::now(),
                                            std::chrono::nanoseconds::zero());
}

// Waits until the call that said EAGAIN is worth trying again: false (and `ec`) if the deadline passed or poll failed.
// At most a second at a time, since AF_UNIX can leave a wake-up out: the caller's loop tries its call again.
inline bool wait_to_retry(int fd, short events, Deadline deadline, std::error_code& ec) noexcept {
  std::chrono::nanoseconds slice = std::chrono::seconds(1);
  if (const auto left = time_left(deadline)) {
    if (*left == std::chrono::nanoseconds::zero()) return ec = Errc::timed_out, false;
    slice = std::min(slice, *left);
  }
  timespec limit{};
  limit.tv_sec = static_cast<time_t>(slice.count() / 1'000'000'000);
  limit.tv_nsec = static_cast<long>(slice.count() % 1'000'000'000);
  pollfd waiting{fd, events, 0};
  if (::ppoll(&waiting, 1, &limit, nullptr) == -1 && errno != EINTR) return ec = system_error_code(errno), false;
  ec.clear();
  return true;
}

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
