// What other systems test of sockets and pipes, and what bit them: peers that die, stall or send strange things.
#include "catch.hpp"
#include "support/process.hpp"

#include <atomic>
#include <memory>

namespace {

using namespace ends;
using zc::Errc;
using zc::Side;
using zc::StopReason;
using zc::Strategy;

zc::File file_of(std::span<const std::byte> bytes) { return zc::File(temporary_file(bytes)); }

std::string name(const std::optional<Strategy>& s) { return s ? std::string(to_string(*s)) : "automatic"; }

const std::optional<Strategy> to_socket[] = {std::nullopt, Strategy::sendfile, Strategy::splice, Strategy::mmap_write,
                                             Strategy::read_write};

bool sigpipe_pending() {
  sigset_t set;
  ::sigpending(&set);
  return sigismember(&set, SIGPIPE) == 1;
}

}  // namespace

TEST_CASE("567,198 bytes of a file to TCP and AF_UNIX: the digest matches") {
  for (const bool tcp : {true, false}) {
    FdPair pair = tcp ? tcp_pair() : unix_pair();
    Drainer drainer(pair.other.get());
    const zc::File from = file_of(pattern(0, 567198));
    CHECK(zc::transfer(from, zc::Socket(std::move(pair.one))).delivered == 567198);
    Digest sent;
    sent.add(pattern(0, 567198));
    Digest got;
    got.add(drainer.bytes());
    CHECK(sent == got);
  }
}

TEST_CASE("an offset at 3 GB: the right bytes") {
  zc::File from = zc::File::temporary();
  from.resize(3000001000U);
  pwrite_all(from.as_fd().get(), pattern(0, 1000), 3000000000U);
  for (const auto& s : to_socket) {
    INFO(name(s));
    FdPair pair = unix_pair();
    CHECK(zc::transfer(from.range(3000000000U), pair.one, {.strategy = s}).delivered == 1000);
    pair.one.reset();
    CHECK(same(read_to_end(pair.other.get()), pattern(0, 1000)));
  }
}

TEST_CASE("the peer has closed: sink_closed with EPIPE or ECONNRESET, the process lives with SIGPIPE at its default") {
  for (const auto& s : to_socket) {
    for (const int kind : {0, 1, 2}) {
      for (const bool blocking : {false, true}) {
        INFO(name(s) << " to " << (kind == 0 ? "tcp" : kind == 1 ? "unix" : "pipe"));
        if (kind == 2 && s == Strategy::sendfile) continue;
        const std::string wrong = in_child([&] {
          Wrong w;
          ::signal(SIGPIPE, SIG_DFL);
          FdPair pair = kind == 0 ? tcp_pair() : kind == 1 ? unix_pair() : pipe_pair();
          if (kind == 2) std::swap(pair.one, pair.other);
          set_nonblocking(pair.one.get(), !blocking);
          if (kind == 0) reset_at_close(pair.other.get());
          pair.other.reset();
          const zc::File from = file_of(pattern(0, 300000));
          const auto before = SignalState::now();
          std::error_code ec;
          const auto r = zc::transfer(from, pair.one, {.strategy = s}, ec);
          w.unless(ec == Errc::sink_closed, "the error is " + ec.message());
          w.unless(ec == std::errc::broken_pipe || ec == std::errc::connection_reset, "not the system's error");
          w.unless(r.reason == StopReason::sink_closed, "the reason is " + std::string(to_string(r.reason)));
          w.unless(r.side == Side::sink, "side");
          w.unless(from.position() == r.delivered && r.consumed == r.delivered, "counts");
          w.unless(before == SignalState::now(), "the mask or what is pending changed");
          return w.text();
        });
        CHECK(wrong == "");
      }
    }
  }
}

TEST_CASE("a SIGPIPE that was pending before stays pending, one of ours does not; the mask is unchanged") {
  for (const auto& s : to_socket) {
    for (const bool pending : {true, false}) {
      INFO(name(s));
      const std::string wrong = in_child([&] {
        Wrong w;
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGPIPE);
        ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
        if (pending) ::raise(SIGPIPE);
        const auto before = SignalState::now();
        FdPair pair = unix_pair();
        pair.other.reset();
        const zc::File from = file_of(pattern(0, 300000));
        std::error_code ec;
        std::ignore = zc::transfer(from, pair.one, {.strategy = s}, ec);
        w.unless(ec == Errc::sink_closed, "the error is " + ec.message());
        w.unless(sigpipe_pending() == pending, "pending");
        w.unless(before == SignalState::now(), "mask");
        return w.text();
      });
      CHECK(wrong == "");
    }
  }
}

