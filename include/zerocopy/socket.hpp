// zerocopy/socket.hpp: stream, datagram and seqpacket sockets over IPv4, IPv6 and AF_UNIX, a scoped cork, and
// descriptors passed between processes. A Socket owns its descriptor. Sockets made here are O_NONBLOCK and O_CLOEXEC
// from birth; set_blocking(true) undoes the first. No call raises SIGPIPE.
#pragma once

#include <zerocopy/config.hpp>
#include <zerocopy/detail/address.hpp>     // name look-up, AF_UNIX paths
#include <zerocopy/detail/fd_passing.hpp>  // SCM_RIGHTS
#include <zerocopy/detail/handle.hpp>      // error reports, waiting
#include <zerocopy/fd.hpp>                 // OwnedFd, BorrowedFd

#include <netinet/in.h>   // IPPROTO_TCP
#include <netinet/tcp.h>  // TCP_CORK, TCP_NODELAY
#include <netinet/udp.h>  // UDP_CORK
#include <sys/socket.h>   // socket, connect
#include <sys/time.h>     // timeval

#include <chrono>        // time limits
#include <climits>       // INT_MAX
#include <cstddef>       // std::byte
#include <cstdint>       // std::uint16_t
#include <optional>      // no time limit
#include <span>          // payloads
#include <string>        // hosts, paths
#include <system_error>  // std::error_code
#include <utility>       // std::pair

namespace zerocopy::inline ZEROCOPY_ABI {

/// What a socket carries: bytes without borders, single messages, or messages in order over a connection.
enum class SocketType : std::uint8_t { stream, datagram, seqpacket };

/// A family of addresses. `any`: whichever the name has; as an answer, one that is not in this list.
enum class Family : std::uint8_t { any, ipv4, ipv6, unix_domain };

/// The direction that `Socket::shutdown` ends.
enum class Shutdown : std::uint8_t { read, write, both };

/// How a socket is connected.
struct ConnectOptions {
  SocketType type = SocketType::stream;
  Family family = Family::any;                                     ///< of the addresses to try; not for AF_UNIX
  std::optional<std::chrono::nanoseconds> timeout = std::nullopt;  ///< for all addresses together, look-up not counted
  bool no_delay = false;                                           ///< TCP_NODELAY
};

/// How a socket is bound by `Socket::bind`.
struct BindOptions {
  SocketType type = SocketType::datagram;
  Family family = Family::any;  ///< of the addresses to try; not for AF_UNIX
  bool reuse_address = false;   ///< SO_REUSEADDR
  bool reuse_port = false;      ///< SO_REUSEPORT
};

namespace detail {

inline int number(SocketType type) noexcept {
  return type == SocketType::stream ? SOCK_STREAM : type == SocketType::datagram ? SOCK_DGRAM : SOCK_SEQPACKET;
}
inline int number(Family family) noexcept {
  return family == Family::ipv4   ? AF_INET
         : family == Family::ipv6 ? AF_INET6
         : family == Family::any  ? AF_UNSPEC
                                  : AF_UNIX;
}

inline void set_socket_option(int fd, int level, int name, int value, std::error_code& ec) noexcept {
  checked(::setsockopt(fd, level, name, &value, sizeof(value)), ec);
}
inline int socket_option(int fd, int level, int name, std::error_code& ec) noexcept {
  int value = 0;
  socklen_t size = sizeof(value);
  checked(::getsockopt(fd, level, name, &value, &size), ec);
  return value;
}

inline OwnedFd new_socket(int family, SocketType type, int protocol, std::error_code& ec) noexcept {
  return OwnedFd(checked(::socket(family, number(type) | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol), ec));
}

// Connects an Internet socket, waiting by poll where it is non-blocking. A connect that a signal interrupted goes on
// in the kernel; SO_ERROR tells how it ended.
inline void connect_and_wait(int fd, const sockaddr* address, socklen_t size, Deadline deadline,
                             std::error_code& ec) noexcept {
  checked(::connect(fd, address, size), ec);
  if (ec.value() != EINPROGRESS && ec.value() != EINTR) return;
  for (;;) {
    pollfd state{fd, POLLOUT, 0};
    if (::poll(&state, 1, 0) > 0) break;
    if (!wait_to_retry(fd, POLLOUT, deadline, ec)) return;
  }
  const int result = socket_option(fd, SOL_SOCKET, SO_ERROR, ec);
  if (!ec && result != 0) ec = system_error_code(result);
}

// Connects an AF_UNIX socket. poll can't wait for room in a listener's queue (connect gives EAGAIN, unix(7)), so the
// kernel waits, with SO_SNDTIMEO as the limit; both flags are put back.
inline void connect_unix_and_wait(int fd, const Address& address, Deadline deadline, std::error_code& ec) noexcept {
  checked(uninterrupted([&] { return ::connect(fd, address.get(), address.size); }), ec);
  if (ec.value() != EAGAIN) return;
  const int flags = ::fcntl(fd, F_GETFL);
  ::fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
  timeval before{};
  socklen_t before_size = sizeof(before);
  ::getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &before, &before_size);
  do {
    using std::chrono::duration_cast, std::chrono::microseconds, std::chrono::nanoseconds;
    timeval limit{};  // zero: none
    if (const auto left = time_left(deadline)) {
      if (*left == nanoseconds::zero()) {
        ec = Errc::timed_out;
        break;
      }
      const auto us = std::max<microseconds>(duration_cast<microseconds>(*left), microseconds(1)).count();
      limit.tv_sec = static_cast<time_t>(us / 1'000'000);
      limit.tv_usec = static_cast<suseconds_t>(us % 1'000'000);
    }
    ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    checked(::connect(fd, address.get(), address.size), ec);
  } while (ec.value() == EINTR || ec.value() == EAGAIN);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &before, sizeof(before));
  ::fcntl(fd, F_SETFL, flags);
}

