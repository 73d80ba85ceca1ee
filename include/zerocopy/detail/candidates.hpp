// zerocopy/detail/candidates.hpp: which strategies serve which pair, best first. One constexpr table, read at compile time
// to generate no code for the impossible, and at run time where a BorrowedFd's kind is found by fstat.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/cursor.hpp>   // Kind
#include <zerocopy/detail/machine.hpp>  // StrategyList

namespace zerocopy::inline ZEROCOPY_ABI::detail {

// The order for kinds that are known. What stands behind read_write, which serves everything, runs only when it is forced
// or read_write is not allowed. What the order rests on:
// - file to file: copy_file_range is what servers and file systems make better; where they can, it shares the extents as
//   reflink does (vfs_copy_file_range clones first). reflink by itself runs when it is forced: it shares or fails.
// - a pipe end: splice moves pages without a pipe of our own; sendfile into a pipe would block.
// - memory: shared only if the caller says so, and then worth it for sockets and pipes.
// - a message sink: a message is one call, which only copying ways can promise.
constexpr StrategyList candidates(Kind from, Kind to) noexcept {
  using enum Strategy;
  const bool impossible = from == Kind::any || to == Kind::any || to == Kind::in_flight;
  if (impossible) return {};
  if (is_memory(to) || from == Kind::messages) return {read_write};
  // The pipe is drained, then the buffer; into a message both are one write.
  if (from == Kind::in_flight)
    return to == Kind::messages ? StrategyList{read_write} : StrategyList{splice, read_write};
  // A tty obeys no flag that keeps sendfile and splice from blocking.
  if (from == Kind::device || to == Kind::device) {
    if (to == Kind::messages || is_memory(from)) return {read_write};
    return is_file(from) ? StrategyList{read_write, sendfile, splice} : StrategyList{read_write, splice};
  }
  switch (from) {
    case Kind::file:
    case Kind::range:
      switch (to) {
        case Kind::file: return {copy_file_range, sendfile, splice, mmap_write, read_write, reflink};
        case Kind::range: return {copy_file_range, splice, mmap_write, read_write, reflink};
        case Kind::pipe: return {splice, mmap_write, read_write};
        case Kind::socket: return {sendfile, splice, mmap_write, read_write, send_zerocopy};
        default: return {read_write, mmap_write};  // messages
      }
    case Kind::memory:
      switch (to) {
        case Kind::pipe: return {vmsplice, read_write};
        case Kind::socket: return {send_zerocopy, read_write, vmsplice};
        case Kind::messages: return {read_write};
        default: return {read_write, vmsplice};
      }
    case Kind::mapping:
      switch (to) {
        case Kind::socket: return {mmap_write, read_write, send_zerocopy, vmsplice};
        case Kind::messages: return {mmap_write, read_write};
        default: return {mmap_write, read_write, vmsplice};
      }
    default: return to == Kind::messages ? StrategyList{read_write} : StrategyList{splice, read_write};
  }
}

struct Candidates {
  StrategyList list;
  StrategySet set;
};

// The same as data.
inline const Candidates& candidate_table(Kind from, Kind to) noexcept {
  static constexpr auto table = [] {
    std::array<std::array<Candidates, kind_count>, kind_count> all{};
    for (std::size_t f = 0; f < kind_count; ++f) {
      for (std::size_t t = 0; t < kind_count; ++t) {
        const StrategyList list = candidates(static_cast<Kind>(f), static_cast<Kind>(t));
        all[f][t] = {list, list.set()};
      }
    }
    return all;
  }();
  return table[static_cast<std::size_t>(from)][static_cast<std::size_t>(to)];
}

// The kinds that a static kind can turn out to be.
constexpr bool can_be(Kind declared, Kind found) noexcept {
  if (declared == found) return true;
  const bool plain = found == Kind::file || found == Kind::pipe || found == Kind::device;
  if (declared == Kind::any) return plain || is_socket(found);
  if (declared == Kind::file) return plain;  // a File can be opened on /dev/null or on a FIFO
  return declared == Kind::socket && found == Kind::messages;
}

constexpr bool may_be_socket(Kind declared) noexcept { return can_be(declared, Kind::socket); }

// Every strategy that a pair of types can need: what code is generated for.
template <Kind From, Kind To>
consteval StrategySet possible() noexcept {
  StrategySet all;
  for (std::size_t f = 0; f < kind_count; ++f)
    for (std::size_t t = 0; t < kind_count; ++t)
      if (can_be(From, static_cast<Kind>(f)) && can_be(To, static_cast<Kind>(t)))
        all = all | candidates(static_cast<Kind>(f), static_cast<Kind>(t)).set();
  return all;
}

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
