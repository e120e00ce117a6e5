#include "unique.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/random.h>
#include <time.h>

void unique_make(char *place)
{
    static atomic_uint_fast64_t count;
    struct timespec now;
    uint64_t milliseconds, random[2] = {0, 0}, number = atomic_fetch_add(&count, 1);
    clock_gettime(CLOCK_REALTIME, &now);
    milliseconds = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    if (getrandom(random, sizeof random, GRND_NONBLOCK) != (long)sizeof random)
        random[0] = (uint64_t)now.tv_nsec; /* just after boot; the count still tells them apart here */
    snprintf(place, UNIQUE_SIZE, "%08x-%04x-7%03x-%04x-%04x%08x", (unsigned)(milliseconds >> 16 & 0xffffffff),
             (unsigned)(milliseconds & 0xffff), (unsigned)(number & 0xfff), (unsigned)(0x8000 | (random[0] & 0x3fff)),
             (unsigned)(random[0] >> 16 & 0xffff), (unsigned)(random[0] >> 32));
}
