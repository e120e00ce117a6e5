/* A libgearman worker at several servers: reverse. Usage: worker HOST:PORT,HOST:PORT */
#include <libgearman/gearman.h>
#include <stdlib.h>
#include <unistd.h>

static gearman_return_t reverse(gearman_job_st *job, void *context)
{
  size_t size = gearman_job_workload_size(job);
  const char *workload = gearman_job_workload(job);
  char *result = malloc(size ? size : 1);
  (void)context;
  for (size_t at = 0; at < size; at++)
    result[at] = workload[size - 1 - at];
  gearman_return_t ret = gearman_job_send_complete(job, result, size);
  free(result);
  return ret;
}

int main(int argc, char **argv)
{
  if (argc != 2)
    return 2;
  gearman_worker_st *worker = gearman_worker_create(NULL);
  if (gearman_worker_add_servers(worker, argv[1]) != GEARMAN_SUCCESS)
    return 2;
  gearman_worker_define_function(worker, "reverse", 7, gearman_function_create(reverse), 0, NULL);
  /* Without a time limit it looks after lost servers only when another has a job for it. */
  gearman_worker_set_timeout(worker, 1000);
  for (;;)
    if (gearman_worker_work(worker) == GEARMAN_NO_ACTIVE_FDS)
      usleep(100000);
}
