// Node's `ws` as a server, on a free port of 127.0.0.1. The path selects the behaviour:
//   /echo       echoes every message
//   /ping       pings with the received text; answers `pong <payload>` when the pong has arrived
//   /fragments  echoes every message in three fragments, with a ping after the first
//   /close      closes with 3005 at the first message
//   /refuse     answers the handshake with 403
// Runs until standard input closes. With PEER_CERT and PEER_KEY it uses TLS, with PEER_COMPRESS permessage-deflate.

import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { WebSocketServer } from 'ws';
import { report } from './report.mjs';

const { PEER_CERT, PEER_KEY } = process.env;
const server = PEER_CERT
  ? https.createServer({ cert: readFileSync(PEER_CERT), key: readFileSync(PEER_KEY) })
  : http.createServer();
const sockets = new WebSocketServer({
  noServer: true,
  maxPayload: 64 << 20,
  perMessageDeflate: Boolean(process.env.PEER_COMPRESS),
  handleProtocols: (offered) => (offered.has('chat') ? 'chat' : false),
});

const onMessage = {
  '/echo': (ws, data, isBinary) => ws.send(data, { binary: isBinary }),
  '/ping': (ws, data) => ws.ping(data),
  '/close': (ws) => ws.close(3005, 'that is all'),
  '/fragments': (ws, data, isBinary) => {
    const third = Math.floor(data.length / 3);
    ws.send(data.subarray(0, third), { binary: isBinary, fin: false });
    ws.ping('between');
    ws.send(data.subarray(third, 2 * third), { binary: isBinary, fin: false });
    ws.send(data.subarray(2 * third), { binary: isBinary, fin: true });
  },
};

server.on('upgrade', (request, socket, head) => {
  const path = request.url.split('?')[0];
  if (!(path in onMessage)) {
    const body = 'not here, thank you\n';
    socket.end(
      `HTTP/1.1 403 Forbidden\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`);
    return;
  }
  sockets.handleUpgrade(request, socket, head, (ws) => {
    ws.on('message', (data, isBinary) => onMessage[path](ws, data, isBinary));
    if (path === '/ping') ws.on('pong', (data) => ws.send(`pong ${data}`));
    ws.on('close', (code, reason) => report({ closed: { code, reason: reason.toString() } }));
    ws.on('error', (error) => report({ closed: { code: 0, reason: String(error) } }));
  });
});

server.listen(0, '127.0.0.1', () => report({ listening: server.address().port }));
process.stdin.on('end', () => process.exit(0)).resume();