// Runs `use(fd, address, ec)` on a new socket for each address of `host` until one works; the error of the last.
template <class Use>
OwnedFd first_that_works(const std::string& host, std::uint16_t port, Family family, SocketType type, bool to_bind,
                         std::error_code& ec, Use use) {
  if (type == SocketType::seqpacket) return ec = system_error_code(EPROTONOSUPPORT), OwnedFd();
  if (family == Family::unix_domain) return ec = system_error_code(EAFNOSUPPORT), OwnedFd();
  const Addresses list = look_up(host, port, number(family), number(type), to_bind, ec);
  if (ec) return {};
  for (const addrinfo* one = list.get(); one != nullptr; one = one->ai_next) {
    OwnedFd fd = new_socket(one->ai_family, type, one->ai_protocol, ec);
    if (!ec) use(fd.get(), *one, ec);
    if (!ec) return fd;
    if (ec == Errc::timed_out) break;
  }
  return {};
}

inline std::string with_port(const std::string& host, std::uint16_t port) {
  return "'" + host + "' port " + std::to_string(port);
}

inline Address socket_address(int fd, int (*ask)(int, sockaddr*, socklen_t*), std::error_code& ec) noexcept {
  Address address;
  address.size = sizeof(address.storage);
  checked(ask(fd, address.get(), &address.size), ec);
  return address;
}

}  // namespace detail

/// Holds small packets back while it lives, so that several sends leave together; puts the option back as it was.
/// Made by `Socket::cork()`; the Socket must outlive it. Ending it sends what is held.
/// Thread safety: distinct objects are independent; two corks of one socket must end in reverse order.
class [[nodiscard]] Cork {
 public:
  Cork(Cork&& other) noexcept
      : fd_(std::exchange(other.fd_, BorrowedFd(-1))), level_(other.level_), option_(other.option_) {}
  Cork& operator=(Cork&& other) noexcept {
    if (this == &other) return *this;
    uncork();
    fd_ = std::exchange(other.fd_, BorrowedFd(-1));
    level_ = other.level_;
    option_ = other.option_;
    return *this;
  }
  ~Cork() { uncork(); }

