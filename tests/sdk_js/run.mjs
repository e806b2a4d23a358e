// Runs a script of calls with the AWS SDK for JavaScript v3: steps on stdin, answers on stdout, both JSON.
// No request handler is set: the Kinesis client speaks HTTP/2 with prior knowledge, as it does by default.
import * as dynamodb from "@aws-sdk/client-dynamodb";
import * as kinesis from "@aws-sdk/client-kinesis";

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const { endpoint, steps } = JSON.parse(Buffer.concat(chunks).toString());

const settings = { endpoint, region: "us-east-1", credentials: { accessKeyId: "test", secretAccessKey: "test" } };
const services = {
  kinesis: [kinesis, new kinesis.KinesisClient(settings)],
  dynamodb: [dynamodb, new dynamodb.DynamoDBClient(settings)],
};
const saved = {};

function filled(value, name) {
  if (Array.isArray(value)) return value.map((item) => filled(item));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, filled(item, key)]));
  }
  if (typeof value === "string" && value.startsWith("$")) return saved[value.slice(1)];
  return name === "Data" ? Buffer.from(value) : value;
}

function plain(value) {
  if (value instanceof Uint8Array) return Buffer.from(value).toString("base64");
  if (value instanceof Date) return value.toISOString();
  if (Array.isArray(value)) return value.map(plain);
  if (value && typeof value === "object") {
    return Object.fromEntries(
      Object.entries(value)
        .filter(([key, item]) => key !== "$metadata" && item !== undefined)
        .map(([key, item]) => [key, plain(item)]),
    );
  }
  return value;
}

const answers = [];
for (const { service, operation, parameters, save } of steps) {
  const [module, client] = services[service];
  try {
    const answer = await client.send(new module[`${operation}Command`](filled(parameters)));
    for (const [name, path] of Object.entries(save)) {
      saved[name] = path.split("/").reduce((value, part) => value[part], answer);
    }
    answers.push({ answer: plain(answer) });
  } catch (error) {
    answers.push({ error: { Code: error.name, Message: error.message } });
  }
}

// Enhanced fan-out is an event stream over the same HTTP/2 connection.
const client = services.kinesis[1];
const stream = `js-${process.pid}-${Date.now()}`;
await client.send(new kinesis.CreateStreamCommand({ StreamName: stream, ShardCount: 1 }));
const described = await client.send(new kinesis.DescribeStreamSummaryCommand({ StreamName: stream }));
const registered = await client.send(
  new kinesis.RegisterStreamConsumerCommand({
    StreamARN: described.StreamDescriptionSummary.StreamARN,
    ConsumerName: "js",
  }),
);
await client.send(new kinesis.PutRecordCommand({ StreamName: stream, Data: Buffer.from("pushed"), PartitionKey: "k" }));
const subscription = await client.send(
  new kinesis.SubscribeToShardCommand({
    ConsumerARN: registered.Consumer.ConsumerARN,
    ShardId: "shardId-000000000000",
    StartingPosition: { Type: "TRIM_HORIZON" },
  }),
);
for await (const event of subscription.EventStream) {
  const records = event.SubscribeToShardEvent?.Records ?? [];
  if (records.length) {
    answers.push({ answer: { Pushed: records.map((record) => Buffer.from(record.Data).toString()) } });
    break;
  }
}
process.stdout.write(JSON.stringify(answers), () => process.exit(0));
