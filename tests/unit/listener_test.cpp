#include <zerocopy/listener.hpp>

#include "catch.hpp"
#include "handle_checks.hpp"

#include <sys/stat.h>

#include <chrono>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

namespace zc = zerocopy;
using namespace std::chrono_literals;
using checks::put, checks::stale, checks::take, checks::thrown_by;

namespace {
template <class T>
concept lends_a_descriptor = requires(T t) { std::forward<T>(t).as_fd(); };

std::string unique_name(const char* what) {
  return std::string("@zerocopy-listener-") + what + "-" + std::to_string(::getpid());
}
}  // namespace

TEST_CASE("A listener is non-blocking and close-on-exec from birth, and knows its port", "[listener]") {
  auto listener = zc::Listener::bind("127.0.0.1", 0);
  CHECK(checks::is_non_blocking(listener.as_fd().get()));
  CHECK(checks::closes_on_exec(listener.as_fd().get()));
  CHECK(listener.port() != 0);
  CHECK(listener.address() == "127.0.0.1:" + std::to_string(listener.port()));
  std::error_code ec = stale();
  CHECK(listener.port(ec) == listener.port());
  CHECK_FALSE(ec);
  CHECK(listener.address(ec) == listener.address());
}

TEST_CASE("accept takes what connects, in order", "[listener]") {
  auto listener = zc::Listener::bind("127.0.0.1", 0);
  const auto first = zc::Socket::connect("127.0.0.1", listener.port());
  const auto second = zc::Socket::connect("127.0.0.1", listener.port());
  const auto one = listener.accept();
  std::error_code ec = stale();
  const auto two = listener.accept(ec);
  CHECK_FALSE(ec);
  CHECK(one.peer_address() == first.local_address());
  CHECK(two.peer_address() == second.local_address());
  CHECK(checks::is_non_blocking(one.as_fd().get()));
  CHECK(checks::closes_on_exec(one.as_fd().get()));
  CHECK(one.type() == zc::SocketType::stream);
}

TEST_CASE("accept waits for a connection", "[listener]") {
  auto listener = zc::Listener::bind("127.0.0.1", 0);
  std::thread connects([port = listener.port()] {
    pollfd nothing{-1, 0, 0};
    ::poll(&nothing, 1, 20);
    std::error_code ignored;
    (void)zc::Socket::connect("127.0.0.1", port, ignored);
  });
  CHECK(static_cast<bool>(listener.accept(5s).release()));
  connects.join();
}

TEST_CASE("accept with a time limit gives up when nobody comes", "[listener]") {
  auto listener = zc::Listener::bind("127.0.0.1", 0);
  const auto start = std::chrono::steady_clock::now();
  std::error_code ec;
  const auto nobody = listener.accept(50ms, ec);
  const auto took = std::chrono::steady_clock::now() - start;
  CHECK(ec == zc::Errc::timed_out);
  CHECK(ec == std::errc::timed_out);
  CHECK_FALSE(static_cast<bool>(nobody.as_fd()));
  CHECK(took >= 50ms);
  CHECK(took < 1s);
  const auto thrown = thrown_by([&] { (void)listener.accept(0s); });
  CHECK(thrown.code == zc::Errc::timed_out);
  CHECK(thrown.says("accept on descriptor"));
}

TEST_CASE("A connection that died in the queue does not end accept", "[listener]") {
  auto listener = zc::Listener::bind("127.0.0.1", 0);
  {
    const auto dies = zc::Socket::connect("127.0.0.1", listener.port());
    const linger at_once{1, 0};  // close sends a reset
    REQUIRE(::setsockopt(dies.as_fd().get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)) == 0);
  }
  const auto lives = zc::Socket::connect("127.0.0.1", listener.port());
  REQUIRE(put(lives.as_fd().get(), "alive"));
  std::error_code ec;
  auto accepted = listener.accept(5s, ec);
  REQUIRE_FALSE(ec);
  // Linux hands the dead one out too; the living one follows.
  if (accepted.peer_address(ec) != lives.local_address()) accepted = listener.accept(5s);
  CHECK(accepted.peer_address() == lives.local_address());
}

