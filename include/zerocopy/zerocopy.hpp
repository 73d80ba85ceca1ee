// zerocopy/zerocopy.hpp: everything but the bridges to other libraries (format.hpp).
#pragma once

#include <zerocopy/capabilities.hpp>
#include <zerocopy/endpoint.hpp>
#include <zerocopy/error.hpp>
#include <zerocopy/explain.hpp>
#include <zerocopy/explanation.hpp>
#include <zerocopy/fd.hpp>
#include <zerocopy/file.hpp>
#include <zerocopy/gather.hpp>
#include <zerocopy/listener.hpp>
#include <zerocopy/mapped_file.hpp>
#include <zerocopy/memory_file.hpp>
#include <zerocopy/options.hpp>
#include <zerocopy/pipe.hpp>
#include <zerocopy/progress.hpp>
#include <zerocopy/relay.hpp>
#include <zerocopy/result.hpp>
#include <zerocopy/sigpipe_guard.hpp>
#include <zerocopy/socket.hpp>
#include <zerocopy/stepping.hpp>
#include <zerocopy/strategy.hpp>
#include <zerocopy/tee.hpp>
#include <zerocopy/transfer.hpp>
