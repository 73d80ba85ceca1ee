#include <zerocopy/gather.hpp>

#include "catch.hpp"
#include "unit/files.hpp"

#include <zerocopy/transfer.hpp>

#include <string>

using namespace zerocopy;
using namespace unit;

namespace {

const std::string head = "head:";
const std::string tail = ":tail";

}  // namespace

TEST_CASE("parts arrive in order, as one", "[gather]") {
  const File middle = file_with("0123456789");
  File sink = File::temporary();
  const TransferResult r = transfer(gather(bytes(head), middle.range(2, 5), bytes(tail)), sink);
  CHECK(r.delivered == 15);
  CHECK(r.consumed == 15);
  CHECK(r.reason == StopReason::complete);
  CHECK(content(sink) == "head:23456:tail");
  CHECK(sink.position() == 15);
}

TEST_CASE("a length counts over all parts", "[gather]") {
  const File middle = file_with("0123456789");
  File sink = File::temporary();
  CHECK(transfer(gather(bytes(head), middle, bytes(tail)), sink, {.length = 8}).delivered == 8);
  CHECK(content(sink) == "head:012");
  CHECK(middle.position() == 3);
  File longer = File::temporary();
  const TransferResult r = transfer(gather(bytes(head), bytes(tail)), longer, {.length = 100});
  CHECK(r.delivered == 10);
  CHECK(r.reason == StopReason::end_of_source);
}

TEST_CASE("a range sink takes the parts one after the other, up to its length", "[gather]") {
  const File sink = file_with("....................");
  const TransferResult r = transfer(gather(bytes(head), bytes(tail)), sink.range(3, 8));
  CHECK(r.delivered == 8);
  CHECK(content(sink) == "...head::ta.........");
}

TEST_CASE("a range that is longer than its file ends the gather before the trailer", "[gather]") {
  const File middle = file_with("0123");
  File sink = File::temporary();
  const TransferResult r = transfer(gather(bytes(head), middle.range(0, 100), bytes(tail)), sink);
  CHECK(r.reason == StopReason::end_of_source);
  CHECK(content(sink) == "head:0123");
}

TEST_CASE("an empty gather is an error and moves nothing", "[gather]") {
  File sink = File::temporary();
  std::error_code ec;
  const TransferResult r = transfer(gather(), sink, ec);
  CHECK(ec == Errc::empty_gather);
  CHECK(ec == std::errc::invalid_argument);
  CHECK(r.delivered == 0);
  CHECK(sink.size() == 0);
}

TEST_CASE("a gather arrives whole through a socket and leaves no cork", "[gather]") {
  const std::string large(200'000, 'm');
  const File middle = file_with(large);
  auto [a, b] = Socket::pair();
  a.set_send_buffer(1 << 20);
  const TransferResult r = transfer(gather(bytes(head), middle, bytes(tail)), a);
  CHECK(r.delivered == large.size() + 10);
  std::string got(large.size() + 10, '\0');
  CHECK(transfer(b, std::as_writable_bytes(std::span(got))).delivered == got.size());
  CHECK(got == head + large + tail);
}

TEST_CASE("a part that fails tells how many bytes of all parts arrived", "[gather]") {
  File sink = File::temporary();
  std::error_code ec;
  const File unreadable = File::open("/dev/null", {.access = Access::write});
  const TransferResult r = transfer(gather(bytes(head), unreadable, bytes(tail)), sink, ec);
  CHECK(ec == std::errc::bad_file_descriptor);
  CHECK(r.side == Side::source);
  CHECK(r.delivered == 5);
  CHECK(content(sink) == head);
}

TEST_CASE("a message sink takes one source, not a gather", "[gather]") {
  auto [a, b] = Socket::pair(SocketType::seqpacket);
  std::error_code ec;
  CHECK(transfer(gather(bytes(head), bytes(tail)), a, ec).delivered == 0);
  CHECK(ec == Errc::strategy_unavailable);
}
