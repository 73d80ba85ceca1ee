// relay(a, b): both directions between two sockets, ends in every order, and everything that can go wrong with either side.
#include "catch.hpp"

#include "support/process.hpp"

#include <zerocopy/zerocopy.hpp>

#include <sys/ioctl.h>

#include <atomic>
#include <memory>
#include <optional>
#include <set>

using namespace zerocopy;
using namespace std::chrono_literals;
using ends::Clock;

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif

constexpr std::uint64_t kibi = 1024;
constexpr std::uint64_t mebi = 1024 * kibi;

enum class Net { tcp, unix_stream };
constexpr std::array families{Net::tcp, Net::unix_stream};
const char* name_of(Net family) { return family == Net::tcp ? "tcp" : "unix"; }

ends::FdPair pair_of(Net family) {
  ends::FdPair pair = family == Net::tcp ? ends::tcp_pair() : ends::unix_pair();
  ends::set_nonblocking(pair.other.get(), true);
  return pair;
}

// What a peer sends is the pattern from an offset of its own on, again and again; what arrives is compared with it byte by
// byte. Its length is no multiple of a page, a pipe or a segment: what is lost or doubled shows.
struct Stream {
  static constexpr std::size_t period = (std::size_t{8} << 20) - 4099;
  std::size_t start = 0;
  std::uint64_t at = 0;

  // The next bytes, at most `n`.
  [[nodiscard]] std::span<const std::byte> next(std::uint64_t n) const {
    const std::size_t from = static_cast<std::size_t>((start + at) % period);
    return ends::pattern(from, static_cast<std::size_t>(std::min<std::uint64_t>(n, period - from)));
  }
  // Whether these are the next ones.
  bool take(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const auto expected = next(bytes.size());
      if (std::memcmp(expected.data(), bytes.data(), expected.size()) != 0) return false;
      at += expected.size();
      bytes = bytes.subspan(expected.size());
    }
    return true;
  }
};

// The far end of one side: sends and receives at once in a thread of its own.
struct PeerPlan {
  std::uint64_t send = 0;
  bool shuts_down = true;           // after the last byte that it sends
  bool sends_at_end = false;        // only after it has seen the other's end
  bool reads = true;                // else it only sends, and closes when that is done
  std::uint64_t close_at = to_end;  // closes when so many bytes have arrived
  bool resets = false;              // then, with a reset
  bool closes = true;               // at the end; else the descriptor stays open with the Peer
  std::size_t piece = 256 * kibi;
  std::chrono::milliseconds patience = 30s;
};

class Peer {
 public:
  Peer(OwnedFd fd, PeerPlan plan, std::size_t out, std::size_t in)
      : fd_(std::move(fd)), plan_(plan), out_{out}, in_{in}, thread_([this] { run(); }) {}
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;
  ~Peer() { join(); }
  void join() {
    if (thread_.joinable()) thread_.join();
  }

  // After join().
  [[nodiscard]] std::uint64_t sent() const { return out_.at; }
  [[nodiscard]] std::uint64_t received() const { return in_.at; }
  [[nodiscard]] bool saw_end() const { return saw_end_; }
  [[nodiscard]] bool is_exact() const { return exact_; }
  [[nodiscard]] bool gave_up() const { return gave_up_; }
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  void run() {
    ends::without_sigpipe();
    const auto until = Clock::now() + plan_.patience;
    buffer_.resize(plan_.piece);
    while (!is_finished()) {
      const bool wants_out = may_send();
      pollfd entry{fd_.get(), static_cast<short>((wants_out ? POLLOUT : 0) | (reads_on() ? POLLIN : 0)), 0};
      if (::poll(&entry, 1, 100) < 0 || Clock::now() > until) {
        gave_up_ = true;
        break;
      }
      if ((entry.revents & POLLOUT) != 0 && wants_out) send_some();
      if ((entry.revents & (POLLIN | POLLHUP | POLLERR)) != 0 && reads_on())
        receive_some();
      else if ((entry.revents & (POLLHUP | POLLERR)) != 0)
        is_dead_ = true;
    }
    if (plan_.resets) ends::reset_at_close(fd_.get());
    if (plan_.closes) fd_.reset();
  }
  [[nodiscard]] bool reads_on() const { return plan_.reads && !saw_end_; }
  [[nodiscard]] bool may_send() const { return out_.at < plan_.send && (!plan_.sends_at_end || saw_end_); }
  [[nodiscard]] bool is_finished() {
    if (is_dead_ || !exact_ || in_.at >= plan_.close_at) return true;
    if (out_.at == plan_.send && !did_shut_down_ && plan_.shuts_down && (!plan_.sends_at_end || saw_end_)) {
      ::shutdown(fd_.get(), SHUT_WR);
      did_shut_down_ = true;
    }
    return out_.at == plan_.send && !reads_on() && !(plan_.sends_at_end && !saw_end_);
  }
  void send_some() {
    const auto bytes = out_.next(std::min<std::uint64_t>(plan_.piece, plan_.send - out_.at));
    const ssize_t n = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) out_.at += static_cast<std::uint64_t>(n);
    if (n < 0 && errno != EAGAIN) is_dead_ = true;
  }
  void receive_some() {
    const std::size_t most = static_cast<std::size_t>(std::min<std::uint64_t>(buffer_.size(), plan_.close_at - in_.at));
    const ssize_t n = ::recv(fd_.get(), buffer_.data(), most, MSG_DONTWAIT);
    if (n == 0) saw_end_ = true;
    if (n < 0 && errno != EAGAIN) is_dead_ = true;
    if (n > 0) exact_ = in_.take(std::span(buffer_).first(static_cast<std::size_t>(n)));
  }

  OwnedFd fd_;
  PeerPlan plan_;
  Stream out_;
  Stream in_;
  ends::Bytes buffer_;
  bool did_shut_down_ = false;
  bool saw_end_ = false;
  bool is_dead_ = false;
  bool exact_ = true;
  bool gave_up_ = false;
  std::thread thread_;
};

