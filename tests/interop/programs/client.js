// A node-gearman client. Usage: client.js HOST PORT WHAT [ARGUMENT]
const Gearman = require("node-gearman");
const [host, port, what, argument] = process.argv.slice(2);
const gearman = new Gearman(host, Number(port));

if (what === "reverse") {
  const job = gearman.submitJob("reverse", require("fs").readFileSync(0));
  job.on("data", (data) => process.stdout.write(data));
  job.on("end", () => gearman.close());
  job.on("error", () => process.exit(1));
} else {
  const job = gearman.submitJob(argument, "x");
  job.on("data", (data) => console.log("data " + data));
  job.on("end", () => {
    console.log("end");
    gearman.close();
  });
  job.on("error", () => {
    console.log("fail");
    gearman.close();
  });
}
