#include <zerocopy/capabilities.hpp>

#include "catch.hpp"
#include "support/process.hpp"

using namespace zerocopy;

namespace {

std::vector<std::pair<const char*, Capability>> list(const Capabilities& c) {
  return {{"copy_file_range", c.copy_file_range},
          {"sendfile_to_file", c.sendfile_to_file},
          {"sendfile_to_socket", c.sendfile_to_socket},
          {"splice", c.splice},
          {"vmsplice", c.vmsplice},
          {"pipe_nowait", c.pipe_nowait},
          {"pipe_nosignal", c.pipe_nosignal},
          {"dontcache", c.dontcache},
          {"msg_zerocopy", c.msg_zerocopy},
          {"io_uring", c.io_uring},
          {"read_lease", c.read_lease},
          {"delegation", c.delegation}};
}

}  // namespace

TEST_CASE("each capability is there, or says with an errno why not", "[capabilities]") {
  for (const auto& [name, capability] : list(Capabilities::of_process())) {
    CAPTURE(name, capability.error.message());
    CHECK(capability.available == !capability.error);
    CHECK(static_cast<bool>(capability) == capability.available);
  }
}

TEST_CASE("the answers are found once, by any thread", "[capabilities]") {
  const Capabilities* here = &Capabilities::of_process();
  const Capabilities* there = nullptr;
  std::thread([&] { there = &Capabilities::of_process(); }).join();
  CHECK(here == there);
}

TEST_CASE("trying leaves nothing open and no signal changed", "[capabilities]") {
  const auto signals = ends::SignalState::now();
  const std::size_t before = ends::open_descriptors();
  const Capabilities first = Capabilities::probe();
  const Capabilities second = Capabilities::probe();
  CHECK(ends::open_descriptors() == before);
  CHECK(ends::SignalState::now() == signals);
  CHECK(list(first).size() == list(second).size());
  CHECK(first.pipe_capacity == second.pipe_capacity);
}

TEST_CASE("the pipe capacity is that of a pipe that asks for 1 MiB", "[capabilities]") {
  const auto pipe = ends::pipe_pair();
  (void)::fcntl(pipe.one.get(), F_SETPIPE_SZ, 1 << 20);
  CHECK(Capabilities::of_process().pipe_capacity == static_cast<std::size_t>(::fcntl(pipe.one.get(), F_GETPIPE_SZ)));
}

TEST_CASE("what a filter refuses is not available, with the filter's errno", "[capabilities]") {
  const std::string wrong = ends::in_child([] {
    ends::refuse({SYS_copy_file_range, SYS_splice, SYS_vmsplice, SYS_sendfile, SYS_pwritev2, SYS_preadv2}, EPERM);
    ends::refuse({425 /* io_uring_setup */}, ENOSYS);
    const Capabilities c = Capabilities::probe();
    ends::Wrong found;
    for (const auto& [name, capability] : list(c)) {
      const std::string_view is = name;
      const bool ring = is == "io_uring";
      const bool ours = is != "msg_zerocopy" && is != "read_lease" && is != "delegation";
      if (ours) found.unless(!capability && capability.error.value() == (ring ? ENOSYS : EPERM), name);
    }
    return found.text();
  });
  CHECK(wrong == "");
}

TEST_CASE("without a free descriptor everything says so", "[capabilities]") {
  const std::string wrong = ends::in_child([] {
    ends::Wrong found;
    const rlimit none{0, 64};
    ends::checked(::setrlimit(RLIMIT_NOFILE, &none), "setrlimit");
    const Capabilities c = Capabilities::probe();
    for (const auto& [name, capability] : list(c)) found.unless(!capability && capability.error, name);
    found.unless(c.splice.error == std::errc::too_many_files_open, "splice: " + c.splice.error.message());
    found.unless(c.io_uring.error == std::errc::too_many_files_open, "io_uring: " + c.io_uring.error.message());
    found.unless(c.pipe_capacity == 0, "a pipe was made");
    return found.text();
  });
  CHECK(wrong == "");
}