constexpr std::size_t of_client = 17;       // where the client's stream begins in the pattern
constexpr std::size_t of_server = 3000001;  // the server's

// Client - a, relay, b - server.
struct Way {
  Net first = Net::tcp;
  Net second = Net::tcp;
  bool blocking = false;

  [[nodiscard]] std::string text() const {
    return std::string(name_of(first)) + " to " + name_of(second) + (blocking ? ", blocking" : "");
  }
};
std::vector<Way> every_way() {
  std::vector<Way> all;
  for (const Net first : families)
    for (const Net second : families)
      for (const bool blocking : {false, true}) all.push_back({first, second, blocking});
  return all;
}

struct Setup {
  explicit Setup(const Way& way) : client(pair_of(way.first)), server(pair_of(way.second)) {
    a = std::move(client.one);
    b = std::move(server.one);
    ends::set_nonblocking(a.get(), !way.blocking);
    ends::set_nonblocking(b.get(), !way.blocking);
  }
  void start(PeerPlan of_the_client, PeerPlan of_the_server) {
    left.emplace(std::move(client.other), of_the_client, of_client, of_server);
    right.emplace(std::move(server.other), of_the_server, of_server, of_client);
  }
  ends::FdPair client;
  ends::FdPair server;
  OwnedFd a;
  OwnedFd b;
  std::optional<Peer> left{};
  std::optional<Peer> right{};
};

std::string text_of(const TransferResult& r) {
  return std::string(to_string(r.reason)) + " at " + std::string(to_string(r.side)) + " '" + r.error.message() +
         "' delivered " + std::to_string(r.delivered) + " consumed " + std::to_string(r.consumed) + " stranded " +
         std::to_string(r.stranded ? r.stranded->size() : 0);
}
std::string text_of(const RelayResult& r) {
  return "a to b: " + text_of(r.a_to_b) + "; b to a: " + text_of(r.b_to_a) + "; error '" + r.error.message() + "'";
}
bool is_exact(const TransferResult& r) { return r.consumed == r.delivered + (r.stranded ? r.stranded->size() : 0); }
// Delivers what is stranded, and says whether it is what comes at `at` of the stream from `start`.
bool is_next(TransferResult& r, std::size_t start) {
  if (!r.stranded) return true;
  ends::Bytes bytes(static_cast<std::size_t>(r.stranded->size()));
  const TransferResult moved = transfer(*r.stranded, std::span(bytes));
  Stream stream{start, r.delivered};
  return moved.delivered == bytes.size() && stream.take(bytes);
}

auto in(std::chrono::nanoseconds time) { return Clock::now() + time; }
std::chrono::nanoseconds thread_time() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}
// How long `f` takes.
template <class F>
std::chrono::milliseconds time_of(F f) {
  const auto start = Clock::now();
  f();
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start);
}

