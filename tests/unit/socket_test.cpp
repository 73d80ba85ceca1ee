#include <zerocopy/socket.hpp>

#include <zerocopy/file.hpp>
#include <zerocopy/listener.hpp>
#include <zerocopy/memory_file.hpp>

#include "catch.hpp"
#include "handle_checks.hpp"

#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <span>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace zc = zerocopy;
using namespace std::chrono_literals;
using checks::bytes_of, checks::put, checks::stale, checks::take, checks::thrown_by;

namespace {
template <class T>
concept lends_a_descriptor = requires(T t) { std::forward<T>(t).as_fd(); };
template <class T>
concept can_be_corked = requires(T t) { std::forward<T>(t).cork(); };

int number(const zc::Socket& socket) { return socket.as_fd().get(); }

// Whether something arrives; waits at most 5 s for it.
bool readable(const zc::Socket& socket, int ms = 5000) {
  pollfd state{number(socket), POLLIN, 0};
  return ::poll(&state, 1, ms) == 1;
}
std::string receive(const zc::Socket& socket) { return readable(socket) ? take(number(socket)) : "(nothing came)"; }

int option(const zc::Socket& socket, int level, int name) {
  int value = -1;
  socklen_t size = sizeof(value);
  return ::getsockopt(number(socket), level, name, &value, &size) == 0 ? value : -errno;
}

bool has_ipv6() {
  std::error_code ec;
  (void)zc::Socket::bind("::1", 0, ec);
  if (ec) WARN("skipped: no ::1 here: " << ec.message());
  return !ec;
}

// Two TCP sockets, connected to each other.
std::pair<zc::Socket, zc::Socket> tcp_pair() {
  auto listener = zc::Listener::bind("127.0.0.1", 0);
  auto client = zc::Socket::connect("127.0.0.1", listener.port());
  return {std::move(client), listener.accept(5s)};
}

std::string unique_name(const char* what) {
  static int count = 0;
  return std::string("@zerocopy-test-") + what + "-" + std::to_string(::getpid()) + "-" + std::to_string(++count);
}

std::size_t open_descriptors() {
  const zc::OwnedFd probe(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  std::size_t count = 0;
  for (int fd = 0; fd < 1024; ++fd) count += checks::is_open(fd) ? 1 : 0;
  return count - 1;
}

// sendmsg with several descriptors, which the library never does.
bool send_descriptors(int through, const std::vector<int>& descriptors, std::string_view payload) {
  std::vector<std::byte> control(CMSG_SPACE(descriptors.size() * sizeof(int)));
  iovec part{const_cast<char*>(payload.data()), payload.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
  std::memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size() * sizeof(int));
  return ::sendmsg(through, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(payload.size());
}

constexpr zc::SocketType every_type[] = {zc::SocketType::stream, zc::SocketType::datagram, zc::SocketType::seqpacket};

std::chrono::nanoseconds cpu_time() {
  timespec used{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  return std::chrono::seconds(used.tv_sec) + std::chrono::nanoseconds(used.tv_nsec);
}

// That `call` takes `limit`, at most 100 ms more, and waits instead of spinning.
template <class Call>
void keeps_to(std::chrono::milliseconds limit, Call call) {
  const auto start = std::chrono::steady_clock::now();
  const auto used = cpu_time();
  call();
  const auto took = std::chrono::steady_clock::now() - start;
  CHECK(took >= limit);
  CHECK(took < limit + 100ms);
  CHECK(cpu_time() - used < 20ms);
}

// Waits as long as it says, without a reason.
void pass(int ms) {
  pollfd nothing{-1, 0, 0};
  ::poll(&nothing, 1, ms);
}

// Sends 100 bytes at a time until no more go; how many went.
std::size_t fill(const zc::Socket& socket) {
  const std::string block(100, 'f');
  std::size_t sent = 0;
  for (ssize_t n; (n = ::send(number(socket), block.data(), block.size(), MSG_DONTWAIT | MSG_NOSIGNAL)) > 0;) {
    sent += static_cast<std::size_t>(n);
  }
  return sent;
}
std::size_t drain(const zc::Socket& socket) {
  std::size_t received = 0;
  for (std::string some; !(some = take(number(socket))).empty();) received += some.size();
  return received;
}

// Whether anything, a message under way too, still holds the other end of this pipe open.
bool is_held(const zc::OwnedFd& reader) {
  pollfd state{reader.get(), POLLIN, 0};
  return ::poll(&state, 1, 0) == 0;
}
std::pair<zc::OwnedFd, zc::OwnedFd> pipe_ends() {
  int ends[2] = {-1, -1};
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  return {zc::OwnedFd(ends[0]), zc::OwnedFd(ends[1])};
}
}  // namespace

TEST_CASE("A TCP socket over IPv4 connects, non-blocking and close-on-exec, and carries bytes", "[socket]") {
  auto listener = zc::Listener::bind("127.0.0.1", 0);
  const auto client = zc::Socket::connect("127.0.0.1", listener.port(), {.timeout = 5s, .no_delay = true});
  const auto server = listener.accept(5s);
  for (const auto* socket : {&client, &server}) {
    CHECK(checks::is_non_blocking(number(*socket)));
    CHECK(checks::closes_on_exec(number(*socket)));
    CHECK(socket->type() == zc::SocketType::stream);
    CHECK(socket->family() == zc::Family::ipv4);
  }
  CHECK(option(client, IPPROTO_TCP, TCP_NODELAY) == 1);
  CHECK(put(number(client), "ping"));
  CHECK(receive(server) == "ping");
  CHECK(put(number(server), "pong"));
  CHECK(receive(client) == "pong");
  CHECK(client.peer_address() == "127.0.0.1:" + std::to_string(listener.port()));
  CHECK(server.local_address() == client.peer_address());
  CHECK(server.peer_address() == client.local_address());
  CHECK(server.peer_address() == "127.0.0.1:" + std::to_string(client.local_port()));
}

TEST_CASE("A TCP socket over IPv6 connects and carries bytes", "[socket]") {
  if (!has_ipv6()) return;
  auto listener = zc::Listener::bind("::1", 0);
  const auto client = zc::Socket::connect("::1", listener.port());
  const auto server = listener.accept(5s);
  CHECK(client.family() == zc::Family::ipv6);
  CHECK(client.peer_address() == "[::1]:" + std::to_string(listener.port()));
  CHECK(put(number(client), "six"));
  CHECK(receive(server) == "six");
}

TEST_CASE("A name is looked up, and the family can be chosen", "[socket]") {
  std::error_code unknown;
  auto listener = zc::Listener::bind("localhost", 0, {.family = zc::Family::ipv4}, unknown);
  if (unknown) {  // a bare root file system has no /etc/hosts
    WARN("skipped: localhost can't be looked up here: " << unknown.message());
    return;
  }
  const auto client = zc::Socket::connect("localhost", listener.port());  // tries ::1 too
  CHECK(client.family() == zc::Family::ipv4);
  const auto chosen = zc::Socket::connect("localhost", listener.port(), {.family = zc::Family::ipv4});
  CHECK(chosen.family() == zc::Family::ipv4);
  const auto here = zc::Socket::connect("", listener.port());
  CHECK(here.family() == zc::Family::ipv4);
  std::error_code ec;
  (void)zc::Socket::connect("127.0.0.1", listener.port(), {.family = zc::Family::ipv6}, ec);
  CHECK(ec == std::errc::address_family_not_supported);
  (void)zc::Socket::connect("localhost", 1, {.family = zc::Family::unix_domain}, ec);
  CHECK(ec == std::errc::address_family_not_supported);
  (void)zc::Socket::connect("localhost", 1, {.type = zc::SocketType::seqpacket}, ec);
  CHECK(ec == std::errc::protocol_not_supported);
}

TEST_CASE("A refused connection says so, and names host and port", "[socket]") {
  const std::uint16_t port = zc::Listener::bind("127.0.0.1", 0).port();  // closed again
  const auto refused = thrown_by([&] { (void)zc::Socket::connect("127.0.0.1", port); });
  CHECK(refused.code == std::errc::connection_refused);
  CHECK(refused.says("connect to '127.0.0.1' port " + std::to_string(port)));
  std::error_code ec;
  const auto none = zc::Socket::connect("127.0.0.1", port, ec);
  CHECK(ec == std::errc::connection_refused);
  CHECK_FALSE(static_cast<bool>(none.as_fd()));
}

TEST_CASE("A name that does not resolve is a resolver error", "[socket]") {
  const auto unknown = thrown_by([] { (void)zc::Socket::connect("no-such-host.invalid", 80); });
  CHECK(unknown.code.category() == zc::resolver_category());
  CHECK((unknown.code == std::errc::host_unreachable || unknown.code.value() == EAI_AGAIN));  // no DNS server at all
  CHECK(unknown.says("'no-such-host.invalid' port 80"));
  std::error_code ec;
  (void)zc::Socket::bind("no-such-host.invalid", 0, ec);
  CHECK(ec.category() == zc::resolver_category());
  CHECK(std::string(ec.category().name()) == "zerocopy.resolver");
  (void)zc::Socket::connect(std::string("localhost\0x", 11), 80, ec);
  CHECK(ec == std::errc::invalid_argument);
}

TEST_CASE("Connecting to a queue that is full times out", "[socket]") {
  // Linux drops a SYN for a listener whose queue is full, so the client waits for an answer that does not come.
  auto listener = zc::Listener::bind("127.0.0.1", 0, {.backlog = 0});
  std::vector<zc::Socket> waiting;
  std::error_code ec;
  for (int i = 0; i < 4 && !ec; ++i) {
    waiting.push_back(zc::Socket::connect("127.0.0.1", listener.port(), {.timeout = 50ms}, ec));
  }
  REQUIRE(ec);
  CHECK(ec == zc::Errc::timed_out);
  CHECK(ec == std::errc::timed_out);
  const auto start = std::chrono::steady_clock::now();
  const auto late = thrown_by([&] { (void)zc::Socket::connect("127.0.0.1", listener.port(), {.timeout = 100ms}); });
  const auto took = std::chrono::steady_clock::now() - start;
  CHECK(late.code == zc::Errc::timed_out);
  CHECK(took >= 100ms);
  CHECK(took < 2s);
  (void)zc::Socket::connect("127.0.0.1", listener.port(), {.timeout = -1s}, ec);
  CHECK(ec == zc::Errc::timed_out);
}

TEST_CASE("A time limit that the clock can't hold is none", "[socket]") {
  auto listener = zc::Listener::bind("127.0.0.1", 0);
  const auto client = zc::Socket::connect("127.0.0.1", listener.port(), {.timeout = std::chrono::nanoseconds::max()});
  CHECK(static_cast<bool>(client.as_fd()));
}

TEST_CASE("UDP sockets find each other by bind and connect_to", "[socket]") {
  auto a = zc::Socket::bind("127.0.0.1", 0);
  const auto b = zc::Socket::connect("127.0.0.1", a.local_port(), {.type = zc::SocketType::datagram});
  CHECK(a.type() == zc::SocketType::datagram);
  CHECK(checks::is_non_blocking(number(a)));
  CHECK(checks::closes_on_exec(number(a)));
  a.connect_to("127.0.0.1", b.local_port());
  CHECK(put(number(a), "one"));
  CHECK(put(number(a), "two"));
  CHECK(receive(b) == "one");  // messages stay messages
  CHECK(receive(b) == "two");
  CHECK(put(number(b), "back"));
  CHECK(receive(a) == "back");
  std::error_code ec;
  a.connect_to("no-such-host.invalid", 1, ec);
  CHECK(ec.category() == zc::resolver_category());
  zc::Socket closed{zc::OwnedFd()};
  CHECK(thrown_by([&] { closed.connect_to("127.0.0.1", 1); }).code == std::errc::bad_file_descriptor);
}

TEST_CASE("UDP works over IPv6", "[socket]") {
  if (!has_ipv6()) return;
  auto a = zc::Socket::bind("::1", 0);
  CHECK(a.family() == zc::Family::ipv6);
  const auto b = zc::Socket::connect("::1", a.local_port(), {.type = zc::SocketType::datagram});
  CHECK(put(number(b), "six"));
  CHECK(receive(a) == "six");
  a.connect_to("::1", b.local_port());
  CHECK(put(number(a), "back"));
  CHECK(receive(b) == "back");
}

TEST_CASE("A port in use can't be bound again, unless it is shared", "[socket]") {
  const auto first = zc::Socket::bind("127.0.0.1", 0);
  const auto again = thrown_by([&] { (void)zc::Socket::bind("127.0.0.1", first.local_port()); });
  CHECK(again.code == std::errc::address_in_use);
  CHECK(again.says("bind to '127.0.0.1' port"));
  const auto shared = zc::Socket::bind("127.0.0.1", 0, {.reuse_port = true});
  CHECK(zc::Socket::bind("127.0.0.1", shared.local_port(), {.reuse_port = true}).local_port() == shared.local_port());
  std::error_code ec;
  (void)zc::Socket::bind("192.0.2.1", 0, ec);  // TEST-NET, nobody's
  CHECK(ec == std::errc::address_not_available);
  CHECK(zc::Socket::bind("", 0, {.family = zc::Family::ipv4}).local_address().starts_with("0.0.0.0:"));
  const auto stream = zc::Socket::bind("127.0.0.1", 0, {.type = zc::SocketType::stream, .reuse_address = true});
  CHECK(stream.type() == zc::SocketType::stream);
  CHECK(option(stream, SOL_SOCKET, SO_REUSEADDR) == 1);
}

TEST_CASE("AF_UNIX sockets of each type connect by path", "[socket]") {
  for (const auto type : {zc::SocketType::stream, zc::SocketType::seqpacket}) {
    checks::Directory dir;
    const std::string path = dir.file("socket");
    auto listener = zc::Listener::bind_unix(path, {.type = type});
    const auto client = zc::Socket::connect_unix(path, {.type = type});
    const auto server = listener.accept(5s);
    CHECK(client.type() == type);
    CHECK(server.type() == type);
    CHECK(zc::Socket(zc::OwnedFd(::dup(number(client)))).type() == type);
    CHECK(client.family() == zc::Family::unix_domain);
    CHECK(checks::is_non_blocking(number(client)));
    CHECK(checks::closes_on_exec(number(client)));
    CHECK(put(number(client), "uno"));
    CHECK(receive(server) == "uno");
    CHECK(client.peer_address() == path);
    CHECK(client.local_address().empty());
    CHECK(client.local_port() == 0);
  }
}

TEST_CASE("AF_UNIX datagram sockets bind and connect by path", "[socket]") {
  checks::Directory dir;
  const std::string path_a = dir.file("a");
  const std::string path_b = dir.file("b");
  auto a = zc::Socket::bind_unix(path_a);
  auto b = zc::Socket::bind_unix(path_b);
  CHECK(a.type() == zc::SocketType::datagram);
  CHECK(a.local_address() == path_a);
  a.connect_to_unix(path_b);
  std::error_code ec = stale();
  b.connect_to_unix(path_a, ec);
  CHECK_FALSE(ec);
  CHECK(put(number(a), "to b"));
  CHECK(receive(b) == "to b");
  const auto other = zc::Socket::connect_unix(path_b, {.type = zc::SocketType::datagram}, ec);
  CHECK(ec == std::errc::operation_not_permitted);  // b has its peer
  CHECK(thrown_by([&] { (void)zc::Socket::bind_unix(path_a); }).code == std::errc::address_in_use);
  CHECK(thrown_by([&] { a.connect_to_unix(dir.path() + "/none"); }).code == std::errc::no_such_file_or_directory);
}

TEST_CASE("A name in the abstract namespace begins with @ or NUL and is no file", "[socket]") {
  const std::string name = unique_name("abstract");
  auto listener = zc::Listener::bind_unix(name);
  std::string with_nul = name;
  with_nul.front() = '\0';
  const auto client = zc::Socket::connect_unix(with_nul);
  const auto server = listener.accept(5s);
  CHECK(put(number(client), "hidden"));
  CHECK(receive(server) == "hidden");
  CHECK(client.peer_address() == name);
  CHECK(::access(name.c_str(), F_OK) == -1);
  CHECK(thrown_by([&] { (void)zc::Listener::bind_unix(name); }).code == std::errc::address_in_use);
}

TEST_CASE("AF_UNIX paths that can't be are refused", "[socket]") {
  std::error_code ec;
  (void)zc::Socket::connect_unix("", ec);
  CHECK(ec == std::errc::invalid_argument);
  (void)zc::Socket::connect_unix(std::string("/tmp/a\0b", 8), ec);
  CHECK(ec == std::errc::invalid_argument);
  (void)zc::Socket::connect_unix("/tmp/" + std::string(103, 'x'), ec);  // 108: no room for the NUL
  CHECK(ec == std::errc::filename_too_long);
  (void)zc::Socket::connect_unix("/tmp/" + std::string(102, 'x'), ec);
  CHECK(ec == std::errc::no_such_file_or_directory);
  (void)zc::Socket::connect_unix("@" + std::string(107, 'x'), ec);
  CHECK(ec == std::errc::connection_refused);
  (void)zc::Socket::connect_unix("@" + std::string(108, 'x'), ec);
  CHECK(ec == std::errc::filename_too_long);
  const auto missing = thrown_by([] { (void)zc::Socket::connect_unix("/tmp/zerocopy-none"); });
  CHECK(missing.code == std::errc::no_such_file_or_directory);
  CHECK(missing.says("connect to '/tmp/zerocopy-none'"));

  checks::Directory dir;
  const std::string path = dir.file("stream");
  const auto listener = zc::Listener::bind_unix(path);
  (void)zc::Socket::connect_unix(path, {.type = zc::SocketType::seqpacket}, ec);
  CHECK(ec == std::errc::wrong_protocol_type);
  const std::string name = unique_name("type");
  const auto hidden = zc::Listener::bind_unix(name);
  (void)zc::Socket::connect_unix(name, {.type = zc::SocketType::seqpacket}, ec);
  CHECK(ec == std::errc::connection_refused);  // abstract names are kept apart by type
}

TEST_CASE("connect_unix waits for room in the listener's queue, as long as it may", "[socket]") {
  const std::string name = unique_name("queue");
  auto listener = zc::Listener::bind_unix(name, {.backlog = 0});
  std::error_code ec;
  std::vector<zc::Socket> waiting;
  for (int i = 0; i < 8 && !ec; ++i) waiting.push_back(zc::Socket::connect_unix(name, {.timeout = 20ms}, ec));
  CHECK(ec == zc::Errc::timed_out);
  (void)zc::Socket::connect_unix(name, {.timeout = 0s}, ec);
  CHECK(ec == zc::Errc::timed_out);

  std::thread accepts([&] {
    for (std::size_t i = 0; i < waiting.size(); ++i) {
      std::error_code ignored;
      (void)listener.accept(5s, ignored);
    }
  });
  const auto patient = zc::Socket::connect_unix(name, {.timeout = 5s}, ec);
  accepts.join();
  REQUIRE_FALSE(ec);
  CHECK(checks::is_non_blocking(number(patient)));  // as from birth
  timeval limit{1, 1};
  socklen_t size = sizeof(limit);
  REQUIRE(::getsockopt(number(patient), SOL_SOCKET, SO_SNDTIMEO, &limit, &size) == 0);
  CHECK((limit.tv_sec == 0 && limit.tv_usec == 0));
}

TEST_CASE("A pair is two connected sockets of the type asked for", "[socket]") {
  for (const auto type : {zc::SocketType::stream, zc::SocketType::datagram, zc::SocketType::seqpacket}) {
    auto ab = zc::Socket::pair(type);
    auto& a = ab.first;
    auto& b = ab.second;
    CHECK(a.type() == type);
    CHECK(zc::Socket(zc::OwnedFd(::dup(number(b)))).type() == type);
    CHECK(a.family() == zc::Family::unix_domain);
    CHECK(checks::is_non_blocking(number(a)));
    CHECK(checks::closes_on_exec(number(b)));
    CHECK(put(number(a), "first"));
    CHECK(put(number(a), "second"));
    CHECK(receive(b) == (type == zc::SocketType::stream ? "firstsecond" : "first"));
  }
  std::error_code ec = stale();
  const auto pair = zc::Socket::pair(ec);
  CHECK_FALSE(ec);
  CHECK(pair.first.type() == zc::SocketType::stream);
}

TEST_CASE("shutdown ends one direction, the other goes on", "[socket]") {
  auto ab = tcp_pair();
  auto& a = ab.first;
  auto& b = ab.second;
  REQUIRE(put(number(a), "last"));
  a.shutdown();
  CHECK(receive(b) == "last");
  REQUIRE(readable(b));
  char byte = 0;
  CHECK(::read(number(b), &byte, 1) == 0);
  CHECK(put(number(b), "still"));
  CHECK(receive(a) == "still");
  std::error_code ec = stale();
  b.shutdown(zc::Shutdown::both, ec);
  CHECK_FALSE(ec);
  auto cd = zc::Socket::pair();
  auto& c = cd.first;
  auto& d = cd.second;
  c.shutdown(zc::Shutdown::read);
  CHECK(::send(number(d), "x", 1, MSG_NOSIGNAL) == -1);
  CHECK(errno == EPIPE);

  auto unconnected = zc::Socket::bind("127.0.0.1", 0, {.type = zc::SocketType::stream});
  unconnected.shutdown(ec);
  CHECK(ec == std::errc::not_connected);
  CHECK(thrown_by([&] { unconnected.shutdown(); }).says("shut down descriptor"));
}

TEST_CASE("set_blocking undoes O_NONBLOCK and sets it again", "[socket]") {
  auto ab = zc::Socket::pair();
  auto& a = ab.first;
  auto& b = ab.second;
  a.set_blocking(true);
  CHECK_FALSE(checks::is_non_blocking(number(a)));
  CHECK(checks::is_non_blocking(number(b)));
  std::error_code ec = stale();
  a.set_blocking(false, ec);
  CHECK_FALSE(ec);
  CHECK(checks::is_non_blocking(number(a)));
}

TEST_CASE("A cork holds bytes back and is put back at the end of its scope", "[socket]") {
  auto ab = tcp_pair();
  auto& a = ab.first;
  auto& b = ab.second;
  {
    const auto cork = a.cork();
    CHECK(option(a, IPPROTO_TCP, TCP_CORK) == 1);
    REQUIRE(put(number(a), "held"));
    CHECK_FALSE(readable(b, 20));
  }
  CHECK(option(a, IPPROTO_TCP, TCP_CORK) == 0);
  CHECK(receive(b) == "held");
}

TEST_CASE("A cork on a socket that was corked before leaves it corked", "[socket]") {
  auto ab = tcp_pair();
  auto& a = ab.first;
  const int on = 1;
  REQUIRE(::setsockopt(number(a), IPPROTO_TCP, TCP_CORK, &on, sizeof(on)) == 0);
  {
    const auto cork = a.cork();
    const auto nested = a.cork();
  }
  CHECK(option(a, IPPROTO_TCP, TCP_CORK) == 1);
}

TEST_CASE("Corks nest, move and end early", "[socket]") {
  auto ab = tcp_pair();
  auto& a = ab.first;
  std::error_code ec = stale();
  auto outer = a.cork(ec);
  CHECK_FALSE(ec);
  { const auto inner = a.cork(); }
  CHECK(option(a, IPPROTO_TCP, TCP_CORK) == 1);
  auto moved = std::move(outer);
  outer.uncork();
  CHECK(option(a, IPPROTO_TCP, TCP_CORK) == 1);
  auto cd = tcp_pair();
  auto& c = cd.first;
  moved = c.cork();
  CHECK(option(a, IPPROTO_TCP, TCP_CORK) == 0);
  CHECK(option(c, IPPROTO_TCP, TCP_CORK) == 1);
  moved.uncork();
  CHECK(option(c, IPPROTO_TCP, TCP_CORK) == 0);
  moved.uncork();
}

TEST_CASE("A cork makes one datagram of what UDP sends, and nothing of AF_UNIX", "[socket]") {
  auto a = zc::Socket::bind("127.0.0.1", 0);
  auto b = zc::Socket::connect("127.0.0.1", a.local_port(), {.type = zc::SocketType::datagram});
  {
    const auto cork = b.cork();
    CHECK(put(number(b), "one "));
    CHECK(put(number(b), "message"));
  }
  CHECK(receive(a) == "one message");

  auto cd = zc::Socket::pair();
  auto& c = cd.first;
  auto& d = cd.second;
  std::error_code ec = stale();
  const auto none = c.cork(ec);
  CHECK_FALSE(ec);
  CHECK(put(number(c), "at once"));
  CHECK(receive(d) == "at once");

  zc::Socket file(zc::OwnedFd(::open("/dev/null", O_RDWR | O_CLOEXEC)));
  CHECK(thrown_by([&] { (void)file.cork(); }).code == std::errc::not_a_socket);
  STATIC_REQUIRE(can_be_corked<zc::Socket&>);
  STATIC_REQUIRE_FALSE(can_be_corked<zc::Socket>);
}

TEST_CASE("Options of a socket can be set, buffers tell what the kernel gave", "[socket]") {
  auto ab = tcp_pair();
  auto& a = ab.first;
  a.set_no_delay(true);
  CHECK(option(a, IPPROTO_TCP, TCP_NODELAY) == 1);
  a.set_no_delay(false);
  CHECK(option(a, IPPROTO_TCP, TCP_NODELAY) == 0);
  CHECK(a.set_send_buffer(20'000) == 40'000);
  CHECK(option(a, SOL_SOCKET, SO_SNDBUF) == 40'000);
  CHECK(a.set_receive_buffer(30'000) == 60'000);
  CHECK(a.set_send_buffer(SIZE_MAX) >= 40'000);
  auto cd = zc::Socket::pair();
  auto& c = cd.first;
  std::error_code ec;
  c.set_no_delay(true, ec);
  CHECK(ec);
  CHECK(thrown_by([&] { c.set_no_delay(true); }).says("TCP_NODELAY"));
}

TEST_CASE("A descriptor is passed on, close-on-exec, and both ends use the same file", "[socket]") {
  for (const auto type : {zc::SocketType::stream, zc::SocketType::datagram, zc::SocketType::seqpacket}) {
    auto ab = zc::Socket::pair(type);
    auto& a = ab.first;
    auto& b = ab.second;
    auto file = zc::MemoryFile::create("passed", 3);
    a.send_fd(file.as_fd());
    CHECK(checks::is_open(file.as_fd().get()));
    zc::MemoryFile received(b.receive_fd());
    CHECK(received.as_fd().get() != file.as_fd().get());
    CHECK(checks::closes_on_exec(received.as_fd().get()));
    file.resize(10);
    CHECK(received.size() == 10);
    CHECK(take(number(b)).empty());  // the byte that carried it is gone
  }
}

TEST_CASE("The payload arrives with its descriptor", "[socket]") {
  for (const auto type : {zc::SocketType::stream, zc::SocketType::datagram, zc::SocketType::seqpacket}) {
    auto ab = zc::Socket::pair(type);
    auto& a = ab.first;
    auto& b = ab.second;
    const auto file = zc::MemoryFile::create("passed");
    std::error_code ec = stale();
    a.send_fd(file.as_fd(), bytes_of("payload"), ec);
    REQUIRE_FALSE(ec);
    std::array<std::byte, 100> buffer{};
    const zc::ReceivedFd received = b.receive_fd(buffer, ec);
    REQUIRE_FALSE(ec);
    CHECK(static_cast<bool>(received.fd));
    CHECK(checks::text_of(std::span(buffer).first(received.bytes)) == "payload");
    CHECK_FALSE(readable(b, 0));
  }
}

TEST_CASE("On a stream the rest of the payload stays to be read", "[socket]") {
  auto ab = zc::Socket::pair();
  auto& a = ab.first;
  auto& b = ab.second;
  const auto file = zc::MemoryFile::create("passed");
  a.send_fd(file.as_fd(), bytes_of("Xrest"));
  CHECK(static_cast<bool>(b.receive_fd()));
  CHECK(take(number(b)) == "rest");
}

TEST_CASE("A message longer than the buffer is an error, and its descriptor is closed", "[socket]") {
  auto ab = zc::Socket::pair(zc::SocketType::seqpacket);
  auto& a = ab.first;
  auto& b = ab.second;
  const auto file = zc::MemoryFile::create("passed");
  const std::size_t before = open_descriptors();
  a.send_fd(file.as_fd(), bytes_of("too long"));
  std::array<std::byte, 3> buffer{};
  CHECK(thrown_by([&] { (void)b.receive_fd(buffer); }).code == std::errc::message_size);
  CHECK(open_descriptors() == before);
}

TEST_CASE("A payload larger than the socket's buffer is sent whole, with one descriptor", "[socket]") {
  auto ab = zc::Socket::pair();
  auto& a = ab.first;
  auto& b = ab.second;
  a.set_send_buffer(8192);
  const auto file = zc::MemoryFile::create("passed");
  const std::string text = checks::pattern(1'000'000);
  std::error_code ec = stale();
  std::thread sends([&] { a.send_fd(file.as_fd(), bytes_of(text), ec); });
  std::vector<std::byte> first(1000);
  const auto received = b.receive_fd(std::span(first));
  std::string arrived = checks::text_of(std::span(first).first(received.bytes));
  std::size_t others = 0;
  while (arrived.size() < text.size() && readable(b)) {
    std::error_code bytes_only;
    (void)b.receive_fd(0s, bytes_only);
    if (bytes_only != std::errc::no_message) ++others;
    const std::string more = take(number(b));
    if (more.empty()) break;
    arrived += more;
  }
  sends.join();
  CHECK(others == 0);
  CHECK_FALSE(ec);
  CHECK((arrived == text));
  CHECK(static_cast<bool>(received.fd));
}

TEST_CASE("Bytes without a descriptor are an error, and stay to be read", "[socket]") {
  for (const auto type : {zc::SocketType::stream, zc::SocketType::datagram, zc::SocketType::seqpacket}) {
    auto ab = zc::Socket::pair(type);
    auto& a = ab.first;
    auto& b = ab.second;
    REQUIRE(put(number(a), "only bytes"));
    std::error_code ec;
    const auto none = b.receive_fd(ec);
    CHECK(ec == std::errc::no_message);
    CHECK_FALSE(static_cast<bool>(none));
    CHECK(thrown_by([&] { (void)b.receive_fd(); }).says("receive a descriptor through descriptor"));
    CHECK(take(number(b)) == "only bytes");
  }
}

TEST_CASE("receive_fd waits, and learns that the peer has gone", "[socket]") {
  auto ab = zc::Socket::pair();
  auto& a = ab.first;
  auto& b = ab.second;
  const auto file = zc::MemoryFile::create("passed", 4);
  std::thread sends([&] {
    pollfd nothing{-1, 0, 0};
    ::poll(&nothing, 1, 20);
    a.send_fd(file.as_fd());
    a = zc::Socket{zc::OwnedFd()};
  });
  CHECK(zc::MemoryFile(b.receive_fd()).size() == 4);
  CHECK(thrown_by([&] { (void)b.receive_fd(); }).code == std::errc::connection_reset);
  sends.join();
  std::error_code ec;
  b.send_fd(file.as_fd(), ec);
  CHECK(ec == std::errc::broken_pipe);  // and no SIGPIPE
}

TEST_CASE("Blocking sockets pass descriptors just so", "[socket]") {
  auto ab = zc::Socket::pair();
  auto& a = ab.first;
  auto& b = ab.second;
  a.set_blocking(true);
  b.set_blocking(true);
  const auto file = zc::MemoryFile::create("passed", 4);
  a.send_fd(file.as_fd());
  CHECK(zc::MemoryFile(b.receive_fd()).size() == 4);
}

TEST_CASE("Surplus descriptors are closed, the first is the one", "[socket]") {
  auto ab = zc::Socket::pair();
  auto& a = ab.first;
  auto& b = ab.second;
  const auto file = zc::MemoryFile::create("first", 11);
  const auto other = zc::MemoryFile::create("second", 22);
  const std::size_t before = open_descriptors();
  std::vector<int> many(253, other.as_fd().get());  // SCM_MAX_FD
  many.front() = file.as_fd().get();
  REQUIRE(send_descriptors(number(a), many, "x"));
  {
    const zc::MemoryFile received(b.receive_fd());
    CHECK(received.size() == 11);
    CHECK(open_descriptors() == before + 1);
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("Without a free descriptor number receive_fd reports too_many_files_open", "[socket]") {
  auto ab = zc::Socket::pair();
  auto& a = ab.first;
  auto& b = ab.second;
  const auto file = zc::MemoryFile::create("passed");
  a.send_fd(file.as_fd());
  rlimit old{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &old) == 0);
  rlimit low = old;
  low.rlim_cur = 0;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &low) == 0);
  std::error_code ec;
  const auto none = b.receive_fd(ec);
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &old) == 0);
  CHECK(ec == std::errc::too_many_files_open);
  CHECK_FALSE(static_cast<bool>(none));
}

TEST_CASE("Only AF_UNIX carries descriptors, and only open ones", "[socket]") {
  auto ab = tcp_pair();
  auto& a = ab.first;
  auto& b = ab.second;
  const auto file = zc::MemoryFile::create("passed");
  std::error_code ec;
  a.send_fd(file.as_fd(), ec);
  CHECK(ec == std::errc::operation_not_supported);
  CHECK_FALSE(readable(b, 0));
  (void)b.receive_fd(ec);
  CHECK(ec == std::errc::operation_not_supported);
  auto cd = zc::Socket::pair();
  auto& c = cd.first;
  auto& d = cd.second;
  c.send_fd(zc::BorrowedFd(-1), ec);
  CHECK(ec == std::errc::bad_file_descriptor);
  CHECK_FALSE(readable(d, 0));
  CHECK(thrown_by([&] { c.send_fd(zc::BorrowedFd(-1)); }).says("send a descriptor through descriptor"));
  zc::Socket closed{zc::OwnedFd()};
  closed.send_fd(file.as_fd(), ec);
  CHECK(ec == std::errc::bad_file_descriptor);
}

TEST_CASE("send_fd keeps to its limit when the peer never reads, and sends nothing", "[socket]") {
  for (const auto type : every_type) {
    auto ab = zc::Socket::pair(type);
    auto& a = ab.first;
    auto& b = ab.second;
    a.set_send_buffer(8192);
    const std::size_t filled = fill(a);
    auto ends = pipe_ends();
    const std::size_t before = open_descriptors();
    std::error_code ec = stale();
    keeps_to(100ms, [&] { a.send_fd(ends.second.as_fd(), 100ms, ec); });
    CHECK(ec == zc::Errc::timed_out);
    keeps_to(50ms, [&] { CHECK(a.send_fd(ends.second.as_fd(), bytes_of("payload"), 50ms, ec) == 0); });
    CHECK(ec == std::errc::timed_out);
    keeps_to(0ms, [&] { a.send_fd(ends.second.as_fd(), 0s, ec); });
    CHECK(ec == zc::Errc::timed_out);
    const auto thrown = thrown_by([&] { a.send_fd(ends.second.as_fd(), -1s); });
    CHECK(thrown.code == zc::Errc::timed_out);
    CHECK(thrown.says("send a descriptor through descriptor"));
    CHECK(thrown_by([&] { a.send_fd(ends.second.as_fd(), bytes_of("x"), 1ms); }).code == zc::Errc::timed_out);
    CHECK(open_descriptors() == before);
    CHECK(is_held(ends.first));
    ends.second.reset();
    CHECK_FALSE(is_held(ends.first));  // no copy is under way

    CHECK(drain(b) == filled);  // and no byte of ours
    const auto file = zc::MemoryFile::create("passed", 5);
    a.send_fd(file.as_fd(), 5s);
    CHECK(zc::MemoryFile(b.receive_fd(5s)).size() == 5);
  }
}

TEST_CASE("A payload that a stream took in part is counted, and its descriptor has gone", "[socket]") {
  auto ab = zc::Socket::pair();
  auto& a = ab.first;
  auto& b = ab.second;
  const std::string text = checks::pattern(1'000'000);
  std::error_code ec = stale();
  std::size_t sent = 0;
  {
    const auto file = zc::MemoryFile::create("passed", 6);
    keeps_to(100ms, [&] { sent = a.send_fd(file.as_fd(), bytes_of(text), 100ms, ec); });
  }
  CHECK(ec == zc::Errc::timed_out);
  REQUIRE(sent > 0);
  REQUIRE(sent < text.size());
  std::vector<std::byte> buffer(text.size());
  const std::size_t before = open_descriptors();
  auto received = b.receive_fd(std::span(buffer), 5s);
  std::string arrived = checks::text_of(std::span(buffer).first(received.bytes));
  for (std::string some; !(some = take(number(b))).empty();) arrived += some;
  CHECK((arrived == text.substr(0, sent)));
  CHECK(open_descriptors() == before + 1);
  CHECK(zc::MemoryFile(std::move(received.fd)).size() == 6);

  for (std::size_t at = sent; at < text.size();) {  // the rest as plain bytes
    const ssize_t n = ::send(number(a), text.data() + at, text.size() - at, MSG_DONTWAIT);
    REQUIRE(n > 0);
    at += static_cast<std::size_t>(n);
    for (std::string some; !(some = take(number(b))).empty();) arrived += some;
  }
  CHECK((arrived == text));
  CHECK(thrown_by([&] { (void)b.receive_fd(0s); }).code == zc::Errc::timed_out);  // one descriptor only
}

TEST_CASE("A peer that reads on does not carry send_fd past its limit", "[socket]") {
  // The zero page again and again. Every small page is a fault for the sender, so the peer keeps up with it.
  constexpr std::size_t size = std::size_t{4} << 30;
  void* zeros = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (zeros == MAP_FAILED) {
    WARN("skipped: no 4 GiB of address space: " << std::strerror(errno));
    return;
  }
  ::madvise(zeros, size, MADV_NOHUGEPAGE);
  auto ab = zc::Socket::pair();
  auto& a = ab.first;
  auto& b = ab.second;
  a.set_send_buffer(4 << 20);
  b.set_blocking(true);
  std::size_t received = 0;
  std::thread reads([&] {
    std::vector<char> buffer(1 << 18);
    for (ssize_t n; (n = ::read(number(b), buffer.data(), buffer.size())) > 0;) received += static_cast<std::size_t>(n);
  });
  const auto file = zc::MemoryFile::create("passed");
  std::error_code ec = stale();
  const auto start = std::chrono::steady_clock::now();
  const std::size_t sent = a.send_fd(file.as_fd(), {static_cast<const std::byte*>(zeros), size}, 100ms, ec);
  const auto took = std::chrono::steady_clock::now() - start;
  a = zc::Socket{zc::OwnedFd()};
  reads.join();
  ::munmap(zeros, size);
  CHECK(ec == zc::Errc::timed_out);
  CHECK(took >= 100ms);
  CHECK(took < 200ms);
  CHECK(sent > 0);
  CHECK(received == sent);
}

TEST_CASE("receive_fd keeps to its limit when the peer never sends, and loses nothing", "[socket]") {
  for (const auto type : every_type) {
    auto ab = zc::Socket::pair(type);
    auto& a = ab.first;
    auto& b = ab.second;
    std::array<std::byte, 10> buffer{};
    const std::size_t before = open_descriptors();
    std::error_code ec = stale();
    keeps_to(100ms, [&] { CHECK_FALSE(static_cast<bool>(b.receive_fd(100ms, ec))); });
    CHECK(ec == zc::Errc::timed_out);
    keeps_to(50ms, [&] { CHECK(b.receive_fd(buffer, 50ms, ec).bytes == 0); });
    CHECK(ec == std::errc::timed_out);
    keeps_to(0ms, [&] { (void)b.receive_fd(0s, ec); });
    CHECK(ec == zc::Errc::timed_out);
    const auto thrown = thrown_by([&] { (void)b.receive_fd(-1s); });
    CHECK(thrown.code == zc::Errc::timed_out);
    CHECK(thrown.says("receive a descriptor through descriptor"));
    CHECK(thrown_by([&] { (void)b.receive_fd(buffer, 1ms); }).code == zc::Errc::timed_out);
    CHECK(open_descriptors() == before);

    const auto file = zc::MemoryFile::create("passed", 7);
    a.send_fd(file.as_fd(), bytes_of("late"));
    auto received = b.receive_fd(buffer, 0s, ec);  // what is there comes under any limit
    CHECK_FALSE(ec);
    CHECK(checks::text_of(std::span(buffer).first(received.bytes)) == "late");
    CHECK(checks::closes_on_exec(received.fd.get()));
    CHECK(zc::MemoryFile(std::move(received.fd)).size() == 7);
  }
}

TEST_CASE("A descriptor that arrives late but within the limit is received", "[socket]") {
  for (const auto type : every_type) {
    auto ab = zc::Socket::pair(type);
    auto& a = ab.first;
    auto& b = ab.second;
    const auto file = zc::MemoryFile::create("passed", 8);
    std::thread sends([&] {
      pass(50);
      a.send_fd(file.as_fd());
    });
    std::error_code ec = stale();
    const auto start = std::chrono::steady_clock::now();
    zc::OwnedFd received = b.receive_fd(10s, ec);
    const auto took = std::chrono::steady_clock::now() - start;
    sends.join();
    REQUIRE_FALSE(ec);
    CHECK(took < 800ms);  // woken, not found at the end of a slice
    CHECK(zc::MemoryFile(std::move(received)).size() == 8);
  }
}

TEST_CASE("send_fd goes on when room comes within its limit", "[socket]") {
  for (const auto type : every_type) {
    auto ab = zc::Socket::pair(type);
    auto& a = ab.first;
    auto& b = ab.second;
    a.set_send_buffer(8192);
    const std::size_t filled = fill(a);
    std::size_t drained = 0;
    std::thread reads([&] {
      pass(50);
      while (drained < filled) drained += take(number(b), 100).size();
    });
    const auto file = zc::MemoryFile::create("passed", 9);
    std::error_code ec = stale();
    const auto start = std::chrono::steady_clock::now();
    CHECK(a.send_fd(file.as_fd(), bytes_of("payload"), 10s, ec) == 7);
    const auto took = std::chrono::steady_clock::now() - start;
    reads.join();
    REQUIRE_FALSE(ec);
    CHECK(took < 800ms);
    CHECK(drained == filled);
    CHECK(zc::MemoryFile(b.receive_fd(5s)).size() == 9);
  }
}

TEST_CASE("Signals neither end a limit of send_fd and receive_fd nor stretch it", "[socket]") {
  static volatile std::sig_atomic_t caught;
  caught = 0;
  struct sigaction counts {};
  struct sigaction old {};
  counts.sa_handler = [](int) { caught = caught + 1; };  // without SA_RESTART
  REQUIRE(::sigaction(SIGUSR2, &counts, &old) == 0);
  auto ab = zc::Socket::pair();
  auto& a = ab.first;
  fill(a);
  const auto file = zc::MemoryFile::create("passed");
  std::atomic<bool> ended = false;
  const pthread_t here = ::pthread_self();
  std::thread interrupts([&] {
    for (int i = 0; i < 2000 && !ended; ++i) {
      ::pthread_kill(here, SIGUSR2);
      pass(5);
    }
  });
  std::error_code ec;
  keeps_to(100ms, [&] { a.send_fd(file.as_fd(), 100ms, ec); });
  CHECK(ec == zc::Errc::timed_out);
  keeps_to(100ms, [&] { (void)a.receive_fd(100ms, ec); });
  CHECK(ec == zc::Errc::timed_out);
  ended = true;
  interrupts.join();
  REQUIRE(::sigaction(SIGUSR2, &old, nullptr) == 0);
  CHECK(caught >= 10);
}

TEST_CASE("Limits of send_fd and receive_fd leave other errors as they are", "[socket]") {
  const auto file = zc::MemoryFile::create("passed", 4);
  std::error_code ec;
  auto tcp = tcp_pair();
  tcp.first.send_fd(file.as_fd(), 5s, ec);
  CHECK(ec == std::errc::operation_not_supported);
  (void)tcp.first.receive_fd(5s, ec);
  CHECK(ec == std::errc::operation_not_supported);
  auto ab = zc::Socket::pair();
  auto& a = ab.first;
  auto& b = ab.second;
  constexpr auto none = std::chrono::nanoseconds::max();
  a.send_fd(file.as_fd(), {});  // braces are the empty payload, not a limit
  a.send_fd(file.as_fd(), {}, ec);
  REQUIRE_FALSE(ec);
  CHECK(a.send_fd(file.as_fd(), {}, none) == 0);
  CHECK(zc::MemoryFile(b.receive_fd({}).fd).size() == 4);
  CHECK(zc::MemoryFile(b.receive_fd({}, ec).fd).size() == 4);
  CHECK(zc::MemoryFile(b.receive_fd(none)).size() == 4);
  a = zc::Socket{zc::OwnedFd()};
  (void)b.receive_fd(5s, ec);
  CHECK(ec == std::errc::connection_reset);
  b.send_fd(file.as_fd(), 5s, ec);
  CHECK(ec == std::errc::broken_pipe);
}

TEST_CASE("Where numbers run out after the first descriptor, that one is received and none leaks", "[socket]") {
  auto ab = zc::Socket::pair();
  auto& a = ab.first;
  auto& b = ab.second;
  const auto file = zc::MemoryFile::create("first", 11);
  const auto other = zc::MemoryFile::create("second", 22);
  REQUIRE(send_descriptors(number(a), {file.as_fd().get(), other.as_fd().get(), other.as_fd().get()}, "x"));
  const std::size_t before = open_descriptors();
  const int free = ::dup(number(a));
  ::close(free);
  rlimit old{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &old) == 0);
  rlimit low = old;
  low.rlim_cur = static_cast<rlim_t>(free) + 1;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &low) == 0);
  std::error_code ec = stale();
  zc::OwnedFd received = b.receive_fd(ec);
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &old) == 0);
  REQUIRE_FALSE(ec);
  CHECK(received.get() == free);
  CHECK(open_descriptors() == before + 1);
  CHECK(zc::MemoryFile(std::move(received)).size() == 11);
  CHECK(open_descriptors() == before);
}

