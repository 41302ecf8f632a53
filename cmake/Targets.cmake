# bothy_library(NAME SRCS... DEPS...): one folder of src/, as target bothy_NAME.
function(bothy_library name)
  cmake_parse_arguments(arg "" "" "SRCS;DEPS" ${ARGN})
  add_library(bothy_${name} STATIC ${arg_SRCS})
  target_include_directories(bothy_${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
  target_link_libraries(bothy_${name} PUBLIC ${arg_DEPS})
endfunction()

# What every program of a sanitized build needs besides its own.
function(bothy_sanitizer_sources name)
  if(BOTHY_SANITIZER STREQUAL "thread")
    target_sources(${name} PRIVATE ${CMAKE_SOURCE_DIR}/src/support/tsan_suppressions.cc)
  endif()
endfunction()

# bothy_test(NAME SRCS... DEPS... [LABELS...] [PROPERTIES...]): a GoogleTest executable whose cases ctest
# knows one by one. LABELS: unit (default: no root, no KVM, milliseconds), micro (any /dev/kvm),
# lab (real KVM, stock kernels; registered as one ctest test a case), tsan (also run under the tsan preset).
function(bothy_test name)
  if(NOT BUILD_TESTING OR BOTHY_SANITIZER STREQUAL "fuzzer")
    return()
  endif()
  cmake_parse_arguments(arg "" "" "SRCS;DEPS;LABELS;PROPERTIES" ${ARGN})
  if(NOT arg_LABELS)
    set(arg_LABELS unit)
  endif()
  add_executable(${name} ${arg_SRCS})
  bothy_sanitizer_sources(${name})
  target_link_libraries(${name} PRIVATE ${arg_DEPS} GTest::gmock GTest::gtest GTest::gtest_main)
  # One label, joined: gtest_discover_tests hands a list of them on as single properties.
  list(JOIN arg_LABELS "+" label)
  gtest_discover_tests(${name} NO_PRETTY_VALUES DISCOVERY_TIMEOUT 60
    PROPERTIES LABELS ${label} ${arg_PROPERTIES})
endfunction()

# bothy_fuzzer(NAME SRCS... DEPS... [CORPUS dir]): a libFuzzer target, built by the fuzz preset only.
# Its seed corpus is fuzz/corpus/NAME unless CORPUS says otherwise.
function(bothy_fuzzer name)
  if(NOT BOTHY_SANITIZER STREQUAL "fuzzer")
    return()
  endif()
  cmake_parse_arguments(arg "" "CORPUS" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${arg_SRCS})
  target_link_libraries(${name} PRIVATE ${arg_DEPS})
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzzers)
endfunction()

# bothy_executable(NAME SRCS... DEPS...): a program that users run.
function(bothy_executable name)
  cmake_parse_arguments(arg "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${arg_SRCS})
  target_link_libraries(${name} PRIVATE ${arg_DEPS})
  bothy_sanitizer_sources(${name})
  target_compile_definitions(${name} PRIVATE BOTHY_VERSION="${PROJECT_VERSION}")
  target_link_options(${name} PRIVATE -static-libstdc++ -static-libgcc)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${BOTHY_BIN_DIR})
endfunction()
