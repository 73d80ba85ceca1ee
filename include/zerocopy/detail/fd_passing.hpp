// zerocopy/detail/fd_passing.hpp: descriptors that travel through an AF_UNIX socket (SCM_RIGHTS, unix(7)), with a
// deadline. It borrows the socket, and owns what arrives until it is handed out. It never sends a descriptor twice,
// leaves none behind open that it doesn't hand out, and takes no byte that came without one.
#pragma once

#include <zerocopy/config.hpp>
#include <zerocopy/detail/handle.hpp>  // error reports, waiting
#include <zerocopy/fd.hpp>             // OwnedFd

#include <poll.h>        // POLLRDHUP
#include <sys/socket.h>  // sendmsg, recvmsg

#include <algorithm>     // std::min
#include <chrono>        // time limits
#include <concepts>      // std::convertible_to
#include <cstddef>       // std::byte
#include <cstring>       // std::memcpy
#include <span>          // payloads
#include <system_error>  // std::error_code
#include <utility>       // std::move

namespace zerocopy::inline ZEROCOPY_ABI::detail {

// A time limit where an empty payload could stand too: `{}` can't be deduced, and stays the payload.
template <class T>
concept time_limit = std::convertible_to<T, std::chrono::nanoseconds>;

// Since 6.5; older headers don't name them. The numbers are those of asm-generic, which SO_PASSSEC gives away.
inline constexpr int pass_pidfd = SO_PASSSEC == 34 ? 76 : -1;  // SO_PASSPIDFD
inline constexpr int scm_pidfd = 4;                            // SCM_PIDFD

// One AF_UNIX socket of `type` (SOCK_STREAM, ...), for one send or one receive. No call blocks but in wait_to_retry.
class FdPassing {
 public:
  FdPassing(int socket, int type, Deadline deadline) noexcept : socket_(socket), type_(type), deadline_(deadline) {}

  // Sends `fd` with `payload`, or with one zero byte if that is empty. Returns how many bytes of `payload` went, after
  // an error too; the descriptor went with the first.
  std::size_t send(int fd, std::span<const std::byte> payload, std::error_code& ec) const noexcept {
    const std::byte zero{};
    const std::span<const std::byte> all = payload.empty() ? std::span(&zero, 1) : payload;
    std::size_t sent = 0;
    while (sent < all.size()) {
      const ssize_t n = send_once(all.subspan(sent), sent == 0 ? &fd : nullptr, ec);
      if (ec.value() == EAGAIN) {
        if (!wait_to_retry(socket_, POLLOUT, deadline_, ec)) break;
        continue;
      }
      if (ec) break;
      sent += static_cast<std::size_t>(n);
      if (sent < all.size() && is_over()) ec = Errc::timed_out;  // a peer that reads fast lets us never wait
      if (ec) break;
    }
    return payload.empty() ? 0 : sent;
  }

  // Takes the next descriptor and up to `payload.size()` bytes that came with it, `bytes` of them. With an empty
  // payload the first byte of a stream or the whole message is dropped; else a message that is longer is an error.
  OwnedFd receive(std::span<std::byte> payload, std::size_t& bytes, std::error_code& ec) const noexcept {
    std::byte dropped{};
    Control control;
    iovec part{payload.data(), payload.size()};
    if (payload.empty()) part = {&dropped, 1};
    msghdr message{};
    ssize_t n = 0;
    do {
      if (!descriptor_is_next(ec)) return {};
      message = message_of(part, control.bytes);
      n = receive_once(message, 0, ec);
    } while (ec.value() == EAGAIN);  // another thread took it
    if (ec) return {};
    OwnedFd fd = take_descriptor(message);
    if (!fd)
      ec = system_error_code((message.msg_flags & MSG_CTRUNC) != 0 ? EMFILE : ENOMSG);
    else if (!payload.empty() && (message.msg_flags & MSG_TRUNC) != 0)
      ec = system_error_code(EMSGSIZE);
    if (ec) return {};
    bytes = payload.empty() ? 0 : static_cast<std::size_t>(n);
    return fd;
  }

 private:
  // Room for SCM_MAX_FD descriptors, and for what the caller asked the socket for: credentials, a label, a pidfd.
  struct Control {
    alignas(cmsghdr) std::byte bytes[CMSG_SPACE(253 * sizeof(int)) + 1024];
  };