// Both peers send so much, shut down, and read to the end.
void check_whole(const Way& way, std::uint64_t forth, std::uint64_t back, const Options& options = {},
                 PeerPlan extra = {}) {
  INFO(way.text() << ", " << forth << " forth, " << back << " back");
  Setup setup(way);
  const ends::FdState before_a = ends::FdState::of(setup.a.get());
  const ends::FdState before_b = ends::FdState::of(setup.b.get());
  const ends::SignalState signals = ends::SignalState::now();
  PeerPlan client = extra;
  PeerPlan server = extra;
  client.send = forth;
  server.send = back;
  setup.start(client, server);
  std::error_code ec;
  RelayResult r = relay(setup.a, setup.b, options, ec);
  const bool as_before = before_a == ends::FdState::of(setup.a.get()) && before_b == ends::FdState::of(setup.b.get());
  const bool same_signals = signals == ends::SignalState::now();
  setup.left->join();
  setup.right->join();
  INFO(text_of(r));
  CHECK(!ec);
  CHECK(!r.error);
  CHECK(r.a_to_b.delivered == forth);
  CHECK(r.b_to_a.delivered == back);
  CHECK(is_exact(r.a_to_b));
  CHECK(is_exact(r.b_to_a));
  CHECK(!r.a_to_b.stranded);
  CHECK(!r.b_to_a.stranded);
  CHECK(setup.left->received() == back);
  CHECK(setup.right->received() == forth);
  CHECK(setup.left->is_exact());
  CHECK(setup.right->is_exact());
  CHECK(setup.left->saw_end());
  CHECK(setup.right->saw_end());
  CHECK(as_before);
  CHECK(same_signals);
}

}  // namespace

TEST_CASE("a relay carries both directions at once between sockets of every family", "[relay]") {
  const ends::TimeLimit limit(120);
  for (const Way& way : every_way()) {
    for (const auto& [forth, back] : std::vector<std::pair<std::uint64_t, std::uint64_t>>{
             {0, 0}, {1, 0}, {0, 1}, {128, 128}, {mebi, mebi}, {mebi + 7, 0}, {3, 3 * mebi + 1}})
      check_whole(way, forth, back);
    check_whole(way, 64 * mebi, 64 * mebi);
  }
}

TEST_CASE("a relay carries 1 GiB each way at once", "[relay]") {
  const ends::TimeLimit limit(240);
  if (sanitized) WARN("128 MiB instead of 1 GiB each way: sanitizers are slow");
  const std::uint64_t size = sanitized ? 128 * mebi : 1024 * mebi;
  const auto took = time_of([&] { check_whole({Net::tcp, Net::tcp, false}, size, size); });
  INFO(took.count() << " ms");
  CHECK(took < 120s);
}

TEST_CASE("a relay under time limits carries the same", "[relay]") {
  const ends::TimeLimit limit(60);
  const std::stop_source never;
  for (const Way& way : every_way())
    check_whole(way, 5 * mebi + 3, 4 * mebi + 1, {.idle_timeout = 10s, .deadline = in(30s), .stop = never.get_token()});
}

TEST_CASE("a relay is driven by every strategy that sockets have", "[relay]") {
  const ends::TimeLimit limit(60);
  for (const Net first : families)
    for (const Net second : families) {
      check_whole({first, second, false}, mebi + 5, mebi + 6, {.strategy = Strategy::splice});
      check_whole({first, second, false}, mebi + 5, mebi + 6, {.strategy = Strategy::read_write});
      check_whole({first, second, true}, mebi + 5, mebi + 6, {.strategy = Strategy::read_write});
      check_whole({first, second, false}, mebi + 5, mebi + 6, {.allow = StrategySet{Strategy::read_write}});
      check_whole({first, second, false}, mebi + 5, mebi + 6, {.chunk_size = 1000});
    }
  Setup setup({Net::tcp, Net::unix_stream, false});
  std::error_code ec;
  const RelayResult r = relay(setup.a, setup.b, {.strategy = Strategy::sendfile}, ec);
  CHECK(ec == Errc::strategy_unavailable);
  CHECK(r.a_to_b.delivered + r.b_to_a.delivered == 0);
}

TEST_CASE("small segments neither stall a relay nor lose bytes", "[relay]") {
  const ends::TimeLimit limit(60);
  for (const bool blocking : {false, true}) {
    Setup setup({Net::tcp, Net::tcp, blocking});
    const int on = 1;
    for (const int fd : {setup.client.other.get(), setup.server.other.get(), setup.a.get(), setup.b.get()})
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    PeerPlan plan{.send = 2 * mebi, .piece = 100};
    setup.start(plan, plan);
    std::error_code ec;
    RelayResult r = relay(setup.a, setup.b, ec);
    setup.left->join();
    setup.right->join();
    INFO(text_of(r));
    CHECK(!ec);
    CHECK(setup.left->received() == 2 * mebi);
    CHECK(setup.right->received() == 2 * mebi);
    CHECK((setup.left->is_exact() && setup.right->is_exact()));
  }
}

TEST_CASE("a half-close is carried over while the other direction goes on", "[relay]") {
  const ends::TimeLimit limit(60);
  for (const Way& way : every_way()) {
    for (const bool client_first : {false, true}) {
      INFO(way.text() << (client_first ? ", the client ends first" : ", the server ends first"));
      Setup setup(way);
      const PeerPlan first{.send = 100000};
      const PeerPlan second{.send = 5 * mebi, .sends_at_end = true};  // all of it after it has seen the end
      setup.start(client_first ? first : second, client_first ? second : first);
      std::error_code ec;
      RelayResult r = relay(setup.a, setup.b, ec);
      setup.left->join();
      setup.right->join();
      INFO(text_of(r));
      CHECK(!ec);
      CHECK((setup.left->is_exact() && setup.right->is_exact()));
      CHECK((setup.left->saw_end() && setup.right->saw_end()));
      CHECK(setup.right->received() == (client_first ? 100000 : 5 * mebi));
      CHECK(setup.left->received() == (client_first ? 5 * mebi : 100000));
    }
  }
}

