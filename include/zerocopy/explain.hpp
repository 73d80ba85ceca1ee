// zerocopy/explain.hpp: what transfer() would do with two ends and some options, as data and as text. It runs the planner
// that a transfer runs and moves nothing; it owns nothing. What it says of copies is what the kernel does with the bytes
// on the sender's way, as Linux 5.10 to 6.18 do it.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/call_model.hpp>  // calls
#include <zerocopy/detail/copies.hpp>      // copies
#include <zerocopy/detail/refusals.hpp>    // what is known to be refused
#include <zerocopy/explanation.hpp>        // Explanation
#include <zerocopy/transfer.hpp>           // source, sink, the planner

#include <cstddef>       // std::size_t
#include <system_error>  // std::error_code

namespace zerocopy::inline ZEROCOPY_ABI {

namespace detail {

inline std::error_code reason(Standing standing) noexcept {
  switch (standing) {
    case Standing::in_order: return {};
    case Standing::behind_read_write: return Errc::only_when_forced;
    case Standing::other_forced: return Errc::another_forced;
    case Standing::never_serves: return Errc::not_for_this_pair;
    case Standing::not_allowed: return Errc::not_allowed;
    case Standing::shares_pages: return Errc::snapshot_needed;
    case Standing::would_block: return Errc::would_block_uncut;
    case Standing::not_worth_it: return Errc::not_worth_it;
    case Standing::no_promise: return Errc::cannot_promise_more;
  }
  return {};
}

inline Explanation::End explain_end(const Cursor& end) noexcept {
  Explanation::End out;
  out.kind = to_string(end.kind);
  out.fd = end.kind == Kind::in_flight || end.kind == Kind::memory ? -1 : end.fd;
  if (end.kind == Kind::range) out.offset = end.offset;
  return out;
}

// Fills the entries from a job that has been planned.
inline void explain_plan(Job& job, const Standings& standings, Explanation& out) noexcept {
  const StrategyList& order = job.machine.setup.order;
  const StrategySet serving = candidate_table(job.from.kind, job.to.kind).set;
  const bool idle = !out.error && order.empty();
  if (is_socket(job.to.kind)) out.route = find_route(job.to.fd);
  const Copies copies(job, out.route);
  const CallModeler calls(job);
  const Refusals refusals(job);
  out.bytes = calls.bytes();
  const auto explain_one = [&](Strategy strategy) noexcept {
    const Standing standing = standings[static_cast<std::size_t>(strategy)];
    ExplainedStrategy entry;
    entry.strategy = strategy;
    entry.serves = serving.contains(strategy);
    entry.passed_over = reason(standing);
    if (standing == Standing::in_order) entry.refused = refusals.of(strategy);
    if (idle && entry.serves) entry.passed_over = Errc::nothing_to_move;
    if (!entry.serves) return entry;
    entry.cpu_copies = copies.by_cpu(strategy);
    entry.dma_copies = copies.by_devices(strategy);
    entry.model = calls.model(strategy);
    entry.in_user_mode = job.from.kind == Kind::memory && job.to.kind == Kind::memory;
    return entry;
  };
  std::size_t at = 0;
  for (StrategyList rest = order; !rest.empty(); rest.pop_front()) {
    if (standings[static_cast<std::size_t>(rest.front())] != Standing::in_order) continue;
    out.strategies[at] = explain_one(rest.front());
    out.strategies[at].position = at;
    ++at;
  }
  const auto add_rest = [&](bool serves) noexcept {
    for (std::size_t s = 0; s < strategy_count; ++s) {
      const auto strategy = static_cast<Strategy>(s);
      if (standings[s] != Standing::in_order && serving.contains(strategy) == serves)
        out.strategies[at++] = explain_one(strategy);
    }
  };
  add_rest(true);
  add_rest(false);
}

// Nothing is known but what is wrong.
inline void explain_refusal(Explanation& out) noexcept {
  for (std::size_t s = 0; s < strategy_count; ++s) {
    out.strategies[s].strategy = static_cast<Strategy>(s);
    out.strategies[s].passed_over = out.error;
  }
}

template <Kind From, Kind To>
Explanation explain(Job& job) noexcept {
  Driver<From, To>(job).begin();
  Explanation out;
  out.source = explain_end(job.from);
  out.sink = explain_end(job.to);
  out.side = job.machine.side();
  if (job.machine.cause()) out.error = job.machine.cause().code();
  // A forced strategy that can't, or none that may, leaves the order empty too, but for reasons that are worth telling.
  if (out.error && job.machine.setup.order.empty() && out.error != Errc::strategy_unavailable) {
    explain_refusal(out);
    return out;
  }
  explain_plan(job, Planner<From, To>(job).standings(), out);
  return out;
}

}  // namespace detail

/// What `transfer(from, to, options)` would do: the order in which it would try the strategies, why each other one is
/// passed over, and what each one costs. It moves nothing and changes nothing: no byte, position, flag or option.
/// `from` and `to` are what transfer takes; a gather is several transfers and a tee has several sinks, so their parts are
/// explained one by one. A Transfer goes by the same plan, but that it leaves out what it could not keep from blocking on a
/// blocking socket.
/// Errors: none are thrown; `error` of the explanation is what transfer would report before the first byte.
/// Blocking: no. It makes more system calls than the plan of a transfer; the first one in a process also makes those of
/// Capabilities::of_process. Thread safety: any thread. Rests on: rtnetlink(7), netdevice(7), fcntl(2) F_GETPIPE_SZ.
template <class Source, class Sink>
[[nodiscard]] Explanation explain(Source&& from, Sink&& to, const Options& options = {}) noexcept {
  using From = std::remove_cvref_t<Source>;
  using To = std::remove_cvref_t<Sink>;
  static_assert(!detail::is_tee<To>, "zerocopy: a tee is several sinks: explain each one");
  static_assert(sink<Sink> || detail::is_tee<To>, "zerocopy: this type is not a sink. Sinks are those of transfer()");
  static_assert(!detail::is_gather<From>, "zerocopy: a gather is several transfers: explain each part");
  static_assert(source<Source> || std::same_as<From, Stranded> || detail::is_gather<From>,
                "zerocopy: this type is not a source. Sources are those of transfer()");
  const auto make_to = [&] { return detail::as_sink(std::as_const(to)); };
  if constexpr (std::same_as<From, Stranded>) {
    detail::Job job(
        options, [] { return detail::Cursor{.kind = detail::Kind::in_flight}; }, make_to);
    detail::StrandedAccess::lend(from, job);
    const Explanation out = detail::explain<detail::Kind::in_flight, detail::sink_kind<To>()>(job);
    detail::StrandedAccess::take_back(from, job);
    return out;
  } else {
    detail::Job job(
        options, [&] { return detail::as_source(std::as_const(from)); }, make_to);
    return detail::explain<detail::source_kind<From>(), detail::sink_kind<To>()>(job);
  }
}

}  // namespace zerocopy::inline ZEROCOPY_ABI
