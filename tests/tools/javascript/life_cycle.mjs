// The life cycle of a blue/green deployment by the JavaScript SDK, from the instance to its deletion. Prints one line of
// JSON: what it has seen. Where Verdigris is, and the key, come from the SDK's own variables of the environment.

import * as rds from "@aws-sdk/client-rds";

const client = new rds.RDSClient({ maxAttempts: 1 });
const seen = {};

async function until(what, condition) {
  const deadline = Date.now() + 120_000;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`not within two minutes: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

async function deployment(identifier) {
  const named = { BlueGreenDeploymentIdentifier: identifier };
  return (await client.send(new rds.DescribeBlueGreenDeploymentsCommand(named))).BlueGreenDeployments[0];
}

const wait = { client, maxWaitTime: 120, minDelay: 1, maxDelay: 1 };
const app = { DBInstanceIdentifier: "app" };
const created = await client.send(
  new rds.CreateDBInstanceCommand({
    ...app,
    Engine: "postgres",
    EngineVersion: process.env.BLUE,
    DBInstanceClass: "db.t3.micro",
    AllocatedStorage: 20,
    MasterUsername: "boss",
    MasterUserPassword: process.env.MASTER_PASSWORD,
    Tags: [{ Key: "env", Value: "production" }],
  }),
);
await rds.waitUntilDBInstanceAvailable(wait, app);

const made = await client.send(
  new rds.CreateBlueGreenDeploymentCommand({
    BlueGreenDeploymentName: "upgrade",
    Source: created.DBInstance.DBInstanceArn,
    TargetEngineVersion: process.env.GREEN,
  }),
);
const identifier = made.BlueGreenDeployment.BlueGreenDeploymentIdentifier;
seen.tasks = made.BlueGreenDeployment.Tasks.map((task) => [task.Name, task.Status]);
const available = await until("AVAILABLE", async () => {
  const now = await deployment(identifier);
  return now.Status === "AVAILABLE" && now;
});
seen.createTimeIsADate = available.CreateTime instanceof Date;
await client.send(
  new rds.SwitchoverBlueGreenDeploymentCommand({ BlueGreenDeploymentIdentifier: identifier, SwitchoverTimeout: 60 }),
);
const over = await until("SWITCHOVER_COMPLETED", async () => {
  const now = await deployment(identifier);
  return now.Status === "SWITCHOVER_COMPLETED" && now;
});
seen.members = over.SwitchoverDetails.map((detail) => [detail.SourceMember, detail.TargetMember, detail.Status]);

seen.instances = [];
for await (const page of rds.paginateDescribeDBInstances({ client, pageSize: 20 }, {})) {
  seen.instances.push(...page.DBInstances.map((each) => [each.DBInstanceIdentifier, each.EngineVersion]));
}
try {
  await client.send(new rds.SwitchoverBlueGreenDeploymentCommand({ BlueGreenDeploymentIdentifier: identifier }));
} catch (error) {
  seen.refusal = [error.name, error instanceof rds.InvalidBlueGreenDeploymentStateFault];
}
await client.send(new rds.DeleteBlueGreenDeploymentCommand({ BlueGreenDeploymentIdentifier: identifier }));
seen.gone = await until("deleted", async () => {
  try {
    await deployment(identifier);
  } catch (error) {
    return error.name;
  }
});
for (const name of ["app", "app-old1"]) {
  const named = { DBInstanceIdentifier: name };
  await client.send(new rds.DeleteDBInstanceCommand({ ...named, SkipFinalSnapshot: true }));
  await rds.waitUntilDBInstanceDeleted(wait, named);
}
console.log(JSON.stringify(seen));
