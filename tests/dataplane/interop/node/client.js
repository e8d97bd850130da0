// grpc's interoperation cases with Node's @grpc/grpc-js. Arguments: descriptor set, host:port, then for mutual TLS the
// folder of certificates and the server's name. Prints "passed CASE" for each.
'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [descriptors, target, folder, name] = process.argv.slice(2);
const options = { keepCase: true, longs: Number, defaults: true };
const loaded = loader.loadFileDescriptorSetFromBuffer(fs.readFileSync(descriptors), options);
const { TestService, UnimplementedService } = grpc.loadPackageDefinition(loaded).grpc.testing;
const read = (file) => fs.readFileSync(`${folder}/${file}`);
const credentials = folder
  ? grpc.credentials.createSsl(read('ca.pem'), read('key.pem'), read('cert.pem'))
  : grpc.credentials.createInsecure();
const channel = folder ? { 'grpc.ssl_target_name_override': name, 'grpc.default_authority': name } : {};
const gzip = { ...channel, 'grpc.default_compression_algorithm': grpc.compressionAlgorithms.gzip };

const client = new TestService(target, credentials, channel);
const compressing = new TestService(target, credentials, gzip);
const other = new UnimplementedService(target, credentials, channel);

const REQUESTS = [27182, 8, 1828, 45904];
const RESPONSES = [31415, 9, 2653, 58979];
const LARGE = { response_size: 314159, payload: { body: Buffer.alloc(271828) } };
const soon = () => ({ deadline: Date.now() + 20000 });
const asking = (...sizes) => ({ response_parameters: sizes.map((size) => ({ size })) });

function unary(stub, method, request, metadata = new grpc.Metadata()) {
  return new Promise((resolve) => {
    const seen = {};
    const call = stub[method](request, metadata, soon(), (error, response) => Object.assign(seen, { error, response }));
    call.on('metadata', (initial) => { seen.initial = initial; });
    // After the status the callback has been called, or is about to be.
    call.on('status', (status) => setImmediate(() => resolve({ ...seen, status })));
  });
}

// The responses of a stream, and how it ended; a cancelled one ends with an error too.
async function ended(call, each = () => {}) {
  const seen = { responses: [] };
  call.on('metadata', (initial) => { seen.initial = initial; });
  call.on('error', () => {}); // the status says the same
  await new Promise((resolve) => {
    call.on('data', (response) => {
      seen.responses.push(response.payload.body.length);
      each(seen.responses.length);
    });
    call.on('status', (status) => { seen.status = status; resolve(); });
  });
  return seen;
}

function uploaded(stub, begin) {
  return new Promise((resolve) => {
    const call = stub.StreamingInputCall(new grpc.Metadata(), soon(), (error, response) => resolve({ error, response }));
    begin(call);
  });
}

async function large(stub, fields = {}) {
  const { error, response } = await unary(stub, 'UnaryCall', { ...LARGE, ...fields });
  assert.ifError(error);
  assert.strictEqual(response.payload.body.length, 314159);
}

async function upload(stub) {
  const { error, response } = await uploaded(stub, (call) => {
    for (const size of REQUESTS) call.write({ payload: { body: Buffer.alloc(size) } });
    call.end();
  });
  assert.ifError(error);
  assert.strictEqual(response.aggregated_payload_size, REQUESTS.reduce((sum, size) => sum + size));
}

async function expect(call, sizes) {
  const { responses, status } = await ended(call);
  assert.deepStrictEqual(responses, sizes);
  assert.strictEqual(status.code, grpc.status.OK);
}

