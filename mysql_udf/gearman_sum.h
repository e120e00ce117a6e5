/* Run a job for each of many workloads, a hundred at a time over one connection, and add up their results. */

#ifndef GEARMAN_SUM_H
#define GEARMAN_SUM_H

#include "gearman_servers.h"

struct gearman_sum;

struct gearman_sum *gearman_sum_new(bool (*is_killed)(void), void (*note)(const unsigned char *, size_t)); /* NULL: no memory */
void gearman_sum_free(struct gearman_sum *sum); /* NULL is fine */
void gearman_sum_clear(struct gearman_sum *sum);
/* Submit a job; its strings are not needed afterwards. What goes wrong is told by gearman_sum_end. */
void gearman_sum_add(struct gearman_sum *sum, const struct gearman_job *job);
void gearman_sum_fail(struct gearman_sum *sum, const char *text);
/* Wait for the results. *total is the sum of the integers that they begin with; *count how many there were. */
bool gearman_sum_end(struct gearman_sum *sum, long long *total, size_t *count, struct gearman_failure *failure);

#endif