TEST_CASE("the caller's SIGPIPE handler is not called") {
  static std::atomic<int> calls{0};
  const std::string wrong = in_child([] {
    Wrong w;
    ::signal(SIGPIPE, [](int) { ++calls; });
    for (const auto& s : to_socket) {
      FdPair pair = unix_pair();
      pair.other.reset();
      const zc::File from = file_of(pattern(0, 300000));
      std::error_code ec;
      std::ignore = zc::transfer(from, pair.one, {.strategy = s}, ec);
      std::array<std::byte, 100> memory{};
      std::ignore = zc::transfer(std::span<const std::byte>(memory), pair.one, ec);
    }
    w.unless(calls == 0, "the handler ran");
    return w.text();
  });
  CHECK(wrong == "");
}

TEST_CASE("under a SigpipeGuard the same, and the mask is as before at its end") {
  const auto before = SignalState::now();
  {
    const zc::SigpipeGuard guard;
    FdPair pair = unix_pair();
    pair.other.reset();
    const zc::File from = file_of(pattern(0, 1000));
    std::error_code ec;
    std::ignore = zc::transfer(from, pair.one, {.strategy = Strategy::sendfile}, ec);
    CHECK(ec == Errc::sink_closed);
  }
  CHECK(before == SignalState::now());
}

TEST_CASE("the peer dies in the middle: what was delivered is counted, the position follows") {
  for (const auto& s : to_socket) {
    INFO(name(s));
    FdPair pair = unix_pair();
    const zc::File from = file_of(pattern(0, std::size_t{4} << 20));
    std::thread reader([&] {
      std::ignore = read_to_end(pair.other.get(), 500000);
      pair.other.reset();
    });
    std::error_code ec;
    const auto r = zc::transfer(from, pair.one, {.strategy = s}, ec);
    reader.join();
    CHECK(ec == Errc::sink_closed);
    CHECK(r.delivered >= 500000);
    CHECK(r.delivered < (std::uint64_t{4} << 20U));
    CHECK(r.consumed == r.delivered);
    CHECK(from.position() == r.delivered);
  }
}

TEST_CASE("a sink that dies behind a source that is filled: the left-over bytes are the caller's, for another sink") {
  for (const auto& s :
       {std::optional<Strategy>{}, std::optional{Strategy::splice}, std::optional{Strategy::read_write}}) {
    for (const bool pipe_source : {false, true}) {
      INFO(name(s) << (pipe_source ? " from a pipe" : " from a socket"));
      const std::size_t size = std::size_t{4} << 20;
      FdPair from = pipe_source ? pipe_pair() : tcp_pair();
      FdPair to = unix_pair();
      Feeder feeder(std::move(from.other), pattern(0, size));
      Bytes got;
      std::thread reader([&] {
        got = read_to_end(to.other.get(), 700000);
        ::shutdown(to.other.get(), SHUT_RD);  // open still: what is queued can be counted
      });
      std::error_code ec;
      auto r = zc::transfer(from.one, to.one, {.strategy = s}, ec);
      reader.join();
      CHECK(ec == Errc::sink_closed);
      CHECK(r.delivered >= got.size());
      CHECK(same(got, pattern(0, got.size())));
      const auto held = r.stranded ? r.stranded->size() : 0;
      CHECK(r.consumed == r.delivered + held);
      const zc::File rescue = file_of({});
      if (r.stranded) {
        // In two parts: as an lvalue it shrinks.
        CHECK(zc::transfer(*r.stranded, rescue, {.length = held / 2}).delivered == held / 2);
        CHECK(r.stranded->size() == held - held / 2);
        CHECK(zc::transfer(*r.stranded, rescue).delivered == held - held / 2);
        CHECK(r.stranded->empty());
      }
      CHECK_FALSE(zc::transfer(from.one, rescue).error);
      const Bytes rest = pread_all(rescue.as_fd().get());
      CHECK(r.delivered + rest.size() == size);
      CHECK(same(rest, pattern(size - rest.size(), rest.size())));
    }
  }
}

TEST_CASE("stranded bytes whose second sink fails too are still there") {
  FdPair from = unix_pair();
  write_all(from.other.get(), pattern(0, 5000));
  from.other.reset();
  const zc::OwnedFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  std::error_code ec;
  auto r = zc::transfer(from.one, full, ec);
  CHECK(ec == std::errc::no_space_on_device);
  CHECK(r.side == Side::sink);
  CHECK(r.delivered == 0);
  REQUIRE(r.stranded);
  CHECK(r.stranded->size() == 5000);
  const auto again = zc::transfer(*r.stranded, full, ec);
  CHECK(ec == std::errc::no_space_on_device);
  CHECK(again.delivered == 0);
  CHECK(r.stranded->size() + (again.stranded ? again.stranded->size() : 0) == 5000);
  Bytes memory(5000);
  CHECK(zc::transfer(*r.stranded, std::span(memory)).delivered == 5000);
  CHECK(same(memory, pattern(0, 5000)));
}

