// zerocopy/detail/send_timeout.hpp: cuts sendfile and splice into a blocking socket short, which no flag does.
// SO_SNDTIMEO is set for the transfer and put back at its end; a shorter one of the caller's stays. The time-out starts
// again at each inner push, so that a call is also kept small.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/syscall.hpp>  // socket options

#include <linux/sock_diag.h>  // SK_MEMINFO_*
#include <sys/time.h>         // timeval

#include <algorithm>  // std::clamp
#include <array>      // SO_MEMINFO
#include <cstdint>    // std::uint64_t

namespace zerocopy::inline ZEROCOPY_ABI::detail {

class SendTimeout {
 public:
  static constexpr long longest_call = 20'000;  // microseconds
  static constexpr std::uint64_t largest_call = 64 * 1024;

  SendTimeout() noexcept = default;
  SendTimeout(const SendTimeout&) = delete;
  SendTimeout& operator=(const SendTimeout&) = delete;
  ~SendTimeout() { end(); }

  // False where the socket refuses: its calls can't be cut.
  bool begin(int fd) noexcept {
    if (fd_ >= 0) return true;
    if (sys::get_option(fd, SOL_SOCKET, SO_SNDTIMEO, before_) < 0) return false;
    const bool is_shorter =
        (before_.tv_sec != 0 || before_.tv_usec != 0) && before_.tv_sec == 0 && before_.tv_usec <= longest_call;
    if (!is_shorter && sys::set_option(fd, SOL_SOCKET, SO_SNDTIMEO, timeval{0, longest_call}) < 0) return false;
    fd_ = fd;
    changed_ = !is_shorter;
    return true;
  }
  void end() noexcept {
    if (fd_ >= 0 && changed_) (void)sys::set_option(fd_, SOL_SOCKET, SO_SNDTIMEO, before_);
    fd_ = -1;
  }
  [[nodiscard]] bool is_active() const noexcept { return fd_ >= 0; }

  // What one call may be asked for: half of the room in the socket's queue. 0: there is none.
  [[nodiscard]] std::uint64_t room() const noexcept {
    std::array<std::uint32_t, SK_MEMINFO_VARS> memory{};
    if (sys::get_option(fd_, SOL_SOCKET, SO_MEMINFO, memory) < 0) return smallest_call;
    const std::uint64_t queue = memory[SK_MEMINFO_SNDBUF];
    const std::uint64_t used = std::max(memory[SK_MEMINFO_WMEM_QUEUED], memory[SK_MEMINFO_WMEM_ALLOC]);
    return used >= queue ? 0 : std::clamp((queue - used) / 2, smallest_call, largest_call);
  }

 private:
  static constexpr std::uint64_t smallest_call = 4096;

  int fd_ = -1;
  bool changed_ = false;
  timeval before_{};
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
