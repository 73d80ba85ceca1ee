// The driver's state machine, walked through every sequence of outcomes up to a depth, against a model that moves
// single numbered bytes. No system call is made.
#include <zerocopy/detail/machine.hpp>

#include "catch.hpp"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

using namespace zerocopy;
using namespace zerocopy::detail;

namespace {

// Bytes are numbers: what was read in order must arrive in order.
struct Model {
  std::uint64_t source_size = 5;
  std::uint64_t read = 0;  // bytes that left the source
  std::vector<std::uint64_t> buffer;
  std::vector<std::uint64_t> pipe;
  std::uint64_t sink = 0;  // bytes that arrived, all in order
  bool in_order = true;

  void arrive(std::uint64_t byte) {
    in_order = in_order && byte == sink;
    ++sink;
  }
  static std::uint64_t take(std::vector<std::uint64_t>& from) {
    const std::uint64_t byte = from.front();
    from.erase(from.begin());
    return byte;
  }
};

struct Walk {
  Machine::Setup setup;
  std::uint64_t sequences = 0;
  std::uint64_t steps = 0;

  // Every outcome that a kernel could give to this action in this state, lies included.
  static std::vector<Outcome> outcomes(Action action, const Machine& machine, const Model& model) {
    std::vector<Outcome> all;
    const std::uint64_t budget = machine.budget(action);
    std::uint64_t available = 0;
    Place place = Place::sink;
    switch (action) {
      case Action::first:
        available = model.source_size - model.read;
        place = machine.strategy() == Strategy::read_write ? Place::buffer
                : machine.strategy() == Strategy::splice   ? Place::pipe
                                                           : Place::sink;
        break;
      case Action::drain_buffer: available = model.buffer.size(); break;
      case Action::drain_pipe:
      case Action::spill: available = model.pipe.size(); break;
      default: return all;
    }
    if (action == Action::spill) place = Place::buffer;
    const std::uint64_t most = std::min(budget, available);
    if (most > 0) all.push_back(Outcome::moved(most, place, most < budget));
    if (most > 1) all.push_back(Outcome::moved(1, place, true));
    if (action == Action::first) {
      // An end that is not trusted may be reported where there is none.
      if (available == 0 || !trusts_end(machine.strategy(), machine.setup.stream_source, machine.consumed() > 0))
        all.push_back(Outcome::end());
      all.push_back(Outcome::blocked(Side::source));
      all.push_back(Outcome::blocked(Side::sink));
      all.push_back(Outcome::unsupported(Cause(EINVAL)));
      all.push_back(Outcome::failed(Cause(EIO), Side::source));
      all.push_back(Outcome::failed(Cause(EPIPE), Side::sink));
    } else {
      if (action != Action::spill) all.push_back(Outcome::blocked(Side::sink));
      all.push_back(Outcome::end());
      all.push_back(Outcome::unsupported(Cause(EINVAL)));
      all.push_back(Outcome::failed(Cause(ENOSPC), Side::sink));
    }
    return all;
  }

  static void apply(Action action, const Outcome& outcome, Model& model) {
    if (outcome.verdict != Verdict::moved) return;
    for (std::uint64_t i = 0; i < outcome.count; ++i) {
      switch (action) {
        case Action::first: {
          const std::uint64_t byte = model.read++;
          if (outcome.place == Place::sink) model.arrive(byte);
          if (outcome.place == Place::buffer) model.buffer.push_back(byte);
          if (outcome.place == Place::pipe) model.pipe.push_back(byte);
          break;
        }
        case Action::drain_buffer: model.arrive(Model::take(model.buffer)); break;
        case Action::drain_pipe: model.arrive(Model::take(model.pipe)); break;
        case Action::spill: model.buffer.push_back(Model::take(model.pipe)); break;
        default: break;
      }
    }
  }

  static bool holds(const Machine& machine, const Model& model) {
    return model.in_order && machine.delivered() == model.sink && machine.consumed() == model.read &&
           machine.buffered() == model.buffer.size() && machine.piped() == model.pipe.size() &&
           machine.consumed() == machine.delivered() + machine.buffered() + machine.piped();
  }

  void finished(const Machine& machine, const Model& model) {
    ++sequences;
    const std::uint64_t all = std::min(setup.limit, model.source_size);
    const bool success = machine.reason() == StopReason::complete || machine.reason() == StopReason::end_of_source;
    if (success != !machine.cause()) FAIL("a cause and the reason disagree");
    // A message that was sent at once is whole, however short its source was found to be.
    const bool sent_at_once = setup.collect && machine.mover() == Strategy::mmap_write;
    if (success && machine.delivered() != all && !sent_at_once)
      FAIL("ended well, " << machine.delivered() << " of " << all << " bytes");
    if (machine.reason() == StopReason::end_of_source && setup.asked == to_end)
      FAIL("an end where no length was asked for");
    if (machine.delivered() > setup.limit) FAIL("more than was asked for");
  }

