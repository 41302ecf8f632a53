# Third-party libraries, all Debian packages (docs/dependencies.md says why each).
# Those that `bothy` itself links are taken as archives: a server that starts in milliseconds
# can't afford to relocate a hundred shared objects, and their private pages count per VM.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)

set(BUILD_SHARED_LIBS OFF)
set(Protobuf_USE_STATIC_LIBS ON)
find_package(Protobuf REQUIRED)

# Debian's absl CMake package names the shared objects; pkg-config with --static gives the closure.
pkg_check_modules(ABSL REQUIRED absl_status absl_statusor absl_strings absl_str_format absl_time
                  absl_flat_hash_map absl_flat_hash_set absl_cord absl_span)
add_library(bothy_absl INTERFACE)
set(_absl_archives "")
foreach(lib IN LISTS ABSL_STATIC_LIBRARIES)
  if(lib MATCHES "^absl_")
    list(APPEND _absl_archives /usr/lib/${CMAKE_LIBRARY_ARCHITECTURE}/lib${lib}.a)
  endif()
endforeach()
list(REMOVE_DUPLICATES _absl_archives)
target_link_libraries(bothy_absl INTERFACE -Wl,--start-group ${_absl_archives} -Wl,--end-group Threads::Threads)

add_library(bothy_protobuf INTERFACE)
target_link_libraries(bothy_protobuf INTERFACE ${Protobuf_LIBRARIES} Threads::Threads)
find_library(ZLIB_ARCHIVE libz.a REQUIRED)
target_link_libraries(bothy_protobuf INTERFACE ${ZLIB_ARCHIVE})

# Asio and spdlog are used as headers only; their includes stay in .cc files and support/.
add_library(bothy_asio INTERFACE)
# Asio detects aligned_alloc by a macro of libstdc++'s, which is defined or not depending on what was
# included before it: one file would allocate with new what another one frees with free.
target_compile_definitions(bothy_asio INTERFACE ASIO_STANDALONE ASIO_NO_DEPRECATED
                           ASIO_DISABLE_STD_ALIGNED_ALLOC)
target_link_libraries(bothy_asio INTERFACE Threads::Threads)

add_library(bothy_spdlog INTERFACE)
target_compile_definitions(bothy_spdlog INTERFACE SPDLOG_HEADER_ONLY SPDLOG_FMT_EXTERNAL FMT_HEADER_ONLY)

find_library(URING_ARCHIVE liburing.a REQUIRED)
add_library(bothy_uring INTERFACE)
target_link_libraries(bothy_uring INTERFACE ${URING_ARCHIVE})

foreach(codec IN ITEMS lzma lz4 zstd)
  string(TOUPPER ${codec} upper)
  find_library(${upper}_ARCHIVE lib${codec}.a REQUIRED)
  add_library(bothy_${codec} INTERFACE)
  target_link_libraries(bothy_${codec} INTERFACE ${${upper}_ARCHIVE} Threads::Threads)
endforeach()
add_library(bothy_zlib INTERFACE)
target_link_libraries(bothy_zlib INTERFACE ${ZLIB_ARCHIVE})

if(BUILD_TESTING AND NOT BOTHY_SANITIZER STREQUAL "fuzzer")
  find_package(GTest REQUIRED)
  include(GoogleTest)
endif()
