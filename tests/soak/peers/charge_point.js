// A charge point on the npm package ocpp-rpc: it charges car after car, repeats what was not
// answered with the same content, and prints at the end what it did, one session a line.
// Usage: node charge_point.js ws://HOST:PORT/ocpp CP-1 SECONDS
'use strict';

const { RPCClient, RPCError } = require('ocpp-rpc');

const [endpoint, identity, seconds] = process.argv.slice(2);
const until = Date.now() + Number(seconds) * 1000;
let clock = Date.now() - 300 * 86_400_000;
let register = 1_000;

const client = new RPCClient({
    endpoint,
    identity,
    protocols: ['ocpp1.6'],
    strictMode: true,
    callTimeoutMs: 10_000,
    reconnect: true,
    backoff: { initialDelay: 50, maxDelay: 300 },
});
client.handle(({ method }) => {
    throw Object.assign(new Error(method), { rpcErrorCode: 'NotImplemented' });
});

const pause = (ms) => new Promise((wake) => setTimeout(wake, ms));
const tick = () => new Date((clock += 60_000)).toISOString();

async function deliver(action, payload) {
    for (;;) {
        try {
            return await client.call(action, payload);
        } catch (error) {
            if (error instanceof RPCError) {
                console.error(`${action} was refused: ${error}`);
                process.exit(1);
            }
            await pause(100); // the connection was lost: it comes again by itself
        }
    }
}

async function charge() {
    const start = { connectorId: 1, idTag: 'NPM', meterStart: register, timestamp: tick() };
    const { transactionId } = await deliver('StartTransaction', start);
    for (let n = 0; n < 3; n += 1) {
        register += 100;
        const sampledValue = [{ value: String(register), unit: 'Wh' }];
        const meterValue = [{ timestamp: tick(), sampledValue }];
        await deliver('MeterValues', { connectorId: 1, transactionId, meterValue });
        await pause(20);
    }
    register += 44;
    await deliver('StopTransaction', { transactionId, meterStop: register, timestamp: tick() });
    console.log(JSON.stringify({ transactionId, energy: register - start.meterStart }));
}

async function main() {
    for (;;) {
        try {
            await client.connect();
            break;
        } catch {
            await pause(100);
        }
    }
    while (Date.now() < until) await charge();
    await client.close({ force: true });
    process.exit(0);
}

main();
