// What a grpc-js client sees of a server: each line is a case and how it ended.
'use strict';

const [, , modules, protos, socket] = process.argv;
const grpc = require(`${modules}/@grpc/grpc-js`);
const definition = require(`${modules}/@grpc/proto-loader`).loadSync(
  'nvidia/device/v1alpha1/gpu.proto', { includeDirs: [protos], longs: String });
const { GpuService } = grpc.loadPackageDefinition(definition).nvidia.device.v1alpha1;
const client = new GpuService(`unix://${socket}`, grpc.credentials.createInsecure());

const say = (name, code) => console.log(name, grpc.status[code]);
const deadline = (ms) => ({ deadline: Date.now() + ms });
const unary = (method, request, options = deadline(10000)) => new Promise((resolve) => {
  client[method](request, options, (error) => resolve(error ? error.code : grpc.status.OK));
});
const watch = (options, begun) => new Promise((resolve) => {
  const events = client.WatchGpus({ opts: {} }, options);
  let first = true;
  events.on('data', () => {
    if (first) begun(events);
    first = false;
  });
  events.on('error', (error) => resolve(error.code));
  events.on('end', () => resolve(grpc.status.OK));
});

async function main() {
  say('unary', await unary('ListGpus', {}));
  say('error', await unary('GetGpu', { name: 'none' }));
  say('too-large', await unary('GetGpu', { name: 'x'.repeat(5 << 20) }));
  say('deadline', await watch(deadline(300), () => say('watch', grpc.status.OK)));
  say('cancel', await watch({}, (events) => events.cancel()));
  const all = await Promise.all(Array.from({ length: 500 }, () => unary('ListGpus', {})));
  say('concurrent', Math.max(...all));
  client.close();
}
main();
