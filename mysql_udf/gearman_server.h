/* One server; for gearman_servers.c and gearman_links.c alone. */

#ifndef GEARMAN_SERVER_H
#define GEARMAN_SERVER_H

#include "gearman_servers.h"

#include <pthread.h>

enum { GEARMAN_HOST_MAX = 253 };

struct gearman_server {
    char host[GEARMAN_HOST_MAX + 1];
    char port[6];
    char name[GEARMAN_HOST_MAX + 10]; /* host:port, [host]:port for IPv6 */
    int holders;                   /* lists; guarded by the lock of gearman_servers.c, as the next */
    uint64_t listing;              /* the number of the last list of all servers that has it */
    pthread_mutex_t lock;          /* guards what follows */
    struct gearman_connection *idle;  /* the one used last comes first */
    size_t idle_count;
    int64_t swept_at; /* when connections that nobody needs were closed; as gearman_now, like the next */
    int64_t retry_at; /* passed over until then; 0: it answered when last asked */
    char why[GEARMAN_TEXT_SIZE];
};

#endif