  /// Puts the option back now. Never fails: an error would mean that the socket is gone.
  void uncork() noexcept {
    if (!fd_) return;
    std::error_code ignored;
    detail::set_socket_option(fd_.get(), level_, option_, 0, ignored);
    fd_ = BorrowedFd(-1);
  }

 private:
  friend class Socket;
  Cork() noexcept = default;  // holds nothing: not that kind of socket, or corked before

  BorrowedFd fd_{-1};
  int level_ = 0;
  int option_ = 0;
};

/// A descriptor that arrived, and how many bytes came with it.
struct ReceivedFd {
  OwnedFd fd{};
  std::size_t bytes = 0;
};

/// A socket. As a source or a sink it is the connection; messages stay messages.
/// Every function that can fail has a twin with a trailing `std::error_code&`, which reports there instead of throwing
/// std::system_error; a factory's twin then returns an empty Socket.
/// Thread safety: distinct objects are independent; one object as the kernel's descriptor.
class Socket {
 public:
  /// Takes a socket over as it is, O_NONBLOCK or not, and asks once of which type it is. If it can't be asked the type
  /// is `stream`, and the first call that uses it fails.
  explicit Socket(OwnedFd fd) noexcept : fd_(std::move(fd)) {
    std::error_code ec;
    const int type = fd_ ? detail::socket_option(fd_.get(), SOL_SOCKET, SO_TYPE, ec) : SOCK_STREAM;
    if (ec || type == SOCK_STREAM) return;
    type_ = type == SOCK_SEQPACKET ? SocketType::seqpacket : SocketType::datagram;
  }
  /// The same where the type is known; it is believed.
  Socket(OwnedFd fd, SocketType type) noexcept : fd_(std::move(fd)), type_(type) {}

  /// Connects to `host` (a name, an IPv4 or an IPv6 address; empty: this machine), trying every address in order.
  /// Errors: `resolver_category()` where the name can't be looked up; else that of the last address:
  /// `connection_refused`, `network_unreachable`, `timed_out` (also Errc::timed_out, from `options.timeout`);
  /// `protocol_not_supported` (seqpacket), `address_family_not_supported`.
  /// Blocking: getaddrinfo(3), then until connected or timed out; without `timeout` as long as the kernel tries.
  [[nodiscard]] static Socket connect(const std::string& host, std::uint16_t port, ConnectOptions options = {}) {
    return detail::or_throw([&](std::error_code& ec) { return connect(host, port, options, ec); },
                            [&] { return "connect to " + detail::with_port(host, port); });
  }
  [[nodiscard]] static Socket connect(const std::string& host, std::uint16_t port, std::error_code& ec) {
    return connect(host, port, ConnectOptions{}, ec);
  }
  [[nodiscard]] static Socket connect(const std::string& host, std::uint16_t port, ConnectOptions options,
                                      std::error_code& ec) {
    detail::Deadline deadline;
    bool started = false;
    const auto use = [&](int fd, const addrinfo& address, std::error_code& error) {
      if (!std::exchange(started, true)) deadline = detail::deadline_after(options.timeout);
      if (options.no_delay && options.type == SocketType::stream)
        detail::set_socket_option(fd, IPPROTO_TCP, TCP_NODELAY, 1, error);
      if (!error) detail::connect_and_wait(fd, address.ai_addr, address.ai_addrlen, deadline, error);
    };
    return Socket(detail::first_that_works(host, port, options.family, options.type, false, ec, use), options.type);
  }

