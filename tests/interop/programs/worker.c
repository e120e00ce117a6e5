/* A libgearman worker: reverse, talk, fail, throw. Usage: worker HOST PORT [all] */
#include <libgearman/gearman.h>
#include <stdlib.h>
#include <string.h>

static gearman_return_t reverse(gearman_job_st *job, void *context)
{
  size_t size = gearman_job_workload_size(job);
  const char *workload = gearman_job_workload(job);
  char *result = malloc(size + 1);
  (void)context;
  for (size_t i = 0; i < size; i++)
    result[i] = workload[size - 1 - i];
  gearman_return_t ret = gearman_job_send_complete(job, result, size);
  free(result);
  return ret == GEARMAN_SUCCESS ? GEARMAN_SUCCESS : GEARMAN_ERROR;
}

static gearman_return_t talk(gearman_job_st *job, void *context)
{
  (void)context;
  gearman_job_send_data(job, "part", 4);
  gearman_job_send_warning(job, "careful", 7);
  gearman_job_send_status(job, 1, 2);
  gearman_job_send_complete(job, "whole", 5);
  return GEARMAN_SUCCESS;
}

static gearman_return_t fail(gearman_job_st *job, void *context)
{
  (void)job;
  (void)context;
  return GEARMAN_FATAL;
}

static gearman_return_t throw(gearman_job_st *job, void *context)
{
  (void)context;
  gearman_job_send_exception(job, "oops", 4);
  return GEARMAN_ERROR;
}

static void can_do(gearman_worker_st *worker, const char *name, gearman_function_fn *function)
{
  if (gearman_worker_define_function(worker, name, strlen(name), gearman_function_create(function), 0, NULL) != GEARMAN_SUCCESS)
    exit(2);
}

int main(int argc, char **argv)
{
  if (argc < 3)
    return 2;
  gearman_worker_st *worker = gearman_worker_create(NULL);
  if (gearman_worker_add_server(worker, argv[1], (in_port_t)atoi(argv[2])) != GEARMAN_SUCCESS)
    return 2;
  if (argc > 3)
    gearman_worker_add_options(worker, GEARMAN_WORKER_GRAB_ALL);
  can_do(worker, "reverse", reverse);
  can_do(worker, "talk", talk);
  can_do(worker, "fail", fail);
  can_do(worker, "throw", throw);
  for (;;)
    gearman_worker_work(worker);
}
