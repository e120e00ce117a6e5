/* What the load programs share: the one function and workload size, the clock, failing, reading numbers. */
#ifndef POSTGEAR_BENCH_LOAD_H
#define POSTGEAR_BENCH_LOAD_H

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define HOST "127.0.0.1"
#define FUNCTION "bench"
#define WORKLOAD_BYTES 100
#define UNIQUE_BYTES 40 /* a UUID's 36 characters, a NUL, rounded up */

/* Monotonic seconds, the same in every process. */
static inline double clock_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Print one line to stderr and end with status 1. */
static inline void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
static inline void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

/* The number in text, which must lie in minimum..maximum. */
static inline long number(const char *text, long minimum, long maximum)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < minimum || value > maximum)
        fail("not a number in %ld..%ld: %s", minimum, maximum, text);
    return value;
}

/* Zeroed memory that forked children share. */
static inline void *shared_memory(size_t size_bytes)
{
    void *memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("mmap of %zu bytes: %s", size_bytes, strerror(errno));
    return memory;
}

#endif