  /// Connects to an AF_UNIX socket (unix(7)); a leading '@' or NUL means the abstract namespace. `family` and
  /// `no_delay` are not looked at. Errors: `no_such_file_or_directory`, `connection_refused` (nobody listens),
  /// `wrong_protocol_type` (a path of another SocketType), `filename_too_long` (107 bytes; 108 with the '@'),
  /// Errc::timed_out; `invalid_argument` for an empty path or a NUL inside.
  /// Blocking: while the listener's queue is full, until `options.timeout`.
  [[nodiscard]] static Socket connect_unix(const std::string& path, ConnectOptions options = {}) {
    return detail::or_throw([&](std::error_code& ec) { return connect_unix(path, options, ec); },
                            [&] { return "connect to '" + path + "'"; });
  }
  [[nodiscard]] static Socket connect_unix(const std::string& path, std::error_code& ec) {
    return connect_unix(path, ConnectOptions{}, ec);
  }
  [[nodiscard]] static Socket connect_unix(const std::string& path, ConnectOptions options, std::error_code& ec) {
    const detail::Address address = detail::unix_address(path, ec);
    OwnedFd fd;
    if (!ec) fd = detail::new_socket(AF_UNIX, options.type, 0, ec);
    if (!ec) detail::connect_unix_and_wait(fd.get(), address, detail::deadline_after(options.timeout), ec);
    return Socket(ec ? OwnedFd() : std::move(fd), options.type);
  }

  /// A socket bound to `host` (empty: every interface) and `port` (0: the kernel picks, see `local_port`), connected to
  /// nobody: a UDP socket that receives, or that `connect_to` gives a peer.
  /// Errors: as `connect`; `address_in_use`, `address_not_available`, `permission_denied`. Blocking: getaddrinfo(3).
  [[nodiscard]] static Socket bind(const std::string& host, std::uint16_t port, BindOptions options = {}) {
    return detail::or_throw([&](std::error_code& ec) { return bind(host, port, options, ec); },
                            [&] { return "bind to " + detail::with_port(host, port); });
  }
  [[nodiscard]] static Socket bind(const std::string& host, std::uint16_t port, std::error_code& ec) {
    return bind(host, port, BindOptions{}, ec);
  }
  [[nodiscard]] static Socket bind(const std::string& host, std::uint16_t port, BindOptions options,
                                   std::error_code& ec) {
    const auto use = [&](int fd, const addrinfo& address, std::error_code& error) {
      if (options.reuse_address) detail::set_socket_option(fd, SOL_SOCKET, SO_REUSEADDR, 1, error);
      if (!error && options.reuse_port) detail::set_socket_option(fd, SOL_SOCKET, SO_REUSEPORT, 1, error);
      if (!error) detail::checked(::bind(fd, address.ai_addr, address.ai_addrlen), error);
    };
    return Socket(detail::first_that_works(host, port, options.family, options.type, true, ec, use), options.type);
  }

  /// An AF_UNIX socket bound to `path`, as in `connect_unix`; the file stays when the socket closes.
  /// Errors: as there; `address_in_use` (the file exists), `permission_denied`.
  [[nodiscard]] static Socket bind_unix(const std::string& path, BindOptions options = {}) {
    return detail::or_throw([&](std::error_code& ec) { return bind_unix(path, options, ec); },
                            [&] { return "bind to '" + path + "'"; });
  }
  [[nodiscard]] static Socket bind_unix(const std::string& path, std::error_code& ec) {
    return bind_unix(path, BindOptions{}, ec);
  }
  [[nodiscard]] static Socket bind_unix(const std::string& path, BindOptions options, std::error_code& ec) {
    const detail::Address address = detail::unix_address(path, ec);
    OwnedFd fd;
    if (!ec) fd = detail::new_socket(AF_UNIX, options.type, 0, ec);
    if (!ec) detail::checked(::bind(fd.get(), address.get(), address.size), ec);
    return Socket(ec ? OwnedFd() : std::move(fd), options.type);
  }

