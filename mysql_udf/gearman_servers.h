/* Which servers there are, their connections kept between calls, and which of them to leave alone for a while.
 *
 * Safe in many threads. Servers are tried in the order of their list until one answers. One that did not is passed over
 * by all sessions for options.back_off; after that one session tries it, and the others pass it over until that is known.
 * One that was silent is passed over only if it had about the time that the options give: a call may have had little.
 */

#ifndef GEARMAN_SERVERS_H
#define GEARMAN_SERVERS_H

#include "gearman_client.h"
#include "gearman_options.h"

struct gearman_server;

/* A list of servers; never changes, lives until everybody has let go of it. */
struct gearman_servers {
    int holders; /* guarded by the lock of gearman_servers.c */
    size_t count;
    struct gearman_server *servers[];
};

/* A connection taken from its server, to be given back. */
struct gearman_link {
    struct gearman_connection *connection;
    struct gearman_server *server;
};

/* Set the list for a function, or with function_length 0 for all others; an empty text takes it back. */
bool gearman_servers_set(const char *text, size_t length, const char *function, size_t function_length,
                      struct gearman_failure *failure);
/* The servers for a function; NULL with the failure set: there are none. Let go of them with gearman_servers_free. */
struct gearman_servers *gearman_servers_get(const char *function, size_t length, struct gearman_failure *failure);
/* The servers of all lists, each once, those for all others first; the same NULL. */
struct gearman_servers *gearman_servers_all(struct gearman_failure *failure);
void gearman_servers_free(struct gearman_servers *servers);

const char *gearman_server_name(const struct gearman_server *server);

/* Take a connection to the first server that answers. */
bool gearman_take(struct gearman_servers *servers, const struct gearman_options *options, struct gearman_wait *wait,
                  struct gearman_link *link, struct gearman_failure *failure);
/* To the one at this position, unless it is passed over. */
bool gearman_take_at(struct gearman_servers *servers, size_t position, const struct gearman_options *options,
                     struct gearman_wait *wait, struct gearman_link *link, struct gearman_failure *failure);
/* To this one, whatever is known of it. */
bool gearman_take_from(struct gearman_server *server, const struct gearman_options *options, struct gearman_wait *wait,
                       struct gearman_link *link, struct gearman_failure *failure);
/* Give it back; what went wrong with it last decides whether it is kept. */
void gearman_give_back(struct gearman_link *link, enum gearman_error error);
/* A server did not answer within had; pass it over for a while, unless that was far less than usual, as options say it. */
void gearman_was_silent(struct gearman_server *server, const struct gearman_options *options, int64_t had, int64_t usual,
                        const char *why);

#endif
