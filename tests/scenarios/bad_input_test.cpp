// Bad input: a clear error at once, and nothing is lost or moved.
#include "catch.hpp"
#include "support/process.hpp"

#include <sys/epoll.h>

namespace {

using namespace ends;
using zc::Errc;
using zc::Side;
using zc::StopReason;

template <class From, class To>
std::error_code refused(From& from, To& to, Side side, zc::Options options = {}) {
  const TimeLimit limit(20);
  std::error_code ec;
  const auto r = zc::transfer(from, to, options, ec);
  INFO(std::string(to_string(r.reason)) + " at " + std::string(to_string(r.side)) + ": " + ec.message());
  CHECK(r.delivered == 0);
  CHECK(r.consumed == 0);
  CHECK_FALSE(r.stranded);
  CHECK(ec);
  if (side != Side::none) CHECK(r.side == side);
  return ec;
}

}  // namespace

TEST_CASE("a closed descriptor at either end: bad_file_descriptor") {
  zc::File file(temporary_file(pattern(0, 100)));
  zc::BorrowedFd none(-1);
  zc::BorrowedFd closed(9999);
  CHECK(refused(none, file, Side::source) == std::errc::bad_file_descriptor);
  CHECK(refused(file, none, Side::sink) == std::errc::bad_file_descriptor);
  CHECK(refused(closed, file, Side::source) == std::errc::bad_file_descriptor);
  CHECK(refused(file, closed, Side::sink) == std::errc::bad_file_descriptor);
  zc::File empty{zc::OwnedFd()};
  CHECK(refused(empty, file, Side::source) == std::errc::bad_file_descriptor);
  CHECK(refused(file, empty, Side::sink) == std::errc::bad_file_descriptor);
  zc::PipeReader no_pipe{zc::OwnedFd()};
  CHECK(refused(no_pipe, file, Side::source) == std::errc::bad_file_descriptor);
  zc::Socket no_socket{zc::OwnedFd()};
  CHECK(refused(file, no_socket, Side::sink) == std::errc::bad_file_descriptor);
  CHECK(refused(no_socket, file, Side::source) == std::errc::bad_file_descriptor);
  CHECK(file.position() == 0);
  // Bad input comes before length 0.
  CHECK(refused(none, file, Side::source, {.length = 0}) == std::errc::bad_file_descriptor);
  CHECK(refused(file, none, Side::sink, {.length = 0}) == std::errc::bad_file_descriptor);
  std::array<std::byte, 4> memory{};
  const std::span<std::byte> bytes(memory);
  CHECK(refused(none, bytes, Side::source) == std::errc::bad_file_descriptor);
  CHECK(refused(bytes, none, Side::sink) == std::errc::bad_file_descriptor);
}

TEST_CASE("the throwing form throws exactly when error is set, and carries the result") {
  zc::File file(temporary_file(pattern(0, 100)));
  try {
    std::ignore = zc::transfer(file, zc::BorrowedFd(-1));
    FAIL("nothing was thrown");
  } catch (const zc::TransferError& e) {
    CHECK(e.code() == std::errc::bad_file_descriptor);
    CHECK(e.result().error == e.code());
    CHECK(e.result().reason == StopReason::failed);
    CHECK(e.result().side == Side::sink);
    CHECK(std::string(e.what()).find("-1") + std::string(e.what()).find("file") != std::string::npos);
  }
  const zc::File to(temporary_file());
  CHECK_NOTHROW(std::ignore = zc::transfer(file, to, {.length = 500}));
}

