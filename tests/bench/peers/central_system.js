// What many a Node project builds: ocpp-rpc in strict mode (payloads checked against the schemas)
// and mqtt.  It answers the mix and publishes every event to MQTT with QoS 1; it keeps nothing and
// computes no price.  Usage: node central_system.js MQTT_PORT.  Prints `ready ocpp=<host:port>`.
'use strict';

const { RPCServer } = require('ocpp-rpc');
const mqtt = require('mqtt');

const now = () => new Date().toISOString();
const accepted = { status: 'Accepted' };
let transactions = 0;

const broker = mqtt.connect({
    host: '127.0.0.1',
    port: Number(process.argv[2]),
    protocolVersion: 5,
});
broker.on('error', (error) => {
    console.error(String(error));
    process.exit(1);
});

const server = new RPCServer({ protocols: ['ocpp1.6'], strictMode: true });

server.auth((accept) => accept());

server.on('client', (client) => {
    const tell = (action, values) =>
        broker.publish(
            `events/${client.identity}/${action}`,
            JSON.stringify({ at: now(), ...values }),
            { qos: 1 },
        );
    client.handle('BootNotification', ({ params }) => {
        tell('BootNotification', params);
        return { currentTime: now(), interval: 300, status: 'Accepted' };
    });
    client.handle('Authorize', () => ({ idTagInfo: accepted }));
    client.handle('Heartbeat', () => ({ currentTime: now() }));
    client.handle('StartTransaction', ({ params }) => {
        transactions += 1;
        tell('StartTransaction', { transactionId: transactions, ...params });
        return { transactionId: transactions, idTagInfo: accepted };
    });
    client.handle('StatusNotification', ({ params }) => {
        tell('StatusNotification', params);
        return {};
    });
    client.handle('MeterValues', ({ params }) => {
        tell('MeterValues', params);
        return {};
    });
    client.handle('StopTransaction', ({ params }) => {
        tell('StopTransaction', params);
        return { idTagInfo: accepted };
    });
});

broker.once('connect', async () => {
    const http = await server.listen(0, '127.0.0.1');
    console.log(`ready ocpp=127.0.0.1:${http.address().port}`);
});

process.on('SIGTERM', () => process.exit(0));
