// List the GPUs, then print every change: the Device API from Node.js, with nothing but its .proto.
'use strict';

const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const PROTOS = path.join(__dirname, '..', '..', 'proto');
const DEFAULT_TARGET = 'unix:///var/run/device-api/device.sock';
const PAUSE_MS = 1000;

const definition = protoLoader.loadSync('nvidia/device/v1alpha1/gpu.proto', {
  includeDirs: [PROTOS],
  longs: String,
  defaults: true,
});
const { GpuService } = grpc.loadPackageDefinition(definition).nvidia.device.v1alpha1;

function targetOf(text) {
  return text.startsWith('/') ? `unix://${text}` : text;
}

function ready(gpu) {
  const condition = gpu.status.conditions.find(({ type }) => type === 'Ready');
  return condition ? condition.status : 'Unknown';
}

function list(client) {
  const deadline = Date.now() + 5000;
  return new Promise((resolve, reject) => {
    client.ListGpus({}, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer.gpuList)));
  });
}

// Resolves when the watch ends, whatever ended it.
function watch(client, version) {
  return new Promise((resolve) => {
    const events = client.WatchGpus({ opts: { resourceVersion: version } });
    events.on('data', ({ type, object }) => {
      console.log(type, object.metadata.name, ready(object), object.status.recommendedAction);
    });
    events.on('error', (error) => resolve(error.message));
    events.on('end', () => resolve('the server ended it'));
  });
}

async function main() {
  const client = new GpuService(
    targetOf(process.env.NVIDIA_DEVICE_API || DEFAULT_TARGET),
    grpc.credentials.createInsecure(),
  );
  for (;;) {
    try {
      const { metadata, items } = await list(client);
      console.log(`${items.length} GPUs at version ${metadata.resourceVersion}`);
      for (const gpu of items) console.log('FOUND', gpu.metadata.name, ready(gpu));
      console.log('the watch ended:', await watch(client, metadata.resourceVersion));
    } catch (error) {
      console.log('no answer:', error.message);
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

process.on('SIGINT', () => {
  console.log('stopped');
  process.exit(0);
});
main();