TEST_CASE("A listener over IPv6 accepts", "[listener]") {
  std::error_code ec;
  auto listener = zc::Listener::bind("::1", 0, ec);
  if (ec) {
    WARN("skipped: no ::1 here: " << ec.message());
    return;
  }
  const auto client = zc::Socket::connect("::1", listener.port());
  CHECK(listener.accept(5s).family() == zc::Family::ipv6);
  CHECK(listener.address() == "[::1]:" + std::to_string(listener.port()));
}

TEST_CASE("A listener without a host listens on every interface", "[listener]") {
  auto listener = zc::Listener::bind("", 0, {.family = zc::Family::ipv4});
  CHECK(listener.address() == "0.0.0.0:" + std::to_string(listener.port()));
  const auto client = zc::Socket::connect("127.0.0.1", listener.port());
  CHECK(listener.accept(5s).peer_address() == client.local_address());
}

TEST_CASE("A port that is listened on is in use, unless it is shared", "[listener]") {
  const auto first = zc::Listener::bind("127.0.0.1", 0);
  const auto again = thrown_by([&] { (void)zc::Listener::bind("127.0.0.1", first.port()); });
  CHECK(again.code == std::errc::address_in_use);
  CHECK(again.says("listen on '127.0.0.1' port " + std::to_string(first.port())));
  const auto shared = zc::Listener::bind("127.0.0.1", 0, {.reuse_port = true});
  std::error_code ec = stale();
  const auto too = zc::Listener::bind("127.0.0.1", shared.port(), {.reuse_port = true}, ec);
  CHECK_FALSE(ec);
  CHECK(too.port() == shared.port());
}

TEST_CASE("A port whose connections are ending can be listened on again", "[listener]") {
  auto listener = zc::Listener::bind("127.0.0.1", 0);
  const std::uint16_t port = listener.port();
  {
    const auto client = zc::Socket::connect("127.0.0.1", port);
    auto server = listener.accept(5s);
    server.shutdown();  // the server's side ends first and keeps the port in TIME_WAIT
    pollfd end{client.as_fd().get(), POLLIN, 0};
    REQUIRE(::poll(&end, 1, 5000) == 1);
  }
  listener = zc::Listener(zc::OwnedFd());
  std::error_code ec;
  (void)zc::Listener::bind("127.0.0.1", port, {.reuse_address = false}, ec);
  CHECK(ec == std::errc::address_in_use);
  CHECK(zc::Listener::bind("127.0.0.1", port).port() == port);
}

TEST_CASE("What can't listen says why", "[listener]") {
  std::error_code ec;
  (void)zc::Listener::bind("127.0.0.1", 0, {.type = zc::SocketType::datagram}, ec);
  CHECK(ec == std::errc::operation_not_supported);
  (void)zc::Listener::bind("127.0.0.1", 0, {.type = zc::SocketType::seqpacket}, ec);
  CHECK(ec == std::errc::protocol_not_supported);
  (void)zc::Listener::bind("no-such-host.invalid", 0, ec);
  CHECK(ec.category() == zc::resolver_category());
  (void)zc::Listener::bind("192.0.2.1", 0, ec);
  CHECK(ec == std::errc::address_not_available);
  const auto failed = zc::Listener::bind("127.0.0.1", 0, {.family = zc::Family::unix_domain}, ec);
  CHECK(ec == std::errc::address_family_not_supported);
  CHECK_FALSE(static_cast<bool>(failed.as_fd()));

  auto ab = zc::Socket::pair();
  auto& a = ab.first;
  zc::Listener connected(std::move(a).release());
  CHECK(thrown_by([&] { (void)connected.accept(); }).code == std::errc::invalid_argument);
  zc::Listener datagram(zc::OwnedFd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)));
  CHECK(thrown_by([&] { (void)datagram.accept(); }).code == std::errc::operation_not_supported);
  zc::Listener closed{zc::OwnedFd()};
  (void)closed.accept(ec);
  CHECK(ec == std::errc::bad_file_descriptor);
  CHECK(closed.port(ec) == 0);
  CHECK(thrown_by([&] { (void)closed.port(); }).code == std::errc::bad_file_descriptor);
}

