#include "gearman_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SERVERS_MAX = 64, FUNCTIONS_MAX = 1000 };

/* The list set for one function, or for all others. */
struct entry {
    struct entry *next;
    struct gearman_servers *servers;
    size_t function_length; /* 0: all others */
    char function[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct entry *entries; /* guarded by lock */

struct address {
    char host[GEARMAN_HOST_MAX + 1];
    char port[6];
};

/* Read one HOST, HOST:PORT, [IPV6] or [IPV6]:PORT. */
static bool parse_address(const char *text, size_t length, struct address *address)
{
    const char *host = text, *port = "4730", *colon = memrchr(text, ':', length);
    size_t host_length = length, port_length = 4;
    if (colon != NULL && text[length - 1] != ']') {
        host_length = (size_t)(colon - text);
        port = colon + 1;
        port_length = length - host_length - 1;
    }
    if (host_length >= 2 && host[0] == '[' && host[host_length - 1] == ']') {
        host++;
        host_length -= 2;
    } else if (memchr(host, ':', host_length) != NULL) {
        return false;
    }
    if (host_length == 0 || host_length > GEARMAN_HOST_MAX || port_length == 0 || port_length > 5)
        return false;
    for (size_t i = 0; i < host_length; i++)
        if (host[i] <= ' ' || host[i] > '~' || strchr("[],%/", host[i]) != NULL)
            return false;
    for (size_t i = 0; i < port_length; i++)
        if (port[i] < '0' || port[i] > '9')
            return false;
    snprintf(address->host, sizeof address->host, "%.*s", (int)host_length, host);
    snprintf(address->port, sizeof address->port, "%.*s", (int)port_length, port);
    return atoi(address->port) > 0 && atoi(address->port) <= 65535;
}

static bool parse(const char *text, size_t length, struct address *addresses, size_t *count, struct gearman_failure *failure)
{
    const char *end = text + length;
    *count = 0;
    while (text < end) {
        const char *comma = memchr(text, ',', (size_t)(end - text));
        const char *next = comma == NULL ? end : comma + 1, *last = comma == NULL ? end : comma;
        while (text < last && *text == ' ')
            text++;
        while (last > text && last[-1] == ' ')
            last--;
        if (last > text) {
            if (*count == SERVERS_MAX)
                return gearman_set_failure(failure, GEARMAN_BAD_CALL, "a list may have %d servers", SERVERS_MAX);
            if (!parse_address(text, (size_t)(last - text), &addresses[*count]))
                return gearman_set_failure(failure, GEARMAN_BAD_CALL, "\"%.*s\" is not HOST or HOST:PORT",
                                        last - text < 300 ? (int)(last - text) : 300, text);
            ++*count;
        }
        text = next;
    }
    return true;
}

/* Servers that lists share are the same, so that what is known of one is known to all. Called with the lock held. */
static struct gearman_server *find_server(const struct address *address, const struct gearman_servers *unfinished)
{
    for (size_t i = 0; i < unfinished->count; i++)
        if (strcmp(unfinished->servers[i]->host, address->host) == 0 &&
            strcmp(unfinished->servers[i]->port, address->port) == 0)
            return unfinished->servers[i];
    for (struct entry *entry = entries; entry != NULL; entry = entry->next)
        for (size_t i = 0; i < entry->servers->count; i++)
            if (strcmp(entry->servers->servers[i]->host, address->host) == 0 &&
                strcmp(entry->servers->servers[i]->port, address->port) == 0)
                return entry->servers->servers[i];
    return NULL;
}

static struct gearman_server *new_server(const struct address *address)
{
    struct gearman_server *server = calloc(1, sizeof *server);
    if (server == NULL)
        return NULL;
    memcpy(server->host, address->host, sizeof server->host);
    memcpy(server->port, address->port, sizeof server->port);
    snprintf(server->name, sizeof server->name, strchr(server->host, ':') == NULL ? "%s:%s" : "[%s]:%s", server->host,
             server->port);
    pthread_mutex_init(&server->lock, NULL);
    return server;
}

static void free_server(struct gearman_server *server)
{
    while (server->idle != NULL) {
        struct gearman_connection *connection = server->idle;
        server->idle = connection->next;
        gearman_close(connection);
    }
    pthread_mutex_destroy(&server->lock);
    free(server);
}

/* Called with the lock held. */
static void let_go(struct gearman_servers *servers)
{
    if (servers == NULL || --servers->holders > 0)
        return;
    for (size_t i = 0; i < servers->count; i++)
        if (--servers->servers[i]->holders == 0)
            free_server(servers->servers[i]);
    free(servers);
}

/* Called with the lock held; NULL: no memory. */
static struct gearman_servers *new_servers(const struct address *addresses, size_t count)
{
    struct gearman_servers *servers = calloc(1, sizeof *servers + count * sizeof servers->servers[0]);
    if (servers == NULL)
        return NULL;
    servers->holders = 1;
    for (size_t i = 0; i < count; i++) {
        struct gearman_server *server = find_server(&addresses[i], servers);
        if (server == NULL)
            server = new_server(&addresses[i]);
        if (server == NULL) {
            let_go(servers);
            return NULL;
        }
        server->holders++;
        servers->servers[servers->count++] = server;
    }
    return servers;
}

/* Called with the lock held: where the entry of a function is, or would be. */
static struct entry **find_entry(const char *function, size_t length, size_t *count)
{
    struct entry **place = &entries;
    for (*count = 0; *place != NULL; place = &(*place)->next, ++*count)
        if ((*place)->function_length == length && (length == 0 || memcmp((*place)->function, function, length) == 0))
            break;
    return place;
}

/* Called with the lock held. */
static bool set_entry(const struct address *addresses, size_t count, const char *function, size_t length,
                      struct gearman_failure *failure)
{
    size_t position;
    struct entry **place = find_entry(function, length, &position), *entry = *place;
    struct gearman_servers *servers;
    if (count == 0) {
        if (entry != NULL) {
            *place = entry->next;
            let_go(entry->servers);
            free(entry);
        }
        return true;
    }
    if (entry == NULL && position >= FUNCTIONS_MAX)
        return gearman_set_failure(failure, GEARMAN_BAD_CALL, "at most %d functions may have servers of their own",
                                FUNCTIONS_MAX);
    servers = new_servers(addresses, count);
    if (servers == NULL)
        return gearman_no_memory(failure);
    if (entry == NULL) {
        entry = calloc(1, sizeof *entry + length);
        if (entry == NULL) {
            let_go(servers);
            return gearman_no_memory(failure);
        }
        entry->function_length = length;
        if (length > 0)
            memcpy(entry->function, function, length);
        *place = entry;
    }
    let_go(entry->servers);
    entry->servers = servers;
    return true;
}

bool gearman_servers_set(const char *text, size_t length, const char *function, size_t function_length,
                      struct gearman_failure *failure)
{
    struct address *addresses;
    size_t count;
    bool is_set;
    if (function_length > GEARMAN_FUNCTION_MAX)
        return gearman_set_failure(failure, GEARMAN_BAD_CALL, "a function name may have %d bytes, this one has %zu",
                                GEARMAN_FUNCTION_MAX, function_length);
    if (gearman_options_get().locked)
        return gearman_set_failure(failure, GEARMAN_BAD_CALL, "servers and options are locked");
    addresses = calloc(SERVERS_MAX, sizeof *addresses);
    if (addresses == NULL)
        return gearman_no_memory(failure);
    is_set = parse(text, length, addresses, &count, failure);
    if (is_set) {
        pthread_mutex_lock(&lock);
        is_set = set_entry(addresses, count, function, function_length, failure);
        pthread_mutex_unlock(&lock);
    }
    free(addresses);
    return is_set;
}

static bool no_server(struct gearman_failure *failure)
{
    return gearman_set_failure(failure, GEARMAN_UNREACHABLE, "no Gearman server is set: call gman_servers_set('host:port')");
}

struct gearman_servers *gearman_servers_get(const char *function, size_t length, struct gearman_failure *failure)
{
    struct gearman_servers *servers = NULL;
    struct entry *entry;
    size_t position;
    pthread_mutex_lock(&lock);
    entry = *find_entry(function, length, &position);
    if (entry == NULL)
        entry = *find_entry("", 0, &position);
    if (entry != NULL) {
        servers = entry->servers;
        servers->holders++;
    }
    pthread_mutex_unlock(&lock);
    if (servers == NULL)
        no_server(failure);
    return servers;
}

/* Add the servers of an entry that the list does not have yet. Called with the lock held. */
static void add_servers(struct gearman_servers *all, const struct entry *entry, uint64_t listing)
{
    for (size_t i = 0; i < entry->servers->count; i++) {
        struct gearman_server *server = entry->servers->servers[i];
        if (server->listing == listing)
            continue;
        server->listing = listing;
        server->holders++;
        all->servers[all->count++] = server;
    }
}

struct gearman_servers *gearman_servers_all(struct gearman_failure *failure)
{
    static uint64_t listing; /* guarded by lock */
    struct gearman_servers *all;
    const struct entry *others;
    size_t most = 0, position;
    pthread_mutex_lock(&lock);
    for (const struct entry *entry = entries; entry != NULL; entry = entry->next)
        most += entry->servers->count;
    all = calloc(1, sizeof *all + most * sizeof all->servers[0]);
    if (all != NULL) {
        all->holders = 1;
        listing++;
        others = *find_entry("", 0, &position);
        if (others != NULL)
            add_servers(all, others, listing);
        for (const struct entry *entry = entries; entry != NULL; entry = entry->next)
            add_servers(all, entry, listing);
    }
    pthread_mutex_unlock(&lock);
    if (all == NULL) {
        gearman_no_memory(failure);
    } else if (all->count == 0) {
        gearman_servers_free(all);
        no_server(failure);
        return NULL;
    }
    return all;
}

void gearman_servers_free(struct gearman_servers *servers)
{
    pthread_mutex_lock(&lock);
    let_go(servers);
    pthread_mutex_unlock(&lock);
}

const char *gearman_server_name(const struct gearman_server *server)
{
    return server->name;
}