TEST_CASE("a relay whose one side closes after all has arrived ends without an error", "[relay]") {
  const ends::TimeLimit limit(60);
  for (const Way& way : every_way()) {
    for (const bool client_closes : {false, true}) {
      INFO(way.text() << (client_closes ? ", the client closes" : ", the server closes"));
      Setup setup(way);
      // One sends, gets its answer and closes altogether, without a half-close; the other waits for the end.
      const PeerPlan closer{.send = 50000, .shuts_down = false, .close_at = 70000};
      const PeerPlan waiter{.send = 70000, .shuts_down = false};
      setup.start(client_closes ? closer : waiter, client_closes ? waiter : closer);
      std::error_code ec;
      RelayResult r;
      const auto took = time_of([&] { r = relay(setup.a, setup.b, {.deadline = in(5s)}, ec); });
      setup.a.reset();
      setup.b.reset();
      setup.left->join();
      setup.right->join();
      INFO(text_of(r) << ", " << took.count() << " ms");
      CHECK(took < 2s);
      CHECK(!ec);
      CHECK(r.a_to_b.delivered == (client_closes ? 50000 : 70000));
      CHECK(r.b_to_a.delivered == (client_closes ? 70000 : 50000));
      const Peer& other = client_closes ? *setup.right : *setup.left;
      CHECK(other.received() == 50000);
      CHECK(other.saw_end());
      CHECK(other.is_exact());
    }
  }
}

TEST_CASE("both sides of a relay close at once", "[relay]") {
  const ends::TimeLimit limit(60);
  for (const Way& way : every_way()) {
    INFO(way.text());
    Setup setup(way);
    setup.client.other.reset();
    setup.server.other.reset();
    std::error_code ec;
    RelayResult r;
    const auto took = time_of([&] { r = relay(setup.a, setup.b, {.deadline = in(5s)}, ec); });
    INFO(text_of(r));
    CHECK(took < 500ms);
    CHECK(!ec);
    CHECK(r.a_to_b.delivered + r.b_to_a.delivered == 0);
  }
}

TEST_CASE("a side that closes while the other sends for ever ends the relay", "[relay]") {
  const ends::TimeLimit limit(60);
  for (const Way& way : every_way()) {
    for (const bool client_closes : {false, true}) {
      for (const bool resets : {false, true}) {
        INFO(way.text() << (client_closes ? ", the client " : ", the server ") << (resets ? "resets" : "closes"));
        Setup setup(way);
        const PeerPlan closer{.send = 1000, .shuts_down = false, .close_at = 3 * mebi, .resets = resets};
        const PeerPlan sender{.send = to_end, .shuts_down = false};
        setup.start(client_closes ? closer : sender, client_closes ? sender : closer);
        std::error_code ec;
        RelayResult r;
        const auto took = time_of([&] { r = relay(setup.a, setup.b, {.deadline = in(5s)}, ec); });
        setup.a.reset();
        setup.b.reset();
        setup.left->join();
        setup.right->join();
        INFO(text_of(r) << ", " << took.count() << " ms");
        CHECK(took < 3s);
        CHECK(ec == r.error);
        TransferResult& to_closed = client_closes ? r.b_to_a : r.a_to_b;
        // Between two bytes a close loses nothing, and is no error of the relay.
        const bool is_between_bytes = to_closed.consumed == to_closed.delivered;
        CHECK((ec == Errc::sink_closed || (!ec && is_between_bytes)));
        CHECK(to_closed.reason == StopReason::sink_closed);
        CHECK(to_closed.side == Side::sink);
        CHECK(to_closed.delivered >= 3 * mebi);
        CHECK((is_exact(r.a_to_b) && is_exact(r.b_to_a)));
        CHECK(is_next(to_closed, client_closes ? of_server : of_client));
        CHECK((setup.left->is_exact() && setup.right->is_exact()));
      }
    }
  }
}