  // From here on the kernel does as it is asked: the transfer must come to an end.
  void run_out(Machine machine, Model model) {
    for (int i = 0; i < 200; ++i) {
      const Action action = machine.next();
      if (action == Action::finish) return finished(machine, model);
      if (action == Action::wait) {
        machine.on_ready(true);
        continue;
      }
      const auto choices = outcomes(action, machine, model);
      const Outcome benign = choices.front().verdict == Verdict::moved ? choices.front() : Outcome::end();
      apply(action, benign, model);
      machine.on(action, benign);
      if (!holds(machine, model)) FAIL("the counts are wrong while running out");
    }
    FAIL("no end after 200 hops that all went well");
  }

  void walk(Machine machine, const Model& model, int depth) {
    ++steps;
    if (!holds(machine, model))
      FAIL("depth " << depth << ": delivered " << machine.delivered() << " consumed " << machine.consumed()
                    << " buffered " << machine.buffered() << " piped " << machine.piped() << "; the model has "
                    << model.sink << " " << model.read << " " << model.buffer.size() << " " << model.pipe.size()
                    << (model.in_order ? "" : ", out of order"));
    const Action action = machine.next();
    if (action == Action::finish) return finished(machine, model);
    if (depth == 0) return run_out(machine, model);
    if (action == Action::wait) {
      if (machine.waiting_for() == Side::none) FAIL("waits for nothing");
      Machine woken = machine;
      woken.on_ready(true);
      walk(woken, model, depth - 1);
      machine.stop(StopReason::timed_out, Cause(Errc::timed_out), machine.waiting_for());
      return finished(machine, model);
    }
    if (action == Action::first && !setup.collect && (machine.buffered() > 0 || machine.piped() > 0))
      FAIL("filled while bytes are in flight");
    if (machine.budget(action) == 0) FAIL("a hop without a byte");
    for (const Outcome& outcome : outcomes(action, machine, model)) {
      Machine next = machine;
      Model then = model;
      apply(action, outcome, then);
      next.on(action, outcome);
      walk(next, then, depth - 1);
    }
  }
};

Machine::Setup with(StrategyList order, std::uint64_t asked = to_end) {
  Machine::Setup setup;
  setup.order = order;
  setup.asked = setup.limit = asked;
  return setup;
}

}  // namespace

