/* The settings of the functions: of the whole database server, until it ends. Safe in many threads. */

#ifndef GEARMAN_OPTIONS_H
#define GEARMAN_OPTIONS_H

#include "gearman_connection.h"

struct gearman_options {
    int64_t connect_timeout;    /* nanoseconds, as the next three: for one server to be connected to and answer */
    int64_t timeout;            /* for all of a call that waits for a result */
    int64_t background_timeout; /* for all of any other call */
    int64_t back_off;           /* how long a server that did not answer is passed over */
    int64_t result_max;         /* bytes */
    int64_t errors;             /* 1: what goes wrong is an SQL error; 0: NULL and a warning */
    int64_t locked;             /* 1: nobody can change these and the servers any more */
};

enum { GEARMAN_OPTION_SIZE = 64 }; /* of an option's value as text */

struct gearman_options gearman_options_get(void);
/* Set the option with this name; value NULL: to its default. *text is what it was set to. */
bool gearman_option_set(const char *name, size_t name_length, const char *value, size_t value_length, char *text,
                     struct gearman_failure *failure);
bool gearman_option_show(const char *name, size_t name_length, char *text, struct gearman_failure *failure);

#endif
