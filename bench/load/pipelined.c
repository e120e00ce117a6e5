/* Background submits pipelined on one connection.
 *
 * Builds all SUBMIT_JOB_BG packets first, then writes them and reads the JOB_CREATED replies at the same time, as fast
 * as the server takes them. Anything but JOB_CREATED is a failure. The time runs from the first write to the last reply.
 * Prints {"jobs", "seconds"}.
 *
 * usage: pipelined -p PORT -n JOBS -u sequential|random|empty -t SECONDS_WITHOUT_PROGRESS
 */
#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEADER_BYTES 12
#define JOB_CREATED 8
#define SUBMIT_JOB_BG 18
#define PACKET_BYTES (HEADER_BYTES + sizeof FUNCTION + UNIQUE_BYTES + WORKLOAD_BYTES) /* at most */
#define REPLIES_BYTES (256 * 1024)

enum unique_kind { SEQUENTIAL, RANDOM, EMPTY };

/* Replies as they arrive: whole packets are counted, the rest stays for the next read. */
struct replies {
    unsigned char bytes[REPLIES_BYTES];
    size_t length; /* bytes held */
    long created;  /* JOB_CREATED seen */
};

static uint64_t random_state = 88172645463325252u; /* fixed: every run submits the same uniques */

/* Xorshift: quick, and random enough to land all over an index. */
static uint64_t random_number(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static void write_unique(char *unique, enum unique_kind kind, long job)
{
    uint64_t high, low;
    switch (kind) {
    case SEQUENTIAL:
        snprintf(unique, UNIQUE_BYTES, "job-%09ld", job);
        break;
    case RANDOM:
        high = random_number();
        low = random_number();
        snprintf(unique, UNIQUE_BYTES, "%08x-%04x-4%03x-a%03x-%012llx", (unsigned)(high >> 32),
                 (unsigned)(high >> 16) & 0xffff, (unsigned)high & 0xfff, (unsigned)(low >> 48) & 0xfff,
                 (unsigned long long)(low & 0xffffffffffffULL));
        break;
    case EMPTY:
        unique[0] = '\0';
        break;
    }
}

/* Append one SUBMIT_JOB_BG at packet; its length in bytes. */
static size_t build_packet(unsigned char *packet, const char *unique)
{
    size_t unique_bytes = strlen(unique) + 1;
    uint32_t type = htonl(SUBMIT_JOB_BG);
    uint32_t body_bytes = htonl((uint32_t)(sizeof FUNCTION + unique_bytes + WORKLOAD_BYTES));
    unsigned char *end = packet;

    end = mempcpy(end, "\0REQ", 4);
    end = mempcpy(end, &type, 4);
    end = mempcpy(end, &body_bytes, 4);
    end = mempcpy(end, FUNCTION, sizeof FUNCTION);
    end = mempcpy(end, unique, unique_bytes);
    memset(end, 'x', WORKLOAD_BYTES);
    return (size_t)(end - packet) + WORKLOAD_BYTES;
}

static int connect_to(in_port_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1;
    int server = socket(AF_INET, SOCK_STREAM, 0);

    inet_pton(AF_INET, HOST, &address.sin_addr);
    if (server < 0 || connect(server, (struct sockaddr *)&address, sizeof address) != 0)
        fail("connect to %s:%d: %s", HOST, port, strerror(errno));
    setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(server, F_SETFL, fcntl(server, F_GETFL) | O_NONBLOCK);
    return server;
}

static uint32_t read_u32(const unsigned char *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return ntohl(value);
}

/* Read once and count the packets that are complete by it. */
static void read_replies(int server, struct replies *replies)
{
    ssize_t got = recv(server, replies->bytes + replies->length, REPLIES_BYTES - replies->length, 0);
    size_t start = 0;

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0)
        fail("connection lost after %ld replies: %s", replies->created, got ? strerror(errno) : "end of file");
    replies->length += (size_t)got;
    while (replies->length - start >= HEADER_BYTES) {
        const unsigned char *packet = replies->bytes + start;
        uint32_t type = read_u32(packet + 4);
        size_t packet_bytes = HEADER_BYTES + read_u32(packet + 8);
        if (memcmp(packet, "\0RES", 4) != 0 || packet_bytes > REPLIES_BYTES)
            fail("not a reply packet after %ld replies", replies->created);
        if (replies->length - start < packet_bytes)
            break;
        if (type != JOB_CREATED)
            fail("packet type %u after %ld replies: %.*s", type, replies->created, (int)(packet_bytes - HEADER_BYTES),
                 packet + HEADER_BYTES);
        replies->created++;
        start += packet_bytes;
    }
    replies->length -= start;
    memmove(replies->bytes, replies->bytes + start, replies->length);
}

/* Write all packets and read all replies. */
static void submit(int server, const unsigned char *packets, size_t length, long jobs, int timeout_seconds)
{
    static struct replies replies;
    size_t sent = 0;

    while (replies.created < jobs) {
        struct pollfd ready = {.fd = server, .events = (short)(POLLIN | (sent < length ? POLLOUT : 0))};
        if (poll(&ready, 1, timeout_seconds * 1000) == 0)
            fail("no progress for %d s after %ld replies", timeout_seconds, replies.created);
        if (ready.revents & (POLLIN | POLLHUP | POLLERR))
            read_replies(server, &replies);
        if (ready.revents & POLLOUT) {
            ssize_t wrote = send(server, packets + sent, length - sent, MSG_NOSIGNAL);
            if (wrote < 0 && errno != EAGAIN && errno != EINTR)
                fail("write after %ld replies: %s", replies.created, strerror(errno));
            sent += wrote > 0 ? (size_t)wrote : 0;
        }
    }
    if (replies.length)
        fail("%zu bytes after the last reply", replies.length);
}

static enum unique_kind unique_kind(const char *name)
{
    if (strcmp(name, "sequential") == 0)
        return SEQUENTIAL;
    if (strcmp(name, "random") == 0)
        return RANDOM;
    if (strcmp(name, "empty") == 0)
        return EMPTY;
    fail("unique is sequential, random or empty, not %s", name);
}

int main(int argc, char **argv)
{
    in_port_t port = 0;
    long jobs = 0;
    enum unique_kind kind = SEQUENTIAL;
    int timeout_seconds = 30;
    char unique[UNIQUE_BYTES];
    size_t length = 0;

    for (int option; (option = getopt(argc, argv, "p:n:u:t:")) != -1;) {
        switch (option) {
        case 'p': port = (in_port_t)number(optarg, 1, 65535); break;
        case 'n': jobs = number(optarg, 1, 100000000); break;
        case 'u': kind = unique_kind(optarg); break;
        case 't': timeout_seconds = (int)number(optarg, 1, 3600); break;
        default: return 2;
        }
    }
    unsigned char *packets = malloc((size_t)jobs * PACKET_BYTES);
    if (!packets)
        fail("no memory for %ld packets", jobs);
    for (long job = 0; job < jobs; job++) {
        write_unique(unique, kind, job);
        length += build_packet(packets + length, unique);
    }
    int server = connect_to(port);
    double started = clock_seconds();
    submit(server, packets, length, jobs, timeout_seconds);
    printf("{\"jobs\": %ld, \"seconds\": %.6f}\n", jobs, clock_seconds() - started);
    close(server);
    free(packets);
    return 0;
}