const cases = {
  async empty_unary() {
    assert.ifError((await unary(client, 'EmptyCall', {})).error);
  },
  async large_unary() {
    await large(client);
  },
  async client_compressed_unary() {
    await large(compressing, { expect_compressed: { value: true } });
  },
  async server_compressed_unary() {
    await large(client, { response_compressed: { value: true } });
    await large(client, { response_compressed: { value: false } });
  },
  async client_streaming() {
    await upload(client);
  },
  async client_compressed_streaming() {
    await upload(compressing);
  },
  async server_streaming() {
    await expect(client.StreamingOutputCall(asking(...RESPONSES), soon()), RESPONSES);
  },
  async server_compressed_streaming() {
    const response_parameters = [
      { size: 31415, compressed: { value: true } },
      { size: 92653, compressed: { value: false } },
    ];
    await expect(client.StreamingOutputCall({ response_parameters }, soon()), [31415, 92653]);
  },
  async ping_pong() {
    const call = client.FullDuplexCall(soon());
    const send = (index) => call.write({ ...asking(RESPONSES[index]), payload: { body: Buffer.alloc(REQUESTS[index]) } });
    send(0);
    const { responses, status } = await ended(call, (count) => (count < 4 ? send(count) : call.end()));
    assert.deepStrictEqual(responses, RESPONSES);
    assert.strictEqual(status.code, grpc.status.OK);
  },
  async half_duplex() {
    const call = client.HalfDuplexCall(soon());
    for (const size of RESPONSES) call.write(asking(size));
    call.end();
    await expect(call, RESPONSES);
  },
  async empty_stream() {
    const call = client.FullDuplexCall(soon());
    call.end();
    await expect(call, []);
  },
  async custom_metadata() {
    const metadata = new grpc.Metadata();
    metadata.set('x-grpc-test-echo-initial', 'test_initial_metadata_value');
    metadata.set('x-grpc-test-echo-trailing-bin', Buffer.from('ababab', 'hex'));
    const check = ({ initial, status }) => {
      assert.deepStrictEqual(initial.get('x-grpc-test-echo-initial'), ['test_initial_metadata_value']);
      const trailing = status.metadata.get('x-grpc-test-echo-trailing-bin');
      assert.deepStrictEqual(trailing, [Buffer.from('ababab', 'hex')]);
    };
    check(await unary(client, 'UnaryCall', LARGE, metadata));
    const call = client.FullDuplexCall(metadata, soon());
    call.write({ ...asking(314159), payload: { body: Buffer.alloc(271828) } });
    call.end();
    const streamed = await ended(call);
    assert.deepStrictEqual(streamed.responses, [314159]);
    check(streamed);
  },
  async status_code_and_message() {
    const response_status = { code: grpc.status.UNKNOWN, message: 'test status message' };
    const { error } = await unary(client, 'UnaryCall', { response_status });
    assert.strictEqual(error.code, grpc.status.UNKNOWN);
    assert.strictEqual(error.details, 'test status message');
    const call = client.FullDuplexCall(soon());
    call.write({ response_status });
    call.end();
    const { status } = await ended(call);
    assert.strictEqual(status.code, grpc.status.UNKNOWN);
    assert.strictEqual(status.details, 'test status message');
  },
  async special_status_message() {
    const message = '\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n';
    const { error } = await unary(client, 'UnaryCall', { response_status: { code: grpc.status.UNKNOWN, message } });
    assert.strictEqual(error.code, grpc.status.UNKNOWN);
    assert.strictEqual(error.details, message);
  },
  async unimplemented_method() {
    assert.strictEqual((await unary(client, 'UnimplementedCall', {})).error.code, grpc.status.UNIMPLEMENTED);
  },
  async unimplemented_service() {
    assert.strictEqual((await unary(other, 'UnimplementedCall', {})).error.code, grpc.status.UNIMPLEMENTED);
  },
  async cancel_after_begin() {
    const { error } = await uploaded(client, (call) => setImmediate(() => call.cancel()));
    assert.strictEqual(error.code, grpc.status.CANCELLED);
  },
  async cancel_after_first_response() {
    const call = client.FullDuplexCall(soon());
    call.write({ ...asking(31415), payload: { body: Buffer.alloc(27182) } });
    const { responses, status } = await ended(call, () => call.cancel());
    assert.deepStrictEqual(responses, [31415]);
    assert.strictEqual(status.code, grpc.status.CANCELLED);
  },
  async timeout_on_sleeping_server() {
    const call = client.FullDuplexCall({ deadline: Date.now() + 1 });
    call.write({ payload: { body: Buffer.alloc(27182) } });
    const { status } = await ended(call);
    assert.strictEqual(status.code, grpc.status.DEADLINE_EXCEEDED);
  },
  async rpc_soak() {
    for (let round = 0; round < 10; round += 1) await Promise.all(Array.from({ length: 10 }, () => large(client)));
  },
};

(async () => {
  for (const [title, run] of Object.entries(cases)) {
    try {
      await run();
    } catch (error) {
      console.log(`failed ${title}:`, error);
      process.exit(1);
    }
    console.log(`passed ${title}`);
  }
  for (const stub of [client, compressing, other]) stub.close();
})();