TEST_CASE("a dead sink behind a silent source is noticed") {
  const TimeLimit limit(30);
  for (const bool from_pipe : {false, true}) {
    for (const bool reset : {false, true}) {
      FdPair from = from_pipe ? pipe_pair() : unix_pair();
      FdPair to = reset ? tcp_pair() : unix_pair();
      std::thread killer([&] {
        std::this_thread::sleep_for(50ms);
        if (reset) reset_at_close(to.other.get());
        to.other.reset();
      });
      std::error_code ec;
      const auto began = Clock::now();
      const auto r = zc::transfer(from.one, to.one, ec);
      killer.join();
      CHECK(ec == Errc::sink_closed);
      CHECK(r.reason == StopReason::sink_closed);
      CHECK(r.side == Side::sink);
      CHECK(r.consumed == 0);
      CHECK(Clock::now() - began < 2s);
    }
  }
}

TEST_CASE("a dead pipe sink behind a silent source is noticed") {
  const TimeLimit limit(30);
  FdPair from = unix_pair();
  FdPair to = pipe_pair();
  to.one.reset();
  std::error_code ec;
  std::ignore = zc::transfer(from.one, to.other, ec);
  CHECK(ec == Errc::sink_closed);
}

TEST_CASE("a source socket that is reset: an error at the source with what arrived") {
  for (const auto& s :
       {std::optional<Strategy>{}, std::optional{Strategy::splice}, std::optional{Strategy::read_write}}) {
    INFO(name(s));
    FdPair from = tcp_pair();
    write_all(from.other.get(), pattern(0, 1000));
    const zc::File to = file_of({});
    std::thread killer([&] {
      while (to.size() < 1000) std::this_thread::sleep_for(1ms);
      reset_at_close(from.other.get());
      from.other.reset();
    });
    std::error_code ec;
    const auto r = zc::transfer(from.one, to, {.strategy = s}, ec);
    killer.join();
    CHECK(ec == std::errc::connection_reset);
    CHECK(r.side == Side::source);
    CHECK(r.reason == StopReason::failed);
    CHECK(r.delivered == 1000);
  }
}

TEST_CASE("a 100-byte tail arrives in under 50 ms") {
  for (const auto& s : to_socket) {
    INFO(name(s));
    FdPair pair = tcp_pair();
    const zc::File from = file_of(pattern(0, 65536 * 3 + 100));
    Drainer drainer(pair.other.get(), 65536 * 3 + 100);
    const auto began = Clock::now();
    CHECK(zc::transfer(from, pair.one, {.strategy = s}).delivered == 65536 * 3 + 100);
    CHECK(drainer.bytes().size() == 65536 * 3 + 100);
    CHECK(Clock::now() - began < 50ms);
  }
}

TEST_CASE("a 100-byte tail that comes from a socket arrives in under 50 ms too") {
  for (const auto& s :
       {std::optional<Strategy>{}, std::optional{Strategy::splice}, std::optional{Strategy::read_write}}) {
    INFO(name(s));
    FdPair from = tcp_pair();
    FdPair to = tcp_pair();
    write_all(from.other.get(), pattern(0, 100));  // and stays open
    std::thread mover([&] { std::ignore = zc::transfer(from.one, to.one, {.strategy = s}); });
    const auto began = Clock::now();
    CHECK(read_to_end(to.other.get(), 100).size() == 100);
    CHECK(Clock::now() - began < 50ms);
    from.other.reset();
    mover.join();
  }
}

TEST_CASE("more = true may hold the last packet back, the next transfer brings it") {
  FdPair pair = tcp_pair();
  const zc::File from = file_of(pattern(0, 300));
  CHECK(zc::transfer(from.range(0, 100), pair.one, {.more = true}).delivered == 100);
  CHECK(zc::transfer(from.range(100, 200), pair.one).delivered == 200);
  const auto began = Clock::now();
  CHECK(same(read_to_end(pair.other.get(), 300), pattern(0, 300)));
  CHECK(Clock::now() - began < 50ms);
  CHECK(option_of(pair.one.get(), IPPROTO_TCP, TCP_CORK) == 0);
}

