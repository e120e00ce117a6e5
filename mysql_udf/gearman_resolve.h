/* Host names to addresses, in bounded time. */

#ifndef GEARMAN_RESOLVE_H
#define GEARMAN_RESOLVE_H

#include "gearman_connection.h"

#include <netdb.h>

/* Find the addresses of host:port; free them with freeaddrinfo. False with the failure set. */
bool gearman_resolve(const char *host, const char *port, struct gearman_wait *wait, struct addrinfo **found,
                  struct gearman_failure *failure);

#endif