TEST_CASE("a reset before the first byte ends a relay, and the other side gets its end", "[relay]") {
  const ends::TimeLimit limit(60);
  for (const bool blocking : {false, true}) {
    for (const Net other_family : families) {
      for (const bool client_resets : {false, true}) {
        INFO("blocking " << blocking << ", client " << client_resets << ", other " << name_of(other_family));
        Setup setup({client_resets ? Net::tcp : other_family, client_resets ? other_family : Net::tcp, blocking});
        OwnedFd& dying = client_resets ? setup.client.other : setup.server.other;
        ends::reset_at_close(dying.get());
        dying.reset();
        std::error_code ec;
        RelayResult r;
        const auto took = time_of([&] { r = relay(setup.a, setup.b, {.deadline = in(5s)}, ec); });
        INFO(text_of(r));
        CHECK(took < 500ms);
        CHECK(ec == Errc::sink_closed);  // ECONNRESET equals it
        CHECK((is_exact(r.a_to_b) && is_exact(r.b_to_a)));
        const int survivor = (client_resets ? setup.server : setup.client).other.get();
        REQUIRE(ends::wait_for(survivor, POLLIN, in(1s)));
        std::byte one{};
        CHECK(::recv(survivor, &one, 1, MSG_DONTWAIT) == 0);
      }
    }
  }
}

TEST_CASE("a peer that never reads ends a relay when the time is up, and its bytes are the caller's", "[relay]") {
  const ends::TimeLimit limit(120);
  enum class By { idle, deadline, stop };
  for (const Way& way : every_way()) {
    for (const By by : {By::idle, By::deadline, By::stop}) {
      INFO(way.text() << ", by " << static_cast<int>(by));
      Setup setup(way);
      std::optional<Peer> sender;
      sender.emplace(std::move(setup.client.other), PeerPlan{.send = to_end, .shuts_down = false}, of_client,
                     of_server);
      std::stop_source stop;
      Options options;
      if (by == By::idle) options.idle_timeout = 200ms;
      if (by == By::deadline) options.deadline = in(300ms);
      if (by == By::stop) options.stop = stop.get_token();
      std::atomic<std::int64_t> stopped_at{0};
      std::jthread stopper([&] {
        if (by != By::stop) return;
        std::this_thread::sleep_for(300ms);
        stopped_at = Clock::now().time_since_epoch().count();
        stop.request_stop();
      });
      std::error_code ec;
      const auto start = Clock::now();
      RelayResult r = relay(setup.a, setup.b, options, ec);
      const auto end = Clock::now();
      stopper.join();
      INFO(text_of(r));
      if (by == By::deadline) CHECK(end - start < 400ms);
      if (by == By::stop) CHECK(end.time_since_epoch().count() - stopped_at.load() < Clock::duration(100ms).count());
      if (by == By::idle) CHECK(end - start < 5s);
      CHECK(ec == (by == By::stop ? std::errc::operation_canceled : std::errc::timed_out));
      CHECK(r.a_to_b.reason == (by == By::stop ? StopReason::stopped : StopReason::timed_out));
      CHECK(r.b_to_a.reason == r.a_to_b.reason);
      CHECK(is_exact(r.a_to_b));
      CHECK(r.b_to_a.consumed == 0);
      // What was delivered is in the socket, what is stranded comes next, and the rest is still in the source.
      Stream arrived{of_client};
      std::jthread rest([&] {
        ends::set_nonblocking(setup.b.get(), true);
        std::error_code failed;
        if (r.a_to_b.stranded) (void)transfer(*r.a_to_b.stranded, setup.b, {.deadline = in(5s)}, failed);
        (void)transfer(setup.a, setup.b, {.length = mebi, .deadline = in(5s)}, failed);
        ::shutdown(setup.b.get(), SHUT_WR);
      });
      const std::uint64_t expected = r.a_to_b.consumed + mebi;
      const ends::Bytes got = ends::read_to_end(setup.server.other.get());
      rest.join();
      CHECK(got.size() == expected);
      CHECK(arrived.take(got));
      ends::reset_at_close(setup.a.get());
      setup.a.reset();
      sender->join();
    }
  }
}

TEST_CASE("a silent relay costs nothing", "[relay]") {
  const ends::TimeLimit limit(60);
  const std::stop_source stop;
  for (const Way& way : every_way()) {
    for (const bool limited : {false, true}) {
      for (const bool half_closed : {false, true}) {
        if (half_closed && limited) continue;
        INFO(way.text() << ", limited " << limited << ", half closed " << half_closed);
        Setup setup(way);
        if (half_closed) ::shutdown(setup.client.other.get(), SHUT_WR);
        std::jthread ender([&] {
          std::this_thread::sleep_for(limited ? 700ms : 2s);
          ::shutdown(setup.client.other.get(), SHUT_WR);
          ::shutdown(setup.server.other.get(), SHUT_WR);
        });
        Options options;
        if (limited) options = {.idle_timeout = 20s, .deadline = in(20s), .stop = stop.get_token()};
        std::error_code ec;
        std::chrono::nanoseconds spent{};
        ends::in_thread([&] {
          const auto before = thread_time();
          (void)relay(setup.a, setup.b, options, ec);
          spent = thread_time() - before;
        });
        ender.join();
        CHECK(!ec);
        CHECK(spent < 20ms);
      }
    }
  }
}

