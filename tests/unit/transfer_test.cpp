#include <zerocopy/transfer.hpp>

#include "catch.hpp"
#include "unit/files.hpp"

#include <zerocopy/sigpipe_guard.hpp>

#include <poll.h>

#include <cstdlib>
#include <new>
#include <string>
#include <thread>
#include <vector>

using namespace zerocopy;
using namespace unit;

namespace {

std::string pattern(std::size_t n) {
  std::string text(n, '\0');
  for (std::size_t i = 0; i < n; ++i) text[i] = static_cast<char>('a' + (i * 7 + i / 251) % 26);
  return text;
}

struct Upload {
  BorrowedFd fd;
  std::uint64_t start;
};

}  // namespace

template <>
struct zerocopy::endpoint_traits<Upload> {
  static FileRange source(const Upload& u) noexcept { return {u.fd, u.start}; }
};

TEST_CASE("a failing transfer throws what was tried on what, with the whole result", "[transfer]") {
  const File file = file_with("abc");
  try {
    (void)transfer(file, BorrowedFd(-1));
    FAIL("nothing was thrown");
  } catch (const TransferError& error) {
    CHECK(error.code() == std::errc::bad_file_descriptor);
    CHECK(error.result().side == Side::sink);
    CHECK(error.result().delivered == 0);
    const std::string what = error.what();
    CAPTURE(what);
    CHECK(what.find("transfer from file (fd " + std::to_string(file.as_fd().get()) + ")") != std::string::npos);
    CHECK(what.find("0 bytes delivered") != std::string::npos);
    CHECK(what.find("Bad file descriptor") != std::string::npos);
  }
  CHECK(file.position() == 0);
}

TEST_CASE("the twin with an error_code reports the same and clears it on success", "[transfer]") {
  const File file = file_with("abc");
  std::error_code ec;
  const TransferResult failed = transfer(file, BorrowedFd(-1), ec);
  CHECK(ec == failed.error);
  CHECK(failed.reason == StopReason::failed);
  const File sink = File::temporary();
  const TransferResult good = transfer(file, sink, {.length = 2}, ec);
  CHECK_FALSE(ec);
  CHECK(good.delivered == 2);
}

TEST_CASE("a user's own type is the endpoint that it names", "[transfer]") {
  const File file = file_with("0123456789");
  const File sink = File::temporary();
  CHECK(transfer(Upload{file.as_fd(), 6}, sink).delivered == 4);
  CHECK(content(sink) == "6789");
}

TEST_CASE("bad input is found before the length is looked at, and a length of 0 before the deadline", "[transfer]") {
  const File file = file_with("abc");
  const File sink = File::temporary();
  const auto past = std::chrono::steady_clock::now() - std::chrono::seconds(1);
  std::error_code ec;
  (void)transfer(file.range(UINT64_MAX - 5, 3), sink, {.length = 0}, ec);
  CHECK(ec == Errc::offset_overflow);
  CHECK(transfer(file, sink, {.length = 0, .deadline = past}, ec).reason == StopReason::complete);
  CHECK_FALSE(ec);
  const TransferResult late = transfer(file, sink, {.deadline = past}, ec);
  CHECK(ec == std::errc::timed_out);
  CHECK(late.reason == StopReason::timed_out);
  CHECK(sink.size() == 0);
  CHECK(file.position() == 0);
}

TEST_CASE("a sink that holds less than the source has is filled, and the source stops there", "[transfer]") {
  const File file = file_with("0123456789");
  std::string four(4, '\0');
  const TransferResult r = transfer(file, std::as_writable_bytes(std::span(four)));
  CHECK(r.delivered == 4);
  CHECK(r.reason == StopReason::complete);
  CHECK(file.position() == 4);
  CHECK(four == "0123");
}