TEST_CASE("MSS-sized and tiny segments through a pipe: neither a stall nor a lost edge") {
  const TimeLimit limit(60);
  for (const std::size_t segment : {std::size_t{100}, std::size_t{1448}}) {
    for (const auto& s : {std::optional<Strategy>{}, std::optional{Strategy::splice}}) {
      FdPair from = tcp_pair();
      const int on = 1;
      ::setsockopt(from.other.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      FdPair to = unix_pair();
      Drainer drainer(to.other.get());
      std::thread feeder([&] {
        without_sigpipe();
        for (std::size_t at = 0; at < 3000 * segment; at += segment)
          std::ignore = write_all(from.other.get(), pattern(at, segment));
        from.other.reset();
      });
      std::error_code ec;
      const auto r = zc::transfer(from.one, to.one, {.strategy = s}, ec);
      to.one.reset();
      feeder.join();
      CHECK_FALSE(ec);
      CHECK(r.delivered == 3000 * segment);
      CHECK(same(drainer.bytes(), pattern(0, 3000 * segment)));
    }
  }
}

TEST_CASE("urgent data in the source: the bytes after it arrive, no spin and no false end") {
  const TimeLimit limit(60);
  for (const auto& s :
       {std::optional<Strategy>{}, std::optional{Strategy::splice}, std::optional{Strategy::read_write}}) {
    for (const bool closed_before : {true, false}) {
      INFO(name(s) << (closed_before ? ", closed before" : ", closed later"));
      FdPair from = tcp_pair();
      write_all(from.other.get(), as_bytes("before"));
      CHECK(::send(from.other.get(), "U", 1, MSG_OOB) == 1);
      write_all(from.other.get(), as_bytes("after"));
      std::thread closer([&] {
        if (!closed_before) std::this_thread::sleep_for(50ms);
        from.other.reset();
      });
      if (closed_before) closer.join();
      const zc::File to = file_of({});
      std::error_code ec;
      const auto r = zc::transfer(from.one, to, {.strategy = s}, ec);
      if (closer.joinable()) closer.join();
      const std::string got = as_text(pread_all(to.as_fd().get()));
      if (s && ec) {  // a forced splice may say that it can't pass the mark, but loses nothing
        CHECK(got == std::string("before").substr(0, got.size()));
        continue;
      }
      CHECK_FALSE(ec);
      CHECK((got == "beforeafter" || got == "beforeUafter"));
      CHECK(r.delivered == got.size());
    }
  }
}

TEST_CASE("a full non-blocking socket and a receiver that stalls: timed out with the partial count") {
  for (const auto& s : to_socket) {
    for (const bool blocking : {false, true}) {
      for (const bool tcp : {false, true}) {
        for (const bool idle : {false, true}) {
          INFO(name(s) << (blocking ? ", blocking" : "") << (tcp ? ", tcp" : ", unix")
                       << (idle ? ", idle" : ", deadline"));
          const TimeLimit limit(30);
          FdPair pair = tcp ? tcp_pair(20000) : unix_pair();
          set_nonblocking(pair.one.get(), !blocking);
          const auto state = FdState::of(pair.one.get());
          const zc::File from = file_of(pattern(0, std::size_t{8} << 20));
          zc::Options options{.strategy = s};
          const auto began = Clock::now();
          if (idle)
            options.idle_timeout = 150ms;
          else
            options.deadline = began + 150ms;
          std::error_code ec;
          const auto r = zc::transfer(from, pair.one, options, ec);
          const auto took = Clock::now() - began;
          CHECK(state == FdState::of(pair.one.get()));
          if (s && ec == Errc::strategy_unavailable) {
            CHECK(r.delivered == 0);
            continue;
          }
          CHECK(ec == Errc::timed_out);
          CHECK(ec == std::errc::timed_out);
          CHECK(r.reason == StopReason::timed_out);
          CHECK(took >= 149ms);
          CHECK(took < (idle ? 2s : 400ms));
          CHECK(r.delivered > 0);
          CHECK(r.delivered == r.consumed);
          CHECK(from.position() == r.delivered);
          pair.one.reset();
          CHECK(same(read_to_end(pair.other.get()), pattern(0, static_cast<std::size_t>(r.delivered))));
        }
      }
    }
  }
}

TEST_CASE("a deadline already past: timed out, and the receiver gets nothing") {
  FdPair pair = unix_pair();
  const zc::File from = file_of(pattern(0, 1000));
  std::error_code ec;
  auto r = zc::transfer(from, pair.one, {.deadline = Clock::now() - 1ms}, ec);
  CHECK(ec == Errc::timed_out);
  CHECK(r.reason == StopReason::timed_out);
  CHECK(r.delivered == 0);
  CHECK(r.calls == 0);
  CHECK(from.position() == 0);
  CHECK(read_now(pair.other.get()).empty());
  r = zc::transfer(zc::BorrowedFd(-1), pair.one, {.deadline = Clock::now() - 1ms}, ec);
  CHECK(ec == std::errc::bad_file_descriptor);  // bad input is said first
}

TEST_CASE("a silent source: the deadline, the idle timeout and the stop token end the wait within 100 ms") {
  for (const int kind : {0, 1, 2}) {
    for (const bool blocking : {false, true}) {
      for (const int how : {0, 1, 2}) {
        const TimeLimit limit(30);
        INFO("kind " << kind << (blocking ? " blocking" : "") << " how " << how);
        FdPair from = kind == 0 ? tcp_pair() : kind == 1 ? unix_pair() : pipe_pair();
        set_nonblocking(from.one.get(), !blocking);
        const zc::File to = file_of({});
        write_all(from.other.get(), pattern(0, 100));
        std::stop_source stop;
        zc::Options options{};
        if (how == 0) options.deadline = Clock::now() + 100ms;
        if (how == 1) options.idle_timeout = 100ms;
        if (how == 2) options.stop = stop.get_token();
        const auto began = Clock::now();
        std::thread stopper([&] {
          if (how != 2) return;
          std::this_thread::sleep_for(100ms);
          stop.request_stop();
        });
        std::error_code ec;
        const auto r = zc::transfer(from.one, to, options, ec);
        const auto took = Clock::now() - began;
        stopper.join();
        CHECK(ec == (how == 2 ? Errc::stopped : Errc::timed_out));
        CHECK(r.reason == (how == 2 ? StopReason::stopped : StopReason::timed_out));
        if (how == 2) CHECK(ec == std::errc::operation_canceled);
        CHECK(took >= 99ms);
        CHECK(took < 300ms);
        CHECK(r.delivered == 100);
        CHECK(r.consumed == 100);
        CHECK(same(pread_all(to.as_fd().get()), pattern(0, 100)));
      }
    }
  }
}

TEST_CASE("stopped before it begins: nothing moved") {
  std::stop_source stop;
  stop.request_stop();
  const zc::File from = file_of(pattern(0, 1000));
  const zc::File to = file_of({});
  std::error_code ec;
  const auto r = zc::transfer(from, to, {.stop = stop.get_token()}, ec);
  CHECK(ec == Errc::stopped);
  CHECK(r.delivered == 0);
  CHECK(from.position() == 0);
}

TEST_CASE("a stop in the middle of a stalled send on a blocking socket returns, and the descriptors stay open") {
  for (const auto& s : to_socket) {
    INFO(name(s));
    const TimeLimit limit(30);
    FdPair pair = unix_pair();
    const zc::File from = file_of(pattern(0, std::size_t{8} << 20));
    std::stop_source stop;
    std::thread stopper([&] {
      std::this_thread::sleep_for(100ms);
      stop.request_stop();
    });
    const auto began = Clock::now();
    std::error_code ec;
    const auto r = zc::transfer(from, pair.one, {.strategy = s, .stop = stop.get_token()}, ec);
    const auto took = Clock::now() - began;
    stopper.join();
    if (s && ec == Errc::strategy_unavailable) continue;
    CHECK(ec == Errc::stopped);
    CHECK(took < 300ms);
    CHECK(r.delivered == from.position());
    CHECK(::fcntl(pair.one.get(), F_GETFD) >= 0);
  }
}

TEST_CASE("pipe to pipe, 5 bytes, writer closed: the count, then the end") {
  FdPair from = pipe_pair();
  FdPair to = pipe_pair();
  write_all(from.other.get(), as_bytes("hello"));
  from.other.reset();
  CHECK(zc::transfer(from.one, to.other).delivered == 5);
  CHECK(as_text(read_now(to.one.get())) == "hello");
  const auto r = zc::transfer(from.one, to.other);
  CHECK(r.delivered == 0);
  CHECK(r.reason == StopReason::complete);
  CHECK_FALSE(r.strategy);
}

TEST_CASE("/dev/full and an append file as sinks of a socket: drained by write or reported, nothing lost") {
  for (const auto& s : {std::optional<Strategy>{}, std::optional{Strategy::read_write}}) {
    FdPair from = tcp_pair();
    write_all(from.other.get(), pattern(0, 50000));
    from.other.reset();
    const zc::OwnedFd base = temporary_file(as_bytes("x"));
    const zc::OwnedFd append = reopened(base.get(), O_WRONLY | O_APPEND);
    const auto r = zc::transfer(from.one, append, {.strategy = s});
    CHECK(r.delivered == 50000);
    const Bytes all = pread_all(base.get());
    CHECK(same(std::span(all).subspan(1), pattern(0, 50000)));
  }
}

TEST_CASE("/dev/null takes all, /dev/zero gives as much as is asked for") {
  const TimeLimit limit(30);
  const zc::OwnedFd null(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  const zc::OwnedFd zero(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
  const zc::File from = file_of(pattern(0, 100000));
  CHECK(zc::transfer(from, null).delivered == 100000);
  const zc::File to = file_of({});
  CHECK(zc::transfer(zero, to, {.length = 100000}).delivered == 100000);
  CHECK(same(pread_all(to.as_fd().get()), Bytes(100000)));
  FdPair pair = unix_pair();
  write_all(pair.other.get(), pattern(0, 1000));
  pair.other.reset();
  CHECK(zc::transfer(pair.one, null).delivered == 1000);
}

TEST_CASE("the source file shrinks while it is sent: source_truncated with the count, no padding and no spin") {
  for (const auto& s : to_socket) {
    INFO(name(s));
    const TimeLimit limit(30);
    const std::size_t size = std::size_t{8} << 20;
    FdPair pair = unix_pair();
    zc::File from = file_of(pattern(0, size));
    Bytes got;
    std::thread reader([&] {
      got = read_to_end(pair.other.get(), 200000);  // the library now waits in a full socket
      from.resize(1000000);
      const Bytes rest = read_to_end(pair.other.get());
      got.insert(got.end(), rest.begin(), rest.end());
    });
    std::error_code ec;
    const auto r = zc::transfer(from.range(0), pair.one, {.strategy = s}, ec);
    pair.one.reset();
    reader.join();
    CHECK(ec == Errc::source_truncated);
    CHECK(r.reason == StopReason::source_truncated);
    CHECK(r.side == Side::source);
    CHECK(r.delivered == got.size());
    CHECK(r.consumed == r.delivered);
    CHECK(r.delivered >= 1000000);
    CHECK(same(std::span(got).first(std::min<std::size_t>(got.size(), 999424)),
               pattern(0, std::min<std::size_t>(got.size(), 999424))));
  }
}

TEST_CASE("a truncated mapping is an error, never a SIGBUS: to a socket, a file, a pipe and memory") {
  for (const int sink : {0, 1, 2, 3}) {
    INFO("sink " << sink);
    const std::string wrong = in_child([&] {
      Wrong w;
      zc::File file = file_of(pattern(0, 300000));
      const zc::MappedFile from = zc::MappedFile::map(file);
      file.resize(100000);
      FdPair pair = sink == 1 ? pipe_pair() : unix_pair();
      if (sink == 1) std::swap(pair.one, pair.other);
      Drainer drainer(pair.other.get());
      const zc::File to = file_of({});
      std::error_code ec;
      zc::TransferResult r;
      Bytes memory(300000);
      if (sink < 2)
        r = zc::transfer(from, pair.one, ec);
      else if (sink == 2)
        r = zc::transfer(from, to, ec);
      else
        r = zc::transfer(from, std::span(memory), ec);
      pair.one.reset();
      const Bytes got = sink == 2   ? pread_all(to.as_fd().get())
                        : sink == 3 ? Bytes(memory.begin(), memory.begin() + static_cast<std::ptrdiff_t>(r.delivered))
                                    : drainer.bytes();
      w.unless(ec == Errc::source_truncated, "the error is " + ec.message());
      w.unless(got.size() == r.delivered,
               "delivered " + std::to_string(r.delivered) + " of " + std::to_string(got.size()));
      w.unless(got.size() <= 100000, "zeros past the end were sent");
      w.unless(same(got, pattern(0, std::min<std::size_t>(got.size(), 100000))), "content");
      return w.text();
    });
    CHECK(wrong == "");
  }
}

TEST_CASE("MSG_ZEROCOPY on loopback and AF_UNIX, with a caller's error queue and without") {
  FdPair pair = tcp_pair();
  const auto state = FdState::of(pair.one.get());
  Drainer drainer(pair.other.get(), 3000000);
  std::error_code ec;
  auto r = zc::transfer(pattern(0, 3000000), pair.one,
                        {.strategy = Strategy::send_zerocopy, .aliasing = zc::Aliasing::shared}, ec);
  CHECK_FALSE(ec);
  CHECK(r.delivered == 3000000);
  CHECK_FALSE(r.source_in_use);
  CHECK(same(drainer.bytes(), pattern(0, 3000000)));
  CHECK(state == FdState::of(pair.one.get()));
  pollfd quiet{pair.one.get(), 0, 0};
  CHECK(::poll(&quiet, 1, 0) == 0);  // no completion of ours is left in the error queue

  FdPair local = unix_pair();
  r = zc::transfer(pattern(0, 1000), local.one, {.strategy = Strategy::send_zerocopy, .aliasing = zc::Aliasing::shared},
                   ec);
  CHECK(ec == Errc::strategy_unavailable);
  CHECK(read_now(local.other.get()).empty());
  r = zc::transfer(pattern(0, 1000), local.one, {.aliasing = zc::Aliasing::shared}, ec);
  CHECK_FALSE(ec);

  FdPair own = tcp_pair();
  const int on = 1;
  ::setsockopt(own.one.get(), SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on);
  CHECK(::send(own.one.get(), pattern().data(), 100000, MSG_ZEROCOPY) == 100000);
  Drainer both(own.other.get());
  const TimeLimit limit(30);
  r = zc::transfer(pattern(100000, 100000), own.one, {.aliasing = zc::Aliasing::shared}, ec);
  CHECK_FALSE(ec);
  CHECK(r.delivered == 100000);
  std::array<char, 512> control{};
  msghdr message{};
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  CHECK(wait_for(own.one.get(), 0, Clock::now() + 2s));                         // it comes with the acknowledgement
  CHECK(::recvmsg(own.one.get(), &message, MSG_ERRQUEUE | MSG_DONTWAIT) == 0);  // the caller's is still there
  own.one.reset();
  CHECK(same(both.bytes(), pattern(0, 200000)));
}

TEST_CASE("a send_zerocopy to a reader that stalls, with a deadline: source_in_use is said") {
  const TimeLimit limit(30);
  FdPair pair = tcp_pair(20000);
  std::error_code ec;
  const auto began = Clock::now();
  const auto r = zc::transfer(
      pattern(0, std::size_t{8} << 20), pair.one,
      {.strategy = Strategy::send_zerocopy, .deadline = began + 150ms, .aliasing = zc::Aliasing::shared}, ec);
  if (ec == Errc::strategy_unavailable) return;
  CHECK(ec == Errc::timed_out);
  CHECK(r.source_in_use);
  CHECK(Clock::now() - began < 400ms);
}

TEST_CASE("snapshot: what the source becomes later never shows at the receiver") {
  for (const auto& s : to_socket) {
    for (const bool pipe : {false, true}) {
      INFO(name(s) << (pipe ? " to a pipe" : " to a socket"));
      FdPair pair = pipe ? pipe_pair() : tcp_pair();
      if (pipe) std::swap(pair.one, pair.other);
      const zc::File from = file_of(pattern(0, 20000));
      std::error_code ec;
      const auto r = zc::transfer(from, pair.one, {.strategy = s, .aliasing = zc::Aliasing::snapshot}, ec);
      if (s && ec == Errc::strategy_unavailable) {
        CHECK(r.delivered == 0);
        continue;
      }
      CHECK_FALSE(ec);
      pwrite_all(from.as_fd().get(), pattern(5000000, 20000), 0);
      pair.one.reset();
      CHECK(same(read_to_end(pair.other.get()), pattern(0, 20000)));
    }
  }
  // Memory is a snapshot without being asked.
  FdPair pair = pipe_pair();
  Bytes memory(pattern(0, 20000).begin(), pattern(0, 20000).end());
  CHECK(zc::transfer(std::span<const std::byte>(memory), pair.other).delivered == 20000);
  std::fill(memory.begin(), memory.end(), std::byte{0});
  pair.other.reset();
  CHECK(same(read_to_end(pair.one.get()), pattern(0, 20000)));
}

TEST_CASE("snapshot of a memfd that is sealed against writing keeps the zero-copy way") {
  zc::MemoryFile from = zc::MemoryFile::create("sealed");
  pwrite_all(from.as_fd().get(), pattern(0, 100000), 0);
  from.seal();
  FdPair pair = unix_pair();
  Drainer drainer(pair.other.get());
  std::error_code ec;
  const auto r = zc::transfer(from, pair.one, {.strategy = Strategy::sendfile, .aliasing = zc::Aliasing::snapshot}, ec);
  CHECK_FALSE(ec);
  CHECK(r.strategy == Strategy::sendfile);
  pair.one.reset();
  CHECK(same(drainer.bytes(), pattern(0, 100000)));
}

TEST_CASE("two threads at once, and a thread's pooled pipes close with it") {
  const std::size_t before = open_descriptors();
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&right, t] {
      for (int i = 0; i < 50; ++i) {
        const auto at = static_cast<std::size_t>(t * 100000 + i);
        FdPair from = unix_pair();
        FdPair to = unix_pair();
        Feeder feeder(std::move(from.other), pattern(at, 300000));
        Drainer drainer(to.other.get());
        std::error_code ec;
        const auto r = zc::transfer(from.one, to.one, {.strategy = Strategy::splice}, ec);
        to.one.reset();
        if (!ec && r.delivered == 300000 && same(drainer.bytes(), pattern(at, 300000))) ++right;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  CHECK(right == 200);
  CHECK(open_descriptors() == before);
}

TEST_CASE("a thread keeps no more than a few pooled pipes, and dirty ones are never used again") {
  in_thread([] {
    const auto one = [](bool dies) {
      FdPair from = tcp_pair();
      FdPair to = unix_pair();
      Feeder feeder(std::move(from.other), pattern(dies ? 1000 : 0, 300000));
      if (dies) to.other.reset();
      std::unique_ptr<Drainer> drainer;
      if (!dies) drainer = std::make_unique<Drainer>(to.other.get());
      std::error_code ec;
      std::ignore = zc::transfer(from.one, to.one, {.strategy = Strategy::splice}, ec);
      to.one.reset();
      from.one.reset();
      if (drainer) CHECK(same(drainer->bytes(), pattern(0, 300000)));
    };
    one(false);
    const std::size_t before = open_descriptors();
    for (int i = 0; i < 64; ++i) one(i % 2 == 0);
    CHECK(open_descriptors() <= before + 8);
  });
}

TEST_CASE("a child after fork never uses its parent's pooled pipe") {
  FdPair from = unix_pair();
  FdPair to = unix_pair();
  write_all(from.other.get(), pattern(0, 1000));
  CHECK(zc::transfer(from.one, to.one, {.strategy = Strategy::splice, .length = 1000}).delivered == 1000);
  CHECK(read_to_end(to.other.get(), 1000).size() == 1000);
  for (int i = 0; i < 20; ++i) {
    write_all(from.other.get(), pattern(0, 1000));
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(20);
      FdPair mine = unix_pair();
      FdPair theirs = unix_pair();
      bool right = true;
      for (int n = 0; n < 50 && right; ++n) {
        write_all(mine.other.get(), pattern(50000, 5000));
        std::error_code ec;
        const auto r = zc::transfer(mine.one, theirs.one, {.strategy = Strategy::splice, .length = 5000}, ec);
        right = !ec && r.delivered == 5000 && same(read_to_end(theirs.other.get(), 5000), pattern(50000, 5000));
      }
      ::_exit(right ? 0 : 1);
    }
    for (int n = 0; n < 50; ++n) {
      if (n != 0) write_all(from.other.get(), pattern(0, 1000));
      std::ignore = zc::transfer(from.one, to.one, {.strategy = Strategy::splice, .length = 1000});
      CHECK(same(read_to_end(to.other.get(), 1000), pattern(0, 1000)));
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    CHECK(status == 0);
  }
}

TEST_CASE("no descriptors left for a pipe: the copying way") {
  const std::string wrong = in_child([] {
    Wrong w;
    FdPair from = unix_pair();
    FdPair to = unix_pair();
    write_all(from.other.get(), pattern(0, 50000));
    from.other.reset();
    const rlimit limit{static_cast<rlim_t>(to.other.get() + 1), static_cast<rlim_t>(to.other.get() + 1)};
    ::setrlimit(RLIMIT_NOFILE, &limit);
    std::vector<zc::OwnedFd> used;
    for (zc::OwnedFd fd(::dup(0)); fd; fd.reset(::dup(0))) used.push_back(std::move(fd));
    std::error_code ec;
    std::string got;
    std::thread other([&] {  // a thread without pooled pipes
      const auto r = zc::transfer(from.one, to.one, ec);
      w.unless(!ec && r.delivered == 50000, ec.message());
      const auto forced = zc::transfer(from.one, to.one, {.strategy = Strategy::splice, .length = 10}, ec);
      w.unless(forced.delivered == 0, "forced");
    });
    other.join();
    to.one.reset();
    w.unless(same(read_to_end(to.other.get()), pattern(0, 50000)), "content");
    return w.text();
  });
  CHECK(wrong == "");
}

TEST_CASE("over the user's pipe quota: goes on with pipes of 8 KiB") {
  if (!is_root()) {
    WARN("skipped: only root can become another user with its own quota");
    return;
  }
  const std::string wrong = in_child([] {
    Wrong w;
    std::ignore = pattern();
    rlimit files{10000, 10000};
    ::setrlimit(RLIMIT_NOFILE, &files);
    become_nobody();
    std::vector<FdPair> hoard;
    for (int i = 0; i < 200; ++i) {
      hoard.push_back(pipe_pair());
      if (::fcntl(hoard.back().one.get(), F_SETPIPE_SZ, 1 << 20) < 0 &&
          ::fcntl(hoard.back().one.get(), F_GETPIPE_SZ) < 65536)
        break;
    }
    const int granted = ::fcntl(hoard.back().one.get(), F_GETPIPE_SZ);
    w.unless(granted <= 8192, "the quota was not reached: " + std::to_string(granted));
    for (const auto& s : {std::optional<Strategy>{}, std::optional{Strategy::splice}}) {
      FdPair from = unix_pair();
      FdPair to = unix_pair();
      Feeder feeder(std::move(from.other), pattern(0, 500000));
      Drainer drainer(to.other.get());
      std::error_code ec;
      const auto r = zc::transfer(from.one, to.one, {.strategy = s}, ec);
      to.one.reset();
      w.unless(!ec && r.delivered == 500000, ec.message() + " " + std::to_string(r.delivered));
      w.unless(same(drainer.bytes(), pattern(0, 500000)), "content");
    }
    return w.text();
  });
  CHECK(wrong == "");
}
