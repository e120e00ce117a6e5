/* Connections taken from servers and given back. */

#include "gearman_resolve.h"
#include "gearman_server.h"

#include <stdio.h>
#include <string.h>

enum { IDLE_MAX = 256 }; /* connections kept for one server */

static const int64_t FRESH = 5 * GEARMAN_SECOND;
/* A connection unused for longer must echo first: a firewall may have forgotten it without telling. */
static const int64_t IDLE = 60 * GEARMAN_SECOND;       /* unused for longer: closed */
static const int64_t AT_ONCE = GEARMAN_SECOND / 10;    /* a failure as fast as this costs little to see again */
static const int64_t SHORT_BACK_OFF = GEARMAN_SECOND;  /* after such a one: the server may be restarting */

static struct gearman_connection *pop_idle(struct gearman_server *server)
{
    struct gearman_connection *connection;
    pthread_mutex_lock(&server->lock);
    connection = server->idle;
    if (connection != NULL) {
        server->idle = connection->next;
        server->idle_count--;
    }
    pthread_mutex_unlock(&server->lock);
    return connection;
}

/* Take out what nobody has used for long; they are linked by next. Called with the lock held. */
static struct gearman_connection *sweep(struct gearman_server *server, int64_t now)
{
    struct gearman_connection **place = &server->idle, *old;
    size_t kept = 0;
    if (now - server->swept_at < IDLE / 4)
        return NULL;
    server->swept_at = now;
    while (*place != NULL && now - (*place)->used_at < IDLE) {
        place = &(*place)->next;
        kept++;
    }
    old = *place;
    *place = NULL;
    server->idle_count = kept;
    return old;
}

void gearman_give_back(struct gearman_link *link, enum gearman_error error)
{
    struct gearman_connection *connection = link->connection, *old = NULL;
    struct gearman_server *server = link->server;
    bool is_usable = error == GEARMAN_OK || error == GEARMAN_REFUSED || error == GEARMAN_FAILED;
    link->connection = NULL;
    if (connection == NULL)
        return;
    if (is_usable && connection->start == connection->end) {
        int64_t now = gearman_now();
        pthread_mutex_lock(&server->lock);
        if (server->idle_count < IDLE_MAX) {
            connection->next = server->idle;
            server->idle = connection;
            server->idle_count++;
            connection = NULL;
        }
        old = sweep(server, now);
        pthread_mutex_unlock(&server->lock);
    }
    gearman_close(connection);
    while (old != NULL) {
        struct gearman_connection *next = old->next;
        gearman_close(old);
        old = next;
    }
}

static bool connect_to(struct gearman_server *server, struct gearman_wait *wait, struct gearman_link *link,
                       struct gearman_failure *failure)
{
    struct addrinfo *found, *address;
    if (!gearman_resolve(server->host, server->port, wait, &found, failure))
        return false;
    gearman_set_failure(failure, GEARMAN_UNREACHABLE, "no address");
    for (address = found; address != NULL && link->connection == NULL; address = address->ai_next) {
        struct gearman_connection *connection = gearman_open(address->ai_addr, address->ai_addrlen, wait, failure);
        if (connection != NULL && gearman_greet(connection, wait, failure))
            link->connection = connection;
        else
            gearman_close(connection);
        if (failure->error == GEARMAN_KILLED || failure->error == GEARMAN_NO_MEMORY)
            break;
    }
    freeaddrinfo(found);
    return link->connection != NULL;
}

/* An idle connection that still works, or a new one. */
static bool take(struct gearman_server *server, struct gearman_wait *wait, struct gearman_link *link, struct gearman_failure *failure)
{
    struct gearman_connection *connection;
    link->server = server;
    link->connection = NULL;
    while ((connection = pop_idle(server)) != NULL) {
        if (gearman_is_quiet(connection)) {
            if (gearman_now() - connection->used_at < FRESH || gearman_echo(connection, wait, failure)) {
                link->connection = connection;
                return true;
            }
            if (failure->error == GEARMAN_KILLED || failure->error == GEARMAN_TIMEOUT) {
                gearman_close(connection);
                return false;
            }
        }
        gearman_close(connection);
    }
    return connect_to(server, wait, link, failure);
}

