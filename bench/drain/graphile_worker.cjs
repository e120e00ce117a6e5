// graphile-worker with its localQueue, as its own performance test has it. Usage: graphile_worker.cjs FOLDER-OF-THE-PACKAGE
// The database is that of libpq's environment. Prints what progress.py prints.
const { run, Logger } = require(process.argv[2]);

const clock = () => Number(process.hrtime.bigint()) / 1e9;
let jobs = 0;
let told = 0;
let first = 0;
let last = 0;

setInterval(() => {
  if (jobs !== told) {
    told = jobs;
    process.stdout.write(JSON.stringify({ jobs, first, last }) + "\n");
  }
}, 50);

run({
  preset: {
    worker: {
      connectionString: process.env.DATABASE_URL,
      concurrentJobs: 24,
      maxPoolSize: 20,
      pollInterval: 2000,
      localQueue: { size: 500, refetchDelay: { durationMs: 10, threshold: 1000 } },
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
      logger: new Logger(() => () => {}),
    },
  },
  taskList: {
    index: () => {
      last = clock();
      if (jobs === 0) first = last;
      jobs += 1;
    },
  },
}).then((runner) => runner.promise);