TEST_CASE("a relay that waits for a peer which does not read costs nothing", "[relay]") {
  const ends::TimeLimit limit(60);
  for (const Way& way : every_way()) {
    for (const bool server_ended : {false, true}) {  // its half is closed, but it does not read
      INFO(way.text() << ", server ended " << server_ended);
      Setup setup(way);
      if (server_ended) ::shutdown(setup.server.other.get(), SHUT_WR);
      Peer sender(std::move(setup.client.other), {.send = to_end, .shuts_down = false}, of_client, of_server);
      std::error_code ec;
      ends::in_thread([&] {
        (void)relay(setup.a, setup.b, {.idle_timeout = 300ms}, ec);  // now all is full
        CHECK(ec == std::errc::timed_out);
        const auto before = thread_time();
        (void)relay(setup.a, setup.b, {.deadline = in(1s)}, ec);
        CHECK(thread_time() - before < 20ms);
        CHECK(ec == std::errc::timed_out);
      });
      setup.a.reset();
      setup.b.reset();
    }
  }
}

TEST_CASE("AF_UNIX: a peer that will not read any more ends what flows to it", "[relay]") {
  const ends::TimeLimit limit(60);
  for (const bool blocking : {false, true}) {
    for (const bool full : {false, true}) {
      INFO("blocking " << blocking << ", full " << full);
      Setup setup({Net::unix_stream, Net::unix_stream, blocking});
      Peer sender(std::move(setup.client.other), {.send = to_end, .shuts_down = false}, of_client, of_server);
      std::jthread server([&] {
        if (full) std::this_thread::sleep_for(300ms);  // the queues are full by then
        ::shutdown(setup.server.other.get(), SHUT_RD);
        std::this_thread::sleep_for(100ms);
        (void)ends::write_all(setup.server.other.get(), ends::pattern(of_server, 5000));
        ::shutdown(setup.server.other.get(), SHUT_WR);
      });
      std::error_code ec;
      RelayResult r;
      const auto took = time_of([&] { r = relay(setup.a, setup.b, {.deadline = in(10s)}, ec); });
      server.join();
      setup.a.reset();
      setup.b.reset();
      sender.join();
      INFO(text_of(r) << ", " << took.count() << " ms");
      CHECK(took < 3s);
      CHECK(ec == Errc::sink_closed);
      CHECK(r.a_to_b.reason == StopReason::sink_closed);
      CHECK(is_exact(r.a_to_b));
      CHECK(is_next(r.a_to_b, of_client));
      CHECK(r.b_to_a.delivered == 5000);
      CHECK(sender.received() == 5000);
      CHECK(sender.is_exact());
    }
  }
}

TEST_CASE("urgent data does not hang a relay", "[relay]") {
  const ends::TimeLimit limit(60);
  for (const bool blocking : {false, true}) {
    for (const bool at_end : {false, true}) {
      INFO("blocking " << blocking << ", at the end " << at_end);
      Setup setup({Net::tcp, Net::tcp, blocking});
      const int client = setup.client.other.get();
      const auto before = ends::pattern(0, 5000);
      const auto after = ends::pattern(5000, at_end ? 0 : 6000);
      std::jthread sender([&] {
        (void)ends::write_all(client, before);
        (void)::send(client, "!", 1, MSG_OOB | MSG_NOSIGNAL);
        std::this_thread::sleep_for(50ms);
        (void)ends::write_all(client, after);
        ::shutdown(client, SHUT_WR);
        ::shutdown(setup.server.other.get(), SHUT_WR);
      });
      ends::Drainer server(setup.server.other.get());
      std::error_code ec;
      const RelayResult r = relay(setup.a, setup.b, {.deadline = in(5s)}, ec);
      INFO(text_of(r));
      CHECK(!ec);
      ends::Bytes expected(before.begin(), before.end());
      expected.insert(expected.end(), after.begin(), after.end());
      CHECK(ends::same(server.bytes(), expected));
    }
  }
}

TEST_CASE("a length bounds each direction of a relay, and no end is carried over", "[relay]") {
  const ends::TimeLimit limit(60);
  for (const Way& way : every_way()) {
    INFO(way.text());
    Setup setup(way);
    REQUIRE(ends::write_all(setup.client.other.get(), ends::pattern(0, 3000)));
    REQUIRE(ends::write_all(setup.server.other.get(), ends::pattern(5000, 4000)));
    const RelayResult r = relay(setup.a, setup.b, {.length = 2500, .deadline = in(5s)});
    CHECK(r.a_to_b.delivered == 2500);
    CHECK(r.b_to_a.delivered == 2500);
    CHECK((r.a_to_b.consumed == 2500 && r.b_to_a.consumed == 2500));
    CHECK(ends::same(ends::read_now(setup.server.other.get()), ends::pattern(0, 2500)));
    CHECK(ends::same(ends::read_now(setup.client.other.get()), ends::pattern(5000, 2500)));
    // The relay can be taken up again.
    ::shutdown(setup.client.other.get(), SHUT_WR);
    ::shutdown(setup.server.other.get(), SHUT_WR);
    const RelayResult rest = relay(setup.a, setup.b);
    CHECK((rest.a_to_b.delivered == 500 && rest.b_to_a.delivered == 1500));
    CHECK(ends::same(ends::read_to_end(setup.server.other.get()), ends::pattern(2500, 500)));
    CHECK(ends::same(ends::read_to_end(setup.client.other.get()), ends::pattern(7500, 1500)));
  }
}