  /// Two AF_UNIX sockets, connected to each other (socketpair(2)).
  /// Errors: `too_many_files_open`, `too_many_files_open_in_system`.
  [[nodiscard]] static std::pair<Socket, Socket> pair(SocketType type = SocketType::stream) {
    return detail::or_throw([&](std::error_code& ec) { return pair(type, ec); }, [] { return "make a socket pair"; });
  }
  [[nodiscard]] static std::pair<Socket, Socket> pair(std::error_code& ec) noexcept {
    return pair(SocketType::stream, ec);
  }
  [[nodiscard]] static std::pair<Socket, Socket> pair(SocketType type, std::error_code& ec) noexcept {
    int ends[2] = {-1, -1};
    detail::checked(::socketpair(AF_UNIX, detail::number(type) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), ec);
    return {Socket(OwnedFd(ends[0]), type), Socket(OwnedFd(ends[1]), type)};
  }

  /// Gives a bound socket its peer: what is sent goes there, and a datagram from elsewhere is not received
  /// (connect(2)). Errors and blocking: as `connect`, with `timeout` none; only addresses of this socket's family.
  void connect_to(const std::string& host, std::uint16_t port) {
    detail::or_throw([&](std::error_code& ec) { connect_to(host, port, ec); },
                     [&] { return what("connect") + " to " + detail::with_port(host, port); });
  }
  void connect_to(const std::string& host, std::uint16_t port, std::error_code& ec) {
    const int family = detail::socket_option(fd_.get(), SOL_SOCKET, SO_DOMAIN, ec);
    if (ec) return;
    const detail::Addresses list = detail::look_up(host, port, family, detail::number(type_), false, ec);
    for (const addrinfo* one = list.get(); one != nullptr; one = one->ai_next) {
      detail::connect_and_wait(fd_.get(), one->ai_addr, one->ai_addrlen, std::nullopt, ec);
      if (!ec) return;
    }
  }
  /// The same for an AF_UNIX socket. Errors and blocking: as `connect_unix`.
  void connect_to_unix(const std::string& path) {
    detail::or_throw([&](std::error_code& ec) { connect_to_unix(path, ec); },
                     [&] { return what("connect") + " to '" + path + "'"; });
  }
  void connect_to_unix(const std::string& path, std::error_code& ec) {
    const detail::Address address = detail::unix_address(path, ec);
    if (!ec) detail::connect_unix_and_wait(fd_.get(), address, std::nullopt, ec);
  }

  [[nodiscard]] BorrowedFd as_fd() const& noexcept { return fd_.as_fd(); }
  BorrowedFd as_fd() const&& = delete;  // would borrow from a temporary

  /// Gives the descriptor up without closing it.
  [[nodiscard]] OwnedFd release() && noexcept { return std::move(fd_); }

  [[nodiscard]] SocketType type() const noexcept { return type_; }

  /// The family of the socket's addresses (SO_DOMAIN); `Family::any` if it is another one, or not a socket.
  [[nodiscard]] Family family() const noexcept {
    std::error_code ec;
    const int number = detail::socket_option(fd_.get(), SOL_SOCKET, SO_DOMAIN, ec);
    if (ec) return Family::any;
    return number == AF_INET    ? Family::ipv4
           : number == AF_INET6 ? Family::ipv6
           : number == AF_UNIX  ? Family::unix_domain
                                : Family::any;
  }

  /// Ends one direction or both (shutdown(2)): after `write` the peer sees the end behind the last byte.
  /// Errors: `not_connected`, `bad_file_descriptor`, `not_a_socket`.
  void shutdown(Shutdown how = Shutdown::write) {
    detail::or_throw([&](std::error_code& ec) { shutdown(how, ec); }, [&] { return what("shut down"); });
  }
  void shutdown(std::error_code& ec) noexcept { shutdown(Shutdown::write, ec); }
  void shutdown(Shutdown how, std::error_code& ec) noexcept {
    const int number = how == Shutdown::read ? SHUT_RD : how == Shutdown::write ? SHUT_WR : SHUT_RDWR;
    detail::checked(::shutdown(fd_.get(), number), ec);
  }

  /// Sets or clears O_NONBLOCK (fcntl(2)); descriptors made by dup or fork, or passed on, change too.
  void set_blocking(bool blocking) {
    detail::or_throw([&](std::error_code& ec) { set_blocking(blocking, ec); },
                     [&] { return what("set O_NONBLOCK of"); });
  }
  void set_blocking(bool blocking, std::error_code& ec) noexcept { detail::set_blocking(fd_.get(), blocking, ec); }