TEST_CASE("every sequence of outcomes keeps the promise and ends", "[machine]") {
  using enum Strategy;
  std::uint64_t sequences = 0;
  std::vector<Machine::Setup> setups = {
      with({sendfile, splice, mmap_write, read_write}),
      with({copy_file_range, splice, read_write}),
      with({splice, read_write}),
      with({splice, read_write}, 3),
      with({splice, read_write}, 9),
      with({read_write}),
      with({copy_file_range, sendfile}),
  };
  Machine::Setup forced = with({splice});
  forced.forced = true;
  setups.push_back(forced);
  Machine::Setup message = with({mmap_write, read_write});
  message.message_sink = message.collect = true;
  setups.push_back(message);
  Machine::Setup bounded = with({splice, read_write});
  bounded.limit = 2;  // the sink holds less than the source has
  setups.push_back(bounded);
  Machine::Setup stream = with({splice, read_write});
  stream.stream_source = true;
  setups.push_back(stream);
  for (const Machine::Setup& setup : setups) {
    Walk walk{setup};
    walk.walk(Machine(setup), Model{}, 9);
    CHECK(walk.sequences > 10);
    sequences += walk.sequences;
  }
  CHECK(sequences > 100'000);
  WARN(sequences << " sequences of outcomes to depth 9");
}

TEST_CASE("stranded bytes are delivered buffer first, then pipe, with every sequence of outcomes", "[machine]") {
  for (const bool refuse : {false, true}) {
    Machine::Setup setup = with({Strategy::splice, Strategy::read_write});
    setup.refuse_pipe = refuse;
    Walk walk{setup};
    Machine machine(setup);
    machine.resume(2, 3);
    Model model;
    model.read = 5;
    model.buffer = {0, 1};
    model.pipe = {2, 3, 4};
    walk.walk(machine, model, 7);
    CHECK(walk.sequences > 50);
  }
}

TEST_CASE("a strategy that only ever stalls is left, so that nothing spins", "[machine]") {
  Machine machine(with({Strategy::splice, Strategy::read_write}));
  int hops = 0;
  while (machine.strategy() == Strategy::splice) {
    REQUIRE(++hops < 10);
    REQUIRE(machine.next() == Action::first);
    machine.on(Action::first, Outcome::blocked(Side::source));
    if (machine.next() == Action::wait) machine.on_ready(true);
  }
  REQUIRE(machine.trail().size() == 1);
  CHECK(machine.trail()[0].strategy == Strategy::splice);
  CHECK(machine.trail()[0].error == std::errc::resource_unavailable_try_again);
}

TEST_CASE("waiting for a silent source by the clock is no stall", "[machine]") {
  Machine machine(with({Strategy::splice, Strategy::read_write}));
  for (int i = 0; i < 1000; ++i) {
    machine.on(Action::first, Outcome::blocked(Side::source));
    REQUIRE(machine.next() == Action::wait);
    machine.on_ready(false);
  }
  CHECK(machine.strategy() == Strategy::splice);
}

TEST_CASE("an end that a strategy reports too early is disproved by a read and the strategy is left", "[machine]") {
  Machine machine(with({Strategy::copy_file_range, Strategy::sendfile, Strategy::read_write}));
  machine.on(Action::first, Outcome::end());
  REQUIRE(machine.next() == Action::first);
  REQUIRE(machine.strategy() == Strategy::read_write);
  machine.on(Action::first, Outcome::moved(7, Place::buffer, true));
  machine.on(Action::drain_buffer, Outcome::moved(7, Place::sink));
  CHECK(machine.next() == Action::first);
  CHECK(machine.strategy() == Strategy::read_write);
  REQUIRE(machine.trail().size() == 1);
  CHECK(machine.trail()[0].error == Errc::end_not_seen);
  machine.on(Action::first, Outcome::end());
  CHECK(machine.next() == Action::finish);
  CHECK(machine.reason() == StopReason::complete);
  CHECK(machine.delivered() == 7);
}

TEST_CASE("a short count is followed by a read instead of a second call, and the strategy may go on", "[machine]") {
  Machine machine(with({Strategy::copy_file_range, Strategy::read_write}));
  machine.on(Action::first, Outcome::moved(100, Place::sink, true));
  REQUIRE(machine.next() == Action::first);
  CHECK(machine.strategy() == Strategy::read_write);
  machine.on(Action::first, Outcome::moved(5, Place::buffer, true));
  machine.on(Action::drain_buffer, Outcome::moved(5, Place::sink));
  CHECK(machine.next() == Action::first);
  CHECK(machine.strategy() == Strategy::copy_file_range);
  CHECK(machine.trail().empty());
}

TEST_CASE("a drain that moves nothing is a failure, not a loop", "[machine]") {
  Machine machine(with({Strategy::read_write}));
  machine.on(Action::first, Outcome::moved(5, Place::buffer));
  REQUIRE(machine.next() == Action::drain_buffer);
  machine.on(Action::drain_buffer, Outcome::end());
  CHECK(machine.next() == Action::finish);
  CHECK(machine.reason() == StopReason::failed);
  CHECK(machine.side() == Side::sink);
  CHECK(machine.consumed() - machine.delivered() == 5);
}

TEST_CASE("a pipe that the sink refuses is spilled and written, and splice is left", "[machine]") {
  Machine machine(with({Strategy::splice, Strategy::read_write}));
  machine.on(Action::first, Outcome::moved(10, Place::pipe));
  REQUIRE(machine.next() == Action::drain_pipe);
  machine.on(Action::drain_pipe, Outcome::unsupported(Cause(EINVAL)));
  REQUIRE(machine.next() == Action::spill);
  machine.on(Action::spill, Outcome::moved(4, Place::buffer));
  REQUIRE(machine.next() == Action::drain_buffer);
  machine.on(Action::drain_buffer, Outcome::moved(4, Place::sink));
  REQUIRE(machine.next() == Action::spill);
  machine.on(Action::spill, Outcome::moved(6, Place::buffer));
  machine.on(Action::drain_buffer, Outcome::moved(6, Place::sink));
  CHECK(machine.strategy() == Strategy::read_write);
  CHECK(machine.delivered() == 10);
  CHECK(machine.trail().size() == 1);
}

TEST_CASE("a forced strategy that fails late keeps the bytes in flight", "[machine]") {
  Machine::Setup setup = with({Strategy::splice});
  setup.forced = true;
  Machine machine(setup);
  machine.on(Action::first, Outcome::moved(10, Place::pipe));
  machine.on(Action::drain_pipe, Outcome::unsupported(Cause(EINVAL)));
  CHECK(machine.next() == Action::finish);
  CHECK(machine.cause() == Cause(Errc::strategy_unavailable));
  CHECK(machine.piped() == 10);
  CHECK(machine.consumed() == 10);
}

TEST_CASE("bytes into one message wait until the message is whole", "[machine]") {
  Machine::Setup setup = with({Strategy::read_write}, 10);
  setup.message_sink = setup.collect = true;
  Machine machine(setup);
  machine.on(Action::first, Outcome::moved(4, Place::buffer, true));
  REQUIRE(machine.next() == Action::first);
  CHECK(machine.budget(Action::first) == 6);
  machine.on(Action::first, Outcome::moved(6, Place::buffer));
  REQUIRE(machine.next() == Action::drain_buffer);
  CHECK(machine.budget(Action::drain_buffer) == 10);
}