TEST_CASE("an end that can't be read or written: an error at once") {
  const zc::OwnedFd base = temporary_file(pattern(0, 100));
  zc::File reader{reopened(base.get(), O_RDONLY)};
  zc::File writer{reopened(base.get(), O_WRONLY)};
  zc::File other(temporary_file(pattern(0, 50)));
  CHECK(refused(writer, other, Side::source) == std::errc::bad_file_descriptor);
  CHECK(refused(other, reader, Side::sink) == std::errc::bad_file_descriptor);
  CHECK(size_of(base.get()) == 100);
  CHECK(other.size() == 50);
  FdPair pipe = pipe_pair();
  zc::BorrowedFd read_end = pipe.one.as_fd();
  zc::BorrowedFd write_end = pipe.other.as_fd();
  CHECK(refused(other, read_end, Side::sink) == std::errc::bad_file_descriptor);
  CHECK(refused(write_end, other, Side::source) == std::errc::bad_file_descriptor);
  zc::OwnedFd path(::open("/tmp", O_PATH | O_CLOEXEC));
  zc::BorrowedFd only_path = path.as_fd();
  CHECK(refused(only_path, other, Side::source));
  CHECK(refused(other, only_path, Side::sink));
}

TEST_CASE("a directory at either end: an error at once") {
  zc::OwnedFd dir(::open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  zc::BorrowedFd folder = dir.as_fd();
  zc::File file(temporary_file(pattern(0, 50)));
  CHECK(refused(folder, file, Side::source));
  CHECK(refused(file, folder, Side::sink));
  zc::File as_file{zc::OwnedFd(::open("/tmp", O_RDONLY | O_CLOEXEC))};
  CHECK(refused(as_file, file, Side::source) == std::errc::is_a_directory);
  CHECK(file.position() == 0);
}

TEST_CASE("the same descriptor at both ends: invalid_argument") {
  zc::File file(temporary_file(pattern(0, 50)));
  CHECK(refused(file, file, Side::none) == std::errc::invalid_argument);
  FdPair pair = unix_pair();
  zc::BorrowedFd one = pair.one.as_fd();
  write_all(pair.other.get(), pattern(0, 10));
  CHECK(refused(one, one, Side::none) == std::errc::invalid_argument);
  zc::Socket socket{std::move(pair.one)};
  CHECK(refused(socket, socket, Side::none) == std::errc::invalid_argument);
}

TEST_CASE("offset plus length more than a file can hold: offset_overflow, which is invalid_argument") {
  const zc::File file(temporary_file(pattern(0, 50)));
  zc::File other(temporary_file(pattern(0, 50)));
  for (const auto& [offset, length] : {std::pair<std::uint64_t, std::uint64_t>{UINT64_MAX - 5, 10},
                                       {std::uint64_t{1} << 63U, 10},
                                       {INT64_MAX, 10},
                                       {INT64_MAX - 5, 10}}) {
    zc::FileRange range(file.as_fd(), offset, length);
    CHECK(refused(range, other, Side::source) == std::errc::invalid_argument);
    CHECK(refused(other, range, Side::sink) == std::errc::invalid_argument);
  }
  zc::FileRange far(file.as_fd(), UINT64_MAX, zc::to_end);
  CHECK(refused(far, other, Side::source) == std::errc::invalid_argument);
  CHECK(other.position() == 0);
  CHECK(file.size() == 50);
}

TEST_CASE("unconnected sockets: reported at once, and no SIGPIPE") {
  zc::File file(temporary_file(pattern(0, 50)));
  zc::Socket tcp{zc::OwnedFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0))};
  const auto sent = refused(file, tcp, Side::sink);
  CHECK((sent == std::errc::broken_pipe || sent == std::errc::not_connected));
  zc::Socket udp{zc::OwnedFd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0))};
  CHECK(refused(file, udp, Side::sink) == std::errc::destination_address_required);
  zc::Socket unix{zc::OwnedFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0))};
  CHECK(refused(file, unix, Side::sink));
  CHECK(refused(tcp, file, Side::source) == std::errc::not_connected);
  CHECK(refused(unix, file, Side::source));
  CHECK(file.position() == 0);
}

TEST_CASE("a listening socket at either end: an error at once") {
  const zc::Listener tcp = zc::Listener::bind("127.0.0.1", 0);
  const zc::Listener local = zc::Listener::bind_unix("@zerocopy-bad-input-" + std::to_string(::getpid()));
  zc::File file(temporary_file(pattern(0, 50)));
  for (const auto* listener : {&tcp, &local}) {
    zc::BorrowedFd fd = listener->as_fd();
    CHECK(refused(fd, file, Side::source));
    CHECK(refused(file, fd, Side::sink));
  }
  CHECK(file.position() == 0);
}