  /// The port that the socket is bound to, 0 if none or AF_UNIX (getsockname(2)). Errors: `not_a_socket`.
  [[nodiscard]] std::uint16_t local_port() const {
    return detail::or_throw([&](std::error_code& ec) { return local_port(ec); }, [&] { return what("port of"); });
  }
  [[nodiscard]] std::uint16_t local_port(std::error_code& ec) const noexcept {
    const detail::Address address = detail::socket_address(fd_.get(), &::getsockname, ec);
    return ec ? std::uint16_t{0} : detail::port_of(address);
  }

  /// The socket's own address and its peer's as text: "127.0.0.1:80", "[::1]:80", "/path", "@abstract"; empty for an
  /// AF_UNIX socket without a name. Errors: `not_connected` (peer), `not_a_socket`.
  [[nodiscard]] std::string local_address() const {
    return detail::or_throw([&](std::error_code& ec) { return local_address(ec); }, [&] { return what("address of"); });
  }
  [[nodiscard]] std::string local_address(std::error_code& ec) const {
    const detail::Address address = detail::socket_address(fd_.get(), &::getsockname, ec);
    return ec ? std::string() : detail::to_string(address);
  }
  [[nodiscard]] std::string peer_address() const {
    return detail::or_throw([&](std::error_code& ec) { return peer_address(ec); },
                            [&] { return what("address of the peer of"); });
  }
  [[nodiscard]] std::string peer_address(std::error_code& ec) const {
    const detail::Address address = detail::socket_address(fd_.get(), &::getpeername, ec);
    return ec ? std::string() : detail::to_string(address);
  }

  /// Holds partial packets back until the Cork ends: TCP_CORK (tcp(7); at most 200 ms); with UDP all that is sent
  /// becomes one datagram (UDP_CORK, udp(7)). An AF_UNIX socket, or one that is corked already, is left as it is.
  /// Errors: `not_a_socket`, `bad_file_descriptor`.
  [[nodiscard]] Cork cork() & {
    return detail::or_throw([&](std::error_code& ec) { return cork(ec); }, [&] { return what("cork"); });
  }
  [[nodiscard]] Cork cork(std::error_code& ec) & noexcept {
    Cork cork;
    const int family = detail::socket_option(fd_.get(), SOL_SOCKET, SO_DOMAIN, ec);
    if (ec || (family != AF_INET && family != AF_INET6) || type_ == SocketType::seqpacket) return cork;
    cork.level_ = type_ == SocketType::stream ? IPPROTO_TCP : IPPROTO_UDP;
    cork.option_ = type_ == SocketType::stream ? TCP_CORK : UDP_CORK;
    const bool corked = detail::socket_option(fd_.get(), cork.level_, cork.option_, ec) != 0;
    if (ec || corked) return cork;
    detail::set_socket_option(fd_.get(), cork.level_, cork.option_, 1, ec);
    if (!ec) cork.fd_ = as_fd();
    return cork;
  }
  Cork cork() && = delete;  // would cork a temporary
  Cork cork(std::error_code& ec) && = delete;

  /// Sends at once what is written, instead of waiting for more while bytes are unacknowledged (TCP_NODELAY, tcp(7)).
  /// Errors: `operation_not_supported` or `no_protocol_option` on another kind of socket.
  void set_no_delay(bool on) {
    detail::or_throw([&](std::error_code& ec) { set_no_delay(on, ec); }, [&] { return what("set TCP_NODELAY of"); });
  }
  void set_no_delay(bool on, std::error_code& ec) noexcept {
    detail::set_socket_option(fd_.get(), IPPROTO_TCP, TCP_NODELAY, on ? 1 : 0, ec);
  }

