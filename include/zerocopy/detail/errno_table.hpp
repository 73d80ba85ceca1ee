// zerocopy/detail/errno_table.hpp: the home of errno. For each strategy and errno: wait, try the next strategy, or stop.
// Where an errno is ambiguous the next strategy is tried, and what read_write says is final. It makes no call.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/outcome.hpp>  // Verdict
#include <zerocopy/strategy.hpp>        // Strategy

#include <cerrno>  // the errnos

namespace zerocopy::inline ZEROCOPY_ABI::detail {

// The strategies for which this errno means something of its own.
struct ErrnoRow {
  int error;
  Verdict verdict;
  StrategySet only;
};

inline constexpr ErrnoRow errno_table[] = {
    {EAGAIN, Verdict::blocked, StrategySet::all()},
    // Zero-copy sends: no room for another notification. A completion makes room.
    {ENOBUFS, Verdict::blocked, {Strategy::send_zerocopy}},
    // Not these descriptors, not this kernel, not across these file systems.
    {EINVAL, Verdict::unsupported, StrategySet::all()},
    {ENOSYS, Verdict::unsupported, StrategySet::all()},
    {EOPNOTSUPP, Verdict::unsupported, StrategySet::all()},
    {EXDEV, Verdict::unsupported, StrategySet::all()},
    {ESPIPE, Verdict::unsupported, StrategySet::all()},
    {ENOTTY, Verdict::unsupported, {Strategy::reflink}},
    {ENODEV, Verdict::unsupported, {Strategy::mmap_write, Strategy::send_zerocopy}},
    // A security policy, or the file itself: read_write finds out which.
    {EPERM, Verdict::unsupported, StrategySet::all()},
    {EACCES, Verdict::unsupported, StrategySet::all()},
    // An O_APPEND sink, or a descriptor that can't be read or written: read_write finds out which.
    {EBADF, Verdict::unsupported, {Strategy::reflink, Strategy::copy_file_range}},
    // A swap file at either end; as a source it can be read.
    {ETXTBSY, Verdict::unsupported, {Strategy::reflink, Strategy::copy_file_range}},
    // No descriptors for a pipe of our own, no address space for a mapping, no such socket option.
    {EMFILE, Verdict::unsupported, {Strategy::splice, Strategy::vmsplice}},
    {ENFILE, Verdict::unsupported, {Strategy::splice, Strategy::vmsplice}},
    {ENOMEM, Verdict::unsupported, {Strategy::mmap_write, Strategy::send_zerocopy, Strategy::vmsplice}},
    {ENOPROTOOPT, Verdict::unsupported, {Strategy::send_zerocopy}},
    {ENOTSOCK, Verdict::unsupported, {Strategy::send_zerocopy}},
};

// Every errno that is not in the table stops the transfer: EIO, ENOSPC, EDQUOT, EFBIG, EPIPE, ECONNRESET, EMSGSIZE, ...
// `mapped`: the bytes were read from a mapping of a file, where a fault means that the file became shorter.
constexpr Verdict verdict(Strategy strategy, int error, bool mapped) noexcept {
  if (error == EFAULT && mapped) return Verdict::end;
  for (const ErrnoRow& row : errno_table)
    if (row.error == error && row.only.contains(strategy)) return row.verdict;
  return Verdict::failed;
}

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