TEST_CASE("Credentials and pidfds that the caller asked for hide no bytes and leak nothing", "[socket]") {
  for (const int name : {SO_PASSCRED, 76}) {  // 76: SO_PASSPIDFD, since 6.5
    for (const auto type : every_type) {
      auto ab = zc::Socket::pair(type);
      auto& a = ab.first;
      auto& b = ab.second;
      const int on = 1;
      if (::setsockopt(number(b), SOL_SOCKET, name, &on, sizeof(on)) == -1) {
        WARN("skipped: no socket option " << name << " here: " << std::strerror(errno));
        continue;
      }
      const auto file = zc::MemoryFile::create("passed", 12);
      const std::size_t before = open_descriptors();
      std::error_code ec;
      REQUIRE(put(number(a), "only bytes"));
      (void)b.receive_fd(ec);
      CHECK(ec == std::errc::no_message);
      CHECK(take(number(b)) == "only bytes");
      a.send_fd(file.as_fd(), bytes_of("payload"));
      REQUIRE(send_descriptors(number(a), std::vector<int>(253, file.as_fd().get()), "payload"));
      for (int i = 0; i < 2; ++i) {
        std::array<std::byte, 7> buffer{};
        auto received = b.receive_fd(buffer, 5s, ec);
        REQUIRE_FALSE(ec);
        CHECK(checks::text_of(std::span(buffer).first(received.bytes)) == "payload");
        CHECK(open_descriptors() == before + 1);
        CHECK(zc::MemoryFile(std::move(received.fd)).size() == 12);
      }
      CHECK(open_descriptors() == before);
      if (type == zc::SocketType::datagram) continue;
      a = zc::Socket{zc::OwnedFd()};
      (void)b.receive_fd(5s, ec);
      CHECK(ec == std::errc::connection_reset);
    }
  }
}

