// zerocopy/config.hpp: the version, the platform check and the inline namespace.
// It owns every macro of the library; it never includes anything.
//
// | macro                | who sets it | what it does                                              |
// |----------------------|-------------|-----------------------------------------------------------|
// | ZEROCOPY_VERSION     | the library | the version as a string; CMake reads it from here         |
// | ZEROCOPY_NO_URING    | the user    | builds without liburing                                   |
// | ZEROCOPY_ABI         | the library | the inline namespace, which encodes the setting above     |
#pragma once

#define ZEROCOPY_VERSION "0.1.0"

#if !defined(__linux__)
#error "zerocopy moves bytes with Linux system calls: it needs Linux"
#elif !defined(__cplusplus) || __cplusplus < 202002L
#error "zerocopy needs C++20: compile with -std=c++20"
#endif

// Two translation units with different settings get different names, so that they never mix silently.
#if defined(ZEROCOPY_NO_URING)
#define ZEROCOPY_ABI v0_no_uring
#else
#define ZEROCOPY_ABI v0
#endif
