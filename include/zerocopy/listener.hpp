// zerocopy/listener.hpp: a socket that waits for connections.
// It owns its descriptor, O_NONBLOCK and O_CLOEXEC from birth, as are the sockets that it accepts. It never unlinks
// the file of an AF_UNIX path.
#pragma once

#include <zerocopy/config.hpp>
#include <zerocopy/detail/handle.hpp>  // error reports, waiting
#include <zerocopy/fd.hpp>             // OwnedFd, BorrowedFd
#include <zerocopy/socket.hpp>         // Socket, SocketType, Family

#include <sys/socket.h>  // accept4, listen

#include <chrono>        // time limits
#include <cstdint>       // std::uint16_t
#include <string>        // hosts, paths
#include <system_error>  // std::error_code
#include <utility>       // std::move

namespace zerocopy::inline ZEROCOPY_ABI {

/// How a Listener is made.
struct ListenOptions {
  SocketType type = SocketType::stream;  ///< or seqpacket, AF_UNIX only
  Family family = Family::any;           ///< of the addresses to try; not for AF_UNIX
  int backlog = SOMAXCONN;               ///< connections that may wait to be accepted
  bool reuse_address = true;             ///< SO_REUSEADDR: a port whose last connections are ending can be had
  bool reuse_port = false;               ///< SO_REUSEPORT: several listeners share a port
};

/// A listening socket. Every function that can fail has a twin with a trailing `std::error_code&`; a factory's twin
/// then returns an empty object.
/// Thread safety: distinct objects are independent; several threads may accept on one.
class Listener {
 public:
  /// Takes a listening socket over (from a service manager, say) and makes it O_NONBLOCK, without which accept4 could
  /// wait for ever for a connection that another thread took. What else it is shows at the first use.
  explicit Listener(OwnedFd fd) noexcept : socket_(std::move(fd)) {
    std::error_code shows_at_first_use;
    socket_.set_blocking(false, shows_at_first_use);
  }

  /// Listens on `host` (a name or an address; empty: every interface) and `port` (0: the kernel picks, see `port()`);
  /// the first address that works (bind(2), listen(2)).
  /// Errors: `resolver_category()` where the name can't be looked up; `address_in_use`, `address_not_available`,
  /// `permission_denied` (ports below 1024); `operation_not_supported` (datagram), `protocol_not_supported`
  /// (seqpacket). Blocking: getaddrinfo(3).
  [[nodiscard]] static Listener bind(const std::string& host, std::uint16_t port, ListenOptions options = {}) {
    return detail::or_throw([&](std::error_code& ec) { return bind(host, port, options, ec); },
                            [&] { return "listen on " + detail::with_port(host, port); });
  }
  [[nodiscard]] static Listener bind(const std::string& host, std::uint16_t port, std::error_code& ec) {
    return bind(host, port, ListenOptions{}, ec);
  }
  [[nodiscard]] static Listener bind(const std::string& host, std::uint16_t port, ListenOptions options,
                                     std::error_code& ec) {
    const BindOptions how{.type = options.type,
                          .family = options.family,
                          .reuse_address = options.reuse_address,
                          .reuse_port = options.reuse_port};
    return listen(Socket::bind(host, port, how, ec), options, ec);
  }

  /// Listens on an AF_UNIX path; a leading '@' or NUL means the abstract namespace (unix(7)).
  /// Errors: `address_in_use` (the file exists, listened on or not: unlink it first), `filename_too_long`,
  /// `no_such_file_or_directory`, `permission_denied`, `invalid_argument` (empty, or a NUL inside).
  [[nodiscard]] static Listener bind_unix(const std::string& path, ListenOptions options = {}) {
    return detail::or_throw([&](std::error_code& ec) { return bind_unix(path, options, ec); },
                            [&] { return "listen on '" + path + "'"; });
  }
  [[nodiscard]] static Listener bind_unix(const std::string& path, std::error_code& ec) {
    return bind_unix(path, ListenOptions{}, ec);
  }
  [[nodiscard]] static Listener bind_unix(const std::string& path, ListenOptions options, std::error_code& ec) {
    return listen(Socket::bind_unix(path, {.type = options.type}, ec), options, ec);
  }

  /// Waits for a connection and takes it, O_NONBLOCK and O_CLOEXEC from birth (accept4(2)). A connection that died
  /// while it waited is passed over. Errors: `too_many_files_open`, `invalid_argument` (does not listen),
  /// `bad_file_descriptor`. Blocking: polls until one comes, or for `timeout`: then Errc::timed_out.
  [[nodiscard]] Socket accept() {
    return detail::or_throw([&](std::error_code& ec) { return accept(ec); },
                            [&] { return detail::on_descriptor("accept on", as_fd().get()); });
  }
  [[nodiscard]] Socket accept(std::error_code& ec) noexcept { return accept_until(std::nullopt, ec); }
  [[nodiscard]] Socket accept(std::chrono::nanoseconds timeout) {
    return detail::or_throw([&](std::error_code& ec) { return accept(timeout, ec); },
                            [&] { return detail::on_descriptor("accept on", as_fd().get()); });
  }
  [[nodiscard]] Socket accept(std::chrono::nanoseconds timeout, std::error_code& ec) noexcept {
    return accept_until(detail::deadline_after(timeout), ec);
  }

  /// The port that is listened on, 0 for AF_UNIX (getsockname(2)). Errors: `not_a_socket`.
  [[nodiscard]] std::uint16_t port() const { return socket_.local_port(); }
  [[nodiscard]] std::uint16_t port(std::error_code& ec) const noexcept { return socket_.local_port(ec); }
  /// The address that is listened on as text, see `Socket::local_address`.
  [[nodiscard]] std::string address() const { return socket_.local_address(); }
  [[nodiscard]] std::string address(std::error_code& ec) const { return socket_.local_address(ec); }

  [[nodiscard]] BorrowedFd as_fd() const& noexcept { return socket_.as_fd(); }
  BorrowedFd as_fd() const&& = delete;  // would borrow from a temporary

  /// Gives the descriptor up without closing it.
  [[nodiscard]] OwnedFd release() && noexcept { return std::move(socket_).release(); }

 private:
  explicit Listener(Socket socket) noexcept : socket_(std::move(socket)) {}

  static Listener listen(Socket bound, const ListenOptions& options, std::error_code& ec) noexcept {
    if (!ec) detail::checked(::listen(bound.as_fd().get(), options.backlog), ec);
    return ec ? Listener(OwnedFd()) : Listener(std::move(bound));
  }

  // What accept(2) says to take like EAGAIN: errors of the connection, not of the listener. Without EOPNOTSUPP, which
  // on Linux means that this socket can't listen at all.
  static bool passes_over(int error) noexcept {
    switch (error) {
      case EAGAIN:
      case ECONNABORTED:
      case ENETDOWN:
      case EPROTO:
      case ENOPROTOOPT:
      case EHOSTDOWN:
      case ENONET:
      case EHOSTUNREACH:
      case ENETUNREACH: return true;
      default: return false;
    }
  }

  Socket accept_until(detail::Deadline deadline, std::error_code& ec) noexcept {
    const auto call = [&] { return ::accept4(as_fd().get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC); };
    for (;;) {
      OwnedFd fd(detail::checked(detail::uninterrupted(call), ec));
      if (!ec) return Socket(std::move(fd), socket_.type());
      if (!passes_over(ec.value())) return Socket(OwnedFd());
      if (!detail::wait_to_retry(as_fd().get(), POLLIN, deadline, ec)) return Socket(OwnedFd());
    }
  }

  Socket socket_;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI
