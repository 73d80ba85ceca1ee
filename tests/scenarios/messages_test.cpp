// Message sockets: a datagram or seqpacket sink takes one message per transfer, a message source keeps its boundaries.
#include "catch.hpp"
#include "support/process.hpp"

namespace {

using namespace ends;
using zc::StopReason;

struct Flavour {
  const char* name;
  FdPair (*pair)();
};
const Flavour flavours[] = {{"udp", [] { return udp_pair(); }},
                            {"unix datagram", [] { return unix_pair(SOCK_DGRAM); }},
                            {"seqpacket", [] { return unix_pair(SOCK_SEQPACKET); }}};

zc::File file_of(std::span<const std::byte> bytes) { return zc::File(temporary_file(bytes)); }

// The messages that are there now, one by one.
std::vector<Bytes> messages(int fd) {
  std::vector<Bytes> all;
  for (;;) {
    Bytes one(300000);
    const ssize_t n = ::recv(fd, one.data(), one.size(), MSG_DONTWAIT);
    if (n < 0 || all.size() > 20) return all;
    if (n == 0 && !all.empty() && all.back().empty()) return all;  // the end of a seqpacket
    one.resize(static_cast<std::size_t>(n));
    all.push_back(std::move(one));
  }
}

}  // namespace

TEST_CASE("a file into a message sink: one message per transfer") {
  for (const Flavour& f : flavours) {
    for (const std::size_t size : {std::size_t{1}, std::size_t{5000}, std::size_t{60000}}) {
      for (const bool memory : {false, true}) {
        INFO(f.name << ", " << size << (memory ? " from memory" : " from a file"));
        const TimeLimit limit(20);
        FdPair pair = f.pair();
        const zc::Socket to{std::move(pair.one)};
        const zc::File from = file_of(pattern(0, size));
        std::error_code ec;
        const auto r = memory ? zc::transfer(pattern(0, size), to, ec) : zc::transfer(from, to, ec);
        CHECK_FALSE(ec);
        CHECK(r.delivered == size);
        const auto got = messages(pair.other.get());
        REQUIRE(got.size() == 1);
        CHECK(same(got[0], pattern(0, size)));
      }
    }
  }
}

TEST_CASE("a message that doesn't fit: message_size, nothing sent, nothing lost") {
  for (const Flavour& f : flavours) {
    INFO(f.name);
    const TimeLimit limit(20);
    FdPair pair = f.pair();
    const zc::Socket to{std::move(pair.one)};
    const zc::File from = file_of(pattern(0, std::size_t{8} << 20));
    std::error_code ec;
    auto r = zc::transfer(from, to, ec);
    CHECK(ec == std::errc::message_size);
    CHECK(r.delivered == 0);
    CHECK(r.side == zc::Side::sink);
    CHECK(from.position() == 0);
    r = zc::transfer(pattern(0, std::size_t{8} << 20), to, ec);
    CHECK(ec == std::errc::message_size);
    CHECK(r.delivered == 0);
    CHECK(messages(pair.other.get()).empty());
  }
  FdPair udp = udp_pair();
  const zc::File from = file_of(pattern(0, 200000));
  std::error_code ec;
  std::ignore = zc::transfer(from, zc::Socket(std::move(udp.one)), ec);
  CHECK(ec == std::errc::message_size);
}

TEST_CASE("a stream or a pipe into a message sink: one message, or message_size with the bytes stranded") {
  for (const Flavour& f : flavours) {
    INFO(f.name);
    const TimeLimit limit(20);
    FdPair pair = f.pair();
    FdPair source = pipe_pair();
    write_all(source.other.get(), pattern(0, 1000));
    write_all(source.other.get(), pattern(1000, 2000));
    source.other.reset();
    std::error_code ec;
    const auto r = zc::transfer(source.one, zc::Socket(std::move(pair.one)), ec);
    CHECK_FALSE(ec);
    const auto got = messages(pair.other.get());
    REQUIRE(!got.empty());
    CHECK(got[0].size() == r.delivered);
    CHECK(same(got[0], pattern(0, got[0].size())));
    CHECK(r.consumed == r.delivered + (r.stranded ? r.stranded->size() : 0));
  }
}

TEST_CASE("messages into a stream, a file and memory are joined, by BorrowedFd too") {
  for (const Flavour& f : flavours) {
    for (const bool borrowed : {false, true}) {
      for (const int sink : {0, 1, 2}) {
        INFO(f.name << (borrowed ? " borrowed, sink " : ", sink ") << sink);
        const TimeLimit limit(20);
        FdPair pair = f.pair();
        for (const std::size_t at : {std::size_t{0}, std::size_t{1000}, std::size_t{2000}})
          CHECK(::send(pair.other.get(), pattern().data() + at, 1000, 0) == 1000);
        const zc::Socket from{std::move(pair.one)};
        const zc::BorrowedFd fd = from.as_fd();
        FdPair stream = unix_pair();
        const zc::File file = file_of({});
        Bytes memory(3000);
        const zc::Options options{.length = 3000};
        std::error_code ec;
        zc::TransferResult r;
        if (borrowed) {
          if (sink == 0) r = zc::transfer(fd, stream.one, options, ec);
          if (sink == 1) r = zc::transfer(fd, file, options, ec);
          if (sink == 2) r = zc::transfer(fd, std::span(memory), options, ec);
        } else {
          if (sink == 0) r = zc::transfer(from, stream.one, options, ec);
          if (sink == 1) r = zc::transfer(from, file, options, ec);
          if (sink == 2) r = zc::transfer(from, std::span(memory), options, ec);
        }
        CHECK_FALSE(ec);
        CHECK(r.delivered == 3000);
        CHECK_FALSE(r.stranded);
        if (sink == 0) memory = read_to_end(stream.other.get(), 3000);
        if (sink == 1) memory = pread_all(file.as_fd().get());
        CHECK(same(memory, pattern(0, 3000)));
      }
    }
  }
}