  /// Asks for a buffer of `bytes` and returns what the kernel really gave (SO_SNDBUF and SO_RCVBUF, socket(7)): it
  /// doubles the number for its own needs, within bounds. Errors: `not_a_socket`.
  std::size_t set_send_buffer(std::size_t bytes) {
    return detail::or_throw([&](std::error_code& ec) { return set_send_buffer(bytes, ec); },
                            [&] { return what("set the send buffer of"); });
  }
  std::size_t set_send_buffer(std::size_t bytes, std::error_code& ec) noexcept {
    return set_buffer(SO_SNDBUF, bytes, ec);
  }
  std::size_t set_receive_buffer(std::size_t bytes) {
    return detail::or_throw([&](std::error_code& ec) { return set_receive_buffer(bytes, ec); },
                            [&] { return what("set the receive buffer of"); });
  }
  std::size_t set_receive_buffer(std::size_t bytes, std::error_code& ec) noexcept {
    return set_buffer(SO_RCVBUF, bytes, ec);
  }

  /// Passes a copy of `fd` to the peer of an AF_UNIX socket, with `payload`; an empty one is sent as one zero byte
  /// (SCM_RIGHTS, unix(7)). The caller keeps its own descriptor and may close it.
  /// Errors: `operation_not_supported` (not AF_UNIX), `bad_file_descriptor`, `broken_pipe`, `not_connected`,
  /// `message_size`; ETOOMANYREFS (more descriptors under way than RLIMIT_NOFILE). A long payload on a stream can be
  /// sent in part when the error comes; the descriptor went with its first byte.
  /// Blocking: polls until all is sent, on a non-blocking socket too.
  void send_fd(BorrowedFd fd, std::span<const std::byte> payload = {}) {
    detail::or_throw([&](std::error_code& ec) { send_fd(fd, payload, ec); },
                     [&] { return what("send a descriptor through"); });
  }
  void send_fd(BorrowedFd fd, std::error_code& ec) noexcept { send_fd(fd, {}, ec); }
  void send_fd(BorrowedFd fd, std::span<const std::byte> payload, std::error_code& ec) noexcept {
    send_until(fd, payload, std::nullopt, ec);
  }
  /// The same within `timeout`, tried at least once; returns how many bytes of `payload` were sent, on errors too.
  /// Errors: as above; Errc::timed_out. A message, and the zero byte, is then not sent at all, nor is the descriptor. A
  /// payload on a stream can have gone in part: after 0 bytes the descriptor has not gone either and the call can be
  /// made again; after more it has gone, and `payload.subspan(sent)` must follow as plain bytes. Only the twin with an
  /// error_code tells which. Blocking: polls for at most `timeout`.
  void send_fd(BorrowedFd fd, detail::time_limit auto timeout) {
    detail::or_throw([&](std::error_code& ec) { send_fd(fd, timeout, ec); },
                     [&] { return what("send a descriptor through"); });
  }
  void send_fd(BorrowedFd fd, detail::time_limit auto timeout, std::error_code& ec) noexcept {
    send_until(fd, {}, detail::deadline_after(timeout), ec);
  }
  std::size_t send_fd(BorrowedFd fd, std::span<const std::byte> payload, std::chrono::nanoseconds timeout) {
    return detail::or_throw([&](std::error_code& ec) { return send_fd(fd, payload, timeout, ec); },
                            [&] { return what("send a descriptor through"); });
  }
  std::size_t send_fd(BorrowedFd fd, std::span<const std::byte> payload, std::chrono::nanoseconds timeout,
                      std::error_code& ec) noexcept {
    return send_until(fd, payload, detail::deadline_after(timeout), ec);
  }