  // With a deadline a stream takes at most this much a call: a peer that reads on would keep the call going.
  static constexpr std::size_t most_at_once = 1 << 20;

  bool is_over() const noexcept { return time_left(deadline_) == std::chrono::nanoseconds::zero(); }

  static msghdr message_of(iovec& part, std::span<std::byte> control) noexcept {
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    return message;
  }

  ssize_t send_once(std::span<const std::byte> bytes, const int* fd, std::error_code& ec) const noexcept {
    if (deadline_ && type_ == SOCK_STREAM) bytes = bytes.first(std::min(bytes.size(), most_at_once));
    alignas(cmsghdr) std::byte control[CMSG_SPACE(sizeof(int))]{};
    iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
    msghdr message = message_of(part, fd != nullptr ? std::span<std::byte>(control) : std::span<std::byte>());
    if (fd != nullptr) {
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(header), fd, sizeof(*fd));
    }
    return checked(uninterrupted([&] { return ::sendmsg(socket_, &message, MSG_DONTWAIT | MSG_NOSIGNAL); }), ec);
  }

  ssize_t receive_once(msghdr& message, int flags, std::error_code& ec) const noexcept {
    flags |= MSG_DONTWAIT | MSG_CMSG_CLOEXEC;
    return checked(uninterrupted([&] { return ::recvmsg(socket_, &message, flags); }), ec);
  }

  // The first descriptor that was sent; the others are closed, and so is the pidfd of SO_PASSPIDFD.
  static OwnedFd take_descriptor(msghdr& message) noexcept {
    OwnedFd first;
    for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
      if (header->cmsg_level != SOL_SOCKET) continue;
      if (header->cmsg_type != SCM_RIGHTS && header->cmsg_type != scm_pidfd) continue;
      const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t i = 0; i < count; ++i) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(fd), sizeof(fd));
        OwnedFd arrived(fd);
        if (!first && header->cmsg_type == SCM_RIGHTS) first = std::move(arrived);
      }
    }
    return first;
  }

  // An option that this kernel doesn't know is off.
  bool is_on(int option) const noexcept {
    int value = 0;
    socklen_t size = sizeof(value);
    return ::getsockopt(socket_, SOL_SOCKET, option, &value, &size) == 0 && value != 0;
  }

  // Whether the peer, or a shutdown on this side, has ended what comes.
  bool has_ended() const noexcept {
    pollfd state{socket_, POLLRDHUP, 0};
    return ::poll(&state, 1, 0) == 1 && (state.revents & POLLRDHUP) != 0;
  }

  // Waits for a message and looks whether it has a descriptor, so that bytes that come without one stay where they are.
  bool descriptor_is_next(std::error_code& ec) const noexcept {
    for (;;) {
      bool found = false;
      const ssize_t n = peek(found, ec);
      if (ec.value() == EAGAIN) {
        // poll calls a datagram socket readable that is shut down for reading, though there is nothing to read.
        if (type_ == SOCK_DGRAM && has_ended()) return ec = system_error_code(ECONNRESET), false;
        if (!wait_to_retry(socket_, POLLIN, deadline_, ec)) return false;
        continue;
      }
      if (ec || found) return !ec;
      const bool end = n == 0 && (type_ == SOCK_STREAM || (type_ == SOCK_SEQPACKET && has_ended()));
      ec = system_error_code(end ? ECONNRESET : ENOMSG);  // or an empty message
      return false;
    }
  }

  // Without room for control data MSG_CTRUNC tells that a descriptor waits, and none is made here: to close a copy
  // would drop this process's record locks on its file (fcntl(2)). But where the caller asked for other
  // control data every message has some, and only a look at it can tell.
  ssize_t peek(bool& found, std::error_code& ec) const noexcept {
    std::byte first{};
    Control control;
    iovec part{&first, 1};
    const bool others = is_on(SO_PASSCRED) || is_on(SO_PASSSEC) || is_on(pass_pidfd);
    msghdr message = message_of(part, others ? std::span<std::byte>(control.bytes) : std::span<std::byte>());
    const ssize_t n = receive_once(message, MSG_PEEK, ec);
    if (!ec) found = take_descriptor(message) || (message.msg_flags & MSG_CTRUNC) != 0;
    return n;
  }

  int socket_;
  int type_;
  Deadline deadline_;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