TEST_CASE("A listener on a path leaves its file, and a stale one is in use", "[listener]") {
  checks::Directory dir;
  const std::string path = dir.file("socket");
  std::error_code ec = stale();
  {
    auto listener = zc::Listener::bind_unix(path, ec);
    CHECK_FALSE(ec);
    CHECK(listener.address() == path);
    CHECK(listener.port() == 0);
    const auto client = zc::Socket::connect_unix(path);
    const auto server = listener.accept(5s);
    CHECK(put(client.as_fd().get(), "path"));
    CHECK(take(server.as_fd().get()) == "path");
  }
  struct stat status {};
  CHECK(::lstat(path.c_str(), &status) == 0);
  (void)zc::Socket::connect_unix(path, ec);
  CHECK(ec == std::errc::connection_refused);
  const auto stale_file = thrown_by([&] { (void)zc::Listener::bind_unix(path); });
  CHECK(stale_file.code == std::errc::address_in_use);
  CHECK(stale_file.says("listen on '" + path + "'"));
  ::unlink(path.c_str());
  CHECK(zc::Listener::bind_unix(path).address() == path);
  (void)zc::Listener::bind_unix(dir.path() + "/none/socket", ec);
  CHECK(ec == std::errc::no_such_file_or_directory);
  (void)zc::Listener::bind_unix("", ec);
  CHECK(ec == std::errc::invalid_argument);
  (void)zc::Listener::bind_unix("/tmp/" + std::string(200, 'x'), ec);
  CHECK(ec == std::errc::filename_too_long);
}

TEST_CASE("Seqpacket connections keep their messages apart", "[listener]") {
  const std::string name = unique_name("seqpacket");
  auto listener = zc::Listener::bind_unix(name, {.type = zc::SocketType::seqpacket});
  const auto client = zc::Socket::connect_unix(name, {.type = zc::SocketType::seqpacket});
  const auto server = listener.accept(5s);
  CHECK(server.type() == zc::SocketType::seqpacket);
  CHECK(put(client.as_fd().get(), "one"));
  CHECK(put(client.as_fd().get(), "two"));
  CHECK(take(server.as_fd().get()) == "one");
  CHECK(take(server.as_fd().get()) == "two");
}

TEST_CASE("A blocking listener that is taken over becomes non-blocking and keeps its type", "[listener]") {
  zc::OwnedFd fd = zc::Listener::bind_unix(unique_name("taken"), {.type = zc::SocketType::seqpacket}).release();
  REQUIRE(::fcntl(fd.get(), F_SETFL, 0) == 0);
  zc::Listener listener(std::move(fd));
  CHECK(checks::is_non_blocking(listener.as_fd().get()));
  const auto client = zc::Socket::connect_unix(unique_name("taken"), {.type = zc::SocketType::seqpacket});
  CHECK(listener.accept(5s).type() == zc::SocketType::seqpacket);
  std::error_code ec;
  (void)listener.accept(10ms, ec);
  CHECK(ec == zc::Errc::timed_out);
}

TEST_CASE("A Listener that moves takes its descriptor along, and release gives it up", "[listener]") {
  auto first = zc::Listener::bind("127.0.0.1", 0);
  const int number = first.as_fd().get();
  zc::Listener second = std::move(first);
  CHECK_FALSE(static_cast<bool>(first.as_fd()));
  CHECK(second.as_fd().get() == number);
  first = std::move(second);
  const zc::OwnedFd fd = std::move(first).release();
  CHECK(fd.get() == number);
  STATIC_REQUIRE(std::is_nothrow_move_constructible_v<zc::Listener>);
  STATIC_REQUIRE(std::is_nothrow_move_assignable_v<zc::Listener>);
  STATIC_REQUIRE_FALSE(std::is_copy_constructible_v<zc::Listener>);
  STATIC_REQUIRE_FALSE(lends_a_descriptor<zc::Listener>);
}
