// A node-gearman worker: reverse, talk, fail. Usage: worker.js HOST PORT
const Gearman = require("node-gearman");
const gearman = new Gearman(process.argv[2], Number(process.argv[3]));

gearman.registerWorker("reverse", (payload, worker) => worker.end(Buffer.from(payload || "").reverse()));
gearman.registerWorker("talk", (payload, worker) => {
  worker.write("part");
  worker.end("whole");
});
gearman.registerWorker("fail", (payload, worker) => worker.error());
