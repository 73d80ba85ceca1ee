#include <zerocopy/error.hpp>

#include "catch.hpp"

#include <set>

using namespace zerocopy;

TEST_CASE("an Errc equals the std::errc that it stands for", "[error]") {
  const std::error_code timed_out = Errc::timed_out;
  CHECK(timed_out == std::errc::timed_out);
  CHECK(timed_out == Errc::timed_out);
  CHECK(timed_out != Errc::stopped);
  CHECK(std::error_code(Errc::stopped) == std::errc::operation_canceled);
  CHECK(std::error_code(Errc::same_file) == std::errc::invalid_argument);
  CHECK(std::error_code(Errc::offset_with_append) == std::errc::invalid_argument);
  CHECK(std::error_code(Errc::empty_gather) == std::errc::invalid_argument);
  CHECK(std::error_code(Errc::strategy_unavailable) == std::errc::operation_not_supported);
  CHECK(std::error_code(Errc::sink_closed) == std::errc::broken_pipe);
}

TEST_CASE("the kernel's EPIPE and ECONNRESET equal sink_closed", "[error]") {
  CHECK(std::error_code(EPIPE, std::system_category()) == Errc::sink_closed);
  CHECK(std::error_code(ECONNRESET, std::generic_category()) == Errc::sink_closed);
  CHECK(Errc::sink_closed == std::error_code(EPIPE, std::system_category()));
  CHECK(std::error_code(EIO, std::system_category()) != Errc::sink_closed);
  CHECK(std::error_code(static_cast<int>(Errc::timed_out), std::system_category()) != Errc::timed_out);
}

TEST_CASE("every Errc has a message of its own and a matching condition", "[error]") {
  std::set<std::string> messages;
  for (int value = 1; value <= static_cast<int>(Errc::nothing_to_move); ++value) {
    const std::error_code code(value, error_category());
    CAPTURE(value);
    CHECK(code.message().find("unknown") == std::string::npos);
    CHECK(messages.insert(code.message()).second);
    CHECK(code.default_error_condition().category() == std::generic_category());
  }
  CHECK(std::error_code(9999, error_category()).message() == "unknown zerocopy error 9999");
  CHECK(std::string(error_category().name()) == "zerocopy");
}
