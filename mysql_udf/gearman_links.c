/* Connections taken from servers and given back. */

#include "gearman_resolve.h"
#include "gearman_server.h"

#include <stdio.h>
#include <string.h>

enum {
    IDLE_MAX = 256, /* connections kept for one server */
    ECHO_PART = 3,  /* of the time to connect; the rest is for a new connection */
};

/* A connection unused for longer must echo first: a firewall may have forgotten it without telling. */
static const int64_t FRESH = 5 * GEARMAN_SECOND;
static const int64_t IDLE = 60 * GEARMAN_SECOND;       /* unused for longer: closed */
static const int64_t AT_ONCE = GEARMAN_SECOND / 10;    /* a failure as fast as this costs little to see again */
static const int64_t SHORT_BACK_OFF = GEARMAN_SECOND;  /* after such a one: the server may be restarting */

/* Close those linked by next. */
static void close_all(struct gearman_connection *connection)
{
    while (connection != NULL) {
        struct gearman_connection *next = connection->next;
        gearman_close(connection);
        connection = next;
    }
}

/* Take out all idle connections. Called with the lock held. */
static struct gearman_connection *pop_all(struct gearman_server *server)
{
    struct gearman_connection *all = server->idle;
    server->idle = NULL;
    server->idle_count = 0;
    return all;
}

static void close_idle(struct gearman_server *server)
{
    struct gearman_connection *all;
    pthread_mutex_lock(&server->lock);
    all = pop_all(server);
    pthread_mutex_unlock(&server->lock);
    close_all(all);
}

static struct gearman_connection *pop_idle(struct gearman_server *server)
{
    struct gearman_connection *connection, *old = NULL;
    pthread_mutex_lock(&server->lock);
    connection = server->idle;
    if (connection != NULL && gearman_now() - connection->used_at >= IDLE) {
        old = pop_all(server); /* the others were used before it */
        connection = NULL;
    } else if (connection != NULL) {
        server->idle = connection->next;
        server->idle_count--;
    }
    pthread_mutex_unlock(&server->lock);
    close_all(old);
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
    close_all(old);
}

/* Is it of no use to try further? */
static bool is_hopeless(const struct gearman_failure *failure)
{
    return failure->error == GEARMAN_KILLED || failure->error == GEARMAN_NO_MEMORY;
}

static bool connect_to(struct gearman_server *server, struct gearman_wait *wait, struct gearman_link *link,
                       struct gearman_failure *failure)
{
    const int64_t deadline = wait->deadline;
    struct gearman_addresses addresses;
    if (!gearman_resolve(server->host, server->port, wait, &addresses, failure))
        return false;
    gearman_set_failure(failure, GEARMAN_UNREACHABLE, "no address");
    for (size_t i = 0; i < addresses.count && link->connection == NULL && !is_hopeless(failure); i++) {
        struct gearman_connection *connection;
        wait->deadline = gearman_share(deadline, addresses.count - i);
        connection = gearman_open((struct sockaddr *)&addresses.found[i].address, addresses.found[i].length, wait, failure);
        if (connection != NULL && gearman_greet(connection, wait, failure))
            link->connection = connection;
        else
            gearman_close(connection);
    }
    wait->deadline = deadline;
    return link->connection != NULL;
}

/* Does a connection that was not used for a while still work? */
static bool echoes(struct gearman_connection *connection, struct gearman_wait *wait, struct gearman_failure *failure)
{
    const int64_t deadline = wait->deadline;
    bool is_echoed;
    wait->deadline = gearman_share(deadline, ECHO_PART);
    is_echoed = gearman_echo(connection, wait, failure);
    wait->deadline = deadline;
    return is_echoed;
}

/* An idle connection that still works, or a new one. */
static bool take(struct gearman_server *server, struct gearman_wait *wait, struct gearman_link *link, struct gearman_failure *failure)
{
    struct gearman_connection *connection;
    link->server = server;
    link->connection = NULL;
    while ((connection = pop_idle(server)) != NULL) {
        if (gearman_is_quiet(connection)) {
            if (gearman_now() - connection->used_at < FRESH || echoes(connection, wait, failure)) {
                link->connection = connection;
                return true;
            }
            gearman_close(connection);
            if (is_hopeless(failure))
                return false;
            close_idle(server); /* what forgot this one forgot those used before it */
            break;
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

void gearman_was_silent(struct gearman_server *server, const struct gearman_options *options, int64_t had, int64_t usual,
                     const char *why)
{
    /* None is silent for longer than the options let a call wait. Half: a part goes to what comes before, as other servers. */
    usual = gearman_earlier(usual, gearman_earlier(options->timeout, options->background_timeout));
    if (had >= usual / 2)
        pass_over_for(server, options->back_off, why);
}

/* May it be tried? If not, why is the reason. Of a server that is to be tried again, one session does so until then. */
static bool may_try(struct gearman_server *server, int64_t until, char *why, size_t size)
{
    int64_t now = gearman_now();
    bool may;
    pthread_mutex_lock(&server->lock);
    may = server->retry_at <= now;
    if (!may)
        snprintf(why, size, "%.200s (tried again in %.1f s)", server->why,
                 (double)(server->retry_at - now) / (double)GEARMAN_SECOND);
    else if (server->retry_at != 0)
        server->retry_at = until;
    pthread_mutex_unlock(&server->lock);
    return may;
}

bool gearman_take_from(struct gearman_server *server, const struct gearman_options *options, struct gearman_wait *wait,
                    struct gearman_link *link, struct gearman_failure *failure)
{
    const int64_t deadline = wait->deadline, started = gearman_now();
    const int64_t until = gearman_earlier(deadline, started + options->connect_timeout);
    bool is_taken;
    wait->deadline = until;
    is_taken = take(server, wait, link, failure);
    wait->deadline = deadline;
    if (is_taken) {
        failure->error = GEARMAN_OK;
        pthread_mutex_lock(&server->lock);
        server->retry_at = 0;
        pthread_mutex_unlock(&server->lock);
    } else if (is_hopeless(failure) || failure->error == GEARMAN_BUSY) {
        return false;
    } else if (gearman_now() >= until) {
        gearman_was_silent(server, options, until - started, options->connect_timeout, failure->text);
    } else {
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
    const int64_t until = gearman_earlier(wait->deadline, gearman_now() + options->connect_timeout);
    if (may_try(server, until, why, sizeof why)) {
        if (gearman_take_from(server, options, wait, link, failure))
            return true;
        if (is_hopeless(failure))
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