TEST_CASE("A copy of a descriptor made while looking would drop record locks: none is made", "[socket]") {
  checks::Directory dir;
  const zc::OwnedFd file(::open(dir.file("locked").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  REQUIRE(::fcntl(file.get(), F_SETLK, &lock) == 0);
  auto ab = zc::Socket::pair();
  ab.first.send_fd(file.as_fd());
  const zc::OwnedFd received = ab.second.receive_fd();
  REQUIRE(static_cast<bool>(received));
  struct flock theirs {};
  theirs.l_type = F_WRLCK;
  theirs.l_whence = SEEK_SET;
  REQUIRE(::fcntl(file.get(), F_OFD_GETLK, &theirs) == 0);  // asked as another owner would
  CHECK(theirs.l_type == F_WRLCK);
}

TEST_CASE("A datagram socket shut down for reading ends receive_fd, an empty message does not", "[socket]") {
  auto ab = zc::Socket::pair(zc::SocketType::datagram);
  ab.second.shutdown(zc::Shutdown::read);
  std::error_code ec;
  (void)ab.second.receive_fd(5s, ec);
  CHECK(ec == std::errc::connection_reset);

  auto cd = zc::Socket::pair(zc::SocketType::seqpacket);
  auto& c = cd.first;
  auto& d = cd.second;
  REQUIRE(::send(number(c), "", 0, MSG_NOSIGNAL) == 0);
  (void)d.receive_fd(5s, ec);
  CHECK(ec == std::errc::no_message);
  char none = 0;
  CHECK(::recv(number(d), &none, 1, MSG_DONTWAIT) == 0);
  c.shutdown();
  (void)d.receive_fd(5s, ec);
  CHECK(ec == std::errc::connection_reset);
}

TEST_CASE("A socket that is taken over keeps its flags, and is asked for its type", "[socket]") {
  const zc::Socket udp(zc::OwnedFd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)));
  CHECK(udp.type() == zc::SocketType::datagram);
  CHECK_FALSE(checks::is_non_blocking(number(udp)));
  const zc::Socket file(zc::OwnedFd(::open("/dev/null", O_RDWR | O_CLOEXEC)));
  CHECK(file.type() == zc::SocketType::stream);
  CHECK(file.family() == zc::Family::any);
  std::error_code ec;
  CHECK(file.local_port(ec) == 0);
  CHECK(ec == std::errc::not_a_socket);
  CHECK(file.local_address(ec).empty());
  CHECK(file.peer_address(ec).empty());
  CHECK(thrown_by([&] { (void)file.local_port(); }).code == std::errc::not_a_socket);
  CHECK(thrown_by([&] { (void)udp.peer_address(); }).code == std::errc::not_connected);
}

TEST_CASE("A Socket that moves takes its descriptor along, and release gives it up", "[socket]") {
  auto ab = zc::Socket::pair(zc::SocketType::datagram);
  auto& a = ab.first;
  auto& b = ab.second;
  const int fd = number(a);
  zc::Socket moved = std::move(a);
  CHECK_FALSE(static_cast<bool>(a.as_fd()));
  CHECK(number(moved) == fd);
  CHECK(moved.type() == zc::SocketType::datagram);
  b = std::move(moved);
  CHECK(number(b) == fd);
  const zc::OwnedFd released = std::move(b).release();
  CHECK(released.get() == fd);
  STATIC_REQUIRE(std::is_nothrow_move_constructible_v<zc::Socket>);
  STATIC_REQUIRE(std::is_nothrow_move_assignable_v<zc::Socket>);
  STATIC_REQUIRE_FALSE(std::is_copy_constructible_v<zc::Socket>);
  STATIC_REQUIRE_FALSE(std::is_copy_constructible_v<zc::Cork>);
  STATIC_REQUIRE_FALSE(lends_a_descriptor<zc::Socket>);
}