TEST_CASE("length 0: complete, no call, no position moved, no end of the source taken") {
  zc::File from(temporary_file(pattern(0, 50)));
  zc::File to(temporary_file());
  const auto r = zc::transfer(from, to, {.length = 0});
  CHECK(r.reason == StopReason::complete);
  CHECK(r.calls == 0);
  CHECK_FALSE(r.strategy);
  FdPair pair = unix_pair();  // nothing to read: it must not wait
  const TimeLimit limit(20);
  CHECK(zc::transfer(pair.one, to, {.length = 0}).reason == StopReason::complete);
  CHECK(zc::transfer(from, pair.one, {.length = 0}).reason == StopReason::complete);
  // Before a deadline that is past.
  CHECK(zc::transfer(from, to, {.length = 0, .deadline = Clock::now() - 1s}).reason == StopReason::complete);
}

TEST_CASE("an empty set of allowed strategies: an error, nothing moved") {
  zc::File from(temporary_file(pattern(0, 50)));
  zc::File to(temporary_file());
  CHECK(refused(from, to, Side::none, {.allow = {}}) == Errc::strategy_unavailable);
  CHECK(from.position() == 0);
}

TEST_CASE("only allowed strategies move bytes") {
  for (const zc::Strategy s : {zc::Strategy::sendfile, zc::Strategy::splice, zc::Strategy::mmap_write,
                               zc::Strategy::read_write, zc::Strategy::copy_file_range}) {
    zc::File from(temporary_file(pattern(0, 200000)));
    const zc::File to(temporary_file());
    const auto r = zc::transfer(from, to, {.allow = {s}});
    CHECK(r.strategy == s);
    CHECK(same(pread_all(to.as_fd().get()), pattern(0, 200000)));
  }
  zc::File from(temporary_file(pattern(0, 50)));
  zc::File to(temporary_file());
  CHECK(refused(from, to, Side::none, {.strategy = zc::Strategy::sendfile, .allow = {zc::Strategy::read_write}}) ==
        Errc::strategy_unavailable);
}

TEST_CASE("chunk_size bounds each call") {
  zc::File from(temporary_file(pattern(0, 100001)));
  for (const auto& strategy : {std::optional<zc::Strategy>{}, std::optional{zc::Strategy::sendfile},
                               std::optional{zc::Strategy::splice}, std::optional{zc::Strategy::mmap_write},
                               std::optional{zc::Strategy::read_write}, std::optional{zc::Strategy::copy_file_range}}) {
    INFO((strategy ? std::string(to_string(*strategy)) : std::string("automatic")));
    const zc::File to(temporary_file());
    const auto r = zc::transfer(from.range(0), to, {.strategy = strategy, .chunk_size = 10000});
    CHECK(r.delivered == 100001);
    CHECK(r.calls >= 11);
    CHECK(same(pread_all(to.as_fd().get()), pattern(0, 100001)));
  }
  const zc::File to(temporary_file());
  CHECK(zc::transfer(from.range(0, 500), to, {.chunk_size = 1}).delivered == 500);
  std::error_code ec;  // 0 is either refused or means nothing; it never spins
  const TimeLimit limit(20);
  const auto r = zc::transfer(from.range(0, 500), to, {.chunk_size = 0}, ec);
  CHECK((ec || r.delivered == 500));
}

TEST_CASE("an epoll, which can be neither read nor written: an error at once") {
  const TimeLimit limit(20);
  zc::File file(temporary_file(pattern(0, 50)));
  zc::OwnedFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  zc::BorrowedFd fd = epoll.as_fd();
  CHECK(refused(fd, file, Side::source, {.idle_timeout = 2s}) == std::errc::invalid_argument);
  CHECK(refused(file, fd, Side::sink, {.idle_timeout = 2s}) == std::errc::invalid_argument);
}
