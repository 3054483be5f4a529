// A certified OpenID provider (npm oidc-provider) over TLS, for the tests: says its port, then obeys lines on stdin:
// `rotate` (a new signing key, the old one still published), `retire` (only the newest key is published), `stop`, `start`.
// Arguments: the module's entry, a certificate and its key in PEM.
import { createServer } from 'node:https';
import { createInterface } from 'node:readline';
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';

// What the provider has to say is not for the test.
console.info = console.warn = console.error;
const [entry, certificate, key] = process.argv.slice(2);
const { default: Provider } = await import(entry);
let count = 0;
const fresh = () => ({ ...generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' }), kid: `key-${++count}`, alg: 'ES256', use: 'sig' });
let keys = [fresh()];
let issuer;
let handler;

function provide() {
  const provider = new Provider(issuer, {
    jwks: { keys },
    clients: [
      { client_id: 'app', client_secret: 'app-secret', grant_types: ['client_credentials'], redirect_uris: [], response_types: [] },
      { client_id: 'gateway', client_secret: 'gateway-secret', grant_types: [], redirect_uris: [], response_types: [], token_endpoint_auth_method: 'client_secret_basic' },
    ],
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    scopes: ['orders:read'],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true, allowedPolicy: () => true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_, resource) => ({
          scope: 'orders:read',
          audience: 'orders',
          accessTokenTTL: 600,
          accessTokenFormat: resource === 'urn:jwt' ? 'jwt' : 'opaque',
          jwt: { sign: { alg: 'ES256' } },
        }),
      },
    },
  });
  handler = provider.callback();
}

const server = createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, (request, response) => handler(request, response));
let port = 0;
function listen(said) {
  server.listen(port, '127.0.0.1', () => {
    port = server.address().port;
    issuer = `https://localhost:${port}`;
    provide();
    console.log(`${said} ${port}`);
  });
}
listen('ready');

createInterface({ input: process.stdin }).on('line', (line) => {
  if (line === 'rotate') {
    keys = [fresh(), ...keys];
    provide();
    console.log('rotated');
  } else if (line === 'retire') {
    keys = [keys[0]];
    provide();
    console.log('retired');
  } else if (line === 'stop') {
    server.close(() => console.log('stopped'));
    server.closeAllConnections();
  } else if (line === 'start') {
    listen('started');
  }
}).on('close', () => process.exit(0));