TEST_CASE("a relay that may not begin moves nothing and shuts nothing down", "[relay]") {
  const ends::TimeLimit limit(60);
  Setup setup({Net::tcp, Net::unix_stream, false});
  REQUIRE(ends::write_all(setup.client.other.get(), ends::pattern(0, 100)));
  REQUIRE(ends::write_all(setup.server.other.get(), ends::pattern(0, 100)));
  const auto untouched = [&] {
    int queued = 0;
    if (::ioctl(setup.b.get(), FIONREAD, &queued) != 0 || queued != 100) return false;
    std::byte one{};
    return ::recv(setup.client.other.get(), &one, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN &&
           ::recv(setup.server.other.get(), &one, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
  };
  std::error_code ec;
  SECTION("a deadline that is past") {
    const RelayResult r = relay(setup.a, setup.b, {.deadline = Clock::now() - 1s}, ec);
    CHECK(ec == std::errc::timed_out);
    CHECK(r.a_to_b.consumed + r.b_to_a.consumed == 0);
  }
  SECTION("a stop that was asked for") {
    std::stop_source stop;
    stop.request_stop();
    (void)relay(setup.a, setup.b, {.stop = stop.get_token()}, ec);
    CHECK(ec == std::errc::operation_canceled);
  }
  SECTION("length 0 goes before a deadline that is past") {
    const RelayResult r = relay(setup.a, setup.b, {.length = 0, .deadline = Clock::now() - 1s}, ec);
    CHECK(!ec);
    CHECK(r.a_to_b.reason == StopReason::complete);
    CHECK(r.b_to_a.reason == StopReason::complete);
  }
  SECTION("no descriptor at one end") {
    (void)relay(BorrowedFd(-1), setup.b, ec);
    CHECK(ec == std::errc::bad_file_descriptor);
    (void)relay(setup.a, BorrowedFd(-1), ec);
    CHECK(ec == std::errc::bad_file_descriptor);
  }
  SECTION("one socket at both ends") {
    (void)relay(setup.a, setup.a, ec);
    CHECK(ec == std::errc::invalid_argument);
  }
  SECTION("a strategy that can't") {
    (void)relay(setup.a, setup.b, {.strategy = Strategy::copy_file_range}, ec);
    CHECK(ec == Errc::strategy_unavailable);
  }
  CHECK(untouched());
}

TEST_CASE("RelayError carries the whole result, stranded bytes too", "[relay]") {
  const ends::TimeLimit limit(60);
  ends::FdPair client = ends::tcp_pair();
  ends::FdPair server = ends::unix_pair();
  ends::set_nonblocking(client.one.get(), true);
  ends::set_nonblocking(server.one.get(), true);
  std::optional<Socket> a(std::move(client.one));
  std::optional<Socket> b(std::move(server.one));
  Peer sender(std::move(client.other), {.send = to_end, .shuts_down = false}, of_client, of_server);
  bool thrown = false;
  try {
    (void)relay(*a, *b, {.idle_timeout = 200ms});
  } catch (const RelayError& error) {
    thrown = true;
    CHECK(error.code() == Errc::timed_out);
    CHECK(error.code() == error.result().error);
    CHECK(std::string(error.what()).find("relay") != std::string::npos);
    CHECK(is_exact(error.result().a_to_b));
    CHECK(error.result().a_to_b.delivered > 0);
    CHECK(is_next(error.result().a_to_b, of_client));
  }
  CHECK(thrown);
  a.reset();
}

TEST_CASE("on_progress of a relay counts both directions, and ends with the sum", "[relay]") {
  const ends::TimeLimit limit(60);
  for (const bool blocking : {false, true}) {
    std::uint64_t last = 0;
    std::size_t heard = 0;
    bool rising = true;
    auto hear = [&](const ProgressReport& report) {
      rising = rising && report.bytes >= last;
      last = report.bytes;
      ++heard;
    };
    check_whole({Net::tcp, Net::unix_stream, blocking}, 9 * mebi, 7 * mebi, {.on_progress = {hear, 1ms}});
    CHECK(last == 16 * mebi);
    CHECK(heard > 1);
    CHECK(rising);
  }
}

TEST_CASE("a cork that the caller set stays, and the last bytes do not wait without one", "[relay]") {
  const ends::TimeLimit limit(60);
  for (const bool corked : {false, true}) {
    Setup setup({Net::tcp, Net::tcp, false});
    const int value = corked ? 1 : 0;
    ::setsockopt(setup.b.get(), IPPROTO_TCP, TCP_CORK, &value, sizeof value);
    std::jthread relaying([&] {
      std::error_code ec;
      (void)relay(setup.a, setup.b, {.deadline = in(5s)}, ec);
    });
    REQUIRE(ends::write_all(setup.client.other.get(), ends::pattern(0, 100)));
    if (!corked) CHECK(ends::wait_for(setup.server.other.get(), POLLIN, in(150ms)));
    ::shutdown(setup.client.other.get(), SHUT_WR);
    CHECK(ends::read_to_end(setup.server.other.get()).size() == 100);
    ::shutdown(setup.server.other.get(), SHUT_WR);
    relaying.join();
    CHECK(ends::option_of(setup.b.get(), IPPROTO_TCP, TCP_CORK) == value);
  }
}

TEST_CASE("relays leave no descriptor behind and no dirty pipe in the pool", "[relay]") {
  const ends::TimeLimit limit(120);
  const std::size_t before = ends::open_descriptors();
  ends::in_thread([&] {
    for (int i = 0; i < 64; ++i) {
      Setup setup({i % 2 == 0 ? Net::tcp : Net::unix_stream, Net::unix_stream, i % 4 == 3});
      Peer sender(std::move(setup.client.other), {.send = to_end, .shuts_down = false}, of_client, of_server);
      std::error_code ec;
      {
        const RelayResult r = relay(setup.a, setup.b, {.idle_timeout = 20ms}, ec);  // its stranded bytes go with it
        CHECK(is_exact(r.a_to_b));
      }
      CHECK(ec == std::errc::timed_out);
      setup.a.reset();
    }
    check_whole({Net::tcp, Net::tcp, false}, mebi, mebi);
    CHECK(ends::open_descriptors() < before + 20);
  });
  CHECK(ends::open_descriptors() == before);
}

TEST_CASE("a relay goes on without splice and without pipes", "[relay]") {
  const ends::TimeLimit limit(120);
  const auto whole = [](Net first, Net second) -> std::string {
    ends::Wrong wrong;
    Setup setup({first, second, false});
    const PeerPlan plan{.send = 3 * mebi + 1};
    setup.start(plan, plan);
    std::error_code ec;
    const RelayResult r = relay(setup.a, setup.b, {.deadline = in(20s)}, ec);
    setup.left->join();
    setup.right->join();
    wrong.unless(!ec, text_of(r));
    wrong.unless(setup.left->received() == plan.send && setup.left->is_exact(), "the client's bytes");
    wrong.unless(setup.right->received() == plan.send && setup.right->is_exact(), "the server's bytes");
    return wrong.text();
  };
  for (const int error : {EPERM, ENOSYS})
    CHECK(ends::in_child([&] {
            ends::refuse({SYS_splice}, error);
            return whole(Net::tcp, Net::unix_stream);
          }).empty());
  CHECK(ends::in_child([&]() -> std::string {
          ends::refuse({SYS_pipe2}, EMFILE);
          return whole(Net::unix_stream, Net::tcp);
        }).empty());
  CHECK(ends::in_child([&]() -> std::string {
          ends::become_nobody();
          std::vector<ends::FdPair> quota;
          for (int i = 0; i < 70; ++i) {
            quota.push_back(ends::pipe_pair());
            (void)::fcntl(quota.back().one.get(), F_SETPIPE_SZ, 1 << 20);
          }
          return whole(Net::tcp, Net::tcp);
        }).empty());
}

TEST_CASE("no SIGPIPE of a relay reaches the process", "[relay]") {
  const std::string wrong = ends::in_child([]() -> std::string {
    ends::Wrong bad;
    ::signal(SIGPIPE, SIG_DFL);
    for (const Way& way : every_way()) {
      Setup setup(way);
      // The client goes, and then the server sends.
      setup.client.other.reset();
      (void)ends::write_all(setup.server.other.get(), ends::pattern(0, 5000));
      std::error_code ec;
      const ends::SignalState before = ends::SignalState::now();
      RelayResult r = relay(setup.a, setup.b, {.deadline = in(1s)}, ec);
      if (way.first == Net::unix_stream) bad.unless(ec == Errc::sink_closed, way.text() + ": " + text_of(r));
      bad.unless(before == ends::SignalState::now(), "the signals changed");
      bad.unless(is_exact(r.b_to_a), "not exact");
    }
    return bad.text();
  });
  CHECK(wrong.empty());
  INFO(wrong);
}