TEST_CASE("messages into a message sink keep their boundaries") {
  for (const Flavour& f : flavours) {
    INFO(f.name);
    const TimeLimit limit(20);
    FdPair from = f.pair();
    FdPair to = f.pair();
    for (const std::size_t n : {std::size_t{10}, std::size_t{5000}, std::size_t{300}})
      CHECK(::send(from.other.get(), pattern().data(), n, 0) == static_cast<ssize_t>(n));
    const zc::Socket source{std::move(from.one)};
    const zc::Socket sink{std::move(to.one)};
    std::vector<Bytes> got;
    std::uint64_t moved = 0;
    for (int i = 0; i < 3 && moved < 5310; ++i) {  // all three in one transfer, or one per transfer
      std::error_code ec;
      const auto r = zc::transfer(source, sink, {.length = 5310 - moved, .idle_timeout = 2s}, ec);
      CHECK_FALSE(ec);
      moved += r.delivered;
      for (Bytes& one : messages(to.other.get())) got.push_back(std::move(one));
    }
    CHECK(moved == 5310);
    REQUIRE(got.size() == 3);
    CHECK(same(got[0], pattern(0, 10)));
    CHECK(same(got[1], pattern(0, 5000)));
    CHECK(same(got[2], pattern(0, 300)));
  }
}

TEST_CASE("an empty datagram is not the end") {
  for (const Flavour& f : {flavours[0], flavours[1]}) {
    INFO(f.name);
    const TimeLimit limit(20);
    FdPair pair = f.pair();
    CHECK(::send(pair.other.get(), "ab", 2, 0) == 2);
    CHECK(::send(pair.other.get(), "", 0, 0) == 0);
    CHECK(::send(pair.other.get(), "cd", 2, 0) == 2);
    const zc::File to = file_of({});
    std::error_code ec;
    const auto r = zc::transfer(zc::Socket(std::move(pair.one)), to, {.length = 4, .idle_timeout = 2s}, ec);
    CHECK_FALSE(ec);
    CHECK(r.delivered == 4);
    CHECK(as_text(pread_all(to.as_fd().get())) == "abcd");
  }
}

TEST_CASE("a seqpacket whose peer closed is at its end") {
  const TimeLimit limit(20);
  FdPair pair = unix_pair(SOCK_SEQPACKET);
  CHECK(::send(pair.other.get(), "abcd", 4, 0) == 4);
  pair.other.reset();
  const zc::File to = file_of({});
  std::error_code ec;
  const auto r = zc::transfer(zc::Socket(std::move(pair.one)), to, ec);
  CHECK_FALSE(ec);
  CHECK(r.delivered == 4);
  CHECK(r.reason == StopReason::complete);
}

TEST_CASE("what of a message doesn't fit into length is stranded, and can be delivered") {
  for (const Flavour& f : flavours) {
    INFO(f.name);
    const TimeLimit limit(20);
    FdPair pair = f.pair();
    CHECK(::send(pair.other.get(), pattern().data(), 1000, 0) == 1000);
    CHECK(::send(pair.other.get(), pattern().data() + 1000, 1000, 0) == 1000);
    const zc::Socket from{std::move(pair.one)};
    const zc::File to = file_of({});
    std::error_code ec;
    auto r = zc::transfer(from, to, {.length = 1300}, ec);
    CHECK_FALSE(ec);
    CHECK(r.reason == StopReason::complete);
    CHECK(r.delivered == 1300);
    CHECK(r.consumed == 2000);
    REQUIRE(r.stranded);
    CHECK(r.stranded->size() == 700);
    CHECK(zc::transfer(*r.stranded, to).delivered == 700);
    CHECK(same(pread_all(to.as_fd().get()), pattern(0, 2000)));
  }
}

TEST_CASE("what of a message doesn't fit into memory is stranded") {
  const TimeLimit limit(20);
  FdPair pair = udp_pair();
  CHECK(::send(pair.other.get(), pattern().data(), 1000, 0) == 1000);
  Bytes memory(300);
  std::error_code ec;
  auto r = zc::transfer(zc::Socket(std::move(pair.one)), std::span(memory), ec);
  CHECK(r.delivered == 300);
  CHECK(same(memory, pattern(0, 300)));
  REQUIRE(r.stranded);
  CHECK(r.stranded->size() == 700);
  Bytes rest(700);
  CHECK(zc::transfer(*r.stranded, std::span(rest)).delivered == 700);
  CHECK(same(rest, pattern(300, 700)));
}

TEST_CASE("messages are never spliced into a stream as if they were one") {
  for (const Flavour& f : flavours) {
    INFO(f.name);
    const TimeLimit limit(20);
    FdPair pair = f.pair();
    for (int i = 0; i < 3; ++i) CHECK(::send(pair.other.get(), pattern().data() + i * 100, 100, 0) == 100);
    FdPair to = unix_pair();
    std::error_code ec;
    const auto r =
        zc::transfer(pair.one, to.one, {.strategy = zc::Strategy::splice, .length = 250, .idle_timeout = 1s}, ec);
    CHECK(r.consumed == r.delivered + (r.stranded ? r.stranded->size() : 0));
    CHECK(same(read_now(to.other.get()), pattern(0, static_cast<std::size_t>(r.delivered))));
    if (!ec) CHECK(r.delivered == 250);
  }
}