static void pass_over_for(struct gearman_server *server, int64_t nanoseconds, const char *why)
{
    pthread_mutex_lock(&server->lock);
    server->retry_at = gearman_now() + nanoseconds;
    snprintf(server->why, sizeof server->why, "%s", why);
    pthread_mutex_unlock(&server->lock);
}

void gearman_pass_over(struct gearman_server *server, const struct gearman_options *options, const char *why)
{
    pass_over_for(server, options->back_off, why);
}

/* May it be tried? If not, why is the reason. Of a server that is to be tried again, one session does so. */
static bool may_try(struct gearman_server *server, const struct gearman_options *options, char *why, size_t size)
{
    int64_t now = gearman_now();
    bool may;
    pthread_mutex_lock(&server->lock);
    may = server->retry_at <= now;
    if (!may)
        snprintf(why, size, "%.200s (tried again in %.1f s)", server->why,
                 (double)(server->retry_at - now) / (double)GEARMAN_SECOND);
    else if (server->retry_at != 0)
        server->retry_at = now + options->connect_timeout;
    pthread_mutex_unlock(&server->lock);
    return may;
}

bool gearman_take_from(struct gearman_server *server, const struct gearman_options *options, struct gearman_wait *wait,
                    struct gearman_link *link, struct gearman_failure *failure)
{
    const int64_t deadline = wait->deadline, started = gearman_now();
    bool is_taken;
    wait->deadline = gearman_earlier(deadline, started + options->connect_timeout);
    is_taken = take(server, wait, link, failure);
    wait->deadline = deadline;
    if (is_taken) {
        failure->error = GEARMAN_OK;
        pthread_mutex_lock(&server->lock);
        server->retry_at = 0;
        pthread_mutex_unlock(&server->lock);
    } else if (failure->error != GEARMAN_KILLED && failure->error != GEARMAN_NO_MEMORY) {
        bool was_fast = gearman_now() - started < AT_ONCE;
        pass_over_for(server, was_fast ? gearman_earlier(SHORT_BACK_OFF, options->back_off) : options->back_off,
                      failure->text);
    }
    return is_taken;
}

bool gearman_take_at(struct gearman_servers *servers, size_t position, const struct gearman_options *options,
                     struct gearman_wait *wait, struct gearman_link *link, struct gearman_failure *failure)
{
    struct gearman_server *server = servers->servers[position];
    char why[GEARMAN_TEXT_SIZE];
    if (may_try(server, options, why, sizeof why)) {
        if (gearman_take_from(server, options, wait, link, failure))
            return true;
        if (failure->error == GEARMAN_KILLED || failure->error == GEARMAN_NO_MEMORY)
            return false;
        snprintf(why, sizeof why, "%.200s", failure->text);
    }
    return gearman_set_failure(failure, GEARMAN_UNREACHABLE, "%.100s: %.250s", server->name, why);
}

bool gearman_take(struct gearman_servers *servers, const struct gearman_options *options, struct gearman_wait *wait,
                  struct gearman_link *link, struct gearman_failure *failure)
{
    char tried[GEARMAN_TEXT_SIZE] = "";
    size_t length = 0;
    for (size_t i = 0; i < servers->count; i++) {
        if (gearman_take_at(servers, i, options, wait, link, failure))
            return true;
        if (failure->error != GEARMAN_UNREACHABLE)
            return false;
        if (length < sizeof tried)
            length += (size_t)snprintf(tried + length, sizeof tried - length, "%s%s", i > 0 ? "; " : "", failure->text);
        if (gearman_now() >= wait->deadline)
            break;
    }
    return gearman_set_failure(failure, GEARMAN_UNREACHABLE, "no Gearman server answers: %s", tried);
}
