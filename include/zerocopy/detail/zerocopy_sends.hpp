// zerocopy/detail/zerocopy_sends.hpp: MSG_ZEROCOPY on one socket: switched on, counted, waited for, put back.
// Completions share the socket's error queue with the caller, so a socket that the caller uses in this way is left alone.
// Kernel documentation: networking/msg_zerocopy. Linux 4.14.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/syscall.hpp>  // options, recvmsg
#include <zerocopy/error.hpp>           // Errc
#include <zerocopy/result.hpp>          // Cause

#include <linux/errqueue.h>  // sock_extended_err
#include <netinet/in.h>      // IP_RECVERR, IPPROTO_*

#include <cstdint>  // std::uint64_t
#include <cstring>  // std::memcpy

namespace zerocopy::inline ZEROCOPY_ABI::detail {

class ZerocopySends {
 public:
  ZerocopySends() noexcept = default;
  ZerocopySends(const ZerocopySends&) = delete;
  ZerocopySends& operator=(const ZerocopySends&) = delete;
  ~ZerocopySends() { end(); }

  // Switches SO_ZEROCOPY on. No cause: it is on now.
  Cause begin(int fd) noexcept {
    if (fd_ >= 0) return {};
    int was_on = 0;
    if (const sys::Count e = sys::get_option(fd, SOL_SOCKET, SO_ZEROCOPY, was_on); e < 0)
      return Cause(static_cast<int>(-e));
    int timestamps = 0;
    if (const sys::Count e = sys::get_option(fd, SOL_SOCKET, SO_TIMESTAMPING, timestamps); e < 0)
      return Cause(static_cast<int>(-e));
    pollfd errors{fd, 0, 0};
    const bool has_messages = ::poll(&errors, 1, 0) == 1 && errors.revents == POLLERR;
    if (was_on != 0 || timestamps != 0 || has_messages) return Cause(Errc::socket_option_in_use);
    if (const sys::Count e = sys::set_option(fd, SOL_SOCKET, SO_ZEROCOPY, 1); e < 0) return Cause(static_cast<int>(-e));
    fd_ = fd;
    return {};
  }

  // A count or a negated errno. Never blocks.
  sys::Count send(const void* data, std::uint64_t n, int flags) noexcept {
    if (pays_) {
      const sys::Count sent = sys::send(fd_, data, n, flags | MSG_ZEROCOPY);
      if (sent >= 0) {
        if (outstanding_++ % reap_interval == 0) reap();
        return sent;
      }
      if (sent != -ENOBUFS) return sent;
    }
    // The kernel copies anyway, or has no room for a notification: a plain send never waits for one.
    return sys::send(fd_, data, n, flags);
  }

  // Sends whose pages the kernel may still read.
  [[nodiscard]] std::uint64_t outstanding() const noexcept { return outstanding_; }

  // Takes the completions that are there. POLLERR announces them.
  void reap() noexcept {
    while (outstanding_ > 0) {
      alignas(cmsghdr) std::byte control[128];
      msghdr message{};
      message.msg_control = control;
      message.msg_controllen = sizeof(control);
      if (sys::retry([&] { return ::recvmsg(fd_, &message, MSG_ERRQUEUE | MSG_DONTWAIT); }) < 0) return;
      for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) count(*c);
    }
  }

  // Puts the option back. Completions that are still to come go to the caller's error queue.
  void end() noexcept {
    if (fd_ >= 0) (void)sys::set_option(fd_, SOL_SOCKET, SO_ZEROCOPY, 0);
    fd_ = -1;
  }

 private:
  void count(const cmsghdr& header) noexcept {
    const bool is_error = (header.cmsg_level == SOL_IP && header.cmsg_type == IP_RECVERR) ||
                          (header.cmsg_level == SOL_IPV6 && header.cmsg_type == IPV6_RECVERR);
    if (!is_error) return;
    sock_extended_err error;
    std::memcpy(&error, CMSG_DATA(&header), sizeof(error));
    if (error.ee_origin != SO_EE_ORIGIN_ZEROCOPY || error.ee_errno != 0) return;
    const std::uint64_t range = error.ee_data - error.ee_info + std::uint64_t{1};
    outstanding_ -= std::min(outstanding_, range);
    if ((error.ee_code & SO_EE_CODE_ZEROCOPY_COPIED) != 0) pays_ = false;
  }

  // After the first send, to learn whether the kernel copies, and now and then so that the queue stays short.
  static constexpr std::uint64_t reap_interval = 16;

  int fd_ = -1;
  std::uint64_t outstanding_ = 0;
  bool pays_ = true;  // until the kernel says that it copied
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
