// zerocopy/format.hpp: fmt formatters for what a transfer tells, so that fmt::print("{}", result) works. Opt-in: the only
// header that includes fmt (9 or newer), not included by zerocopy.hpp. It owns nothing and makes no system call.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/explain.hpp>   // Explanation
#include <zerocopy/result.hpp>    // TransferResult, StopReason, Side
#include <zerocopy/strategy.hpp>  // Strategy

#include <fmt/format.h>  // formatter, format_to

#include <iterator>     // std::back_inserter
#include <ratio>        // std::milli
#include <string>       // a table
#include <string_view>  // to_string

namespace zerocopy::inline ZEROCOPY_ABI::detail {

// An enumerator by its name; width, fill and alignment as for a string.
template <class Enum>
struct NameFormatter : fmt::formatter<fmt::string_view> {
  template <class Context>
  auto format(Enum value, Context& context) const {
    const std::string_view name = to_string(value);
    return fmt::formatter<fmt::string_view>::format({name.data(), name.size()}, context);
  }
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail

template <>
struct fmt::formatter<zerocopy::Strategy> : zerocopy::detail::NameFormatter<zerocopy::Strategy> {};
template <>
struct fmt::formatter<zerocopy::StopReason> : zerocopy::detail::NameFormatter<zerocopy::StopReason> {};
template <>
struct fmt::formatter<zerocopy::Side> : zerocopy::detail::NameFormatter<zerocopy::Side> {};

/// One line, such as "5000 bytes by read_write in 2 calls: complete; left sendfile (Invalid argument)" or
/// "4096 bytes by splice in 3 calls: sink_closed at the sink (Broken pipe); 512 bytes stranded".
template <>
struct fmt::formatter<zerocopy::TransferResult> : fmt::formatter<fmt::string_view> {
  template <class Context>
  auto format(const zerocopy::TransferResult& result, Context& context) const {
    fmt::memory_buffer text;
    const auto out = std::back_inserter(text);
    fmt::format_to(out, "{} bytes", result.delivered);
    if (result.strategy) fmt::format_to(out, " by {}", *result.strategy);
    fmt::format_to(out, " in {} call{}: {}", result.calls, result.calls == 1 ? "" : "s", result.reason);
    if (result.side != zerocopy::Side::none) fmt::format_to(out, " at the {}", result.side);
    if (result.error) fmt::format_to(out, " ({})", result.error.message());
    for (const zerocopy::FallbackStep step : result.trail)
      fmt::format_to(out, "; left {} ({})", step.strategy, step.error.message());
    if (result.stranded) fmt::format_to(out, "; {} bytes stranded", result.stranded->size());
    return fmt::formatter<fmt::string_view>::format({text.data(), text.size()}, context);
  }
};

/// The table of `Explanation::text()`, several lines; width, fill and alignment as for a string.
template <>
struct fmt::formatter<zerocopy::Explanation> : fmt::formatter<fmt::string_view> {
  template <class Context>
  auto format(const zerocopy::Explanation& explanation, Context& context) const {
    const std::string text = explanation.text();
    return fmt::formatter<fmt::string_view>::format({text.data(), text.size()}, context);
  }
};