TEST_CASE("what a sink that died did not take is stranded and goes to another sink", "[transfer]") {
  const std::string text = pattern(100'000);
  Pipe pipe = Pipe::create({.capacity = 1 << 20});
  (void)transfer(bytes(text), pipe.writer());
  pipe.writer().close();
  const File sink = File::temporary();
  std::uint64_t first = 0;
  std::optional<Stranded> rest;
  {
    // A device that refuses splice and then has no space: the bytes have left the pipe.
    const File full = File::open("/dev/full", {.access = Access::write});
    std::error_code ec;
    TransferResult r = transfer(pipe.reader(), full.as_fd(), ec);
    CHECK(ec == std::errc::no_space_on_device);
    CHECK(r.side == Side::sink);
    REQUIRE(r.delivered == 0);
    first = r.consumed;
    REQUIRE(r.stranded);
    CHECK(r.stranded->size() == r.consumed);
    rest = std::move(r.stranded);
  }
  REQUIRE(first > 0);
  CHECK(transfer(*rest, sink, {.length = 10}).delivered == 10);
  CHECK(rest->size() == first - 10);
  CHECK(transfer(*rest, sink).delivered == first - 10);
  CHECK(rest->empty());
  CHECK(transfer(pipe.reader(), sink).delivered == text.size() - first);
  CHECK(content(sink) == text);
}

TEST_CASE("bytes in flight are given back to a file: its position is where the sink is", "[transfer]") {
  const File file = file_with(pattern(200'000));
  auto [a, b] = Socket::pair();
  a.set_send_buffer(16 * 1024);
  std::error_code ec;
  const TransferResult r =
      transfer(file, a, {.strategy = Strategy::read_write, .idle_timeout = std::chrono::milliseconds(1)}, ec);
  CHECK(ec == std::errc::timed_out);
  CHECK(r.side == Side::sink);
  CHECK(r.consumed == r.delivered);
  CHECK_FALSE(r.stranded);
  CHECK(file.position() == r.delivered);
  std::string got(r.delivered, '\0');
  CHECK(transfer(b, std::as_writable_bytes(std::span(got))).delivered == r.delivered);
  CHECK(got == pattern(200'000).substr(0, got.size()));
}

TEST_CASE("a dead sink is noticed behind a silent source", "[transfer]") {
  auto [silent, other_end] = Socket::pair();
  auto [sink, reader] = Socket::pair();
  std::thread killer([&r = reader] {
    ::poll(nullptr, 0, 50);  // the transfer waits by then; were it not, the result is the same
    r = Socket(OwnedFd());
  });
  std::error_code ec;
  const TransferResult r =
      transfer(silent, sink, {.deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20)}, ec);
  killer.join();
  CHECK(r.reason == StopReason::sink_closed);
  CHECK(ec == Errc::sink_closed);
}

TEST_CASE("a stop token ends a wait", "[transfer]") {
  auto [silent, other_end] = Socket::pair();
  const File sink = File::temporary();
  std::stop_source source;
  std::thread stopper([&] {
    ::poll(nullptr, 0, 20);
    source.request_stop();
  });
  std::error_code ec;
  const TransferResult r = transfer(silent, sink, {.stop = source.get_token()}, ec);
  stopper.join();
  CHECK(r.reason == StopReason::stopped);
  CHECK(ec == std::errc::operation_canceled);
}

TEST_CASE("a strategy that is not allowed is not used, and none at all is an error", "[transfer]") {
  const File file = file_with("abc");
  const File sink = File::temporary();
  CHECK(transfer(file, sink, {.allow = {Strategy::mmap_write}}).strategy == Strategy::mmap_write);
  std::error_code ec;
  const TransferResult r = transfer(file, sink, {.allow = {}}, ec);
  CHECK(ec == Errc::strategy_unavailable);
  CHECK(r.delivered == 0);
}

TEST_CASE("a forced strategy that can't serve the pair says why in the trail", "[transfer]") {
  const File file = file_with("abc");
  const File sink = File::temporary();
  std::error_code ec;
  const TransferResult r = transfer(file, sink, {.strategy = Strategy::vmsplice}, ec);
  CHECK(ec == Errc::strategy_unavailable);
  CHECK(r.reason == StopReason::failed);
  CHECK(r.delivered == 0);
  REQUIRE(r.trail.size() == 1);
  CHECK(r.trail[0].strategy == Strategy::vmsplice);
  CHECK(r.trail[0].error == Errc::not_for_this_pair);
  const std::string text = "abc";
  auto [a, b] = Socket::pair();
  const TransferResult snapshot = transfer(bytes(text), a, {.strategy = Strategy::vmsplice}, ec);
  CHECK(snapshot.trail[0].error == Errc::snapshot_needed);
  CHECK(snapshot.delivered == 0);
}

TEST_CASE("two transfers in threads of their own do not meet", "[transfer]") {
  const std::string text = pattern(1'000'000);
  std::vector<std::thread> threads;
  std::string results[2];
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      const File file = file_with(text);
      const File sink = File::temporary();
      for (int round = 0; round < 5; ++round)
        (void)transfer(file.range(0), sink.range(0), {.strategy = Strategy::splice});
      results[i] = content(sink);
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(results[0] == text);
  CHECK(results[1] == text);
}
