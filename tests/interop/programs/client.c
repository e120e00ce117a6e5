/* A libgearman client. Usage: client HOST PORT WHAT [ARGUMENT] */
#include <libgearman/gearman.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static gearman_return_t on_created(gearman_task_st *task)
{
  printf("created %d\n", gearman_task_job_handle(task)[0] != 0);
  return GEARMAN_SUCCESS;
}

static gearman_return_t on_data(gearman_task_st *task)
{
  printf("data %.*s\n", (int)gearman_task_data_size(task), (const char *)gearman_task_data(task));
  return GEARMAN_SUCCESS;
}

static gearman_return_t on_warning(gearman_task_st *task)
{
  printf("warning %.*s\n", (int)gearman_task_data_size(task), (const char *)gearman_task_data(task));
  return GEARMAN_SUCCESS;
}

static gearman_return_t on_status(gearman_task_st *task)
{
  printf("status %u/%u\n", gearman_task_numerator(task), gearman_task_denominator(task));
  return GEARMAN_SUCCESS;
}

static gearman_return_t on_complete(gearman_task_st *task)
{
  printf("complete %.*s\n", (int)gearman_task_data_size(task), (const char *)gearman_task_data(task));
  return GEARMAN_SUCCESS;
}

static gearman_return_t on_exception(gearman_task_st *task)
{
  printf("exception %.*s\n", (int)gearman_task_data_size(task), (const char *)gearman_task_data(task));
  return GEARMAN_SUCCESS;
}

static gearman_return_t on_fail(gearman_task_st *task)
{
  (void)task;
  printf("fail\n");
  return GEARMAN_SUCCESS;
}

/* Reverse standard input to standard output. */
static int reverse(gearman_client_st *client)
{
  size_t capacity = 1 << 24, size, result_size;
  char *workload = malloc(capacity);
  gearman_return_t ret;
  size = fread(workload, 1, capacity, stdin);
  void *result = gearman_client_do(client, "reverse", NULL, workload, size, &result_size, &ret);
  if (ret != GEARMAN_SUCCESS) {
    fprintf(stderr, "%s\n", gearman_client_error(client));
    return 1;
  }
  fwrite(result, 1, result_size, stdout);
  return 0;
}

static int tasks(gearman_client_st *client, const char *function)
{
  gearman_return_t ret;
  gearman_client_set_created_fn(client, on_created);
  gearman_client_set_data_fn(client, on_data);
  gearman_client_set_warning_fn(client, on_warning);
  gearman_client_set_status_fn(client, on_status);
  gearman_client_set_complete_fn(client, on_complete);
  gearman_client_set_exception_fn(client, on_exception);
  gearman_client_set_fail_fn(client, on_fail);
  gearman_client_add_task(client, NULL, NULL, function, NULL, "x", 1, &ret);
  ret = gearman_client_run_tasks(client);
  printf("run %s\n", ret == GEARMAN_SUCCESS ? "ok" : gearman_client_error(client));
  return 0;
}

static int background(gearman_client_st *client)
{
  gearman_job_handle_t handle;
  bool known, running;
  uint32_t numerator, denominator;
  if (gearman_client_do_background(client, "later", "unique-n", "n", 1, handle) != GEARMAN_SUCCESS ||
      gearman_client_do_high_background(client, "later", "unique-h", "h", 1, handle) != GEARMAN_SUCCESS ||
      gearman_client_do_low_background(client, "later", "unique-l", "l", 1, handle) != GEARMAN_SUCCESS)
    return 1;
  if (gearman_client_job_status(client, handle, &known, &running, &numerator, &denominator) != GEARMAN_SUCCESS)
    return 1;
  printf("by handle %d %d %u/%u\n", known, running, numerator, denominator);
  gearman_status_t status = gearman_client_unique_status(client, "unique-h", 8);
  printf("by unique %d %d\n", gearman_status_is_known(status), gearman_status_is_running(status));
  status = gearman_client_unique_status(client, "nobody", 6);
  printf("by another unique %d %d\n", gearman_status_is_known(status), gearman_status_is_running(status));
  return 0;
}

static int epoch(gearman_client_st *client, time_t when)
{
  gearman_task_attr_t attributes = gearman_task_attr_init_epoch(when, GEARMAN_JOB_PRIORITY_NORMAL);
  gearman_argument_t argument = gearman_argument_make(NULL, 0, "later", 5);
  gearman_task_st *task = gearman_execute(client, "later", 5, NULL, 0, &attributes, &argument, NULL);
  printf("created %d\n", task && gearman_task_job_handle(task)[0] != 0);
  return task == NULL;
}

int main(int argc, char **argv)
{
  if (argc < 4)
    return 2;
  const char *what = argv[3], *argument = argc > 4 ? argv[4] : "";
  gearman_client_st *client = gearman_client_create(NULL);
  if (gearman_client_add_server(client, argv[1], (in_port_t)atoi(argv[2])) != GEARMAN_SUCCESS)
    return 2;
  gearman_client_set_timeout(client, 10000);
  if (!strcmp(what, "reverse"))
    return reverse(client);
  if (!strcmp(what, "exceptions")) {
    if (!gearman_client_set_server_option(client, "exceptions", 10))
      return 1;
    return tasks(client, argument);
  }
  if (!strcmp(what, "tasks"))
    return tasks(client, argument);
  if (!strcmp(what, "background"))
    return background(client);
  if (!strcmp(what, "epoch"))
    return epoch(client, (time_t)atoll(argument));
  if (!strcmp(what, "echo"))
    return gearman_client_echo(client, "echo", 4) != GEARMAN_SUCCESS;
  return 2;
}
