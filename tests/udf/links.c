/* Takes connections as sessions do, where the clock can be set forward and names have the addresses that a test wants.
 *
 * Reads commands from the input, one a line, and prints a line for each: "ok", or the text of the failure.
 *
 *     set SERVERS               the servers, for all functions
 *     option NAME VALUE
 *     later SECONDS             the clock goes forward
 *     take COUNT SECONDS        take so many connections, each within the seconds, and give them back
 *     hold, release             from hold on nothing is looked up; release lets it go on
 *     resolve COUNT NAMES       as many threads look up so many names between them; then "most N threads, N of a name"
 *
 * A name is at 127.0.0.2 and 127.0.0.1.
 */

#include "../../mysql_udf/gearman_resolve.h"
#include "../../mysql_udf/gearman_servers.h"

#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { COUNT_MAX = 300 };

static atomic_long skipped; /* seconds by which the clock is set forward */

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    now->tv_sec += skipped;
    return result;
}

/* Looking up */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool is_held;
static int under_way, most, of_name[COUNT_MAX], most_of_name; /* of those that look up a name */

static void count_lookup(int name, int difference)
{
    under_way += difference;
    of_name[name] += difference;
    most = under_way > most ? under_way : most;
    most_of_name = of_name[name] > most_of_name ? of_name[name] : most_of_name;
    pthread_cond_broadcast(&changed);
}

static struct addrinfo *new_address(uint32_t host, const char *port, struct addrinfo *next)
{
    struct addrinfo *info = calloc(1, sizeof *info);
    struct sockaddr_in *address = calloc(1, sizeof *address);
    *address = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)), .sin_addr.s_addr = htonl(host)};
    *info = (struct addrinfo){.ai_family = AF_INET,
                              .ai_socktype = SOCK_STREAM,
                              .ai_addrlen = sizeof *address,
                              .ai_addr = (struct sockaddr *)address,
                              .ai_next = next};
    return info;
}

int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **found)
{
    bool is_name = strncmp(host, "name", 4) == 0;
    int name = is_name ? atoi(host + 4) : 0;
    if (!is_name) {
        *found = new_address(INADDR_LOOPBACK, port, NULL);
        return 0;
    }
    if ((hints->ai_flags & AI_NUMERICHOST) != 0)
        return EAI_NONAME;
    pthread_mutex_lock(&lock);
    count_lookup(name, 1);
    while (is_held)
        pthread_cond_wait(&changed, &lock);
    count_lookup(name, -1);
    pthread_mutex_unlock(&lock);
    *found = new_address(INADDR_LOOPBACK + 1, port, new_address(INADDR_LOOPBACK, port, NULL));
    return 0;
}

void freeaddrinfo(struct addrinfo *info)
{
    while (info != NULL) {
        struct addrinfo *next = info->ai_next;
        free(info->ai_addr);
        free(info);
        info = next;
    }
}

struct lookup {
    pthread_t thread;
    char host[20];
    bool is_found;
    struct gearman_failure failure;
};

static void *look_up(void *argument)
{
    struct lookup *lookup = argument;
    struct gearman_wait wait = {.deadline = gearman_now() + 60 * GEARMAN_SECOND};
    struct gearman_addresses addresses;
    lookup->is_found = gearman_resolve(lookup->host, "1", &wait, &addresses, &lookup->failure) && addresses.count == 2;
    return NULL;
}

static void resolve(int count, int names)
{
    static struct lookup lookups[COUNT_MAX];
    most = most_of_name = 0;
    is_held = true;
    for (int i = 0; i < count; i++) {
        snprintf(lookups[i].host, sizeof lookups[i].host, "name%d", i % names);
        pthread_create(&lookups[i].thread, NULL, look_up, &lookups[i]);
    }
    pthread_mutex_lock(&lock);
    while (most < (names < 16 ? names : 16))
        pthread_cond_wait(&changed, &lock);
    is_held = false;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < count; i++) {
        pthread_join(lookups[i].thread, NULL);
        if (!lookups[i].is_found)
            printf("%s; ", lookups[i].failure.text);
    }
    printf("most %d threads, %d of a name\n", most, most_of_name);
}

static void hold(bool wanted)
{
    pthread_mutex_lock(&lock);
    is_held = wanted;
    pthread_cond_broadcast(&changed);
    while (!wanted && under_way > 0)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    puts("ok");
}

/* Connections */

static void take(int count, double seconds)
{
    struct gearman_options options = gearman_options_get();
    struct gearman_link links[COUNT_MAX];
    struct gearman_failure failure = {0};
    struct gearman_servers *servers = gearman_servers_get("", 0, &failure);
    int taken = 0;
    bool is_taken = servers != NULL;
    while (is_taken && taken < count) {
        struct gearman_wait wait = {.deadline = gearman_now() + (int64_t)(seconds * (double)GEARMAN_SECOND)};
        is_taken = gearman_take(servers, &options, &wait, &links[taken], &failure);
        taken += is_taken;
    }
    while (taken > 0)
        gearman_give_back(&links[--taken], GEARMAN_OK);
    if (servers != NULL)
        gearman_servers_free(servers);
    puts(is_taken ? "ok" : failure.text);
}

int main(void)
{
    char line[2000], first[1000], text[GEARMAN_OPTION_SIZE];
    struct gearman_failure failure;
    double seconds;
    int count, names;
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin) != NULL) {
        bool is_done = true;
        if (sscanf(line, "take %d %lf", &count, &seconds) == 2 && count <= COUNT_MAX) {
            take(count, seconds);
            continue;
        }
        if (sscanf(line, "resolve %d %d", &count, &names) == 2 && count <= COUNT_MAX) {
            resolve(count, names);
            continue;
        }
        if (strcmp(line, "hold\n") == 0 || strcmp(line, "release\n") == 0) {
            hold(line[0] == 'h');
            continue;
        }
        if (sscanf(line, "set %999s", first) == 1)
            is_done = gearman_servers_set(first, strlen(first), "", 0, &failure);
        else if (sscanf(line, "option %999s %lf", first, &seconds) == 2)
            is_done = gearman_option_set(first, strlen(first), strrchr(line, ' ') + 1,
                                         strcspn(strrchr(line, ' ') + 1, "\n"), text, &failure);
        else if (sscanf(line, "later %lf", &seconds) == 1)
            skipped += (long)seconds;
        else
            return 2;
        puts(is_done ? "ok" : failure.text);
    }
    gearman_servers_set("", 0, "", 0, &failure);
    return 0;
}
