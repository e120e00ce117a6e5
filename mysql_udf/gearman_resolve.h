/* Host names to addresses, in bounded time. */

#ifndef GEARMAN_RESOLVE_H
#define GEARMAN_RESOLVE_H

#include "gearman_connection.h"

enum { GEARMAN_ADDRESSES_MAX = 16 }; /* of one name; further ones are left out */

struct gearman_addresses {
    size_t count;
    struct gearman_address {
        struct sockaddr_storage address;
        socklen_t length;
    } found[GEARMAN_ADDRESSES_MAX];
};

/* Find the addresses of host:port. False with the failure set; BUSY: too many names are being looked up. */
bool gearman_resolve(const char *host, const char *port, struct gearman_wait *wait, struct gearman_addresses *addresses,
                  struct gearman_failure *failure);

#endif