  /// Takes the next descriptor that the peer sent, close-on-exec, and drops the payload: its first byte on a stream
  /// (what follows stays to be read), the whole message otherwise. Descriptors beyond the first are closed.
  /// Errors: `no_message` (bytes without a descriptor: they stay unread), `connection_reset` (the peer closed, or
  /// reading was shut down), `too_many_files_open` (no number free for it; the message is gone),
  /// `operation_not_supported` (not AF_UNIX). Blocking: polls until something arrives, on a non-blocking socket too.
  /// Thread safety: one receiver at a time, or the bytes that came without a descriptor can be lost.
  [[nodiscard]] OwnedFd receive_fd() {
    return detail::or_throw([&](std::error_code& ec) { return receive_fd(ec); },
                            [&] { return what("receive a descriptor through"); });
  }
  [[nodiscard]] OwnedFd receive_fd(std::error_code& ec) noexcept { return receive_until({}, std::nullopt, ec).fd; }
  /// The same, and up to `payload.size()` bytes that came with it. Errors: as above; `message_size` if a message is
  /// longer than `payload` (it is gone, and its descriptor closed).
  [[nodiscard]] ReceivedFd receive_fd(std::span<std::byte> payload) {
    return detail::or_throw([&](std::error_code& ec) { return receive_fd(payload, ec); },
                            [&] { return what("receive a descriptor through"); });
  }
  [[nodiscard]] ReceivedFd receive_fd(std::span<std::byte> payload, std::error_code& ec) noexcept {
    return receive_until(payload, std::nullopt, ec);
  }
  /// The same within `timeout`, tried at least once. Errors: as above; Errc::timed_out: nothing was taken, what comes
  /// later waits for the next call. Blocking: polls for at most `timeout`.
  [[nodiscard]] OwnedFd receive_fd(detail::time_limit auto timeout) {
    return detail::or_throw([&](std::error_code& ec) { return receive_fd(timeout, ec); },
                            [&] { return what("receive a descriptor through"); });
  }
  [[nodiscard]] OwnedFd receive_fd(detail::time_limit auto timeout, std::error_code& ec) noexcept {
    return receive_until({}, detail::deadline_after(timeout), ec).fd;
  }
  [[nodiscard]] ReceivedFd receive_fd(std::span<std::byte> payload, std::chrono::nanoseconds timeout) {
    return detail::or_throw([&](std::error_code& ec) { return receive_fd(payload, timeout, ec); },
                            [&] { return what("receive a descriptor through"); });
  }
  [[nodiscard]] ReceivedFd receive_fd(std::span<std::byte> payload, std::chrono::nanoseconds timeout,
                                      std::error_code& ec) noexcept {
    return receive_until(payload, detail::deadline_after(timeout), ec);
  }

 private:
  std::string what(const char* tried) const { return detail::on_descriptor(tried, fd_.get()); }

  std::size_t set_buffer(int option, std::size_t bytes, std::error_code& ec) noexcept {
    const int wanted = static_cast<int>(std::min(bytes, std::size_t{INT_MAX}));
    detail::set_socket_option(fd_.get(), SOL_SOCKET, option, wanted, ec);
    if (ec) return 0;
    return static_cast<std::size_t>(detail::socket_option(fd_.get(), SOL_SOCKET, option, ec));
  }

  // TCP would take the bytes and leave the descriptor out without a word.
  bool carries_descriptors(std::error_code& ec) const noexcept {
    const int family = detail::socket_option(fd_.get(), SOL_SOCKET, SO_DOMAIN, ec);
    if (!ec && family != AF_UNIX) ec = detail::system_error_code(EOPNOTSUPP);
    return !ec;
  }

  std::size_t send_until(BorrowedFd fd, std::span<const std::byte> payload, detail::Deadline deadline,
                         std::error_code& ec) const noexcept {
    if (!carries_descriptors(ec)) return 0;
    return detail::FdPassing(fd_.get(), detail::number(type_), deadline).send(fd.get(), payload, ec);
  }

  ReceivedFd receive_until(std::span<std::byte> payload, detail::Deadline deadline,
                           std::error_code& ec) const noexcept {
    ReceivedFd result;
    if (!carries_descriptors(ec)) return result;
    result.fd = detail::FdPassing(fd_.get(), detail::number(type_), deadline).receive(payload, result.bytes, ec);
    return result;
  }

  OwnedFd fd_;
  SocketType type_ = SocketType::stream;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI
